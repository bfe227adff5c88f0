import keras
import numpy as np
import pytest
from keras import ops

from trainer import backend
from trainer.losses.by_hand import by_hand
from trainer.recipe import Recipe, Update


def squares(moving, others):
    """The loss w² x + b² and its gradients, and the sum of all numbers."""
    (w, b), (x,) = moving, others
    loss = (w**2 * x).sum() + (b**2).sum()
    return [loss, w.sum() + b.sum() + x.sum()], [2 * w * x, 2 * b]


class Weights(keras.layers.Layer):
    def build(self, shape) -> None:
        self.w = self.add_weight((2,), initializer="ones", name="w")
        self.b = self.add_weight((1,), initializer="ones", name="b")

    def call(self, x):
        return x * self.w + self.b


def test_a_step_descends_along_the_gradients_that_are_given() -> None:
    given = keras.Input((2,))
    layer = Weights(name="weights")
    network = keras.Model(given, layer(given), name="network")
    layer.w.assign([1.0, 2.0])
    layer.b.assign([3.0])

    def loss(batch):
        # Four times the loss has four times the gradients.
        numbers = by_hand(squares, [layer.w, layer.b], [batch["x"]], numbers=2)
        return 4.0 * numbers[0], {"sum": numbers[1]}

    recipe = Recipe(
        networks={"network": network},
        updates=[Update(loss, {"network": keras.optimizers.SGD(0.1)})],
        predict=lambda batch: {},
        signatures={},
    )
    step = backend.current().TrainStep(recipe)
    logs = step(0, {"x": np.array([5.0, 7.0], np.float32)})
    assert float(logs["loss"]) == pytest.approx(4 * (5 + 28 + 9))
    assert float(logs["sum"]) == pytest.approx(18)
    step.write()
    w, b = ops.convert_to_numpy(layer.w), ops.convert_to_numpy(layer.b)
    np.testing.assert_allclose(w, [1 - 0.4 * 10, 2 - 0.4 * 28], rtol=1e-6)
    np.testing.assert_allclose(b, [3 - 0.4 * 6], rtol=1e-6)
