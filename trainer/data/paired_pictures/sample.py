"""Small paired pictures for tests: the outline of a rectangle left, the filled one right."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

_COUNTS = {"train": 12, "val": 5}
_SIDE = 32


def write_sample(root: Path) -> Mapping[str, int]:
    """Writes the sample, the same at every call; returns the number of items of each split."""
    generator = np.random.default_rng(0)
    for folder, count in _COUNTS.items():
        (root / folder).mkdir(parents=True)
        for number in range(1, count + 1):
            left, top = generator.integers(2, 14, 2).tolist()
            right, bottom = generator.integers(18, 30, 2).tolist()
            colour = generator.integers(50, 200, 3)
            pixels = np.full((_SIDE, 2 * _SIDE, 3), 255, np.uint8)
            pixels[top:bottom, left:right] = 0
            pixels[top + 1 : bottom - 1, left + 1 : right - 1] = 255
            pixels[top:bottom, _SIDE + left : _SIDE + right] = colour
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "JPEG", quality=95)
            (root / folder / f"{number}_AB.jpg").write_bytes(file.getvalue())
    return {"train": _COUNTS["train"], "validation": _COUNTS["val"]}
