"""A small CIFAR-10 for tests, in the binary version: noise whose colours tell the class."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

_BATCHES = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5")
_RECORDS = 10  # per batch, one of each class


def write_sample(root: Path) -> Mapping[str, int]:
    """Writes the sample, the same at every call; returns the number of items of each split."""
    folder = root / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for name in (*_BATCHES, "test_batch"):
        labels = np.arange(_RECORDS, dtype=np.uint8)
        images = generator.integers(0, 60, (_RECORDS, 3, 32, 32), np.uint8)
        for channel, step in enumerate((1, 3, 7)):
            shade = labels.astype(int) * step % 10 * 20
            images[:, channel] += shade.astype(np.uint8)[:, None, None]
        records = np.concatenate([labels[:, None], images.reshape(_RECORDS, -1)], axis=1)
        (folder / f"{name}.bin").write_bytes(records.tobytes())
    return {"train": _RECORDS * len(_BATCHES), "test": _RECORDS}
