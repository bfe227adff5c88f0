"""What both train steps do to gradients between computing and applying them."""

from __future__ import annotations

import keras
from keras import ops


def clip_global_norm(gradients, clip_norm):
    """Scales nested gradients down together so that their joint L2 norm is at most `clip_norm`.

    Args:
        gradients: network name -> list of gradients, in the order of its variables.
        clip_norm: the bound, or None to leave them as they are.
    """
    if clip_norm is None:
        return gradients
    squares = [ops.sum(ops.square(g)) for group in gradients.values() for g in group]
    norm = ops.sqrt(ops.sum(ops.stack(squares)))
    # Written as a quotient whose divisor is never below clip_norm, so a norm of 0 is harmless.
    scale = clip_norm / ops.maximum(norm, clip_norm)
    return {name: [g * scale for g in group] for name, group in gradients.items()}


def are_finite(gradients):
    """A boolean scalar: whether no gradient has a NaN or an infinity anywhere."""
    finite = [ops.all(ops.isfinite(g)) for group in gradients.values() for g in group]
    return ops.all(ops.stack(finite))


def is_scalar(tensor) -> bool:
    """Whether an extra of a loss is a number to be logged."""
    return len(tensor.shape) == 0


class LossScale:
    """A factor on an update's loss that keeps its gradients within the range of float16.

    Micikevicius et al., ICLR 2018, section 3.2: a step whose gradients overflow is left out and
    the factor halved; after many good steps it doubles. At 1 it has no say any more: what is not
    finite then is no matter of precision, and the update is taken so that the loss shows it.

    Args:
        name: of the update.
    """

    FIRST = 2.0**15
    """Keras's `LossScaleOptimizer`."""
    LEAST = 1.0
    """Ours: below it, gradients would be made smaller than they are."""
    GOOD_STEPS = 2_000
    """Keras's `LossScaleOptimizer`."""

    def __init__(self, name: str):
        self.factor = keras.Variable(
            self.FIRST, dtype="float32", trainable=False, name=f"{name}_scale"
        )
        self.good_steps = keras.Variable(0, dtype="int32", trainable=False, name=f"{name}_steps")

    def multiply(self, loss):
        """The loss to differentiate."""
        return loss * ops.cast(self.factor.value, loss.dtype)

    def divide(self, gradients):
        """The true gradients of what `multiply` gave."""
        inverse = 1.0 / self.factor.value
        return {
            name: [g * ops.cast(inverse, g.dtype) for g in group]
            for name, group in gradients.items()
        }

    def judge(self, finite):
        """Takes note of whether an update's gradients are finite; returns whether to take it."""
        taken = ops.logical_or(finite, ops.less_equal(self.factor.value, self.LEAST))
        steps = ops.where(finite, self.good_steps.value + 1, 0)
        grows = ops.greater_equal(steps, self.GOOD_STEPS)
        larger = ops.where(grows, self.factor.value * 2.0, self.factor.value)
        smaller = ops.maximum(self.factor.value / 2.0, self.LEAST)
        self.factor.assign(ops.where(finite, larger, smaller))
        self.good_steps.assign(ops.where(grows, 0, steps))
        return taken


def loss_scales(updates, precision: str) -> dict[str, LossScale]:
    """One for each update where the precision needs it: gradients of two players differ in size."""
    if precision != "mixed_float16":
        return {}
    return {update.loss.__name__: LossScale(update.loss.__name__) for update in updates}


def state_of(scales: dict[str, LossScale]) -> dict[str, keras.Variable]:
    """What a checkpoint must hold of them, by name."""
    factors = {f"loss_scale/{name}": scale.factor for name, scale in scales.items()}
    steps = {f"loss_scale_good_steps/{name}": scale.good_steps for name, scale in scales.items()}
    return {**factors, **steps}
