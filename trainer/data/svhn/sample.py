"""A small SVHN for tests: noise whose colours tell the digit; one of the files compressed."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import scipy.io

_COUNTS = {"train": 40, "test": 20, "extra": 10}
_HEADER_TEXT = b"MATLAB 5.0 MAT-file, Platform: GLNXA64, Created on: Mon Dec  5 21:09:26 2011"


def write_sample(root: Path) -> Mapping[str, int]:
    """Writes the sample, the same at every call; returns the number of items of each split."""
    root.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    for name, count in _COUNTS.items():
        labels = np.arange(count) % 10 + 1  # 10 is the digit 0
        images = generator.integers(0, 60, (32, 32, 3, count), np.uint8)
        for channel, step in enumerate((1, 3, 7)):
            images[:, :, channel] += (labels * step % 10 * 20).astype(np.uint8)
        write_digits(root / f"{name}_32x32.mat", images, labels[:, None], name == "train")
    return {"train": _COUNTS["train"], "test": _COUNTS["test"]}


def write_digits(
    path: Path,
    images: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
    labels: np.ndarray[tuple[int, ...], np.dtype[np.int64]],
    compress: bool,
) -> None:
    """Writes a MATLAB file of version 5 that depends on its content alone.

    Args:
        path: of the file.
        images: uint8 [32, 32, 3, n].
        labels: [n, 1], from 1 to 10.
        compress: as MATLAB's -v7 does, and -v6 does not.
    """
    file = io.BytesIO()
    variables = {"X": images, "y": labels.astype(np.uint8)}
    scipy.io.savemat(file, variables, do_compression=compress)
    content = file.getvalue()
    # SciPy writes the time of day into the text at the beginning.
    path.write_bytes(_HEADER_TEXT.ljust(116) + content[116:])
