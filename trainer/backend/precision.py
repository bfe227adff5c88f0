"""What networks compute in while they are built."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import keras


@contextlib.contextmanager
def compute_in(precision: str) -> Iterator[None]:
    """Layers built within compute in `precision`; their variables stay what Keras is set to.

    Args:
        precision: a mixed dtype policy of Keras; float32 leaves Keras as it is set.
    """
    before = keras.config.dtype_policy()
    if precision != "float32":
        keras.config.set_dtype_policy(precision)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
