"""RegNetY by the recipe of pycls."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tests.bench.train_plain import Batch, Momentum, Operations, Player, Values, moved_statistics

SETTINGS: dict[str, Any] = {"image_size": 128, "batch_size": 32}
# Fewer pixels, fewer examples or longer steps make for chaos: rounding decides on the losses.
SMALL: dict[str, Any] = {
    "batch_size": 8,
    "image_size": 64,
    "num_classes": 3,
    "train_examples": 24,
    "learning_rate": 0.02,
}
STEPS = 4


def examples(config: Any, random: np.random.Generator) -> dict[str, np.ndarray]:
    """Photos with values in [0, 255], and labels."""
    side = config.image_size
    return {
        "image": 255.0 * random.random((config.batch_size, side, side, 3), np.float32),
        "label": random.integers(0, config.num_classes, config.batch_size),
    }


def players(config: Any) -> list[Player]:
    """The one that learns, by the recipe of pycls."""
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

    return [Player(loss, {"regnety/*": Momentum(rate, config.momentum)})]
