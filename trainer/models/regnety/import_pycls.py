"""The names and layouts of pycls's RegNetY checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from trainer.errors import UserError
from trainer.layers.batch_normalization import TORCH_NAMES
from trainer.models.regnety.config import DESIGN, stages


def settings_of(state: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Variant and number of classes, as the names and shapes of a state dict tell them.

    Raises:
        UserError: the shapes are those of no RegNetY we know.
    """
    found: list[tuple[int, int]] = []
    while (name := f"s{len(found) + 1}.b1.f.a.weight") in state:
        stage = f"s{len(found) + 1}."
        blocks = {key.split(".")[1] for key in state if key.startswith(stage)}
        found.append((len(blocks), state[name].shape[0]))
    for variant in DESIGN:
        if found == [(s.depth, s.width) for s in stages(variant)] and "head.fc.weight" in state:
            return {"variant": variant, "num_classes": state["head.fc.weight"].shape[0]}
    raise UserError(
        f"A pycls checkpoint must be of RegNetY {', '.join(DESIGN)}; this one has stages of "
        f"(depth, width) {found}."
    )


def convert(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A state dict's arrays by our variables' names, in Keras's layouts.

    Convolutions [out, in, height, width] become [height, width, in, out], linear weights and the
    1x1 convolutions of squeeze and excitation [out, in] become [in, out].
    """
    arrays = {}
    for name, value in state.items():
        *path, leaf = name.split(".")
        if leaf == "num_batches_tracked":
            continue
        layer = "_".join(path)
        if value.ndim == 1 and f"{'.'.join(path)}.running_mean" in state:
            leaf = TORCH_NAMES[leaf]
        elif leaf == "weight":
            leaf = "kernel"
            if value.ndim == 4 and "se" in path:
                value = value[:, :, 0, 0]
            value = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T
        arrays[f"networks/regnety/{layer}/{leaf}"] = np.ascontiguousarray(value)
    return arrays
