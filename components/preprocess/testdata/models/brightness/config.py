"""The settings of the model (standard library only)."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings.

    Attributes:
        brightest: pictures with a brighter pixel than that are refused.
    """

    brightest: int = 255
