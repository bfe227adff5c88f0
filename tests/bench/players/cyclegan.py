"""CycleGAN for digits: grey ones, and ones in colour."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.bench.adversaries import judged
from tests.bench.train_plain import Adam, Batch, Operations, Player, Values, moved_statistics

SETTINGS: dict[str, Any] = {
    "variant": "digits",
    "image_size": 32,
    "load_size": 32,
    "channels_a": 1,
    "num_classes": 10,
    "pool_size": 0,
    "batch_size": 16,
    "decay_share": 0.0,
}
SMALL: dict[str, Any] = {"batch_size": 8, "width": 8, "learning_rate": 1e-5}
STEPS = 2


def examples(config: Any, random: np.random.Generator) -> dict[str, np.ndarray]:
    """Pictures with values in [0, 255], and labels, of both domains."""
    shape = (config.batch_size, config.image_size, config.image_size, 3)
    found: dict[str, np.ndarray] = {}
    for side in "ab":
        found[f"image_{side}"] = 255.0 * random.random(shape, np.float32)
        found[f"label_{side}"] = random.integers(0, config.num_classes, config.batch_size)
    return found


def players(config: Any) -> list[Player]:
    """The generators, the discriminators, and the judges where there are classes."""
    from trainer.models.cyclegan.networks import DIGITS_SLOPE, EPSILON, MOMENTUM
    from trainer.models.cyclegan.translations import LUMA

    def real(operations: Operations, batch: Batch, side: str) -> Any:
        image = operations.as_float(batch[f"image_{side}"]) / 127.5 - 1.0
        if (config.channels_a if side == "a" else config.channels_b) == 3:
            return image
        grey = image * np.array(LUMA, np.float32)
        return operations.reshape(operations.total(grey, -1), (*image.shape[:3], 1))

    def active(operations: Operations, weights: Values, x: Any, name: str, measured: Values) -> Any:
        if f"{name}_1/gamma" in weights:
            scale, offset = (weights[f"{name}_1/{kind}"] for kind in ("gamma", "beta"))
            x, *new = operations.normalise(x, scale, offset, EPSILON)
            measured |= moved_statistics(f"{name}_1", weights, measured, new, MOMENTUM)
        return operations.maximum(x, DIGITS_SLOPE * x)

    def translated(
        operations: Operations, weights: Values, network: str, x: Any, measured: Values
    ) -> Any:
        for part, stride in (("conv1", 2), ("conv2", 2), ("conv3", 1), ("conv4", 1)):
            name = f"{network}/{part}"
            x = operations.convolve_same(x, weights[f"{name}_0/kernel"], stride)
            x = active(operations, weights, x, name, measured)
        name = f"{network}/deconv1"
        x = operations.spread(x, weights[f"{name}_0/kernel"])
        x = active(operations, weights, x, name, measured)
        return operations.tanh(operations.spread(x, weights[f"{network}/deconv2_0/kernel"]))

    def scored(
        operations: Operations, weights: Values, network: str, x: Any, measured: Values
    ) -> Any:
        for number in (1, 2, 3):
            name = f"{network}/conv{number}"
            x = operations.convolve_same(x, weights[f"{name}_0/kernel"], 2)
            x = active(operations, weights, x, name, measured)
        return operations.convolve_valid(x, weights[f"{network}/fc_0/kernel"])

    def distance(operations: Operations, wanted: float, scores: Any) -> Any:
        return operations.mean((scores - wanted) * (scores - wanted))

    def generators_loss(
        operations: Operations, weights: Values, batch: Batch
    ) -> tuple[Any, Values]:
        found: Values = {}

        def to(side: str, image: Any) -> Any:
            network = "a_to_b" if side == "b" else "b_to_a"
            return translated(operations, weights, network, image, found)

        def seems_real(side: str, image: Any) -> Any:
            scores = scored(operations, weights, f"discriminator_{side}", image, found)
            return distance(operations, 1.0, scores)

        real_a, real_b = (real(operations, batch, side) for side in "ab")
        fake_b, fake_a = to("b", real_a), to("a", real_b)
        loss = seems_real("b", fake_b) + seems_real("a", fake_a)
        cycle = operations.mean(operations.absolute(to("a", fake_b) - real_a))
        cycle = cycle + operations.mean(operations.absolute(to("b", fake_a) - real_b))
        return loss + config.cycle_weight * cycle, {**found, "fake_a": fake_a, "fake_b": fake_b}

    def discriminators_loss(
        operations: Operations, weights: Values, batch: Batch
    ) -> tuple[Any, Values]:
        found: Values = {}
        loss = 0.0
        for side in "ab":
            network = f"discriminator_{side}"
            for wanted, image in (
                (1.0, real(operations, batch, side)),
                (0.0, batch[f"fake_{side}"]),
            ):
                scores = scored(operations, weights, network, image, found)
                loss = loss + 0.5 * distance(operations, wanted, scores)
        return loss, found

    def judges_loss(operations: Operations, weights: Values, batch: Batch) -> tuple[Any, Values]:
        losses = [
            judged(
                operations,
                weights,
                f"judge_{side}",
                real(operations, batch, side),
                batch[f"label_{side}"],
            )
            for side in "ab"
        ]
        return losses[0] + losses[1], {}

    adam = Adam(lambda *_: config.learning_rate, config.momentum, 1e-8)
    return [
        Player(generators_loss, {"a_to_b/*": adam, "b_to_a/*": adam}),
        Player(discriminators_loss, {"discriminator_?/*": adam}),
        *(
            [Player(judges_loss, {"judge_?/*": Adam(lambda *_: 1e-3)})]
            if config.num_classes
            else []
        ),
    ]
