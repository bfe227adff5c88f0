"""Pictures as files: checked before they enter a dataset, and PNG for those that come as arrays."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import struct
import warnings
from typing import Any, Literal

import numpy as np
import simplejpeg
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from trainer.data.manifest import Check
from trainer.data.png import SIGNATURE, Damage, inspect_png
from trainer.errors import BadItem

Unusual = Literal["quarantine", "convert"]

MAX_PIXELS = 89_478_485
"""Most pixels of one image: where Pillow begins to warn of decompression bombs (¼ GiB of RGB)."""

MAX_UNUSUAL_PIXELS = MAX_PIXELS // 4
"""Most pixels of an image that is to be converted (ours): WebP, GIF and TIFF take several times as
much memory as what comes of them."""

MAX_SCANS = 100
"""Most passes of one progressive JPEG (ours): encoders make about ten, and each costs a decoder as
much time as the whole image however few bytes it has."""

_EXPECTED = "a JPEG or PNG image with 8 bits per channel"
_EXTENSIONS = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
    ".png": "PNG",
    ".apng": "PNG",
    ".bmp": "BMP",
    ".gif": "GIF",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WEBP",
}
# Pillow knows more, but some of those run other programs (EPS) or exist nowhere in datasets.
_READABLE = tuple(sorted(set(_EXTENSIONS.values())))
_ANIMATED = ("GIF", "WEBP")  # of a TIFF it would take long to tell, and its pages are no animation
_MAGIC = {b"\xff\xd8\xff": "JPEG", SIGNATURE: "PNG", b"GIF8": "GIF", b"BM": "BMP"}
_PNG_BIT_DEPTH = 24  # offset in the file: signature 8, chunk length 4, "IHDR" 4, width 4, height 4
_EIGHT_BIT_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "YCbCr")
_TURNED = range(2, 9)  # EXIF orientations other than upright, which is 1
SIDEWAYS = range(5, 9)
"""EXIF orientations that exchange width and height."""


# Markers of a JPEG (ITU-T T.81, table B.1)
_START_OF_IMAGE = b"\xff\xd8\xff"
_END_OF_IMAGE = b"\xff\xd9"
_START_OF_SCAN = b"\xff\xda"
_PROGRESSIVE = 0xC2
_EXIF = 0xE1
_MOST_SEGMENTS = 2**14  # before the first scan, or bytes between them: there are a few dozen
# Application data but JFIF's and Adobe's, which say how colours are stored, and comments.
_INFORMATION = frozenset({*range(0xE1, 0xEE), 0xEF, 0xFE})


@dataclasses.dataclass(frozen=True)
class CheckedImage:
    """An image that every JPEG and PNG decoder reads alike.

    Attributes:
        data: the file to store.
        width: in pixels.
        height: in pixels.
        change: what was done to the file that came; empty if it is stored byte by byte.
        orientation: the EXIF orientation that it came with, 1 to 8; it is stored upright, which
            is 1.
    """

    data: bytes
    width: int
    height: int
    change: str = ""
    orientation: int = 1


def check_image(
    data: bytes, name: str, unusual: Unusual = "quarantine", check: Check = "decode"
) -> CheckedImage:
    """The image as it is to be stored: as it came, if every JPEG and PNG decoder reads it alike.

    JPEG and PNG with 8 bits or fewer per channel (grey, RGB, RGBA or palette) go through byte by
    byte; of a JPEG with several pictures (MPO, as cameras write it) the first is what decoders see.
    An image whose EXIF orientation asks viewers to turn it is turned, because decoders in training
    and serving do not look at it; it is stored without EXIF, a JPEG with the quantisation tables
    that it had.

    Args:
        data: the whole file.
        name: its name or path, for the extension; one without an image's extension says nothing.
        unusual: what becomes of images that can be read but are not as above: CMYK, 16 bits per
            channel, animated, other formats (BMP, GIF, TIFF, WebP), or a name ending in another
            format's extension. "quarantine" refuses them; "convert" makes an 8-bit RGB PNG of the
            first picture, and keeps a file that is wrong in its extension only. ImageNet needs
            "convert" to be whole: 22 of its JPEG files are CMYK and one PNG is named .JPEG.
        check: "decode" decodes every pixel; "header" looks at the headers, the size and whether the
            end is there, and decodes only what has to be changed.

    Raises:
        BadItem: the file is empty, no image, damaged, too large, or unusual and not converted.
    """
    if not data:
        raise BadItem("the file is empty (0 bytes)", _EXPECTED)
    checked, kind = None, ""
    if data.startswith(_START_OF_IMAGE):
        checked, kind = _check_jpeg(data, check), "JPEG"
    elif data.startswith(SIGNATURE):
        checked, kind = _check_png(data, check), "PNG"
    if checked is None:  # what is unusual, or to be turned, or neither
        with warnings.catch_warnings(action="ignore"):  # of Pillow, to nobody in particular
            checked, kind = _check_other(data, unusual)
    extension = name[name.rfind(".") :].lower()  # a longer one, or none, is no image's either
    if _EXTENSIONS.get(extension, kind) != kind and unusual == "quarantine":
        raise BadItem(
            f"the name ends in {extension} but the content is {kind}",
            "a name that tells the format, such as .png for PNG",
        )
    return checked


def encode_png(array: np.ndarray[Any, Any]) -> bytes:
    """A picture as PNG, without loss; the same picture gives the same bytes.

    Args:
        array: uint8 [height, width, 1 or 3], in [0, 255]; grey or RGB.
    """
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] not in (1, 3):
        raise ValueError(
            "A picture must be uint8 of shape [height, width, 1 or 3]; "
            f"got {array.dtype} of shape {list(array.shape)}."
        )
    file = io.BytesIO()
    Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array).save(file, "PNG")
    return file.getvalue()


def _check_jpeg(data: bytes, check: Check) -> CheckedImage | None:
    """A plain JPEG, by the fastest decoder there is; None if it takes a closer look."""
    header = _JpegHeader(data)
    kind = _jpeg_kind(data, header)
    if kind is None:
        return None
    height, width, colours, _ = kind
    _check_size(width, height)
    if header.progressive and data.count(_START_OF_SCAN) > MAX_SCANS:
        raise BadItem(
            f"a progressive JPEG of {data.count(_START_OF_SCAN):,} scans",
            f"at most {MAX_SCANS} scans",
        )
    if check == "header":
        # Behind the headers, because pictures within them (thumbnails) have ends of their own.
        if data.rfind(_END_OF_IMAGE, header.size) < 0:
            raise BadItem("the image is truncated (it has no end)", _EXPECTED)
    elif _scan_fault(data, header.progressive):
        # A decoder stops at the first oddity, and those of the headers (such as a colour profile
        # that is cut short) do no harm; so it is asked again without them.
        fault = _scan_fault(header.bare(data), header.progressive)
        if fault:
            raise BadItem(f"the image is truncated or damaged ({fault})", _EXPECTED)
    if colours not in ("YCbCr", "RGB", "Gray") or header.orientation in _TURNED:
        return None
    return CheckedImage(data, width, height)


def _jpeg_kind(data: bytes, header: _JpegHeader) -> tuple[int, int, str, str] | None:
    """Height, width, colours and their subsampling; None where the fast decoder knows no such."""
    kind: tuple[int, int, str, str]
    with contextlib.suppress(ValueError):
        kind = simplejpeg.decode_jpeg_header(data)
        return kind
    with contextlib.suppress(ValueError):
        kind = simplejpeg.decode_jpeg_header(header.bare(data))
        return kind
    return None


def _scan_fault(data: bytes, progressive: bool) -> str:
    """What a strict decoder says against the pixels of a JPEG; empty if nothing."""
    try:
        # In grey and an eighth of the size: every bit of the file is still read, and what can be
        # wrong is found there; only the pixels and their colours need not be computed.
        simplejpeg.decode_jpeg(
            data, colorspace="GRAY", min_height=1, min_width=1, min_factor=8, strict=True
        )
    except ValueError as error:
        # Bytes between the last pixel and the end; the picture is whole, unless passes are missing.
        behind = not progressive and str(error).endswith("extraneous bytes before marker 0xd9")
        return "" if behind else str(error)
    return ""


def _check_png(data: bytes, check: Check) -> CheckedImage | None:
    """A plain PNG; None if it takes a closer look."""
    try:
        png = inspect_png(data)
        _check_size(png.width, png.height)
        if check == "decode":
            png.check_pixels()
    except Damage as error:
        raise BadItem(f"the image is truncated or damaged ({error})", _EXPECTED) from error
    if png.depth > 8 or png.animated or png.exif or (check == "decode" and not png.bare):
        return None
    return CheckedImage(data, png.width, png.height)


class _JpegHeader:
    """What the segments before the first scan of a JPEG tell.

    Attributes:
        orientation: EXIF orientation, 1 to 8; 1 is upright.
        progressive: whether the image comes in many passes.
        size: bytes before the first scan.
    """

    def __init__(self, data: bytes):
        self.orientation = 1
        self.progressive = False
        self._needed: list[tuple[int, int]] = []
        place = 2
        for _ in range(_MOST_SEGMENTS):
            if place + 4 > len(data):
                break
            marker = data[place + 1]
            if data[place] != 0xFF or marker in (0x00, 0xFF):  # padding, or what does not belong
                place += 1
                continue
            if marker == _START_OF_SCAN[1]:
                break
            (length,) = struct.unpack_from(">H", data, place + 2)
            if marker == _EXIF and data.startswith(b"Exif\0\0", place + 4):
                self.orientation = _orientation(data[place + 4 : place + 2 + length])
            self.progressive = self.progressive or marker == _PROGRESSIVE
            if marker not in _INFORMATION:
                self._needed.append((place, place + 2 + length))
            place += 2 + length
        self.size = place

    def bare(self, data: bytes) -> bytes:
        """The JPEG without the segments that decoding does not need, nor bytes between segments."""
        segments = [data[begin:end] for begin, end in self._needed]
        return b"".join((data[:2], *segments, data[self.size :]))


def _orientation(exif: bytes) -> int:
    """The orientation in a block of EXIF; 1, upright, where there is none that can be read."""
    block = Image.Exif()
    try:
        with warnings.catch_warnings(action="ignore"):
            block.load(exif)
            value = block.get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged EXIF fails in any way, and no decoder minds
        return 1
    return value if value in _TURNED else 1


def _check_other(data: bytes, unusual: Unusual) -> tuple[CheckedImage, str]:
    """An image that is no plain upright JPEG or PNG, by Pillow, and its format."""
    try:
        image = Image.open(io.BytesIO(data), formats=_READABLE)
        kind = "JPEG" if image.format == "MPO" else str(image.format)
        _check_size(*image.size, MAX_PIXELS if kind in ("JPEG", "PNG") else MAX_UNUSUAL_PIXELS)
        oddity = _oddity(image, kind, data)
        if oddity and unusual == "quarantine":
            raise BadItem(oddity, _EXPECTED)
        image.load()
        return _stored(data, image, kind, oddity), kind
    except BadItem:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise BadItem(f"too large ({error})", f"at most {MAX_PIXELS:,} pixels") from error
    except UnidentifiedImageError as error:
        damaged = next((kind for magic, kind in _MAGIC.items() if data.startswith(magic)), None)
        if damaged:
            raise BadItem(f"the {damaged} file is damaged at its beginning", _EXPECTED) from error
        raise BadItem(f"not an image; the file begins with {data[:12]!r}", _EXPECTED) from error
    except Exception as error:  # decoders raise a dozen kinds for damaged data
        raise BadItem(f"the image is truncated or damaged ({error})", _EXPECTED) from error


def _stored(data: bytes, image: Image.Image, kind: str, oddity: str) -> CheckedImage:
    """The image as it is to be stored: converted, turned upright, or as it came."""
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    orientation = orientation if orientation in _TURNED else 1
    changes = []
    if oddity:
        data = encode_png(_rgb(_turned(image, orientation)))
        changes.append(f"converted to PNG: {oddity}")
    elif orientation != 1:
        data = _encode_like(data, image, kind, orientation)
    if orientation != 1:
        changes.append(f"turned upright: EXIF orientation {orientation}")
    size = image.size[::-1] if orientation in SIDEWAYS else image.size
    return CheckedImage(data, *size, "; ".join(changes), orientation)


def _check_size(width: int, height: int, most: int = MAX_PIXELS) -> None:
    if width * height > most:
        raise BadItem(f"{width * height:,} pixels", f"at most {most:,} pixels")


def _oddity(image: Image.Image, kind: str, data: bytes) -> str:
    """What sets a readable image apart from plain JPEG and PNG; empty if nothing does."""
    # What decoders see of a PNG that is half an animation, they do not agree on.
    if kind == "PNG" and inspect_png(data).animated:
        return "an animated PNG"
    if kind in _ANIMATED and getattr(image, "is_animated", False):
        return f"an animated {kind}"
    if kind not in ("JPEG", "PNG"):
        return f"the format is {kind}"
    if kind == "JPEG" and _jpeg_kind(data, _JpegHeader(data)) is None:
        return "a JPEG of a kind that few decoders read"
    if kind == "PNG" and data[_PNG_BIT_DEPTH] == 16:
        return "16 bits per channel"
    if image.mode not in _EIGHT_BIT_MODES:
        return f"{image.mode} colours"
    return ""


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    return ImageOps.exif_transpose(image) if orientation != 1 else image


def _encode_like(data: bytes, image: Image.Image, kind: str, orientation: int) -> bytes:
    """The upright picture in the format of the one that came, as close to it as can be.

    A block of a JPEG that is turned has turned coefficients: quantised by the turned tables, they
    come out as they went in, but for rounding. The colour profile is kept, EXIF is not.
    """
    options: dict[str, Any] = {}
    if kind == "JPEG":
        tables: dict[int, list[int]] = image.quantization  # type: ignore[attr-defined]
        sideways = orientation in SIDEWAYS
        options["qtables"] = {
            number: np.reshape(table, (8, 8)).T.ravel().tolist() if sideways else table
            for number, table in tables.items()
        }
        options["subsampling"] = "4:4:4"
        if simplejpeg.decode_jpeg_header(data)[3] == "420":
            # Coarse colours come back as they were only from pixels that merely repeat them.
            options["subsampling"] = "4:2:0"
            repeated = simplejpeg.decode_jpeg(data, fastupsample=True, strict=False)
            pixels = Image.fromarray(repeated)
            pixels.info.update(image.info)
            pixels.getexif()[ExifTags.Base.Orientation] = orientation
            image = pixels
    profile = image.info.get("icc_profile")
    upright = _turned(image, orientation)
    upright.info.pop("exif", None)
    file = io.BytesIO()
    upright.save(file, kind, icc_profile=profile, exif=b"", **options)
    return file.getvalue()


def _rgb(image: Image.Image) -> np.ndarray[Any, Any]:
    """A picture as uint8 [height, width, 3]; of 16 bits the upper 8 are kept, alpha is dropped."""
    if image.mode.startswith("I;16"):
        grey = (np.asarray(image) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode in ("I", "F"):
        raise BadItem("32 bits per channel, whose range is not known", _EXPECTED)
    return np.asarray(image.convert("RGB"))
