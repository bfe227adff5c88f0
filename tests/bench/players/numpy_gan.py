"""The GAN that ours trains in plain NumPy; here the library differentiates it."""

from __future__ import annotations

from typing import Any

from tests.bench.adversaries import digits, judge
from tests.bench.train_plain import Adam, Batch, Operations, Player, Values

SETTINGS: dict[str, Any] = {"num_classes": 10}
SMALL: dict[str, Any] = {"batch_size": 8, "generator_widths": (32,), "discriminator_widths": (32,)}
STEPS = 60

examples = digits


def players(config: Any) -> list[Player]:
    """The two players, and the judge where there are classes."""
    from trainer.models.numpy_gan.passes import REAL, SLOPE

    def sums(operations: Operations, weights: Values, network: str, x: Any, hidden: int) -> Any:
        for number in range(hidden + 1):
            name = f"{network}/{f'hidden_{number}' if number < hidden else 'sums'}"
            x = operations.matmul(x, weights[f"{name}/kernel"]) + weights[f"{name}/bias"]
            if number < hidden:
                x = operations.maximum(x, SLOPE * x)
        return x

    def drawn(operations: Operations, weights: Values, noise: Any) -> Any:
        hidden = len(config.generator_widths)
        return operations.tanh(sums(operations, weights, "generator", noise, hidden))

    def discriminated(operations: Operations, weights: Values, x: Any) -> Any:
        hidden = len(config.discriminator_widths)
        return sums(operations, weights, "discriminator", x, hidden)

    def discriminator_loss(
        operations: Operations, weights: Values, batch: Batch
    ) -> tuple[Any, Values]:
        image = operations.as_float(batch["image"]) / 127.5 - 1.0
        image = operations.reshape(image, (-1, config.image_size**2))
        real = discriminated(operations, weights, image)
        image = drawn(operations, weights, batch["noise"])
        # One-sided label smoothing.
        error = operations.mean(operations.softplus(real) - REAL * real)
        generated = discriminated(operations, weights, image)
        return error + operations.mean(operations.softplus(generated)), {}

    def generator_loss(operations: Operations, weights: Values, batch: Batch) -> tuple[Any, Values]:
        image = drawn(operations, weights, batch["generator_noise"])
        return operations.mean(operations.softplus(-discriminated(operations, weights, image))), {}

    adam = Adam(lambda *_: config.learning_rate, config.momentum, 1e-8)
    found = [
        Player(discriminator_loss, {"discriminator/*": adam}, config.clip_norm),
        Player(generator_loss, {"generator/*": adam}, config.clip_norm),
    ]
    return [*found, judge()] if config.num_classes else found
