"""A training as a strip of pictures: one grid of samples per epoch, the same bytes every time.

The grids are PNG files in the folder `samples` of a checkpoint, `<title>-<epoch>.png`, each with
its title inside. However long a training is, few of them stay: those of the first and the newest
epoch, and between them every second, fourth, eighth … one. Which stay follows from the number of
the newest epoch alone, so a training that was cut short and went on has the same ones.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

SAMPLES = "samples"

KEPT_BETWEEN = 20
"""Most epochs, besides the first and the newest, whose grids stay (ours)."""

PICTURES = 64
"""Most pictures of a grid (ours)."""

LONGEST_SIDE = 1024
"""Pixels that a grid may be high or wide; larger pictures are reduced by a whole factor (ours)."""

GAP, GREY = 2, 128
"""Pixels between two pictures of a grid, and their brightness of 255 (ours)."""

_NAME = re.compile(r".*-[0-9a-f]{6}-([0-9]{5,})\.png")


@dataclasses.dataclass(frozen=True)
class Strip:
    """The grids of one title over a training.

    Attributes:
        title: what the pictures show.
        grids: (epoch, PNG file), oldest first.
    """

    title: str
    grids: tuple[tuple[int, Path], ...]

    def spread(self, count: int) -> tuple[tuple[int, Path], ...]:
        """The first grid, the last, and others between them, as evenly over the epochs as may be.

        Args:
            count: most grids to return, at least 2.
        """
        if len(self.grids) <= count:
            return self.grids
        epochs = np.array([epoch for epoch, _ in self.grids])
        wanted = np.linspace(epochs[0], epochs[-1], count)
        nearest = {int(np.argmin(np.abs(epochs - epoch))) for epoch in wanted}
        return tuple(self.grids[i] for i in sorted(nearest))


def save_samples(folder: str | Path, epoch: int, pictures: Mapping[str, Any]) -> None:
    """Writes one grid per title, and removes the grids of epochs that need not stay.

    Args:
        folder: of the checkpoint; the grids go into its folder `samples`.
        epoch: how many epochs have ended.
        pictures: title -> [n, height, width, 1 or 3] in [0, 1]; more than 64 are left out, values
            beyond are clipped, and what is not a number is black.
    """
    target = Path(folder) / SAMPLES
    target.mkdir(parents=True, exist_ok=True)
    for title, images in pictures.items():
        path = target / f"{_slug(title)}-{epoch:05d}.png"
        draft = path.with_name(f".{path.name}.unfinished")
        draft.write_bytes(encode(grid(images), title))
        os.replace(draft, path)
    stay = epochs_that_stay(epoch)
    for path in target.iterdir():
        name = _NAME.fullmatch(path.name)
        if name and int(name[1]) not in stay:
            path.unlink()


def read_samples(folder: str | Path) -> list[Strip]:
    """The strips of a checkpoint, by title; none where the recipe draws no samples.

    Args:
        folder: of the checkpoint.
    """
    found: dict[str, list[tuple[int, Path]]] = {}
    target = Path(folder) / SAMPLES
    for path in target.iterdir() if target.is_dir() else ():
        name = _NAME.fullmatch(path.name)
        if name:
            with Image.open(path) as image:
                title = image.info.get("Title", path.name)
            found.setdefault(title, []).append((int(name[1]), path))
    return [Strip(title, tuple(sorted(found[title]))) for title in sorted(found)]


def epochs_that_stay(newest: int) -> set[int]:
    """The first epoch, the newest, and every 2^k-th with the least k that leaves few enough."""
    stride = 1
    while newest // stride > KEPT_BETWEEN:
        stride *= 2
    return {1, newest, *range(0, newest + 1, stride)}


def grid(images: Any) -> np.ndarray:
    """Pictures in rows and columns, about as many of the one as of the other.

    Args:
        images: [n, height, width, 1 or 3] in [0, 1], any dtype; the first 64 are shown.

    Returns:
        uint8 [height, width, 1 or 3].
    """
    values = np.asarray(images)
    if values.ndim != 4 or values.shape[-1] not in (1, 3) or not values.size:
        raise ValueError(
            "Samples must be pictures [n, height, width, 1 or 3], at least one; got shape "
            f"{list(values.shape)}."
        )
    values = np.nan_to_num(values[:PICTURES].astype(np.float32), posinf=1.0, neginf=0.0)
    pixels = np.round(np.clip(values, 0.0, 1.0) * 255).astype(np.uint8)
    count, height, width, channels = pixels.shape
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    factor = math.ceil(max(columns * width, rows * height) / LONGEST_SIDE)
    if factor > 1:
        pixels = np.stack([_reduce(picture, factor) for picture in pixels])
        height, width = pixels.shape[1:3]
    canvas = np.full(
        (rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, channels), GREY, np.uint8
    )
    for i, picture in enumerate(pixels):
        top, left = (i // columns) * (height + GAP), (i % columns) * (width + GAP)
        canvas[top : top + height, left : left + width] = picture
    return canvas


def encode(pixels: np.ndarray, title: str) -> bytes:
    """A picture as PNG with its title inside; the same pixels give the same bytes.

    Args:
        pixels: uint8 [height, width, 1 or 3].
        title: what it shows.
    """
    about = PngImagePlugin.PngInfo()
    about.add_itxt("Title", title)
    file = io.BytesIO()
    _picture(pixels).save(file, format="PNG", pnginfo=about)
    return file.getvalue()


def _reduce(pixels: np.ndarray, factor: int) -> np.ndarray:
    """The picture with the mean of every `factor` by `factor` pixels as one."""
    reduced = np.asarray(_picture(pixels).reduce(factor))
    return reduced.reshape(*reduced.shape[:2], pixels.shape[-1])


def _picture(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def _slug(title: str) -> str:
    """A title as part of a file's name; no two titles share one."""
    readable = re.sub("[^a-z0-9]+", "-", title.lower()).strip("-")[:60]
    return f"{readable}-{hashlib.sha256(title.encode()).hexdigest()[:6]}"
