"""Training loops written by hand: the models of `make bench-train`, without Keras and our engine.

A model is its players, functions of weights and a batch in terms of a few operations; TensorFlow
and JAX each have their own operations, and their own compiled loop over the players.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Values = dict[str, Any]
"""Name, as in our checkpoints -> a variable's value."""

Batch = Mapping[str, Any]
Step = Callable[[Batch], list[Any]]
"""Takes every player's turn on a batch; returns their losses, which need not be ready."""

ADAM_SECOND_DECAY = 0.999  # Keras's


Operations = Any
"""TensorFlow's or JAX's own functions by common names, see `tests.bench.train_plain_tensorflow`."""

Loss = Callable[[Operations, Values, Batch], tuple[Any, Values]]
"""Maps operations, weights and a batch to a loss and the new values of moving statistics."""


@dataclasses.dataclass(frozen=True)
class Adam:
    """Kingma and Ba 2014, in the form at the end of their section 2."""

    rate: Callable[[Operations, Any], Any]
    decay: float = 0.9
    epsilon: float = 1e-7

    slots = 2

    def move(self, operations: Any, value: Any, gradient: Any, slots: Any, step: Any) -> Any:
        """The new value and the new slots, for a step counted from 0."""
        first, second = slots
        number = step + 1.0
        correction = operations.sqrt(1.0 - ADAM_SECOND_DECAY**number) / (1.0 - self.decay**number)
        first = self.decay * first + (1.0 - self.decay) * gradient
        second = ADAM_SECOND_DECAY * second + (1.0 - ADAM_SECOND_DECAY) * gradient * gradient
        rate = self.rate(operations, step) * correction
        moved = value - rate * first / (operations.sqrt(second) + self.epsilon)
        return moved, (first, second)


@dataclasses.dataclass(frozen=True)
class Nesterov:
    """Gradient descent with Nesterov's momentum, as Keras has it."""

    rate: Callable[[Operations, Any], Any]
    momentum: float

    slots = 1

    def move(self, operations: Any, value: Any, gradient: Any, slots: Any, step: Any) -> Any:
        """The new value and the new slots, for a step counted from 0."""
        (velocity,) = slots
        push = self.rate(operations, step) * gradient
        velocity = self.momentum * velocity - push
        return value + self.momentum * velocity - push, (velocity,)


@dataclasses.dataclass(frozen=True)
class Player:
    """One of those who take turns at a batch.

    Attributes:
        loss: what it lowers.
        moves: how the names of the weights begin that it moves.
        optimizer: how.
    """

    loss: Loss
    moves: str
    optimizer: Adam | Nesterov


def autoencoder(config: Any) -> list[Player]:
    """The autoencoder of Hinton and Salakhutdinov."""
    layers = [
        *(f"encoder_{i}" for i in range(len(config.widths))),
        "code",
        *(f"decoder_{i}" for i in range(len(config.widths))),
        "redraw",
    ]

    def loss(operations: Operations, weights: Values, batch: Batch) -> tuple[Any, Values]:
        image = operations.reshape(batch["image"], (-1, config.image_size**2))
        x = image
        for name in layers:
            x = operations.matmul(x, weights[f"autoencoder/{name}/kernel"])
            x = x + weights[f"autoencoder/{name}/bias"]
            if name not in ("code", "redraw"):
                x = operations.relu(x)
        return operations.mean(operations.softplus(x) - x * image), {}

    steps = config.epochs * max(config.train_examples // config.batch_size, 1)

    def rate(operations: Operations, step: Any) -> Any:
        return 0.5 * config.learning_rate * (1.0 + operations.cosine(math.pi * step / steps))

    return [Player(loss, "autoencoder/", Adam(rate))]


def regnety(config: Any) -> list[Player]:
    """RegNetY by the recipe of pycls."""
    from trainer.models.regnety.config import stages
    from trainer.models.regnety.recipe import EPSILON, MEAN, MOMENTUM, STANDARD_DEVIATION

    mean, deviation = (np.array(v, np.float32) for v in (MEAN, STANDARD_DEVIATION))

    def loss(operations: Operations, weights: Values, batch: Batch) -> tuple[Any, Values]:
        measured: Values = {}

        def weight(name: str) -> Any:
            return weights[f"regnety/{name}"]

        def normalised(x: Any, name: str) -> Any:
            scale, offset = weight(f"{name}/gamma"), weight(f"{name}/beta")
            x, *new = operations.normalise(x, scale, offset, EPSILON)
            measured.update(moved_statistics(f"regnety/{name}", weights, measured, new, MOMENTUM))
            return x

        def convolved(x: Any, name: str, stride: int, groups: int = 1) -> Any:
            kernel = weight(f"{name}/kernel")
            return operations.convolve(x, kernel, stride, kernel.shape[0] // 2, groups)

        def dense(x: Any, name: str) -> Any:
            return operations.matmul(x, weight(f"{name}/kernel")) + weight(f"{name}/bias")

        def block(x: Any, name: str, stride: int, group_width: int) -> Any:
            shortcut = x
            if f"regnety/{name}_proj/kernel" in weights:
                shortcut = normalised(convolved(x, f"{name}_proj", stride), f"{name}_bn")
            x = operations.relu(normalised(convolved(x, f"{name}_f_a", 1), f"{name}_f_a_bn"))
            x = convolved(x, f"{name}_f_b", stride, x.shape[-1] // group_width)
            x = operations.relu(normalised(x, f"{name}_f_b_bn"))
            scale = operations.mean(x, (1, 2))
            scale = operations.relu(dense(scale, f"{name}_f_se_f_ex_0"))
            scale = operations.sigmoid(dense(scale, f"{name}_f_se_f_ex_2"))
            x = x * operations.reshape(scale, (-1, 1, 1, x.shape[-1]))
            x = normalised(convolved(x, f"{name}_f_c", 1), f"{name}_f_c_bn")
            return operations.relu(shortcut + x)

        x = operations.flip((batch["image"] / 255.0 - mean) / deviation)
        x = operations.relu(normalised(convolved(x, "stem_conv", 2), "stem_bn"))
        for i, stage in enumerate(stages(config.variant), start=1):
            for j in range(1, stage.depth + 1):
                x = block(x, f"s{i}_b{j}", 2 if j == 1 else 1, stage.group_width)
        logit = dense(operations.mean(x, (1, 2)), "head_fc")
        error = operations.mean(operations.cross_entropy(batch["label"], logit))
        trained = [value for name, value in weights.items() if "/moving_" not in name]
        squares = sum(operations.total(value * value) for value in trained)
        return error + 0.5 * config.weight_decay * squares, measured

    peak = config.learning_rate * config.batch_size / 1024
    steps = max(config.train_examples // config.batch_size, 1)

    def rate(operations: Operations, step: Any) -> Any:
        epoch = operations.floor(step / steps)
        warm = 0.1 + 0.9 * operations.minimum(epoch / config.warmup_epochs, 1.0)
        progress = operations.minimum(epoch / config.epochs, 1.0)
        return 0.5 * peak * (1.0 + operations.cosine(math.pi * progress)) * warm

    return [Player(loss, "regnety/", Nesterov(rate, config.momentum))]


def dcgan(config: Any) -> list[Player]:
    """DCGAN's two players, and the judge where there are classes."""
    from trainer.models.dcgan.recipe import EPSILON, MOMENTUM, SLOPE

    def normalised(
        operations: Operations, weights: Values, x: Any, name: str, measured: Values
    ) -> Any:
        scale, offset = (weights[f"{name}_bn/{kind}"] for kind in ("gamma", "beta"))
        x, *new = operations.normalise(x, scale, offset, EPSILON)
        measured |= moved_statistics(f"{name}_bn", weights, measured, new, MOMENTUM)
        return x

    def drawn(operations: Operations, weights: Values, noise: Any, measured: Values) -> Any:
        first = config.sides[0]
        x = operations.matmul(noise, weights["generator/project/kernel"])
        x = operations.reshape(x, (-1, first, first, config.widths[0]))
        for side in config.sides:
            if side != first:
                x = operations.spread(x, weights[f"generator/up_{side}/kernel"])
            name = f"generator/side_{side}"
            x = operations.relu(normalised(operations, weights, x, name, measured))
        x = operations.spread(x, weights["generator/draw/kernel"])
        return operations.tanh(x + weights["generator/draw/bias"])

    def discriminated(operations: Operations, weights: Values, x: Any, measured: Values) -> Any:
        for side in reversed(config.sides):
            name = f"discriminator/down_{side}"
            x = operations.convolve_same(x, weights[f"{name}/kernel"], 2)
            if f"{name}/bias" in weights:
                x = x + weights[f"{name}/bias"]
            else:
                x = normalised(operations, weights, x, f"discriminator/side_{side}", measured)
            x = operations.maximum(x, SLOPE * x)
        x = operations.reshape(x, (-1, math.prod(x.shape[1:])))
        kernel, bias = (weights[f"discriminator/logit/{name}"] for name in ("kernel", "bias"))
        return operations.matmul(x, kernel) + bias

    def discriminator_loss(
        operations: Operations, weights: Values, batch: Batch
    ) -> tuple[Any, Values]:
        measured: Values = {}
        image = operations.as_float(batch["image"]) / 127.5 - 1.0
        real = discriminated(operations, weights, image, measured)
        image = drawn(operations, weights, batch["noise"], measured)
        generated = discriminated(operations, weights, image, measured)
        error = operations.mean(operations.softplus(-real))
        return error + operations.mean(operations.softplus(generated)), measured

    def generator_loss(operations: Operations, weights: Values, batch: Batch) -> tuple[Any, Values]:
        measured: Values = {}
        image = drawn(operations, weights, batch["generator_noise"], measured)
        logit = discriminated(operations, weights, image, measured)
        return operations.mean(operations.softplus(-logit)), measured

    return adversaries(config, discriminator_loss, generator_loss)


def gan(config: Any) -> list[Player]:
    """The first GAN's two players, and the judge where there are classes."""
    from trainer.models.gan.recipe import EPSILON, MOMENTUM, SLOPE

    pixels, units = config.image_size**2, config.maxout_units

    def factors(operations: Operations, noise: Any, share: float) -> Any:
        kept = noise < statistics.NormalDist().inv_cdf(share)
        return operations.as_float(kept) / share

    def drawn(operations: Operations, weights: Values, noise: Any, measured: Values) -> Any:
        x = noise
        for number in range(len(config.widths)):
            name = f"generator/hidden_{number}"
            x = operations.matmul(x, weights[f"{name}/kernel"])
            x, *new = operations.normalise(
                x, weights[f"{name}_bn/gamma"], weights[f"{name}_bn/beta"], EPSILON
            )
            measured |= moved_statistics(f"{name}_bn", weights, measured, new, MOMENTUM)
            x = operations.maximum(x, SLOPE * x)
        x = operations.matmul(x, weights["generator/draw/kernel"])
        return operations.sigmoid(x + weights["generator/draw/bias"])

    def discriminated(operations: Operations, weights: Values, x: Any, noise: Any) -> Any:
        x = x * factors(operations, noise[:, :pixels], config.kept_pixels)
        for number in range(2):
            name = f"discriminator/maxout_{number}"
            x = operations.matmul(x, weights[f"{name}/kernel"]) + weights[f"{name}/bias"]
            x = operations.largest(operations.reshape(x, (-1, units, config.maxout_pieces)))
            part = noise[:, pixels + number * units : pixels + (number + 1) * units]
            x = x * factors(operations, part, config.kept_units)
        kernel, bias = (weights[f"discriminator/logit/{name}"] for name in ("kernel", "bias"))
        return operations.matmul(x, kernel) + bias

    def discriminator_loss(
        operations: Operations, weights: Values, batch: Batch
    ) -> tuple[Any, Values]:
        measured: Values = {}
        image = operations.reshape(operations.as_float(batch["image"]) / 255.0, (-1, pixels))
        real = discriminated(operations, weights, image, batch["real_dropout"])
        image = drawn(operations, weights, batch["noise"], measured)
        generated = discriminated(operations, weights, image, batch["generated_dropout"])
        error = operations.mean(operations.softplus(-real))
        return error + operations.mean(operations.softplus(generated)), measured

    def generator_loss(operations: Operations, weights: Values, batch: Batch) -> tuple[Any, Values]:
        measured: Values = {}
        image = drawn(operations, weights, batch["generator_noise"], measured)
        logit = discriminated(operations, weights, image, batch["generator_dropout"])
        return operations.mean(operations.softplus(-logit)), measured

    return adversaries(config, discriminator_loss, generator_loss)


def adversaries(config: Any, discriminator_loss: Loss, generator_loss: Loss) -> list[Player]:
    """Who discriminates and who draws, and the judge where there are classes."""

    def adam(rate: float) -> Adam:
        return Adam(lambda *_: rate, config.momentum, 1e-8)

    return [
        Player(discriminator_loss, "discriminator/", adam(config.discriminator_learning_rate)),
        Player(generator_loss, "generator/", adam(config.learning_rate)),
        *([judge()] if config.num_classes else []),
    ]


def judge() -> Player:
    """Who learns the classes of real pictures beside the players."""
    from trainer.metrics.class_coverage import SMALLEST_MAP, WIDTHS

    def judge_loss(operations: Operations, weights: Values, batch: Batch) -> tuple[Any, Values]:
        x = operations.as_float(batch["image"]) / 127.5 - 1.0
        for number in range(len(WIDTHS)):
            halve = min(x.shape[1:3]) >= 2 * SMALLEST_MAP - 1
            name = f"judge/convolution_{number}"
            x = operations.convolve_same(x, weights[f"{name}/kernel"], 2 if halve else 1)
            x = operations.relu(x + weights[f"{name}/bias"])
        x = operations.reshape(x, (-1, math.prod(x.shape[1:])))
        logit = operations.matmul(x, weights["judge/logit/kernel"]) + weights["judge/logit/bias"]
        return operations.mean(operations.cross_entropy(batch["label"], logit)), {}

    return Player(judge_loss, "judge/", Adam(lambda *_: 1e-3))


def moved_statistics(
    name: str, weights: Values, measured: Values, new: Sequence[Any], momentum: float
) -> Values:
    """The moving mean and variance of a batch normalisation after a batch has been measured."""
    keys = (f"{name}/moving_mean", f"{name}/moving_variance")
    return {
        key: momentum * measured.get(key, weights[key]) + (1.0 - momentum) * value
        for key, value in zip(keys, new, strict=True)
    }
