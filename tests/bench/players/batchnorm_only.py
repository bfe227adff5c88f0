"""ResNet-14 of which batch normalisation alone is trained."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.bench.train_plain import Batch, Momentum, Operations, Player, Values, moved_statistics

SETTINGS: dict[str, Any] = {}
# Longer steps make for chaos: rounding decides on the losses.
SMALL: dict[str, Any] = {"batch_size": 8, "learning_rate": 0.002}
STEPS = 4


def examples(config: Any, random: np.random.Generator) -> dict[str, np.ndarray]:
    """Photos with values in [0, 255], and labels."""
    side = config.image_size
    return {
        "image": 255.0 * random.random((config.batch_size, side, side, 3), np.float32),
        "label": random.integers(0, config.num_classes, config.batch_size),
    }


def players(config: Any) -> list[Player]:
    """The one that learns."""
    from trainer.models.batchnorm_only.config import architecture
    from trainer.models.batchnorm_only.recipe import EPSILON, MEAN, MOMENTUM, STANDARD_DEVIATION

    mean, deviation = (np.array(v, np.float32) for v in (MEAN, STANDARD_DEVIATION))

    def loss(operations: Operations, weights: Values, batch: Batch) -> tuple[Any, Values]:
        measured: Values = {}

        def convolved(x: Any, name: str, stride: int) -> Any:
            kernel = weights[f"resnet/{name}/kernel"]
            return operations.convolve(x, kernel, stride, kernel.shape[0] // 2, 1)

        def normalised(x: Any, name: str) -> Any:
            scale, offset = (weights[f"resnet/{name}/{kind}"] for kind in ("gamma", "beta"))
            x, *new = operations.normalise(x, scale, offset, EPSILON)
            measured.update(moved_statistics(f"resnet/{name}", weights, measured, new, MOMENTUM))
            return x

        def block(x: Any, stride: int, name: str) -> Any:
            shortcut = x
            if f"resnet/{name}_shortcut/kernel" in weights:
                shortcut = convolved(x, f"{name}_shortcut", stride)
                shortcut = normalised(shortcut, f"{name}_shortcut_bn")
            x = normalised(convolved(x, f"{name}_conv_1", stride), f"{name}_bn_1")
            x = convolved(operations.relu(x), f"{name}_conv_2", 1)
            return operations.relu(shortcut + normalised(x, f"{name}_bn_2"))

        x = (batch["image"] / 255.0 - mean) / deviation
        x = operations.relu(normalised(convolved(x, "stem_conv", 1), "stem_bn"))
        for i, blocks in enumerate(architecture(config.variant).blocks, start=1):
            for j in range(1, blocks + 1):
                x = block(x, 2 if i > 1 and j == 1 else 1, f"s{i}_b{j}")
        logit = operations.matmul(operations.mean(x, (1, 2)), weights["resnet/output/kernel"])
        logit = logit + weights["resnet/output/bias"]
        error = operations.mean(operations.cross_entropy(batch["label"], logit))
        trained = player.moved(weights)
        squares = sum(operations.total(weights[name] * weights[name]) for name in trained)
        return error + 0.5 * config.weight_decay * squares, measured

    # No turn sees the first milestone.
    optimizer = Momentum(lambda *_: config.learning_rate, config.momentum, nesterov=False)
    player = Player(loss, {"resnet/*/gamma": optimizer, "resnet/*/beta": optimizer})
    return [player]
