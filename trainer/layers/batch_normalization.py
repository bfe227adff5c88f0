"""Batch normalisation in one pass where the backend has it, with the weights of Keras's own."""

from __future__ import annotations

import keras

from trainer import backend

FUSED = ("float32", "float16", "bfloat16")
"""What the one operation takes; its statistics are float32 whichever it is."""

TORCH_NAMES = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}
"""What its weights are called in PyTorch -> and here."""


class BatchNormalization(keras.layers.BatchNormalization):
    """A `keras.layers.BatchNormalization` in every respect but speed: same arguments and weights.

    Keras writes it as a dozen operations, each of which reads all pictures again on a CPU. While it
    trains on pictures, channels last, this layer is one operation. Where several devices share a
    batch, the statistics are always those of the whole of it.
    """

    def call(self, inputs, training=None, mask=None):
        """Normalises by the batch in training, by the moving statistics otherwise."""
        normalise = backend.current().fused_batch_normalization
        dtype = keras.backend.standardize_dtype(inputs.dtype)
        fused = (
            *(normalise is not None, training, self.trainable, mask is None),
            *(self.scale, self.center, not self.renorm),
            *(len(inputs.shape) == 4, self.axis in (-1, 3)),
            *(dtype in FUSED, dtype == self.compute_dtype, self.variable_dtype == "float32"),
        )
        if not all(fused):
            return super().call(inputs, training=training, mask=mask)
        outputs, mean, variance = normalise(inputs, self.gamma, self.beta, self.epsilon)
        kept, new = self.momentum, 1.0 - self.momentum
        self.moving_mean.assign(self.moving_mean * kept + mean * new)
        self.moving_variance.assign(self.moving_variance * kept + variance * new)
        return outputs

    def as_keras_layer(self) -> keras.layers.BatchNormalization:
        """A plain Keras layer of the same configuration, for files that open without this package.

        It has no weights yet; ours fit.
        """
        return keras.layers.BatchNormalization.from_config(self.get_config())
