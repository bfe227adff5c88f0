"""Our grouped convolution gives what Keras's own gives, forward and backward, on both backends.

The file tests the Keras backend at hand; its last test runs the others elsewhere.
"""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops

from trainer.layers.grouped_convolution import (
    GroupedConv2D,
    block_diagonal,
)

# name -> (height, width, channels, filters), arguments of Conv2D
CASES = {
    "RegNetY 200MF, first block of a stage": ((9, 11, 56, 56), {"groups": 7, "strides": 2}),
    "RegNetY 200MF, later block": ((4, 4, 56, 56), {"groups": 7, "padding": "same"}),
    "RegNetY 800MF": ((7, 5, 64, 64), {"groups": 4, "strides": 2, "padding": "same"}),
    "one group": ((5, 5, 6, 4), {"groups": 1}),
    "as many groups as channels": ((5, 6, 12, 12), {"groups": 12}),
    "more filters than channels": ((5, 6, 6, 12), {"groups": 3, "padding": "same"}),
    "fewer filters than channels": ((6, 5, 12, 6), {"groups": 3}),
    "a prime number of groups": ((6, 6, 22, 11), {"groups": 11, "padding": "same"}),
    "1x1": ((3, 4, 24, 16), {"groups": 8, "kernel_size": 1}),
    "oblong": ((8, 9, 12, 12), {"groups": 3, "kernel_size": (3, 5), "strides": (1, 2)}),
    "even kernel": ((8, 9, 12, 12), {"groups": 3, "kernel_size": 2, "padding": "same"}),
    "dilated": ((9, 9, 12, 12), {"groups": 3, "dilation_rate": 2}),
}


def convolve_and_differentiate(convolve, inputs, kernel, compiled=False):
    """Outputs and the gradients of a weighted sum of them by inputs and kernel, as NumPy arrays.

    TensorFlow goes operation by operation unless it is to be compiled, with XLA.
    """

    def loss(inputs, kernel):
        outputs = convolve(inputs, kernel)
        weights = np.random.default_rng(1).standard_normal(outputs.shape).astype("float32")
        return ops.sum(outputs * weights), outputs

    if keras.backend.backend() == "jax":
        import jax

        # Compiled as one: operation by operation takes XLA minutes.
        differentiate = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))
        gradients, outputs = differentiate(inputs, kernel)
    else:
        import tensorflow as tf

        def differentiate(inputs, kernel):
            with tf.GradientTape() as tape:
                tape.watch([inputs, kernel])
                total, outputs = loss(inputs, kernel)
            return tape.gradient(total, [inputs, kernel]), outputs

        if compiled:
            differentiate = tf.function(differentiate, jit_compile=True, autograph=False)
        gradients, outputs = differentiate(tf.constant(inputs), tf.constant(kernel))
    return [np.asarray(x) for x in (outputs, *gradients)]


def inputs_and_kernel(layer, shape):
    random = np.random.default_rng(0)
    layer.build((None, *shape))
    inputs = random.standard_normal((2, *shape)).astype("float32")
    return inputs, random.standard_normal(layer.kernel.shape).astype("float32")


def assert_equal_but_for_rounding(ours, keras_own):
    for a, b in zip(ours, keras_own, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max())


@pytest.mark.parametrize("case", CASES)
def test_every_formulation_equals_keras(case):
    (*size, channels, filters), arguments = CASES[case]
    arguments = {"kernel_size": 3, "use_bias": False, **arguments}
    ours = GroupedConv2D(filters, **arguments)
    inputs, kernel = inputs_and_kernel(ours, (*size, channels))
    keras_own = keras.layers.Conv2D(filters, **arguments)
    expected = convolve_and_differentiate(keras_own.convolution_op, inputs, kernel, compiled=True)
    assert_equal_but_for_rounding(
        convolve_and_differentiate(ours.convolution_op, inputs, kernel), expected
    )
    rest = {name: getattr(ours, name) for name in ("strides", "padding", "dilation_rate")}
    for groups_per_block in (None, 1, 2, 3, 4, 64):

        def convolve(inputs, kernel, groups_per_block=groups_per_block):
            return block_diagonal(inputs, kernel, groups_per_block=groups_per_block, **rest)

        assert_equal_but_for_rounding(
            convolve_and_differentiate(convolve, inputs, kernel), expected
        )


def test_a_precision_without_gradient_in_the_backend_is_differentiated_all_the_same():
    single, double = (
        GroupedConv2D(16, 3, groups=4, strides=2, use_bias=False, dtype=dtype)
        for dtype in ("float32", "float64")
    )
    inputs, kernel = inputs_and_kernel(single, (7, 7, 16))
    assert_equal_but_for_rounding(
        convolve_and_differentiate(
            double.convolution_op, inputs.astype("float64"), kernel.astype("float64")
        ),
        convolve_and_differentiate(single.convolution_op, inputs, kernel),
    )


@pytest.mark.parametrize("groups_per_block", [1, 4, 46])
def test_groups_do_not_see_each_other(groups_per_block):
    inputs = np.zeros((1, 3, 3, 368), "float32")
    inputs[0, 1, 1, 8] = 1.0  # the first channel of the second group
    outputs = block_diagonal(
        inputs, np.ones((3, 3, 8, 368), "float32"), groups_per_block=groups_per_block
    )
    assert np.flatnonzero(outputs[0, 0, 0]).tolist() == list(range(8, 16))


def test_weights_interchange_with_keras():
    ours = GroupedConv2D(16, 3, groups=2, activation="relu", bias_initializer="normal", name="a")
    image = np.random.default_rng(0).standard_normal((2, 6, 6, 8)).astype("float32")
    outputs = np.asarray(ours(image))
    plain = ours.as_keras_layer()
    plain.build(image.shape)
    plain.set_weights(ours.get_weights())
    assert type(plain) is keras.layers.Conv2D
    assert plain.name == "a"
    np.testing.assert_allclose(np.asarray(plain(image)), outputs, rtol=1e-5, atol=1e-5)


def test_any_batch_and_picture_size():
    layer = GroupedConv2D(16, 3, groups=2)
    network = keras.Sequential([keras.Input((None, None, 16)), layer])
    assert network.output_shape == (None, None, None, 16)
    assert network(np.ones((3, 5, 7, 16), "float32")).shape == (3, 3, 5, 16)


@pytest.mark.parametrize(
    ("variable", "value", "selection"),
    [
        ("KERAS_BACKEND", "jax", "RegNetY or any_batch"),
        pytest.param("KERAS_BACKEND", "jax", "not elsewhere", marks=pytest.mark.slow),
        ("TF_ENABLE_ONEDNN_OPTS", "0", "not elsewhere"),  # here TensorFlow's own has no gradient
    ],
    ids=["jax", "jax-all", "without-onednn"],  # no word that the selections look for
)
def test_the_same_holds_elsewhere(variable, value, selection):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", selection]
    done = subprocess.run(
        [*command, __file__], env=os.environ | {variable: value}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-2000:]
