"""The first GAN, on digits."""

from __future__ import annotations

import statistics
from typing import Any

from tests.bench.adversaries import adversaries, digits
from tests.bench.train_plain import Batch, Operations, Player, Values, moved_statistics

SETTINGS: dict[str, Any] = {}
SMALL: dict[str, Any] = {
    "batch_size": 8,
    "num_classes": 10,
    "widths": (32, 32),
    "maxout_units": 8,
}
STEPS = 30

examples = digits


def players(config: Any) -> list[Player]:
    """The two players, and the judge where there are classes."""
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
