"""A small image folder for tests: 3 classes of coloured noise, JPEG and PNG, names of all kinds."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from trainer.data.images import encode_png

_CLASSES = ("n01440764", "n02102040 épagneul", "犬")
_COUNTS = {"train": 8, "val": 4, "test": 2}  # per class


def write_sample(root: Path) -> Mapping[str, int]:
    """Writes the sample, the same at every call; returns the number of items of each split."""
    generator = np.random.default_rng(0)
    for folder, count in _COUNTS.items():
        for label, name in enumerate(_CLASSES):
            (root / folder / name).mkdir(parents=True)
            for number in range(count):
                picture = generator.integers(0, 80, (24 + number, 32, 3), np.uint8)
                picture[:, :, label] += 150  # each class has a colour, so that it can be learnt
                stem = root / folder / name / f"{name} {number}"
                if number % 2:
                    stem.with_suffix(".png").write_bytes(encode_png(picture))
                else:
                    stem.with_suffix(".JPEG").write_bytes(_encode_jpeg(picture))
    names = {"train": "train", "val": "validation", "test": "test"}
    return {names[folder]: count * len(_CLASSES) for folder, count in _COUNTS.items()}


def _encode_jpeg(picture: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=90)
    return file.getvalue()
