"""Pictures as files: checked before they enter a dataset, and PNG for those that come as arrays."""

from __future__ import annotations

import io
from pathlib import PurePosixPath
from typing import Any, Literal

import numpy as np
from PIL import Image, UnidentifiedImageError

from trainer.errors import BadItem

Unusual = Literal["quarantine", "convert"]

MAX_PIXELS = 89_478_485
"""Most pixels of one image: where Pillow begins to warn of decompression bombs (¼ GiB of RGB)."""

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
_MAGIC = {b"\xff\xd8\xff": "JPEG", b"\x89PNG\r\n\x1a\n": "PNG", b"GIF8": "GIF", b"BM": "BMP"}
_PNG_BIT_DEPTH = 24  # offset in the file: signature 8, chunk length 4, "IHDR" 4, width 4, height 4
_EIGHT_BIT_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "YCbCr")


def check_image(data: bytes, name: str, unusual: Unusual = "quarantine") -> bytes:
    """The bytes of an image that every JPEG and PNG decoder reads alike.

    The image is decoded in full. JPEG and PNG with 8 bits or fewer per channel (grey, RGB, RGBA or
    palette) go through byte by byte; of a JPEG with several pictures (MPO, as cameras write it) the
    first is what decoders see.

    Args:
        data: the whole file.
        name: its name or path, for the extension; one without an image's extension says nothing.
        unusual: what becomes of images that can be read but are not as above: CMYK, 16 bits per
            channel, animated, other formats (BMP, GIF, TIFF, WebP), or a name ending in another
            format's extension. "quarantine" refuses them; "convert" makes an 8-bit RGB PNG of the
            first picture, and keeps a file that is wrong in its extension only. ImageNet needs
            "convert" to be whole: 22 of its JPEG files are CMYK and one PNG is named .JPEG.

    Raises:
        BadItem: the file is empty, no image, damaged, too large, or unusual and not converted.
    """
    if not data:
        raise BadItem("the file is empty (0 bytes)", _EXPECTED)
    image, frames = _decode(data)
    kind = "JPEG" if image.format == "MPO" else str(image.format)
    oddity = _oddity(image, kind, frames, data)
    if oddity:
        if unusual == "quarantine":
            raise BadItem(oddity, _EXPECTED)
        return encode_png(_rgb(image))
    extension = PurePosixPath(name).suffix.lower()
    if _EXTENSIONS.get(extension, kind) != kind and unusual == "quarantine":
        raise BadItem(
            f"the name ends in {extension} but the content is {kind}",
            "a name that tells the format, such as .png for PNG",
        )
    return data


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


def _decode(data: bytes) -> tuple[Image.Image, int]:
    """The first picture of a file, decoded in full, and how many follow each other in time."""
    try:
        image = Image.open(io.BytesIO(data), formats=_READABLE)
        pixels = image.width * image.height
        if pixels > MAX_PIXELS:
            raise BadItem(f"{pixels:,} pixels", f"at most {MAX_PIXELS:,} pixels")
        if image.format == "PNG":
            # Every chunk's checksum, and the end: Pillow's decoder is more lenient than libpng.
            Image.open(io.BytesIO(data), formats=("PNG",)).verify()
        frames = getattr(image, "n_frames", 1) if image.format != "MPO" else 1
        image.load()
    except BadItem:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise BadItem(f"too large ({error})", f"at most {MAX_PIXELS:,} pixels") from error
    except UnidentifiedImageError as error:
        kind = next((kind for magic, kind in _MAGIC.items() if data.startswith(magic)), None)
        if kind:
            raise BadItem(f"the {kind} file is damaged at its beginning", _EXPECTED) from error
        raise BadItem(f"not an image; the file begins with {data[:12]!r}", _EXPECTED) from error
    except Exception as error:  # decoders raise a dozen kinds for damaged data
        raise BadItem(f"the image is truncated or damaged ({error})", _EXPECTED) from error
    return image, frames


def _oddity(image: Image.Image, kind: str, frames: int, data: bytes) -> str:
    """What sets a readable image apart from plain JPEG and PNG; empty if nothing does."""
    if frames > 1:
        return f"an animated {kind} ({frames} frames)"
    if kind not in ("JPEG", "PNG"):
        return f"the format is {kind}"
    if kind == "PNG" and data[_PNG_BIT_DEPTH] == 16:
        return "16 bits per channel"
    if image.mode not in _EIGHT_BIT_MODES:
        return f"{image.mode} colours"
    return ""


def _rgb(image: Image.Image) -> np.ndarray[Any, Any]:
    """A picture as uint8 [height, width, 3]; of 16 bits the upper 8 are kept, alpha is dropped."""
    if image.mode.startswith("I;16"):
        grey = (np.asarray(image) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode in ("I", "F"):
        raise BadItem("32 bits per channel, whose range is not known", _EXPECTED)
    return np.asarray(image.convert("RGB"))
