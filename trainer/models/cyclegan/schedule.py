"""The learning rate of CycleGAN: constant, then down in a straight line, epoch by epoch."""

import keras
from keras import ops


class ConstantThenLinear(keras.optimizers.schedules.LearningRateSchedule):
    """The peak, and in the last epochs a straight line that would reach 0 one epoch after them.

    In epoch e of E, counted from 0, the last D of which decay, the rate is the peak times
    `1 - max(0, e + 2 - (E - D)) / (D + 1)`, as the authors' code has it with its settings.

    Args:
        peak: highest rate.
        epochs: E.
        decay_epochs: D.
        steps_per_epoch: optimizer steps in an epoch.
    """

    def __init__(self, peak: float, epochs: int, decay_epochs: int, steps_per_epoch: int):
        self.peak = peak
        self.epochs = epochs
        self.decay_epochs = decay_epochs
        self.steps_per_epoch = steps_per_epoch

    def __call__(self, step):
        """The rate for optimizer step `step`, counted from 0."""
        epoch = ops.cast(ops.floor_divide(step, self.steps_per_epoch), keras.config.floatx())
        late = ops.maximum(epoch + 2.0 - (self.epochs - self.decay_epochs), 0.0)
        return self.peak * ops.maximum(1.0 - late / (self.decay_epochs + 1.0), 0.0)

    def get_config(self):
        """The arguments, for Keras."""
        return {
            "peak": self.peak,
            "epochs": self.epochs,
            "decay_epochs": self.decay_epochs,
            "steps_per_epoch": self.steps_per_epoch,
        }
