import keras
import numpy as np
import pytest

from trainer.engine.statistics import StatisticsMeter
from trainer.recipe import Recipe, Update


def make() -> tuple[Recipe, keras.layers.BatchNormalization]:
    layer = keras.layers.BatchNormalization(momentum=0.9, name="normalisation")
    image = keras.Input((2,))
    network = keras.Model(image, layer(keras.layers.Dropout(0.0, name="dropout")(image)))

    def loss(batch):
        return keras.ops.mean(network(batch["image"], training=True))

    update = Update(loss, {"network": keras.optimizers.SGD(1.0)})
    return Recipe({"network": network}, [update], lambda batch: batch, {}), layer


def test_statistics_are_the_averages_over_the_batches() -> None:
    recipe, layer = make()
    random = np.random.default_rng(0)
    batches = [{"image": random.normal(i, 1 + i, (8, 2)).astype(np.float32)} for i in range(3)]
    weights = [
        keras.ops.convert_to_numpy(v) for v in recipe.networks["network"].trainable_variables
    ]
    meter = StatisticsMeter(recipe)
    for _ in range(2):  # what was measured before leaves no trace
        meter(batches)
        mean = np.mean([b["image"].mean(axis=0) for b in batches], axis=0)
        variance = np.mean([b["image"].var(axis=0) for b in batches], axis=0)
        np.testing.assert_allclose(layer.moving_mean, mean, rtol=1e-5)
        np.testing.assert_allclose(layer.moving_variance, variance, rtol=1e-4)
    assert layer.momentum == 0.9
    after = recipe.networks["network"].trainable_variables
    for before, now in zip(weights, after, strict=True):
        np.testing.assert_array_equal(before, now)


def test_without_batch_normalisation_no_batch_is_read() -> None:
    network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, name="dense")])

    def loss(batch):
        return keras.ops.mean(network(batch["image"]))

    update = Update(loss, {"network": keras.optimizers.SGD(1.0)})
    batches = iter([{"image": np.zeros((8, 2), np.float32)}])
    StatisticsMeter(Recipe({"network": network}, [update], lambda batch: batch, {}))(batches)
    assert len(list(batches)) == 1


def test_without_batches_nothing_changes() -> None:
    recipe, layer = make()
    StatisticsMeter(recipe)([])
    assert keras.ops.convert_to_numpy(layer.moving_mean) == pytest.approx([0, 0])
