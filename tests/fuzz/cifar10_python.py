"""A small CIFAR-10 in its Python version: pickled dictionaries, as in the official archive."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np

_RECORDS = 10  # per batch, one of each class


def write_sample(root: Path) -> None:
    """Writes the sample, the same at every call."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    for number, name in enumerate(names):
        batch = {
            b"batch_label": f"batch {number + 1}".encode(),
            b"labels": list(range(_RECORDS)),
            b"data": generator.integers(0, 256, (_RECORDS, 3072), np.uint8),
            b"filenames": [f"picture_{n}.png".encode() for n in range(_RECORDS)],
        }
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
