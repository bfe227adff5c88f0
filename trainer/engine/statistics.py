"""Precise batch normalisation: moving statistics measured anew over many training examples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np

from trainer import backend
from trainer.recipe import Recipe


class StatisticsMeter:
    """Replaces the moving statistics of a recipe's batch normalisation by plain averages.

    Each layer's mean and variance become the averages, over the batches given, of the batches' own
    means and variances, with the weights held still (pycls, "precise BN"). Nothing else changes.
    """

    def __init__(self, recipe: Recipe):
        self.layers = [
            layer
            for network in recipe.networks.values()
            for layer in network._flatten_layers()
            if isinstance(layer, keras.layers.BatchNormalization)
        ]
        self._seeds = [seed.state for seed in recipe.seeds]
        self._others = [
            v for network in recipe.networks.values() for v in network.non_trainable_variables
        ]
        self._measure = backend.current().compile_statistics(recipe, self.layers)

    def __call__(self, batches: Iterable[Mapping[str, Any]]) -> None:
        """Measures on the batches and assigns the averages; reads none if nobody needs them."""
        if not self.layers:
            return
        kept = [(v, keras.ops.convert_to_numpy(v)) for v in (*self._seeds, *self._others)]
        momenta = [layer.momentum for layer in self.layers]
        sums: list[np.ndarray] | None = None
        count = 0
        try:
            # With momentum 0 a layer's moving statistics are those of the last batch. The compiled
            # function reads the momentum while it is traced, hence the setting around the calls.
            for layer in self.layers:
                layer.momentum = 0.0
            for batch in batches:
                values = [np.asarray(v, np.float64) for v in self._measure(batch)]
                sums = (
                    values if sums is None else [a + b for a, b in zip(sums, values, strict=True)]
                )
                count += 1
        finally:
            for layer, momentum in zip(self.layers, momenta, strict=True):
                layer.momentum = momentum
            for variable, value in kept:
                variable.assign(value)
        if sums is None:
            return
        variables = [v for layer in self.layers for v in (layer.moving_mean, layer.moving_variance)]
        for variable, total in zip(variables, sums, strict=True):
            variable.assign((total / count).astype(np.float32))
