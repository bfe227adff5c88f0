import keras
import numpy as np
import pytest
from keras import ops

from trainer.layers.up_sampling import BilinearUpSampling2D


@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (1, 1, 1, 2), (1, 2, 1, 1)])
def test_it_is_keras_layer(shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    layer = BilinearUpSampling2D(name="enlarged")
    found = ops.convert_to_numpy(layer(x))
    wanted = ops.convert_to_numpy(layer.as_keras_layer()(x))
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert layer.as_keras_layer().name == "enlarged"
    image = keras.Input(shape[1:])
    assert layer(image).shape == (None, *wanted.shape[1:])


def test_a_row_by_hand_keeps_all_digits_of_a_double() -> None:
    x = np.array([1.0, 1.0 + 2.0**-40, 5.0]).reshape(1, 1, 3, 1)
    found = ops.convert_to_numpy(BilinearUpSampling2D(dtype="float64")(x))
    small = 2.0**-40
    wanted = [1, 1 + small / 4, 1 + 0.75 * small, 2 + 0.75 * small, 4 + 0.25 * small, 5]
    assert found.shape == (1, 2, 6, 1)
    np.testing.assert_array_equal(found[0, 0, :, 0], wanted)


def test_a_new_layer_of_its_configuration_is_the_same() -> None:
    layer = BilinearUpSampling2D(name="enlarged")
    again = BilinearUpSampling2D.from_config(layer.get_config())
    assert again.name == "enlarged" and again.size == (2, 2)
