"""Against a second implementation, in plain NumPy and from torchvision's definition.

On the 20 pictures of ImageNet in the source package of foolbox 3.3.4, brought to 224 x 224, the
network finds the class of 18 and has that of all 20 among its first five.
"""

from __future__ import annotations

from collections.abc import Iterator

import keras
import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from trainer.backbones.mobilenet_v2 import torchvision_weights
from trainer.metrics import mobilenet_v2
from trainer.metrics.mobilenet_v2 import build_mobilenet_v2, features

Weights = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def weights() -> Weights:
    return torchvision_weights()


def convolution(x: np.ndarray, kernel: np.ndarray, stride: int) -> np.ndarray:
    """PyTorch's Conv2d without bias: [channels, height, width], padded alike on all four sides."""
    _, per_group, size, _ = kernel.shape
    padding = (size - 1) // 2
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
    windows = sliding_window_view(x, (size, size), axis=(1, 2))[:, ::stride, ::stride]
    if per_group == 1:
        return np.einsum("chwij,cij->chw", windows, kernel[:, 0], optimize=True)
    return np.einsum("chwij,ocij->ohw", windows, kernel, optimize=True)


def block(weights: Weights, x: np.ndarray, conv: str, norm: str, stride: int = 1) -> np.ndarray:
    """Convolution and batch normalisation, which adds 1e-5 to the variance."""
    x = convolution(x, weights[f"{conv}.weight"].astype(np.float64), stride)
    gain = weights[f"{norm}.weight"] / np.sqrt(weights[f"{norm}.running_var"] + 1e-5)
    x = (x - weights[f"{norm}.running_mean"][:, None, None]) * gain[:, None, None]
    return x + weights[f"{norm}.bias"][:, None, None]


def relu6(x: np.ndarray) -> np.ndarray:
    return np.clip(x, 0, 6)


def reference(weights: Weights, image: np.ndarray) -> np.ndarray:
    """The pooled features of one picture [height, width, 3] in [0, 1]."""
    x = (image - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    x = relu6(block(weights, x.transpose(2, 0, 1), "features.0.0", "features.0.1", 2))
    strides = [1, 2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1]
    for number, stride in enumerate(strides, start=1):
        before, name = x, f"features.{number}.conv"
        depthwise = 0
        if f"{name}.1.0.weight" in weights:
            x = relu6(block(weights, x, f"{name}.0.0", f"{name}.0.1"))
            depthwise = 1
        x = relu6(block(weights, x, f"{name}.{depthwise}.0", f"{name}.{depthwise}.1", stride))
        x = block(weights, x, f"{name}.{depthwise + 1}", f"{name}.{depthwise + 2}")
        if x.shape == before.shape:
            x = x + before
    return relu6(block(weights, x, "features.18.0", "features.18.1")).mean(axis=(1, 2))


def test_features_are_those_of_torchvisions_network(weights: Weights) -> None:
    image = np.random.default_rng(0).uniform(size=(1, 48, 64, 3)).astype(np.float32)
    got = build_mobilenet_v2(weights).predict_on_batch(image)
    wanted = reference(weights, image[0].astype(np.float64))
    assert got.shape == (1, 1280) and wanted.std() > 0.1
    np.testing.assert_allclose(got[0], wanted, atol=1e-4 * wanted.max())


def test_it_has_torchvisions_parameters(weights: Weights) -> None:
    # 3,504,872 with two numbers per normalised channel, of which folding leaves one.
    channels = sum(len(v) for k, v in weights.items() if k.endswith("running_mean"))
    assert build_mobilenet_v2(weights, top=True).count_params() == 3_504_872 - channels


def test_pictures_are_brought_to_one_size_and_grey_ones_to_three_channels(weights: Weights) -> None:
    grey = np.random.default_rng(1).uniform(size=(3, 28, 28, 1)).astype(np.float32)
    large = keras.ops.image.resize(np.repeat(grey, 3, axis=-1), (96, 96))
    wanted = build_mobilenet_v2(weights).predict_on_batch(np.asarray(large))
    np.testing.assert_allclose(features(grey), wanted, atol=1e-4 * wanted.max())


def test_the_number_of_pictures_at_once_does_not_matter() -> None:
    image = np.random.default_rng(2).uniform(size=(70, 28, 28, 1))
    one_by_one = np.concatenate([features(image[i : i + 1]) for i in (0, 69)])
    np.testing.assert_allclose(features(image)[[0, 69]], one_by_one, rtol=1e-4, atol=1e-5)


@pytest.fixture
def mixed_precision() -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    mobilenet_v2._network.cache_clear()
    yield
    keras.config.set_dtype_policy(before)
    mobilenet_v2._network.cache_clear()


def test_features_do_not_depend_on_the_precision_of_a_training(
    weights: Weights, mixed_precision: None
) -> None:
    image = np.random.default_rng(3).uniform(size=(1, 96, 96, 3)).astype(np.float32)
    got, wanted = features(image)[0], reference(weights, image[0].astype(np.float64))
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, wanted, atol=1e-4 * wanted.max())


def test_building_it_leaves_keras_random_numbers_as_they_are(weights: Weights) -> None:
    drawn = []
    for build in (False, True):
        keras.utils.set_random_seed(0)
        if build:
            build_mobilenet_v2(weights)
        drawn.append(np.asarray(keras.random.normal((3,))))
    np.testing.assert_array_equal(*drawn)


def test_pictures_of_another_form_are_refused() -> None:
    with pytest.raises(ValueError, match="1 or 3"):
        features(np.zeros((2, 28, 28, 2)))
