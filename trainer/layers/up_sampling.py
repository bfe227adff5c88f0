"""Pictures twice as large, in the precision that they come in."""

from __future__ import annotations

import keras
from keras import ops


class BilinearUpSampling2D(keras.layers.UpSampling2D):
    """A `keras.layers.UpSampling2D(2, interpolation="bilinear")` that keeps all digits.

    TensorFlow enlarges in float32 whatever it is given. Here it is sums of neighbours: a new pixel
    lies a quarter of a pixel beside an old one, and has three quarters of it.
    """

    def __init__(self, **arguments):
        super().__init__(2, interpolation="bilinear", **arguments)

    def call(self, inputs):
        """Maps [batch, height, width, channels] to [batch, 2 height, 2 width, channels]."""
        return _twice(_twice(inputs, 1), 2)

    def get_config(self):
        """The arguments, for Keras."""
        config = super().get_config()
        return {name: config[name] for name in ("name", "trainable", "dtype")}

    def as_keras_layer(self) -> keras.layers.UpSampling2D:
        """A plain Keras layer of the same configuration, for files that open without this package.

        It has no weights.
        """
        return keras.layers.UpSampling2D(2, interpolation="bilinear", **self.get_config())


def _twice(x, axis: int):
    count = x.shape[axis]
    first, last = ops.split(x, [1], axis), ops.split(x, [count - 1], axis)
    # Beyond the border lies what lies at it.
    before = ops.concatenate([first[0], last[0]], axis)
    after = ops.concatenate([first[1], last[1]], axis)
    pair = ops.stack([0.25 * before + 0.75 * x, 0.75 * x + 0.25 * after], axis + 1)
    shape = list(ops.shape(x))
    shape[axis] = 2 * count
    return ops.reshape(pair, shape)
