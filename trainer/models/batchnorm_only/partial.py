"""Convolutions of which only some weights are trained."""

import keras
import numpy as np
from keras import ops


class PartlyTrainedConv2D(keras.layers.Conv2D):
    """A convolution that trains a few weights of each filter, drawn once; the others stay.

    Its kernel is a whole one, with the layout of Keras's own layer; gradients of weights that were
    not drawn are 0.

    Args:
        trained: weights of each filter that are trained.
        seed: decides which.
    """

    def __init__(self, *arguments, trained: int, seed: int, **more):
        super().__init__(*arguments, **more)
        self.trained = trained
        self.seed = seed

    def build(self, input_shape):
        """Draws the weights that are trained."""
        super().build(input_shape)
        *_, filters = shape = tuple(self.kernel.shape)
        weights = int(np.prod(shape[:-1]))
        if weights < self.trained:
            raise ValueError(
                f"A filter must have at least {self.trained} weights; those of {self.name} have "
                f"{weights}."
            )
        random = np.random.default_rng(self.seed)
        drawn = random.permuted(np.tile(np.arange(weights), (filters, 1)), axis=1) < self.trained
        self._drawn = drawn.T.reshape(shape)

    def trained_weights(self):
        """The kernel with 0 for every weight that is not trained."""
        return ops.where(self._drawn, self.kernel, 0.0)

    def convolution_op(self, inputs, kernel):
        """The convolution alone; the weights that were not drawn get no gradient."""
        kernel = ops.where(self._drawn, kernel, ops.stop_gradient(kernel))
        return super().convolution_op(inputs, kernel)

    def get_config(self):
        """The arguments, for Keras."""
        return {**super().get_config(), "trained": self.trained, "seed": self.seed}

    def as_keras_layer(self) -> keras.layers.Conv2D:
        """A plain Keras layer of the same configuration, for files that open without this package.

        It has no weights yet; ours fit.
        """
        config = self.get_config()
        del config["trained"], config["seed"]
        return keras.layers.Conv2D.from_config(config)
