"""A small MSRA10K for tests: a bright disc in each picture, and its mask."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from trainer.data.images import encode_png

_PICTURES = 20


def write_sample(root: Path) -> Mapping[str, int]:
    """Writes the sample, the same at every call; returns the number of items of each split."""
    folder = root / "MSRA10K_Imgs_GT" / "Imgs"
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for number in range(_PICTURES):
        height, width = (40, 30) if number % 2 else (30, 40)
        middle = generator.uniform(0.35, 0.65, 2) * (height, width)
        rows, columns = np.mgrid[:height, :width]
        disc = (rows - middle[0]) ** 2 + (columns - middle[1]) ** 2 < (6 + number % 4) ** 2
        picture = generator.integers(0, 110, (height, width, 3), np.uint8)
        picture[disc] += 140
        stem = str(100_000 + 7 * number)
        Image.fromarray(picture).save(folder / f"{stem}.jpg", "JPEG", quality=90)
        (folder / f"{stem}.png").write_bytes(encode_png(disc[:, :, None] * np.uint8(255)))
    return {"train": 16, "validation": 2, "test": 2}
