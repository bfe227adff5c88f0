"""The learning rate of pycls: half a cosine, read once per epoch, after a linear warm-up."""

import math

import keras
from keras import ops


class EpochCosine(keras.optimizers.schedules.LearningRateSchedule):
    """Half a cosine from `peak` to 0, constant within each epoch and 0 after the last.

    In epoch e of E the rate is `peak * (1 + cos(pi e / E)) / 2`, times, during the first W epochs,
    `a + (1 - a) e / W` with a = 0.1 (pycls: `lr_policy` "cos", `WARMUP_FACTOR`).

    Args:
        peak: highest rate.
        epochs: E.
        warmup_epochs: W.
        steps_per_epoch: optimizer steps in an epoch.
    """

    WARMUP_FACTOR = 0.1

    def __init__(self, peak: float, epochs: int, warmup_epochs: int, steps_per_epoch: int):
        self.peak = peak
        self.epochs = epochs
        self.warmup_epochs = warmup_epochs
        self.steps_per_epoch = steps_per_epoch

    def __call__(self, step):
        """The rate for optimizer step `step`, counted from 0."""
        epoch = ops.cast(ops.floor_divide(step, self.steps_per_epoch), keras.config.floatx())
        progress = ops.minimum(epoch / self.epochs, 1.0)
        rate = 0.5 * self.peak * (1.0 + ops.cos(math.pi * progress))
        if self.warmup_epochs:
            share = ops.minimum(epoch / self.warmup_epochs, 1.0)
            rate *= self.WARMUP_FACTOR + (1.0 - self.WARMUP_FACTOR) * share
        return rate

    def get_config(self):
        """The arguments, for Keras."""
        return {
            "peak": self.peak,
            "epochs": self.epochs,
            "warmup_epochs": self.warmup_epochs,
            "steps_per_epoch": self.steps_per_epoch,
        }
