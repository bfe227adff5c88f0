"""How large a network is, counted as pycls counts: parameters, multiply-adds, activations."""

from __future__ import annotations

import dataclasses
import math

import keras


@dataclasses.dataclass(frozen=True)
class Complexity:
    """Size of a network for one example.

    Attributes:
        parameters: trainable numbers.
        multiply_adds: of convolutions and dense layers; a bias is one each. ("FLOPs" in papers.)
        activations: outputs of convolutions and dense layers.
    """

    parameters: int
    multiply_adds: int
    activations: int


def complexity(network: keras.Model) -> Complexity:
    """Counts a functional network from the shapes of its layers; the leading axis is the batch."""
    multiply_adds = activations = 0
    for layer in network._flatten_layers():
        kernel = getattr(layer, "kernel", None)
        if kernel is None or not isinstance(
            layer, keras.layers.Dense | keras.layers.Conv1D | keras.layers.Conv2D
        ):
            continue
        outputs = math.prod(layer.output.shape[1:])
        # Every output is one product with the part of the kernel that makes its channel.
        multiply_adds += outputs * math.prod(kernel.shape[:-1])
        multiply_adds += outputs if layer.use_bias else 0
        activations += outputs
    parameters = sum(math.prod(v.shape) for v in network.trainable_variables)
    return Complexity(parameters, multiply_adds, activations)
