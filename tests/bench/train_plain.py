"""Training loops written by hand, for `make bench-train`: without Keras and our engine.

A model is its players (`tests/bench/players`), functions of weights and a batch in terms of a few
operations; TensorFlow and JAX each have their own operations, and their own compiled loop over the
players.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

Values = dict[str, Any]
"""Name, as in our checkpoints -> a variable's value."""

Batch = Mapping[str, Any]
Step = Callable[[Batch], list[Any]]
"""Takes every player's turn on a batch; returns their losses, which need not be ready."""

ADAM_SECOND_DECAY = 0.999  # Keras's


Operations = Any
"""TensorFlow's or JAX's own functions by common names, see `tests.bench.train_plain_tensorflow`."""

Loss = Callable[[Operations, Values, Batch], tuple[Any, Values]]
"""Maps operations, weights and a batch to a loss and new values: of moving statistics, which become
theirs, and under other names, which join the batch for the players after this one."""


@dataclasses.dataclass(frozen=True)
class Adam:
    """Kingma and Ba 2014, in the form at the end of their section 2."""

    rate: Callable[[Operations, Any], Any]
    decay: float = 0.9
    epsilon: float = 1e-7

    slots = 2

    def move(self, operations: Any, value: Any, gradient: Any, slots: Any, step: Any) -> Any:
        """The new value and the new slots, for a step counted from 0."""
        first, second = slots
        number = step + 1.0
        correction = operations.sqrt(1.0 - ADAM_SECOND_DECAY**number) / (1.0 - self.decay**number)
        first = self.decay * first + (1.0 - self.decay) * gradient
        second = ADAM_SECOND_DECAY * second + (1.0 - ADAM_SECOND_DECAY) * gradient * gradient
        rate = self.rate(operations, step) * correction
        moved = value - rate * first / (operations.sqrt(second) + self.epsilon)
        return moved, (first, second)


@dataclasses.dataclass(frozen=True)
class Momentum:
    """Gradient descent with momentum, Nesterov's or not, as Keras has it."""

    rate: Callable[[Operations, Any], Any]
    momentum: float
    nesterov: bool = True

    slots = 1

    def move(self, operations: Any, value: Any, gradient: Any, slots: Any, step: Any) -> Any:
        """The new value and the new slots, for a step counted from 0."""
        (velocity,) = slots
        push = self.rate(operations, step) * gradient
        velocity = self.momentum * velocity - push
        if not self.nesterov:
            return value + velocity, (velocity,)
        return value + self.momentum * velocity - push, (velocity,)


@dataclasses.dataclass(frozen=True)
class Player:
    """One of those who take turns at a batch.

    Attributes:
        loss: what it lowers.
        moves: pattern of the names of weights -> what moves those that fit; moving statistics are
            no weights.
        clip_norm: bound on the norm of all its gradients together.
    """

    loss: Loss
    moves: Mapping[str, Adam | Momentum]
    clip_norm: float | None = None

    def moved(self, names: Iterable[str]) -> dict[str, Adam | Momentum]:
        """Those among the names that it moves, and by what."""
        return {
            name: optimizer
            for pattern, optimizer in self.moves.items()
            for name in fnmatch.filter(names, pattern)
            if "/moving_" not in name
        }


def players_of(model: str) -> Any:
    """The module with a model's players."""
    return importlib.import_module(f"tests.bench.players.{model}")


def moved_statistics(
    name: str, weights: Values, measured: Values, new: Sequence[Any], momentum: float
) -> Values:
    """The moving mean and variance of a batch normalisation after a batch has been measured."""
    keys = (f"{name}/moving_mean", f"{name}/moving_variance")
    return {
        key: momentum * measured.get(key, weights[key]) + (1.0 - momentum) * value
        for key, value in zip(keys, new, strict=True)
    }
