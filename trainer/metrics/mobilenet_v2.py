"""MobileNetV2 as torchvision trained it on ImageNet: fixed features of pictures."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import keras
import numpy as np
from keras import layers

from trainer.backbones.mobilenet_v2 import (
    BLOCKS,
    EPSILON,
    MEAN,
    STANDARD_DEVIATION,
    STEM_WIDTH,
    torchvision_weights,
)

IMAGE_SIZE = 96
"""Side to which pictures are brought before they are looked at, in pixels (ours: 28 to 64 pixels,
as generated ones have, blown up to ImageNet's 224 would cost five times as much)."""

FEATURES = 1280
"""Numbers per picture: the channels of the last convolution, averaged over the picture."""

_CHUNK = 64  # pictures at once: the activations of more do not stay in the caches of a processor


def features(images: np.ndarray) -> np.ndarray:
    """What the network sees in pictures, whatever backend and precision a model trains in.

    Args:
        images: [batch, height, width, 1 or 3] in [0, 1].

    Returns:
        float32 [batch, 1280].
    """
    images = np.asarray(images, np.float32)
    if images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise ValueError(f"Pictures must be [batch, height, width, 1 or 3]; got {images.shape}.")
    images = np.broadcast_to(images, (*images.shape[:-1], 3))
    network = _network()
    found = []
    for start in range(0, len(images), _CHUNK):
        chunk = images[start : start + _CHUNK]
        # One compiled shape serves all.
        padded = np.zeros((_CHUNK, *chunk.shape[1:]), np.float32)
        padded[: len(chunk)] = chunk
        found.append(np.asarray(network.predict_on_batch(padded))[: len(chunk)])
    return np.concatenate(found)


@functools.cache
def _network() -> keras.Model:
    network = build_mobilenet_v2(torchvision_weights(), IMAGE_SIZE)
    network.compile(jit_compile=False)  # XLA is slow at convolutions of single channels
    return network


def build_mobilenet_v2(
    weights: Mapping[str, np.ndarray], image_size: int | None = None, top: bool = False
) -> keras.Model:
    """The network with its batch normalisation folded into the convolutions.

    Args:
        weights: as `torchvision_weights` returns them.
        image_size: bring pictures to squares of this side first; None leaves them as they are.
        top: end in the 1000 logits of ImageNet's classes instead of the features.

    Returns:
        Maps RGB pictures [batch, height, width, 3] in [0, 1], float32, to [batch, 1280] or
        [batch, 1000].
    """
    image = keras.Input((None, None, 3), dtype="float32", name="image")
    x = image
    if image_size is not None:
        x = layers.Resizing(image_size, image_size, dtype="float32", name="resized")(x)
    x = layers.Rescaling(
        [1.0 / s for s in STANDARD_DEVIATION],
        [-m / s for m, s in zip(MEAN, STANDARD_DEVIATION, strict=True)],
        dtype="float32",
        name="standardised",
    )(x)
    convolve = functools.partial(_convolution, weights)
    x = convolve("features.0.0", "features.0.1", stride=2)(x)
    number, width = 1, STEM_WIDTH
    for expansion, channels, repetitions, first_stride in BLOCKS:
        for repetition in range(repetitions):
            stride = first_stride if repetition == 0 else 1
            before, name = x, f"features.{number}.conv"
            parts = 0
            if expansion > 1:
                x = convolve(f"{name}.0.0", f"{name}.0.1")(x)
                parts = 1
            x = convolve(f"{name}.{parts}.0", f"{name}.{parts}.1", stride=stride)(x)
            x = convolve(f"{name}.{parts + 1}", f"{name}.{parts + 2}", active=False)(x)
            if stride == 1 and width == channels:
                x = layers.Add(dtype="float32", name=f"{name}.sum".replace(".", "_"))([before, x])
            number, width = number + 1, channels
    x = convolve(f"features.{number}.0", f"features.{number}.1")(x)
    x = layers.GlobalAveragePooling2D(dtype="float32", name="features")(x)
    if top:
        values = [weights["classifier.1.weight"].T, weights["classifier.1.bias"]]
        x = _filled(layers.Dense(1000, dtype="float32", name="logit", **_ZEROS), values)(x)
    return keras.Model(image, x, name="mobilenet_v2")


# Initial weights that are never used need no random numbers, which would be missing elsewhere.
_ZEROS = {"kernel_initializer": "zeros"}


def _convolution(
    weights: Mapping[str, np.ndarray],
    convolution: str,
    normalisation: str,
    stride: int = 1,
    active: bool = True,
) -> Callable[[keras.KerasTensor], keras.KerasTensor]:
    """A convolution and the batch normalisation after it, as one; ReLU6 if it is `active`."""
    kernel = weights[f"{convolution}.weight"]  # [out, in per group, height, width]
    n = {k: weights[f"{normalisation}.{k}"].astype(np.float64) for k in _NORMALISATION}
    scale = n["weight"] / np.sqrt(n["running_var"] + EPSILON)
    bias = n["bias"] - n["running_mean"] * scale
    folded = kernel.astype(np.float64) * scale[:, None, None, None]
    name = convolution.replace(".", "_")
    arguments = {"strides": stride, "dtype": "float32", "name": name}

    def apply(x: keras.KerasTensor) -> keras.KerasTensor:
        size = kernel.shape[-1]
        if size == 3:
            x = layers.ZeroPadding2D(1, dtype="float32", name=f"{name}_padding")(x)
        layer: keras.Layer
        if kernel.shape[1] == 1:
            layer = layers.DepthwiseConv2D(size, depthwise_initializer="zeros", **arguments)
            values = [folded.transpose(2, 3, 0, 1), bias]
        else:
            layer = layers.Conv2D(len(kernel), size, **_ZEROS, **arguments)
            values = [folded.transpose(2, 3, 1, 0), bias]
        x = _filled(layer, values)(x)
        return layers.ReLU(6.0, dtype="float32", name=f"{name}_relu6")(x) if active else x

    return apply


_NORMALISATION = ("weight", "bias", "running_mean", "running_var")


def _filled(
    layer: keras.Layer, values: list[np.ndarray]
) -> Callable[[keras.KerasTensor], keras.KerasTensor]:
    def apply(x: keras.KerasTensor) -> keras.KerasTensor:
        outputs = layer(x)
        layer.set_weights(values)
        return outputs

    return apply
