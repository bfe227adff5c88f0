"""A small COCO for tests: the sample of `coco_detection`, whose instances have outlines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from trainer.data.coco_detection import sample


def write_sample(root: Path) -> Mapping[str, int]:
    """Writes the sample, the same at every call; returns the number of items of each split."""
    return sample.write_sample(root)
