"""The loop over a model's players in plain JAX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

from tests.bench.train_plain import Player, Step

matmul, reshape = jnp.matmul, jnp.reshape
relu, sigmoid, tanh, softplus = jax.nn.relu, jax.nn.sigmoid, jnp.tanh, jax.nn.softplus
minimum, maximum, floor, sqrt, cosine = jnp.minimum, jnp.maximum, jnp.floor, jnp.sqrt, jnp.cos
mean, total, absolute = jnp.mean, jnp.sum, jnp.abs


def convolve(x: jax.Array, kernel: jax.Array, stride: int, padding: int, groups: int) -> jax.Array:
    """A convolution with as many zeros on each side as `padding` says."""
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        [(padding, padding)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def convolve_same(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """A convolution whose outputs are as many as inputs by the stride."""
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def convolve_valid(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A convolution of stride 1 without any padding."""
    return convolve(x, kernel, 1, 0, 1)


def convolve_depthwise(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """A convolution of each channel alone, with as many zeros on each side as keep the size.

    The kernel is [height, width, channels, 1].
    """
    return _depthwise(x, kernel, stride, [(kernel.shape[0] // 2,) * 2] * 2)


def convolve_depthwise_same(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """The same, with outputs as many as inputs by the stride."""
    return _depthwise(x, kernel, stride, "SAME")


def _depthwise(x: jax.Array, kernel: jax.Array, stride: int, padding: Any) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x,
        kernel.transpose(0, 1, 3, 2),
        (stride, stride),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


def pad(x: jax.Array, pixels: int) -> jax.Array:
    """Zeros around pictures."""
    return jnp.pad(x, ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0)))


def pool_mean(x: jax.Array, size: int) -> jax.Array:
    """Means of squares beside each other."""
    window = (1, size, size, 1)
    return jax.lax.reduce_window(x, 0.0, jax.lax.add, window, window, "VALID") / size**2


def pool_largest(x: jax.Array, size: int, stride: int) -> jax.Array:
    """The largest of each square; at stride 1 there are as many as pixels."""
    window, strides = (1, size, size, 1), (1, stride, stride, 1)
    padding = "SAME" if stride == 1 else "VALID"
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, strides, padding)


def enlarge(x: jax.Array) -> jax.Array:
    """Twice as high and wide, bilinear."""
    count, height, width, channels = x.shape
    return jax.image.resize(x, (count, 2 * height, 2 * width, channels), "bilinear")


def concatenate(parts: Sequence[jax.Array]) -> jax.Array:
    """Side by side along the last axis."""
    return jnp.concatenate(parts, -1)


def spread(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A transposed convolution of stride 2; the kernel is [height, width, filters, channels]."""
    return jax.lax.conv_transpose(
        x,
        kernel,
        (2, 2),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        transpose_kernel=True,
    )


def as_float(x: jax.Array) -> jax.Array:
    """In float32."""
    return x.astype(jnp.float32)


def normalise(
    x: jax.Array, scale: jax.Array, offset: jax.Array, epsilon: float
) -> tuple[jax.Array, ...]:
    """Batch normalisation; the outputs, and the mean and the variance of the batch."""
    axes = tuple(range(x.ndim - 1))
    measured, variance = x.mean(axes), x.var(axes)
    outputs = (x - measured) * (jax.lax.rsqrt(variance + epsilon) * scale) + offset
    return outputs, measured, variance


def largest(x: jax.Array) -> jax.Array:
    """The largest of the last axis."""
    return x.max(-1)


def flip(x: jax.Array) -> jax.Array:
    """The last axis the other way round."""
    return x[..., ::-1]


def cross_entropy(label: jax.Array, logit: jax.Array) -> jax.Array:
    """Of each example, in nats."""
    return -jnp.take_along_axis(jax.nn.log_softmax(logit), label[:, None], axis=-1)[:, 0]


def compile_step(
    players: Sequence[Player], values: Mapping[str, np.ndarray], operations: Any
) -> Step:
    """One step of every player as one program, which takes over the memory of what it replaces.

    Args:
        players: in their order.
        values: where the weights begin.
        operations: this module.
    """

    optimizers = [player.moved(values) for player in players]

    def take(state: Any, batch: Any) -> Any:
        weights, slots, number = state
        losses = []
        now = number.astype(jnp.float32)
        for index, (player, by) in enumerate(zip(players, optimizers, strict=True)):

            def loss_of(
                moving: Any, player: Player = player, weights: Any = weights, batch: Any = batch
            ) -> Any:
                return player.loss(operations, {**weights, **moving}, batch)

            moving = {name: weights[name] for name in by}
            (loss, found), gradients = jax.value_and_grad(loss_of, has_aux=True)(moving)
            if player.clip_norm is not None:
                norm = jnp.sqrt(sum(jnp.sum(g * g) for g in gradients.values()))
                scale = player.clip_norm / jnp.maximum(norm, player.clip_norm)
                gradients = {name: gradient * scale for name, gradient in gradients.items()}
            weights = {name: found.get(name, value) for name, value in weights.items()}
            batch = {**batch, **{n: value for n, value in found.items() if n not in weights}}
            kept = {}
            for name, gradient in gradients.items():
                weights[name], kept[name] = by[name].move(
                    operations, moving[name], gradient, slots[index][name], now
                )
            slots = [*slots[:index], kept, *slots[index + 1 :]]
            losses.append(loss)
        return (weights, slots, number + 1), losses

    compiled = jax.jit(take, donate_argnums=0)
    weights = {name: jnp.array(value) for name, value in values.items()}
    slots = [
        {
            name: tuple(jnp.zeros_like(weights[name]) for _ in range(optimizer.slots))
            for name, optimizer in of_player.items()
        }
        for of_player in optimizers
    ]
    state = [(weights, slots, jnp.zeros((), jnp.int32))]

    def step(batch: Mapping[str, Any]) -> list[Any]:
        state[0], losses = compiled(state[0], dict(batch))
        return losses

    return step
