"""Our batch normalisation gives and remembers what Keras's own does, forward and backward."""

import keras
import numpy as np
import pytest
from keras import ops

from trainer.layers.batch_normalization import BatchNormalization

SHAPE = (4, 5, 6, 8)
CASES = {
    "as RegNetY has it": {"momentum": 0.9, "epsilon": 1e-5},
    "Keras's defaults": {},
    "without scale": {"scale": False},
    "without centre": {"center": False},
    "channels first": {"axis": 1},
    "frozen": {"trainable": False},
    "double precision": {"dtype": "float64"},
    "renormalised": {"renorm": True},
}


def build(kind, **arguments):
    layer = kind(name="normalisation", **arguments)
    layer.build(SHAPE)
    random = np.random.default_rng(1)
    layer.set_weights([random.uniform(0.5, 1.5, v.shape) for v in layer.weights])
    return layer


def normalise_and_differentiate(layer, inputs, training):
    """Outputs, gradients of a weighted sum of them by inputs and weights, and the weights after."""
    weights = np.random.default_rng(2).standard_normal(inputs.shape)

    def loss(inputs):
        outputs = layer(inputs, training=training)
        return ops.sum(outputs * ops.cast(weights, outputs.dtype)), outputs

    import tensorflow as tf

    inputs = tf.constant(inputs)
    trainable = [v.value for v in layer.trainable_variables]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        total, outputs = loss(inputs)
    gradients = tape.gradient(total, [inputs, *trainable])
    return [np.asarray(x) for x in (outputs, *gradients, *layer.weights)]


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="on JAX it is Keras's own")
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_it_equals_keras(case, training):
    arguments = CASES[case]
    inputs = np.random.default_rng(0).normal(3.0, 2.0, SHAPE)
    inputs = inputs.astype(arguments.get("dtype", "float32"))
    ours, keras_own = (
        normalise_and_differentiate(build(kind, **arguments), inputs, training)
        for kind in (BatchNormalization, keras.layers.BatchNormalization)
    )
    for a, b in zip(ours, keras_own, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(b).max())


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="on JAX it is Keras's own")
@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_it_equals_keras_in_half_precision(precision):
    inputs = np.random.default_rng(0).normal(3.0, 2.0, SHAPE)
    inputs = inputs.astype(keras.ops.convert_to_numpy(ops.zeros(1, precision)).dtype)
    ours, keras_own = (
        normalise_and_differentiate(build(kind, dtype=f"mixed_{precision}"), inputs, True)
        for kind in (BatchNormalization, keras.layers.BatchNormalization)
    )
    assert [a.dtype for a in ours] == [b.dtype for b in keras_own]
    for a, b in zip(ours, keras_own, strict=True):
        a, b = a.astype("float32"), b.astype("float32")
        np.testing.assert_allclose(a, b, rtol=0.02, atol=0.02 * np.abs(b).max())


def test_what_it_remembers_by_hand():
    layer = BatchNormalization(momentum=0.75)
    image = np.array([1.0, 3.0, 5.0, 7.0], "float32").reshape(2, 2, 1, 1)
    layer(image, training=True)
    assert float(layer.moving_mean[0]) == pytest.approx(0.25 * 4.0)
    assert float(layer.moving_variance[0]) == pytest.approx(0.75 * 1.0 + 0.25 * 5.0)


def test_weights_interchange_with_keras():
    ours = build(BatchNormalization, epsilon=1e-5)
    plain = ours.as_keras_layer()
    plain.build(SHAPE)
    plain.set_weights(ours.get_weights())
    assert type(plain) is keras.layers.BatchNormalization
    image = np.random.default_rng(0).standard_normal(SHAPE).astype("float32")
    np.testing.assert_allclose(np.asarray(plain(image)), np.asarray(ours(image)), rtol=1e-6)
