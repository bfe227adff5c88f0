"""Pictures, masks and boxes of examples, made small enough for a page."""

from __future__ import annotations

import base64
import colorsys
import contextlib
import dataclasses
import io
import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
from PIL import Image

from trainer.data.images import MAX_PIXELS

LONGEST = 320
"""Longest side of a picture on a page, in pixels (ours)."""

COLOURS = 24
"""Colours after which those of boxes and masks begin again (ours)."""

_TINY = 64  # pictures up to this side are shown pixel by pixel, larger than they are
_TINY_SHOWN = 128
_HEIGHT = 208  # in which larger pictures are shown, so that they form rows
_WIDEST = 416
_MASKS = 200  # of one example that are drawn
_FILL, _EDGE = 112, 255  # opacity of a mask, of 255, and of its outline
_GOLDEN_ANGLE = 0.381966  # of a turn: keeps each hue far from those before it


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture as a page embeds it.

    Attributes:
        uri: the picture, small, as a data URI.
        width: in which to show it, in CSS pixels.
        height: in which to show it.
        pixelated: whether it is shown larger than it is.
        size: its own width and height, in pixels.
        kind: format or dtype, such as "JPEG".
        note: what was done so that it can be shown; empty for nothing.
    """

    uri: str
    width: int
    height: int
    pixelated: bool
    size: tuple[int, int]
    kind: str
    note: str = ""


def colour(number: int) -> str:
    """The colour of a box or mask by its number, as in `#e6194b`; neighbours are far apart."""
    turn = number % COLOURS
    lightness = (0.52, 0.42, 0.62)[turn // 8 % 3]
    red, green, blue = colorsys.hls_to_rgb(turn * _GOLDEN_ANGLE % 1.0, lightness, 0.85)
    return "#" + "".join(f"{round(255 * c):02x}" for c in (red, green, blue))


def size_and_kind(value: Any) -> tuple[tuple[int, int], str]:
    """Width and height of a picture, and its format or dtype, without decoding it.

    Args:
        value: an encoded picture, or an array [height, width] or [height, width, channels].

    Raises:
        ValueError: it is no picture.
    """
    if isinstance(value, np.ndarray):
        if value.ndim not in (2, 3):
            raise ValueError(f"an array of shape {list(value.shape)} is no picture")
        return (value.shape[1], value.shape[0]), str(value.dtype)
    image = _open(value)
    # Of a JPEG with several pictures, as cameras write it, the first is what decoders see.
    return image.size, "JPEG" if image.format == "MPO" else str(image.format)


def picture(value: Any) -> Picture:
    """A picture to be embedded.

    Pictures are shown as training reads them, which does not follow what EXIF says of rotation.
    Floats are taken to be in [0, 1], [0, 255] or [-1, 1], whichever fits, and stretched otherwise.

    Args:
        value: an encoded picture, or an array of uint8 or float32, [height, width, 1, 3 or 4] or
            [height, width].

    Raises:
        ValueError: it is no picture.
    """
    note = ""
    size, kind = size_and_kind(value)
    if isinstance(value, np.ndarray):
        pixels, note = _as_uint8(value)
        image = Image.fromarray(pixels)
    else:
        image = _decoded(value)
    image = _plain(image)
    tiny = max(size) <= _TINY
    if max(size) > LONGEST:
        image = image.resize(_within(size, LONGEST), Image.Resampling.LANCZOS, reducing_gap=2.0)
    file = io.BytesIO()
    if tiny:
        image.save(file, "PNG")
    else:
        image.save(file, "JPEG", quality=85, optimize=True)
    uri = _data_uri("image/png" if tiny else "image/jpeg", file.getvalue())
    width, height = _shown(size)
    return Picture(uri, width, height, tiny, size, kind, note)


def mask_layer(values: Sequence[Any], order: Sequence[int] = ()) -> tuple[str, int]:
    """Masks as one transparent picture, to be laid over the example's picture.

    Args:
        values: either one mask, whose pixels are 0 or the number of what they show, or one for each
            instance, in the order of their boxes. Each is an encoded picture or an array [height,
            width] or [height, width, 1 or 3]. Pictures in colour are numbers of segments: red +
            256 × green + 65536 × blue, as COCO's panoptic masks.
        order: the numbers in one mask in the order of their boxes, so that both have one colour;
            empty for the order of the numbers.

    Returns:
        A data URI, and the number of regions.

    Raises:
        ValueError: a mask is no picture.
    """
    if len(values) == 1:
        regions, count = _regions(_numbers(values[0]), order)
    else:
        regions, count = _instances(values), len(values)
    height, width = regions.shape
    shown = _within((width, height), LONGEST) if max(width, height) > LONGEST else (width, height)
    regions = regions[_nearest(shown[1], height)][:, _nearest(shown[0], width)]
    # A region's colour, and the same again for its outline: 0, 1..COLOURS, COLOURS+1..2×COLOURS.
    indices = np.where(regions > 0, (regions - 1) % COLOURS + 1, 0).astype(np.uint8)
    indices[_outline(regions) & (regions > 0)] += COLOURS
    layer = Image.fromarray(indices)
    palette = bytes(3) + b"".join(bytes.fromhex(colour(n)[1:]) for n in range(COLOURS)) * 2
    layer.putpalette(palette)
    file = io.BytesIO()
    opacities = bytes([0]) + bytes([_FILL]) * COLOURS + bytes([_EDGE]) * COLOURS
    layer.save(file, "PNG", transparency=opacities, optimize=True)
    return _data_uri("image/png", file.getvalue()), count


@contextlib.contextmanager
def _decoding(what: str) -> Iterator[None]:
    """Makes whatever a decoder raises a ValueError, and keeps its warnings to itself."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:  # decoders raise a dozen kinds for damaged data
        raise ValueError(f"{what} ({error})") from error


def _open(data: bytes) -> Image.Image:
    """The picture, its header read."""
    with _decoding("no picture"):
        image = Image.open(io.BytesIO(data), formats=("JPEG", "PNG"))
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"{image.width * image.height:,} pixels, which is too large to show")
    return image


def _decoded(data: bytes) -> Image.Image:
    image = _open(data)
    with _decoding("a damaged picture"):
        image.draft("RGB", (2 * LONGEST, 2 * LONGEST))  # JPEG only: decodes no more than needed
        image.load()
    return image


def _plain(image: Image.Image) -> Image.Image:
    """The picture in grey or RGB; what is transparent becomes white."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("1", "L"):
        return image.convert("L")
    if image.mode in ("I", "F"):
        return Image.fromarray(_as_uint8(np.asarray(image, np.float32))[0])
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        upper = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), upper).convert("RGB")
    return image.convert("RGB")


def _as_uint8(array: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], str]:
    """An array as pixels that Pillow knows, and what was done for it where that is not clear."""
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.size == 0 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] > 4):
        raise ValueError(f"an array of shape {list(array.shape)} is no picture")
    if array.ndim == 3 and array.shape[2] == 2:
        raise ValueError("an array of two channels is no picture")
    if array.dtype == np.uint8:
        return array, ""
    values = array.astype(np.float64)
    known = values[np.isfinite(values)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)
    note = "" if known.size == values.size else "what is not finite is black"
    if low >= 0 and high <= 1:
        scaled = values * 255
    elif low >= 0 and high <= 255:
        scaled = values
    elif low >= -1 and high <= 1:
        scaled = (values + 1) * 127.5
        note = note or "−1 is black, 1 is white"
    else:
        scaled = (values - low) * (255 / (high - low))
        note = note or f"{low:.3g} is black, {high:.3g} is white"
    pixels = np.where(np.isfinite(scaled), scaled, 0)
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8), note


def _numbers(value: Any) -> np.ndarray[Any, Any]:
    """A mask as numbers, int64 [height, width]; 0 where it shows nothing."""
    if isinstance(value, np.ndarray):
        array = value
    else:
        image = _open(value)
        with _decoding("a damaged mask"):
            if image.mode in ("LA", "RGBA"):
                image = image.convert(image.mode[:-1])
            elif image.mode not in ("1", "L", "P", "RGB", "I") and "16" not in image.mode:
                image = image.convert("L")
            array = np.asarray(image)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim == 3 and array.shape[2] == 3:
        numbers: np.ndarray[Any, Any] = array.astype(np.int64) @ np.array([1, 256, 65536])
        return numbers
    if array.ndim != 2 or array.size == 0:
        raise ValueError(f"an array of shape {list(array.shape)} is no mask")
    if array.dtype.kind == "f":
        return (np.nan_to_num(array) >= 0.5).astype(np.int64)
    return array.astype(np.int64)


def _regions(
    numbers: np.ndarray[Any, Any], order: Sequence[int]
) -> tuple[np.ndarray[Any, Any], int]:
    """The numbers of a mask in a row, 1, 2, 3 …, with 0 for nothing; and how many there are."""
    filled = numbers[numbers > 0]
    if not len(order) and filled.size and (filled == 255).sum() * 2 >= filled.size:
        # White on black with soft edges, not 255 kinds of things.
        return (numbers >= 128).astype(np.int64), 1
    found, places = np.unique(np.maximum(numbers, 0), return_inverse=True)
    known = {number: place for place, number in enumerate(order, start=1)}
    others = (number for number in found.tolist() if number and number not in known)
    known |= {number: place for place, number in enumerate(others, start=len(known) + 1)}
    in_a_row = np.array([known.get(number, 0) for number in found.tolist()], np.int64)
    regions: np.ndarray[Any, Any] = in_a_row[places].reshape(numbers.shape)
    return regions, int((found > 0).sum())


def _instances(values: Iterable[Any]) -> np.ndarray[Any, Any]:
    """A mask for each instance as one: a pixel has the number of the smallest that covers it."""
    masks = [_numbers(value) > 0 for value in islice(values, _MASKS)]
    regions = np.zeros(masks[0].shape, np.int64)
    for number in sorted(range(len(masks)), key=lambda number: -int(masks[number].sum())):
        if masks[number].shape != regions.shape:
            raise ValueError("masks of different sizes")
        regions[masks[number]] = number + 1
    return regions


def _outline(regions: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Where a pixel's right or lower, left or upper neighbour is of another region, bool."""
    edge = np.zeros(regions.shape, bool)
    down, right = regions[1:] != regions[:-1], regions[:, 1:] != regions[:, :-1]
    edge[1:] |= down
    edge[:-1] |= down
    edge[:, 1:] |= right
    edge[:, :-1] |= right
    return edge


def _nearest(count: int, of: int) -> np.ndarray[Any, Any]:
    """The rows or columns to take, to have `count` of them."""
    return ((np.arange(count) + 0.5) * of / count).astype(np.int64)


def _within(size: tuple[int, int], side: int) -> tuple[int, int]:
    """A size of the same shape whose longest side is the one given."""
    scale = side / max(size)
    return max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)


def _shown(size: tuple[int, int]) -> tuple[int, int]:
    """Width and height in which a picture is shown, in CSS pixels."""
    if max(size) <= _TINY:
        times = max(_TINY_SHOWN // max(size), 1)
        return size[0] * times, size[1] * times
    width, height = math.ceil(size[0] * _HEIGHT / size[1]), _HEIGHT
    if width > _WIDEST:
        width, height = _WIDEST, max(round(size[1] * _WIDEST / size[0]), 1)
    return max(width, 1), height


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
