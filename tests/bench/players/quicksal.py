"""QUICKSAL, dense."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.bench.train_plain import Adam, Batch, Operations, Player, Values, moved_statistics

SETTINGS: dict[str, Any] = {"encoder": "random", "image_size": 128, "batch_size": 8}
# Longer steps make for chaos: rounding decides on the losses.
SMALL: dict[str, Any] = {
    "image_size": 64,
    "lowest_learning_rate": 1e-6,
    "highest_learning_rate": 1e-6,
}
STEPS = 4


def examples(config: Any, random: np.random.Generator) -> dict[str, np.ndarray]:
    """Photos with values in [0, 255], and masks."""
    shape = (config.batch_size, config.image_size, config.image_size)
    return {
        "image": 255.0 * random.random((*shape, 3), np.float32),
        "mask": random.integers(0, 2, shape).astype(np.uint8),
    }


def players(config: Any) -> list[Player]:
    """The one that learns."""
    from trainer.backbones.mobilenet_v2 import (
        BLOCKS,
        EPSILON,
        MEAN,
        MOMENTUM,
        STANDARD_DEVIATION,
        TAPPED,
    )
    from trainer.models.quicksal.recipe import DECODER

    mean, deviation = (np.array(v, np.float32) for v in (MEAN, STANDARD_DEVIATION))

    def loss(operations: Operations, weights: Values, batch: Batch) -> tuple[Any, Values]:
        measured: Values = {}

        def whole(name: str) -> str:
            return f"{'encoder' if name.startswith('features_') else 'decoder'}/{name}"

        def kernel(name: str) -> Any:
            return weights[f"{whole(name)}/kernel"]

        def normalised(x: Any, name: str) -> Any:
            scale, offset = (weights[f"{whole(name)}/{kind}"] for kind in ("gamma", "beta"))
            x, *new = operations.normalise(x, scale, offset, EPSILON)
            measured.update(moved_statistics(whole(name), weights, measured, new, MOMENTUM))
            return x

        def active(x: Any, name: str) -> Any:
            return operations.minimum(operations.relu(normalised(x, name)), 6.0)

        def encoded(x: Any) -> list[Any]:
            x = active(operations.convolve(x, kernel("features_0_0"), 2, 1, 1), "features_0_1")
            maps, number = [], 0
            for row, (expansion, channels, repetitions, first) in enumerate(BLOCKS):
                for repetition in range(min(repetitions, config.depth)):
                    number, part = number + 1, 0
                    name, before = f"features_{number}_conv", x
                    stride = first if repetition == 0 else 1
                    if expansion > 1:
                        x = operations.convolve(x, kernel(f"{name}_0_0"), 1, 0, 1)
                        x, part = active(x, f"{name}_0_1"), 1
                    x = operations.convolve_depthwise(x, kernel(f"{name}_{part}_0"), stride)
                    x = active(x, f"{name}_{part}_1")
                    x = operations.convolve(x, kernel(f"{name}_{part + 1}"), 1, 0, 1)
                    x = normalised(x, f"{name}_{part + 2}")
                    if stride == 1 and before.shape[-1] == channels:
                        x = before + x
                if row in TAPPED:
                    maps.append(x)
            return maps

        def pointwise(x: Any, name: str) -> Any:
            return active(operations.convolve(x, kernel(name), 1, 0, 1), f"{name}_bn")

        def inception(x: Any, name: str) -> Any:
            branches = [pointwise(x, f"{name}_pixel")]
            for size in (3, 5):
                y = pointwise(x, f"{name}_{size}_in")
                around = f"{name}_{size}_around"
                y = active(operations.convolve_depthwise(y, kernel(around), 1), f"{around}_bn")
                branches.append(pointwise(y, f"{name}_{size}_out"))
            y = operations.pool_largest(x, 3, 1)
            branches.append(pointwise(y, f"{name}_largest_out"))
            return pointwise(operations.concatenate(branches), f"{name}_out")

        maps = encoded((batch["image"] / 255.0 - mean) / deviation)[::-1]
        x = inception(maps[0], "level_1")
        for level in range(2, len(DECODER) + 1):
            skipped = operations.concatenate([operations.enlarge(x), maps[level - 1]])
            x = inception(skipped, f"level_{level}")
        x = operations.convolve(x, kernel("logit"), 1, 1, 1) + weights["decoder/logit/bias"]
        logit = operations.enlarge(x)[..., 0]
        mask = operations.as_float(batch["mask"])
        error = operations.mean(operations.softplus(logit) - logit * mask)
        found = operations.sigmoid(logit)
        common = operations.total(found * mask, (1, 2))
        either = operations.total(found + mask, (1, 2)) - common
        return error + operations.mean(1.0 - (common + 1.0) / (either + 1.0)), measured

    def rate(factor: float) -> Any:
        lowest, highest = config.lowest_learning_rate, config.highest_learning_rate
        # No turn sees the end of the first rise.
        slope = (highest - lowest) / config.half_cycle
        return lambda operations, step: factor * (lowest + slope * step)

    moves = {"encoder/*": Adam(rate(config.encoder_rate)), "decoder/*": Adam(rate(1.0))}
    return [Player(loss, moves)]
