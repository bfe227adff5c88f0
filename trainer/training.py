"""How a training is carried out, whatever the model and the paper (standard library only)."""

from __future__ import annotations

import dataclasses
from typing import Literal

Precision = Literal["float32", "mixed_bfloat16", "mixed_float16"]


@dataclasses.dataclass(frozen=True)
class Training:
    """What of a training the machine decides, and not the paper; the defaults are ours.

    Attributes:
        precision: what networks compute in; weights and optimizers stay in float32. mixed_float16
            scales losses, so that small gradients do not vanish.
        accumulation: parts that each batch is computed in, one after the other, so that it needs
            less memory; the gradients are averaged and applied once.
        moving_average: decay per step of moving averages of the weights, which are evaluated and
            exported in their place, such as 0.999; 0 for none.
        devices: how many devices of this machine share each batch; 0 for all accelerators there
            are, or one processor.
        keep: how many checkpoints of ended epochs stay, the newest included; the best one stays
            besides.
        save_seconds: longest time that a kill may cost; 0 saves after every step.
        still_steps: steps after which a loss that has not moved at all is reported.
    """

    precision: Precision = "float32"
    accumulation: int = 1
    moving_average: float = 0.0
    devices: int = 0
    keep: int = 1
    save_seconds: float = 60.0
    still_steps: int = 200

    def __post_init__(self) -> None:
        for name, least in (("accumulation", 1), ("devices", 0), ("keep", 1), ("still_steps", 2)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}; got {getattr(self, name)}.")
        if not 0 <= self.moving_average < 1:
            raise ValueError(
                f"moving_average must be at least 0 and below 1; got {self.moving_average}."
            )
        if self.save_seconds < 0:
            raise ValueError(f"save_seconds must not be negative; got {self.save_seconds}.")
