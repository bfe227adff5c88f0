"""DCGAN on digits."""

from __future__ import annotations

import math
from typing import Any

from tests.bench.adversaries import adversaries, digits
from tests.bench.train_plain import Batch, Operations, Player, Values, moved_statistics

SETTINGS: dict[str, Any] = {"image_size": 28, "channels": 1, "width": 64, "num_classes": 10}
SMALL: dict[str, Any] = {"batch_size": 8, "width": 8}
STEPS = 4

examples = digits


def players(config: Any) -> list[Player]:
    """The two players, and the judge where there are classes."""
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
