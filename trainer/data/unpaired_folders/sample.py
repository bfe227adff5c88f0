"""Two small unpaired folders for tests: reddish noise and bluish noise, JPEG and PNG."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

_COUNTS = {"trainA": 8, "trainB": 10, "testA": 4, "testB": 3}


def write_sample(root: Path) -> Mapping[str, int]:
    """Writes the sample, the same at every call; returns the number of items of each split."""
    generator = np.random.default_rng(0)
    for folder, count in _COUNTS.items():
        (root / folder).mkdir(parents=True)
        for number in range(count):
            pixels = generator.integers(0, 80, (32, 32, 3), np.uint8)
            pixels[:, :, 0 if folder.endswith("A") else 2] += 150
            kind, extension = (("JPEG", "jpg"), ("PNG", "png"))[number % 2]
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, kind)
            (root / folder / f"n02381460_{number} {folder}.{extension}").write_bytes(
                file.getvalue()
            )
    return {
        "train": _COUNTS["trainA"] + _COUNTS["trainB"],
        "test": _COUNTS["testA"] + _COUNTS["testB"],
    }
