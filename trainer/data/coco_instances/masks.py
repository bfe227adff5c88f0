"""The outline of an instance, as COCO's annotation files have it, drawn as a mask.

A file may be damaged, and pycocotools trusts what it is given: C code reads and writes where the
numbers send it. So every number is looked at first.
"""

from __future__ import annotations

import io
import zlib
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from trainer.errors import BadItem

LONGEST_OUTLINE = 10**6
"""Longest outline of one instance in pixels (ours); drawing it takes 16 bytes for each fifth of a
pixel. The coast of a 640 × 480 picture that is all detail has some ten thousand."""

MOST_POLYGONS = 10_000
"""Most polygons of one instance (ours); COCO's have one to some dozens."""

_EXPECTED = "polygons of 3 or more points each, or run lengths of the picture's height and width"


def draw(segmentation: object, height: int, width: int) -> np.ndarray[Any, Any]:
    """An instance's mask, just as pycocotools draws it.

    Args:
        segmentation: polygons [[x, y, x, y, …], …] in pixels; or {"size": [height, width],
            "counts": …} with run lengths of background and foreground in turn, down the columns
            from the left, as a list or as the string that pycocotools packs them into.
        height: of the picture, in pixels.
        width: of the picture, in pixels.

    Returns:
        uint8 [height, width], 255 within the outline and 0 elsewhere. A tiny outline may have no
        pixel within it.

    Raises:
        BadItem: it is none of these, or not of the picture's size.
    """
    if isinstance(segmentation, dict):
        runs = _runs(segmentation, height, width)
    elif isinstance(segmentation, list):
        packed = coco_mask.merge(coco_mask.frPyObjects(_polygons(segmentation), height, width))
        runs = _unpacked(packed["counts"].decode(), height * width)
    else:
        raise BadItem("its segmentation is neither polygons nor run lengths", _EXPECTED)
    values = np.zeros(len(runs), np.uint8)
    values[1::2] = 255
    return np.ascontiguousarray(np.repeat(values, runs).reshape(width, height).T)


def encode_mask(mask: np.ndarray[Any, Any]) -> bytes:
    """A mask, uint8 [height, width], as grey PNG; made for long runs: less time and fewer bytes."""
    file = io.BytesIO()
    Image.fromarray(mask).save(file, "PNG", compress_level=1, compress_type=zlib.Z_RLE)
    return file.getvalue()


def _polygons(polygons: list[object]) -> list[list[float]]:
    """The polygons, if they can be drawn in time and memory that a picture may take."""
    if not polygons:
        raise BadItem("its segmentation is empty", _EXPECTED)
    if len(polygons) > MOST_POLYGONS:
        raise BadItem(f"its segmentation has {len(polygons):,} polygons", f"{MOST_POLYGONS:,}")
    length = 0.0
    sound = []
    for polygon in polygons:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            raise BadItem("a polygon of it has no x and y of 3 points or more", _EXPECTED)
        if not set(map(type, polygon)) <= {int, float}:
            raise BadItem("a polygon of it has something that is not a number", _EXPECTED)
        try:
            points = np.array(polygon, np.float64).reshape(-1, 2)
        except OverflowError:  # whole numbers have no limit in JSON
            points = np.full((1, 2), np.inf)
        if not np.abs(points).max() <= LONGEST_OUTLINE:  # neither is NaN
            raise BadItem("a polygon of it has a number that is no place in a picture", _EXPECTED)
        steps = np.abs(points - np.roll(points, 1, axis=0)).max(axis=1)
        length += float(steps.sum()) + len(points)
        sound.append(polygon)
    if length > LONGEST_OUTLINE:
        raise BadItem(
            f"its outline is {length:,.0f} pixels long", f"at most {LONGEST_OUTLINE:,} pixels"
        )
    return sound


def _runs(packed: dict[str, object], height: int, width: int) -> list[int]:
    """The lengths of the runs; together they are as long as the picture has pixels."""
    size, counts = packed.get("size"), packed.get("counts")
    if size != [height, width]:
        raise BadItem(
            "its run lengths are of another size than the picture",
            f"size [{height}, {width}] with counts",
        )
    pixels = height * width
    if isinstance(counts, str):
        counts = _unpacked(counts, pixels)
    if not isinstance(counts, list) or not set(map(type, counts)) <= {int}:
        raise BadItem("its run lengths are no list of whole numbers and no string", _EXPECTED)
    if not all(0 <= count <= pixels for count in counts) or sum(counts) != pixels:
        raise BadItem(
            f"its run lengths do not add up to {height} × {width} pixels", "runs of all pixels"
        )
    return counts


def _unpacked(text: str, pixels: int) -> list[int]:
    """The run lengths in a string: each is written as what it differs from the last but one.

    A number has six bits in each character, from "0" on: five of its own, the lowest first, and
    one that says that more follow; the highest of its own is its sign.
    """
    counts: list[int] = []
    number = shift = 0
    for character in text:
        bits = ord(character) - ord("0")
        if not 0 <= bits < 64 or shift > 30:
            raise BadItem("its run lengths are packed into a string that is damaged", _EXPECTED)
        number |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                number -= 1 << shift
            counts.append(number + (counts[-2] if len(counts) > 2 else 0))
            if not 0 <= counts[-1] <= pixels:
                raise BadItem("its run lengths are packed into a string that is damaged", _EXPECTED)
            number = shift = 0
    if shift:
        raise BadItem("its run lengths are packed into a string that is cut short", _EXPECTED)
    return counts
