"""The settings of the model (standard library only)."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings.

    Attributes:
        image_size: side of the square picture, in pixels.
        brightest: pictures with a brighter pixel than that are refused.
    """

    image_size: int = 16
    brightest: int = 255
