"""A gentle beginning for any schedule."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule


@keras.saving.register_keras_serializable(package="paper2hub")
class LinearWarmUp(LearningRateSchedule):  # type: ignore[misc]
    """Another schedule, times a share that rises linearly to 1 during the first steps.

    Over a rate that is constant at the beginning this is the gradual warm-up of Goyal et al. 2017
    (arXiv 1706.02677, section 2.2): 5 epochs, from the rate of a batch of 256 to that of k times as
    many, so `start` is 1/k. The schedule itself is not put off: its step 0 is the training's.

    Args:
        schedule: the rate without the warm-up: a schedule or a number.
        steps: optimizer steps until the share is 1.
        start: the share at step 0.
    """

    def __init__(self, schedule: LearningRateSchedule | float, steps: int, start: float = 0.0):
        if steps < 1:
            raise ValueError(f"A warm-up must take at least 1 step; got {steps}.")
        if not 0 <= start <= 1:
            raise ValueError(f"start must be between 0 and 1; got {start}.")
        self.schedule = schedule
        self.steps = steps
        self.start = start

    def __call__(self, step: Any) -> Any:
        """The rate for optimizer step `step`, counted from 0."""
        rate = (
            self.schedule(step)
            if isinstance(self.schedule, LearningRateSchedule)
            else self.schedule
        )
        way = ops.cast(ops.minimum(step, self.steps), keras.config.floatx()) / self.steps
        return rate * (self.start + (1.0 - self.start) * way)

    def get_config(self) -> dict[str, Any]:
        """The arguments, for Keras."""
        schedule = self.schedule
        if isinstance(schedule, LearningRateSchedule):
            schedule = keras.saving.serialize_keras_object(schedule)
        return {"schedule": schedule, "steps": self.steps, "start": self.start}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> LinearWarmUp:
        """The schedule of a configuration that `get_config` has given."""
        schedule = config["schedule"]
        if isinstance(schedule, dict):
            schedule = keras.saving.deserialize_keras_object(schedule)
        return cls(**{**config, "schedule": schedule})
