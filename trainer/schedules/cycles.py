"""A learning rate that rises and falls again and again."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule


@keras.saving.register_keras_serializable(package="paper2hub")
class TriangularCycles(LearningRateSchedule):  # type: ignore[misc]
    """Linearly from `lowest` to `highest` and back, over and over (Smith 2017, arXiv 1506.01186).

    Each way takes `half_cycle` optimizer steps, the paper's "stepsize", for which it recommends 2
    to 10 epochs (section 3.2). With `shrink` 0.5 the difference between the two rates is halved
    after every cycle, which is its "triangular2" (section 3.1).

    Args:
        lowest: the rate at the beginning and at the end of each cycle.
        highest: the rate in the middle of the first cycle.
        half_cycle: optimizer steps, not epochs, from one to the other.
        shrink: what the difference is multiplied by from one cycle to the next.
    """

    def __init__(self, lowest: float, highest: float, half_cycle: int, shrink: float = 1.0):
        if not 0 <= lowest <= highest:
            raise ValueError(
                f"lowest must be between 0 and highest; got {lowest} and {highest} as highest."
            )
        if half_cycle < 1:
            raise ValueError(f"half_cycle must be at least 1 step; got {half_cycle}.")
        if not 0 < shrink <= 1:
            raise ValueError(f"shrink must be above 0 and at most 1; got {shrink}.")
        self.lowest = lowest
        self.highest = highest
        self.half_cycle = half_cycle
        self.shrink = shrink

    def __call__(self, step: Any) -> Any:
        """The rate for optimizer step `step`, counted from 0."""
        dtype = keras.config.floatx()
        # In whole numbers, which stay exact however long the training.
        within = ops.cast(ops.mod(step, 2 * self.half_cycle), dtype)
        height = 1.0 - ops.abs(within / self.half_cycle - 1.0)
        if self.shrink < 1:
            cycle = ops.cast(ops.floor_divide(step, 2 * self.half_cycle), dtype)
            height *= ops.power(ops.cast(self.shrink, dtype), cycle)
        return self.lowest + (self.highest - self.lowest) * height

    def get_config(self) -> dict[str, Any]:
        """The arguments, for Keras."""
        return {
            "lowest": self.lowest,
            "highest": self.highest,
            "half_cycle": self.half_cycle,
            "shrink": self.shrink,
        }
