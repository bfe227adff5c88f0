"""Losses that are computed and differentiated in NumPy, inside a step of any backend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from trainer import backend

Arrays = Sequence[np.ndarray]
ByHand = Callable[[Arrays, Arrays], tuple[Sequence[Any], Arrays]]
"""Maps the moving weights, and all else, to numbers, the loss first, and the loss's gradients with
respect to the moving weights."""


def by_hand(function: ByHand, moving: Sequence[Any], others: Sequence[Any], numbers: int) -> Any:
    """What a NumPy function says a loss is, with the gradients that it says the loss has.

    Args:
        function: computes loss and gradients, in the precision of what it is given.
        moving: weights, variables or tensors, by which the loss is differentiated.
        others: other weights and parts of the batch; the loss has no gradient for them.
        numbers: how many numbers the function returns, the loss first.

    Returns:
        A tensor [numbers]. Only the first has gradients.
    """
    dtype = keras.config.floatx()
    # Read here: a gradient of its own is for tensors, not for variables.
    values = [ops.cast(value, dtype) for value in (*moving, *others)]
    count = len(moving)
    shapes = [(numbers,), *(tuple(value.shape) for value in values[:count])]

    def call(*arrays: np.ndarray) -> list[np.ndarray]:
        found, gradients = function(arrays[:count], arrays[count:])
        return [np.asarray(array, dtype) for array in (np.stack(found), *gradients)]

    @ops.custom_gradient
    def loss(*tensors: Any) -> Any:
        found, *gradients = backend.current().call_host(call, shapes, dtype, *tensors)

        def differentiate(upstream: Any) -> Any:
            rest = [ops.zeros_like(tensor) for tensor in tensors[count:]]
            return (*(upstream[0] * gradient for gradient in gradients), *rest)

        return found, differentiate

    return loss(*values)
