"""Tests of the recipe of classifiers."""

import math
import types

import keras
import numpy as np
import pytest

from trainer.classifiers.classifying import classifying, weight_decay


def test_the_loss_is_cross_entropy_and_penalty() -> None:
    image = keras.Input((2, 2, 3))
    x = keras.layers.GlobalAveragePooling2D()(image)
    output = keras.layers.Dense(2, kernel_initializer="zeros", name="output")
    network = keras.Model(image, output(x), name="tiny")
    output.bias.assign([math.log(3.0), 0.0])  # probabilities of 3/4 and 1/4
    seen = []

    def normalise(image):
        seen.append(image)
        return keras.ops.cast(image, "float32") / 255.0

    recipe = classifying(
        types.SimpleNamespace(image_size=2),
        network,
        keras.optimizers.SGD(0.1),
        normalise,
        lambda: keras.ops.convert_to_tensor(0.5),
        statistics_examples=7,
    )
    batch = {"image": np.full((4, 2, 2, 3), 51, np.uint8), "label": np.array([0, 0, 0, 1])}
    loss, extras = recipe.updates[0].loss(batch)
    expected = -(3 * math.log(0.75) + math.log(0.25)) / 4
    assert float(extras["cross_entropy"]) == pytest.approx(expected)
    assert float(extras["training_accuracy"]) == pytest.approx(0.75)
    assert float(loss) == pytest.approx(expected + 0.5)
    probability = keras.ops.convert_to_numpy(recipe.predict(batch)["probability"])
    np.testing.assert_allclose(probability, [[0.75, 0.25]] * 4, rtol=1e-6)
    assert len(seen) == 2 and list(recipe.networks) == ["tiny"]
    assert list(recipe.updates[0].optimizers) == ["tiny"] and recipe.statistics_examples == 7


def test_weight_decay_has_the_weights_times_the_decay_as_gradient() -> None:
    values = [keras.ops.convert_to_tensor([3.0, 1.0]), keras.ops.convert_to_tensor([[2.0]])]
    assert float(weight_decay(values, 0.1)) == pytest.approx(0.5 * 0.1 * 14.0)
