"""Grouped convolution that is fast on a CPU, with the weights of `keras.layers.Conv2D`.

A grouped convolution cuts the channels into groups that do not see each other. TensorFlow on a CPU
differentiates it only where oneDNN does the work, so Keras compiles it with XLA, which is slow.
Here it is the backend's own where that is fast, and else the same sums as ordinary convolutions
over a few groups each, with zeros between the groups. The kernel keeps the layout of Keras, so
weights, checkpoints and exports do not depend on how it is computed.
"""

from __future__ import annotations

import keras
from keras import ops

from trainer import backend

# ours: how many channels an ordinary convolution should have to be worth its overhead. By
# `python -m tests.bench.grouped_shapes`, for RegNetY's shapes: with 16, JAX would be a quarter
# faster and have twice as many operations to compile; with 64, all are slower.
BLOCK_CHANNELS = 32


class GroupedConv2D(keras.layers.Conv2D):
    """A `keras.layers.Conv2D` in every respect but speed: same arguments, weights and results."""

    def convolution_op(self, inputs, kernel):
        """The convolution alone, without bias and activation."""
        if self.groups == 1 or self.data_format == "channels_first":
            return super().convolution_op(inputs, kernel)
        convolve = block_diagonal
        if backend.current().has_grouped_convolution(keras.backend.standardize_dtype(inputs.dtype)):
            convolve = backend.current().grouped_convolution
        return convolve(
            inputs,
            kernel,
            strides=self.strides,
            padding=self.padding,
            dilation_rate=self.dilation_rate,
        )

    def as_keras_layer(self) -> keras.layers.Conv2D:
        """A plain Keras layer of the same configuration, for files that open without this package.

        It has no weights yet; ours fit.
        """
        return keras.layers.Conv2D.from_config(self.get_config())


def block_diagonal(
    inputs,
    kernel,
    groups_per_block: int | None = None,
    *,
    strides: tuple[int, int] = (1, 1),
    padding: str = "valid",
    dilation_rate: tuple[int, int] = (1, 1),
):
    """Grouped convolution as ordinary convolutions over `groups_per_block` groups each.

    With 1 it is one convolution per group; with all groups, one dense convolution. The last block
    has the groups that are left over.

    Args:
        inputs: `[batch, height, width, channels]`.
        kernel: `[kernel height, kernel width, channels / groups, filters]`.
        groups_per_block: how many neighbouring groups share one convolution; by default as many as
            have `BLOCK_CHANNELS` channels together.
        strides: as in Keras.
        padding: "valid" or "same".
        dilation_rate: as in Keras.

    Returns:
        `[batch, new height, new width, filters]`.
    """
    group_channels, filters = kernel.shape[-2:]
    groups = inputs.shape[-1] // group_channels
    if groups_per_block is None:
        groups_per_block = max(BLOCK_CHANNELS // group_channels, 1)

    def convolve(part, part_kernel):
        return ops.conv(
            part,
            _with_zeros(part_kernel, part.shape[-1]),
            strides=strides,
            padding=padding,
            dilation_rate=dilation_rate,
            data_format="channels_last",
        )

    edges = range(groups_per_block, groups, groups_per_block)
    if not edges:
        return convolve(inputs, kernel)
    parts = ops.split(inputs, [edge * group_channels for edge in edges], axis=-1)
    kernels = ops.split(kernel, [edge * (filters // groups) for edge in edges], axis=-1)
    return ops.concatenate([convolve(*pair) for pair in zip(parts, kernels, strict=True)], axis=-1)


def _with_zeros(kernel, channels: int):
    """The `[height, width, channels, filters]` kernel that does the same without groups."""
    height, width, group_channels, filters = kernel.shape
    groups = channels // group_channels
    if groups == 1:
        return kernel
    own_group = ops.reshape(ops.eye(groups, dtype=kernel.dtype), (groups, 1, groups, 1))
    kernel = ops.reshape(kernel, (height, width, 1, group_channels, groups, filters // groups))
    return ops.reshape(kernel * own_group, (height, width, channels, filters))
