"""The settings of the model (standard library only)."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings.

    Attributes:
        image_size: side of the square picture, in pixels.
        quality: of the JPEG, from 0 to 100.
    """

    image_size: int = 224
    quality: int = 95
