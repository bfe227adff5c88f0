"""The one abstraction: a paper, as the training engine needs to hear it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import keras
import numpy as np

Tensor = Any
Batch = Mapping[str, Tensor]
Loss = Callable[[Batch], Any]


@dataclasses.dataclass(frozen=True)
class Update:
    """Lowers `loss` by moving the named networks, each with its own optimizer.

    Attributes:
        loss: maps a batch to a scalar, or to (scalar, extras); the extras join the batch that later
            updates of the same step see, and scalars among them are logged. Its name is its key.
        optimizers: network name -> the optimizer that moves it. All other networks stay still.
        every: take this update on every n-th step only, beginning with the first.
        clip_norm: bound on the norm of all gradients of this update together.
    """

    loss: Loss
    optimizers: Mapping[str, keras.optimizers.Optimizer]
    every: int = 1
    clip_norm: float | None = None

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"every must be at least 1; got {self.every}.")
        if self.clip_norm is not None and self.clip_norm <= 0:
            raise ValueError(f"clip_norm must be positive or None; got {self.clip_norm}.")


@dataclasses.dataclass(frozen=True)
class ConfusionMatrix:
    """How often examples of each class (row) were taken for each class (column).

    Attributes:
        class_names: name of each row and column.
        counts: int64 [classes, classes].
    """

    class_names: tuple[str, ...]
    counts: np.ndarray


class Metric(Protocol):
    """Accumulates over an evaluation on the host, in NumPy; made anew for each evaluation."""

    def update(self, batch: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]) -> None:
        """Takes in one batch and what `predict` made of it."""

    def result(self) -> Mapping[str, float | ConfusionMatrix]:
        """Named numbers, and a confusion matrix where there is one."""


@dataclasses.dataclass(frozen=True)
class Signature:
    """One exported entry point.

    Attributes:
        function: maps named tensors to a mapping of named tensors; part of the graph.
        inputs: name -> shape and dtype; the leading None is the batch.
        description: what goes in and what comes out, with ranges and units, for the model card.
    """

    function: Callable[..., Batch]
    inputs: Mapping[str, keras.KerasTensor]
    description: str


@dataclasses.dataclass(frozen=True)
class Panel:
    """A row of pictures for the report.

    Attributes:
        title: what the row shows.
        images: [n, height, width, 1 or 3] in [0, 1].
        captions: one short text per picture, or none at all.
    """

    title: str
    images: np.ndarray
    captions: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Networks and what to do to them; built inside the engine's device scope.

    Attributes:
        networks: name -> Keras model. Every layer that owns weights has a name of its own choosing,
            so that checkpoints written by one process are read by another.
        updates: in the order of the paper's algorithm.
        predict: maps a batch to named outputs; evaluation and export both use it.
        metrics: makes fresh metrics, given the names of the classes (empty where there are none).
        signatures: what is exported; the first is the one a server offers by default.
        panels: pictures for the report from one evaluated batch, on the host.
        seeds: every source of randomness inside the losses.
        noise: name -> shape per example. Standard normal noise, float32 [batch, *shape], that joins
            every batch under these names: fresh in each step of training, and in an evaluation the
            same for an example each time. It is drawn for the whole batch outside the step, so that
            losses do not depend on the backend or the number of devices; what is drawn inside,
            by `seeds`, does.
        samples: maps the first batch of the evaluation split to pictures [n, height, width, 1 or 3]
            in [0, 1] by title; drawn after each epoch, they show the training as a strip.
        examples_in_training: evaluate on so many examples during a training; 0 for all. The numbers
            of a model come from the whole split, at the end.
        best_by: metric that says which checkpoint is the best; empty for the first of the
            paper's.
        lowest_is_best: whether less of it is better; read where `best_by` names one.
        statistics_examples: before each evaluation, replace the moving statistics of batch
            normalisation by averages over this many training examples; 0 leaves them alone.
    """

    networks: Mapping[str, keras.Model]
    updates: Sequence[Update]
    predict: Callable[[Batch], Batch]
    signatures: Mapping[str, Signature]
    metrics: Callable[[Sequence[str]], Sequence[Metric]] = lambda class_names: ()
    panels: Callable[[Batch, Batch, Sequence[str]], Sequence[Panel]] = lambda *_: ()
    seeds: Sequence[keras.random.SeedGenerator] = ()
    noise: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    samples: Callable[[Batch], Batch] | None = None
    examples_in_training: int = 0
    best_by: str = ""
    lowest_is_best: bool = False
    statistics_examples: int = 0

    def __post_init__(self) -> None:
        for update in self.updates:
            name = getattr(update.loss, "__name__", "an update")
            unknown = sorted(set(update.optimizers) - set(self.networks))
            if unknown:
                raise ValueError(
                    f"{name} moves {unknown}, but the recipe's networks are "
                    f"{sorted(self.networks)}."
                )
            if not update.optimizers:
                raise ValueError(f"{name} must move at least one network; it names none.")
