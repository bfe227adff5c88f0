"""A small Tiny ImageNet for tests: 3 classes of noise with a coloured rectangle in it."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

_CLASSES = {  # in the order of wnids.txt, which is not sorted
    "n02124075": "Egyptian cat",
    "n01443537": "goldfish, Carassius auratus",
    "n03126707": "crane",
}
_TRAIN, _VALIDATION, _TEST = 6, 9, 2  # images: of each class, and of all


def write_sample(root: Path) -> Mapping[str, int]:
    """Writes the sample, the same at every call; returns the number of items of each split."""
    folder = root / "tiny-imagenet-200"
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    wnids = list(_CLASSES)
    (folder / "wnids.txt").write_bytes("\n".join(wnids).encode())
    words = {**_CLASSES, "n00001740": "entity", "n02012849": "crane"}
    text = "".join(f"{wnid}\t{words[wnid]}\n" for wnid in sorted(words))
    (folder / "words.txt").write_bytes(text.encode())
    for label, wnid in enumerate(wnids):
        images = folder / "train" / wnid / "images"
        images.mkdir(parents=True)
        lines = []
        for number in range(_TRAIN):
            corners = _write_picture(generator, images / f"{wnid}_{number}.JPEG", label)
            lines.append("\t".join((f"{wnid}_{number}.JPEG", *corners)))
        text = "".join(f"{line}\n" for line in lines)
        (images.parent / f"{wnid}_boxes.txt").write_bytes(text.encode())
    (folder / "val" / "images").mkdir(parents=True)
    lines = []
    for number in range(_VALIDATION):
        label = number % len(wnids)
        corners = _write_picture(generator, folder / f"val/images/val_{number}.JPEG", label)
        lines.append("\t".join((f"val_{number}.JPEG", wnids[label], *corners)))
    text = "".join(f"{line}\n" for line in lines)
    (folder / "val" / "val_annotations.txt").write_bytes(text.encode())
    (folder / "test" / "images").mkdir(parents=True)
    for number in range(_TEST):
        _write_picture(generator, folder / f"test/images/test_{number}.JPEG", 0)
    return {"train": len(wnids) * _TRAIN, "validation": _VALIDATION}


def _write_picture(generator: np.random.Generator, path: Path, label: int) -> tuple[str, ...]:
    """Writes a picture; the first and last column and row of its rectangle: left, top and so on."""
    left, top = generator.integers(0, 32, 2).tolist()
    right, bottom = generator.integers(32, 64, 2).tolist()
    pixels = generator.integers(0, 80, (64, 64, 3), np.uint8)
    pixels[top : bottom + 1, left : right + 1, label] += 150  # so that classes can be learnt
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95, subsampling=0)
    path.write_bytes(file.getvalue())
    return tuple(map(str, (left, top, right, bottom)))
