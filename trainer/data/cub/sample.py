"""A small CUB-200-2011 for tests: ellipses for birds, in the layout that StackGAN uses."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

_CLASSES = (
    ("001.Black_footed_Albatross", (60, 60, 60), "black"),
    ("002.Laysan_Albatross", (230, 230, 230), "white"),
    ("003.Red_faced_Cormorant", (220, 40, 40), "red"),
)
_TRAIN, _TEST = 4, 2  # per class
_CAPTIONS = 10


def write_sample(root: Path) -> Mapping[str, int]:
    """Writes the sample, the same at every call; returns the number of items of each split."""
    folder = root / "CUB_200_2011"
    generator = np.random.default_rng(0)
    tables: dict[str, list[str]] = {
        name: [] for name in ("images", "image_class_labels", "bounding_boxes", "train_test_split")
    }
    for label, (name, colour, word) in enumerate(_CLASSES, start=1):
        (folder / "images" / name).mkdir(parents=True)
        (root / "text_c10" / name).mkdir(parents=True)
        for number in range(_TRAIN + _TEST):
            identity = len(tables["images"]) + 1
            stem = f"{name[4:]}_{number + 1:04d}_{796_000 + identity}"
            picture, box = _draw(generator, colour, number)
            path = folder / "images" / name / f"{stem}.jpg"
            Image.fromarray(picture).save(path, "JPEG", quality=90)
            tables["images"].append(f"{identity} {name}/{stem}.jpg")
            tables["image_class_labels"].append(f"{identity} {label}")
            tables["bounding_boxes"].append(f"{identity} {' '.join(map(str, box))}")
            tables["train_test_split"].append(f"{identity} {int(number < _TRAIN)}")
            captions = [
                f"a {word} bird in picture {number}, said in {n + 2} words"
                for n in range(_CAPTIONS)
            ]
            (root / "text_c10" / name / f"{stem}.txt").write_text("\n".join(captions) + "\n")
    tables["classes"] = [f"{n} {name}" for n, (name, _, _) in enumerate(_CLASSES, start=1)]
    for table, lines in tables.items():
        (folder / f"{table}.txt").write_text("\n".join(lines) + "\n")
    return {"train": _TRAIN * len(_CLASSES), "test": _TEST * len(_CLASSES)}


def _draw(
    generator: np.random.Generator, colour: tuple[int, int, int], number: int
) -> tuple[np.ndarray[Any, Any], tuple[float, ...]]:
    """An ellipse before a noisy sky, and its box: left, top, width, height."""
    height, width = 40 + 2 * number, 48
    left, top, across, down = 6.0 + number, 8.0, 30.0, 20.0 + number
    picture = generator.integers(90, 160, (height, width, 3), np.uint8)
    rows, columns = np.mgrid[:height, :width] + 0.5
    inside = ((columns - left) / across * 2 - 1) ** 2 + ((rows - top) / down * 2 - 1) ** 2 <= 1
    picture[inside] = colour
    return picture, (left, top, across, down)
