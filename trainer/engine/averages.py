"""Moving averages of weights, which Keras's optimizers keep."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import keras

from trainer.recipe import Recipe


def keep_averages(recipe: Recipe, decay: float) -> None:
    """Makes every optimizer of a recipe keep moving averages of what it moves.

    Args:
        recipe: whose optimizers have not been built.
        decay: part of an average that stays at each step, above 0 and below 1.
    """
    for update in recipe.updates:
        for optimizer in update.optimizers.values():
            optimizer.use_ema = True
            optimizer.ema_momentum = decay
            optimizer.ema_overwrite_frequency = None


def averaged_variables(recipe: Recipe) -> dict[str, tuple[keras.Variable, keras.Variable]]:
    """`<network>/<variable>` -> a variable and its moving average, for optimizers that are built.

    Where two updates move a network, the first one's averages count.
    """
    pairs: dict[str, tuple[keras.Variable, keras.Variable]] = {}
    for update in recipe.updates:
        for name, optimizer in update.optimizers.items():
            if not optimizer.use_ema or not optimizer.built:
                continue
            variables = recipe.networks[name].trainable_variables
            averages = optimizer._model_variables_moving_average
            for variable, average in zip(variables, averages, strict=True):
                pairs.setdefault(f"{name}/{variable.path}", (variable, average))
    return pairs


@contextlib.contextmanager
def in_their_place(recipe: Recipe) -> Iterator[None]:
    """Within the block the networks' weights are their moving averages, where there are any."""
    pairs = averaged_variables(recipe).values()
    kept = [keras.ops.copy(variable.value) for variable, _ in pairs]
    for variable, average in pairs:
        variable.assign(average)
    try:
        yield
    finally:
        for (variable, _), value in zip(pairs, kept, strict=True):
            variable.assign(value)
