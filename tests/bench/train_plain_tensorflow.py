"""The loop over a model's players in plain TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tests.bench.train_plain import ADAM_SECOND_DECAY, Adam, Momentum, Player, Step

matmul, reshape = tf.matmul, tf.reshape
relu, sigmoid, tanh, softplus = tf.nn.relu, tf.sigmoid, tf.tanh, tf.nn.softplus
minimum, maximum, floor, sqrt, cosine = tf.minimum, tf.maximum, tf.floor, tf.sqrt, tf.cos
mean, total, absolute = tf.reduce_mean, tf.reduce_sum, tf.abs


def convolve(x: tf.Tensor, kernel: tf.Tensor, stride: int, padding: int, groups: int) -> tf.Tensor:
    """A convolution with as many zeros on each side as `padding` says."""
    if stride == 1:
        return tf.nn.conv2d(x, kernel, 1, "SAME")
    if padding:
        x = tf.pad(x, [[0, 0], [padding, padding], [padding, padding], [0, 0]])
    return tf.nn.conv2d(x, kernel, stride, "VALID")


def convolve_same(x: tf.Tensor, kernel: tf.Tensor, stride: int) -> tf.Tensor:
    """A convolution whose outputs are as many as inputs by the stride."""
    return tf.nn.conv2d(x, kernel, stride, "SAME")


def convolve_valid(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """A convolution of stride 1 without any padding."""
    return tf.nn.conv2d(x, kernel, 1, "VALID")


def convolve_depthwise(x: tf.Tensor, kernel: tf.Tensor, stride: int) -> tf.Tensor:
    """A convolution of each channel alone, with as many zeros on each side as keep the size.

    The kernel is [height, width, channels, 1].
    """
    if stride == 1:
        return tf.nn.depthwise_conv2d(x, kernel, (1, 1, 1, 1), "SAME")
    x = pad(x, kernel.shape[0] // 2)
    return tf.nn.depthwise_conv2d(x, kernel, (1, stride, stride, 1), "VALID")


def convolve_depthwise_same(x: tf.Tensor, kernel: tf.Tensor, stride: int) -> tf.Tensor:
    """The same, with outputs as many as inputs by the stride."""
    return tf.nn.depthwise_conv2d(x, kernel, (1, stride, stride, 1), "SAME")


def pad(x: tf.Tensor, pixels: int) -> tf.Tensor:
    """Zeros around pictures."""
    return tf.pad(x, [[0, 0], [pixels, pixels], [pixels, pixels], [0, 0]])


def pool_mean(x: tf.Tensor, size: int) -> tf.Tensor:
    """Means of squares beside each other."""
    return tf.nn.avg_pool2d(x, size, size, "VALID")


def pool_largest(x: tf.Tensor, size: int, stride: int) -> tf.Tensor:
    """The largest of each square; at stride 1 there are as many as pixels."""
    return tf.nn.max_pool2d(x, size, stride, "SAME" if stride == 1 else "VALID")


def enlarge(x: tf.Tensor) -> tf.Tensor:
    """Twice as high and wide, bilinear."""
    return tf.image.resize(x, (2 * x.shape[1], 2 * x.shape[2]))


def concatenate(parts: Sequence[tf.Tensor]) -> tf.Tensor:
    """Side by side along the last axis."""
    return tf.concat(parts, -1)


def spread(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """A transposed convolution of stride 2; the kernel is [height, width, filters, channels]."""
    count, height, width, _ = x.shape
    shape = (count, 2 * height, 2 * width, kernel.shape[2])
    return tf.nn.conv2d_transpose(x, kernel, shape, 2, "SAME")


def as_float(x: tf.Tensor) -> tf.Tensor:
    """In float32."""
    return tf.cast(x, tf.float32)


def normalise(
    x: tf.Tensor, scale: tf.Tensor, offset: tf.Tensor, epsilon: float
) -> tuple[tf.Tensor, ...]:
    """Batch normalisation; the outputs, and the mean and the variance of the batch."""
    if len(x.shape) == 2:
        measured, variance = tf.nn.moments(x, 0)
        outputs = tf.nn.batch_normalization(x, measured, variance, offset, scale, epsilon)
        return outputs, measured, variance
    outputs, measured, unbiased, *_ = tf.raw_ops.FusedBatchNormV3(
        x=x, scale=scale, offset=offset, mean=[], variance=[], epsilon=epsilon, is_training=True
    )
    count = tf.cast(tf.size(x) / tf.size(measured), tf.float32)
    return outputs, measured, unbiased * (count - 1.0) / count


def largest(x: tf.Tensor) -> tf.Tensor:
    """The largest of the last axis."""
    return tf.reduce_max(x, -1)


def flip(x: tf.Tensor) -> tf.Tensor:
    """The last axis the other way round."""
    return tf.reverse(x, [-1])


def cross_entropy(label: tf.Tensor, logit: tf.Tensor) -> tf.Tensor:
    """Of each example, in nats."""
    return tf.nn.sparse_softmax_cross_entropy_with_logits(label, logit)


def compile_step(
    players: Sequence[Player], values: Mapping[str, np.ndarray], operations: Any, fused: bool
) -> Step:
    """One step of every player as one graph.

    Args:
        players: in their order.
        values: where the weights begin.
        operations: this module.
        fused: move weights by TensorFlow's own operations for it, which are not differentiable
            and not in its public API but for `raw_ops`.
    """
    variables = {name: tf.Variable(value) for name, value in values.items()}
    number = tf.Variable(0, dtype=tf.int64)
    optimizers = [player.moved(variables) for player in players]
    moved = [{name: variables[name] for name in of_player} for of_player in optimizers]
    slots = [
        {
            name: [tf.Variable(tf.zeros_like(variables[name])) for _ in range(optimizer.slots)]
            for name, optimizer in of_player.items()
        }
        for of_player in optimizers
    ]

    @tf.function(autograph=False)
    def step(batch: Mapping[str, tf.Tensor]) -> list[tf.Tensor]:
        losses = []
        batch = dict(batch)
        now = tf.cast(number, tf.float32)
        for player, by, of_player, of_slots in zip(players, optimizers, moved, slots, strict=True):
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(list(of_player.values()))
                weights = {name: tf.convert_to_tensor(v) for name, v in variables.items()}
                loss, found = player.loss(operations, weights, batch)
            gradients = tape.gradient(loss, of_player)
            if player.clip_norm is not None:
                norm = tf.linalg.global_norm(list(gradients.values()))
                scale = player.clip_norm / tf.maximum(norm, player.clip_norm)
                gradients = {name: gradient * scale for name, gradient in gradients.items()}
            for name, variable in of_player.items():
                gradient = gradients[name]
                if fused:
                    _move_fused(by[name], variable, gradient, of_slots[name], operations, now)
                    continue
                value, kept = by[name].move(
                    operations, weights[name], gradient, of_slots[name], now
                )
                variable.assign(value)
                for slot, new in zip(of_slots[name], kept, strict=True):
                    slot.assign(new)
            for name, value in found.items():
                if name in variables:
                    variables[name].assign(value)
                else:
                    batch[name] = value
            losses.append(loss)
        number.assign_add(1)
        return losses

    return step


def _move_fused(
    optimizer: Adam | Momentum,
    variable: tf.Variable,
    gradient: tf.Tensor,
    slots: list[tf.Variable],
    operations: Any,
    now: Any,
) -> None:
    rate = optimizer.rate(operations, now)
    if isinstance(optimizer, Adam):
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=slots[0].handle,
            v=slots[1].handle,
            beta1_power=optimizer.decay ** (now + 1.0),
            beta2_power=ADAM_SECOND_DECAY ** (now + 1.0),
            lr=rate,
            beta1=optimizer.decay,
            beta2=ADAM_SECOND_DECAY,
            epsilon=optimizer.epsilon,
            grad=gradient,
        )
    else:
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=variable.handle,
            accum=slots[0].handle,
            lr=rate,
            grad=gradient,
            momentum=optimizer.momentum,
            use_nesterov=optimizer.nesterov,
        )
