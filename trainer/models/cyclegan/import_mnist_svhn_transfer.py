"""The names and layouts of the checkpoints of yunjey/mnist-svhn-transfer: a file a network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from trainer.errors import UserError
from trainer.layers.batch_normalization import TORCH_NAMES

NETWORKS = {"g12": "a_to_b", "g21": "b_to_a", "d1": "discriminator_a", "d2": "discriminator_b"}
"""How its files begin -> our network; 1 is MNIST, our A, and 2 SVHN."""


def settings_of(state: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Variant, width and channels, as the names and shapes of the state dicts tell them.

    Raises:
        UserError: they are not those of its four networks.
    """
    shapes = {_place(name): value.shape for name, value in state.items()}
    try:
        (width, channels_a, *_), (_, channels_b, *_) = (
            shapes[network, "conv1.0.weight"] for network in ("a_to_b", "b_to_a")
        )
    except KeyError as error:
        raise UserError(
            "The folder must hold the four networks of mnist-svhn-transfer, "
            f"{', '.join(f'{name}-*.pkl' for name in NETWORKS)}; {error.args[0][0]} is not there."
        ) from error
    return {
        "variant": "digits",
        "image_size": 32,
        "load_size": 32,
        "pool_size": 0,
        "width": width,
        "channels_a": channels_a,
        "channels_b": channels_b,
    }


def convert(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays by our variables' names, in Keras's layouts.

    Kernels [out, in, height, width] become [height, width, in, out], and those of transposed
    convolutions, [in, out, height, width], become [height, width, out, in].
    """
    arrays = {}
    for name, value in state.items():
        network, rest = _place(name)
        part, index, leaf = rest.split(".")
        if leaf == "num_batches_tracked":
            continue
        leaf = "kernel" if index == "0" else TORCH_NAMES[leaf]
        value = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value
        arrays[f"networks/{network}/{part}_{index}/{leaf}"] = np.ascontiguousarray(value)
    return arrays


def _place(name: str) -> tuple[str, str]:
    """Network and name within it: of "g12-40000/conv1.0.weight", the latter after the stroke."""
    file, _, rest = name.partition("/")
    return NETWORKS.get(file.partition("-")[0], file), rest
