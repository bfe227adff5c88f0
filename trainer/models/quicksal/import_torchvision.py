"""The names and layouts of torchvision's MobileNetV2: the encoder, with a decoder yet to learn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from trainer.backbones import mobilenet_v2
from trainer.errors import UserError

LEFT = ("networks/decoder/",)
"""How the names of the variables begin that no such file has; they stay as they were drawn."""


def settings_of(state: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """No random encoder, and none of ImageNet's before it is replaced.

    Raises:
        UserError: it is not a MobileNetV2 of torchvision's.
    """
    first = state.get("features.0.0.weight")
    if first is None or first.shape != (mobilenet_v2.STEM_WIDTH, 3, 3, 3):
        raise UserError(
            "The file must be a MobileNetV2 of torchvision, with features.0.0.weight of "
            f"{[mobilenet_v2.STEM_WIDTH, 3, 3, 3]}; it has "
            f"{'none' if first is None else list(first.shape)}."
        )
    return {"encoder": "random"}


def convert(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The encoder's arrays by our variables' names, in Keras's layouts."""
    arrays = mobilenet_v2.convert(state)
    return {f"networks/encoder/{name}": value for name, value in arrays.items()}
