"""From networks to numbers, a confusion matrix and pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from trainer import backend
from trainer.engine.input import Split
from trainer.progress import Progress
from trainer.recipe import ConfusionMatrix, Panel, Recipe

Predict = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        numbers: metric -> value.
        confusion: the confusion matrix, where the recipe has one.
        panels: pictures from the first batch.
        examples: how many examples were evaluated.
    """

    numbers: dict[str, float]
    confusion: ConfusionMatrix | None
    panels: tuple[Panel, ...]
    examples: int


def compile_predict(recipe: Recipe) -> Predict:
    """The recipe's `predict`, compiled, from NumPy arrays to NumPy arrays of numbers."""
    predict: Predict = backend.current().compile_predict(recipe, recipe.predict)
    return predict


def evaluate(
    recipe: Recipe,
    predict: Predict,
    split: Split,
    batch_size: int,
    class_names: Sequence[str],
    progress: Progress | None = None,
    limit: int = 0,
) -> Evaluation:
    """Scores the recipe's networks on a split.

    Every batch is brought to the same size by repeating its last example, and the repetitions are
    left out of the score: one compiled shape serves all.

    Args:
        recipe: whose metrics count.
        predict: its `predict`, compiled.
        split: the examples.
        batch_size: examples at once.
        class_names: name of each label.
        progress: advances with the examples.
        limit: how many examples count, the first of the split; 0 for all.
    """
    metrics = recipe.metrics(class_names)
    panels: tuple[Panel, ...] = ()
    examples = 0
    for batch in split.in_order(batch_size, recipe.noise):
        numeric = numbers_of(batch, limit - examples if limit else None)
        count = len(next(iter(numeric.values())))
        outputs = predict({k: pad(v, batch_size) for k, v in numeric.items()})
        outputs = {k: v[:count] for k, v in outputs.items()}
        for metric in metrics:
            metric.update(numeric, outputs)
        if not examples:
            panels = tuple(recipe.panels(numeric, outputs, class_names))
        examples += count
        if progress is not None:
            progress.advance(count)
        if limit and examples >= limit:
            break
    values = {k: v for metric in metrics for k, v in metric.result().items()}
    numbers = {k: float(v) for k, v in values.items() if not isinstance(v, ConfusionMatrix)}
    confusions = [v for v in values.values() if isinstance(v, ConfusionMatrix)]
    return Evaluation(numbers, confusions[0] if confusions else None, panels, examples)


def numbers_of(batch: Mapping[str, np.ndarray], limit: int | None = None) -> dict[str, np.ndarray]:
    """What of a batch a network can take: all but strings, of the first `limit` examples."""
    return {name: value[:limit] for name, value in batch.items() if value.dtype != object}


def pad(array: np.ndarray, length: int) -> np.ndarray:
    """The array with its last row repeated until it has `length` rows."""
    missing = length - len(array)
    return np.concatenate([array, np.repeat(array[-1:], missing, axis=0)]) if missing else array
