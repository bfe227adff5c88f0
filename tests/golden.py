"""Weights that anyone can make again, for which reference implementations' answers are known."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np


def golden_state(entries: Sequence[Sequence[Any]]) -> dict[str, np.ndarray]:
    """A state dict of PyTorch's names and shapes, whose numbers follow from its names.

    Args:
        entries: name and shape of each tensor.
    """
    state = {}
    for name, shape in entries:
        random = np.random.default_rng(zlib.crc32(name.encode()))
        if name.endswith("running_var"):
            value = random.uniform(0.5, 1.5, shape)
        elif name.endswith("running_mean"):
            value = random.normal(0, 0.1, shape)
        elif name.endswith("num_batches_tracked"):
            value = np.zeros(shape)
        else:
            value = random.standard_normal(shape)
            if len(shape) > 1:
                value = value * np.sqrt(2 / np.prod(shape[1:]))
            else:
                value = 1 + 0.1 * value if name.endswith("weight") else 0.1 * value
        state[name] = np.asarray(value, np.float32)
    return state
