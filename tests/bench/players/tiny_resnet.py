"""The small ResNet for Tiny ImageNet, at 64 pixels."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.bench.train_plain import Adam, Batch, Operations, Player, Values, moved_statistics

SETTINGS: dict[str, Any] = {"batch_size": 16}
# Longer steps make for chaos: rounding decides on the losses.
SMALL: dict[str, Any] = {"batch_size": 8, "num_classes": 3, "learning_rate": 1e-4}
STEPS = 4


def examples(config: Any, random: np.random.Generator) -> dict[str, np.ndarray]:
    """Photos with values in [0, 255], and labels."""
    side = config.training_size
    return {
        "image": 255.0 * random.random((config.batch_size, side, side, 3), np.float32),
        "label": random.integers(0, config.num_classes, config.batch_size),
    }


def players(config: Any) -> list[Player]:
    """The one that learns."""
    from trainer.models.tiny_resnet.config import BLOCKS, STEM
    from trainer.models.tiny_resnet.recipe import EPSILON, MOMENTUM, decay_of

    def loss(operations: Operations, weights: Values, batch: Batch) -> tuple[Any, Values]:
        measured: Values = {}

        def weight(name: str) -> Any:
            return weights[f"tiny_resnet/{name}"]

        def active(x: Any, name: str) -> tuple[Any, Any]:
            scale, offset = weight(f"{name}_bn/gamma"), weight(f"{name}_bn/beta")
            x, *new = operations.normalise(x, scale, offset, EPSILON)
            key = f"tiny_resnet/{name}_bn"
            measured.update(moved_statistics(key, weights, measured, new, MOMENTUM))
            return x, operations.relu(x)

        def pointwise(x: Any, name: str) -> Any:
            return operations.convolve_same(x, weight(f"{name}/kernel"), 1)

        def separable(x: Any, name: str, stride: int = 1) -> Any:
            kernel = weight(f"{name}/depthwise_kernel")
            x = operations.convolve_depthwise_same(x, kernel, stride)
            return operations.convolve_same(x, weight(f"{name}/pointwise_kernel"), 1)

        def block(x: Any, stride: int, name: str) -> Any:
            normalised, y = active(x, f"{name}_1")
            shortcut = operations.pool_mean(normalised, stride) if stride != 1 else x
            shortcut = pointwise(shortcut, f"{name}_shortcut") + weight(f"{name}_shortcut/bias")
            y = pointwise(y, f"{name}_conv_1")
            y = separable(active(y, f"{name}_2")[1], f"{name}_conv_2", stride)
            return pointwise(active(y, f"{name}_3")[1], f"{name}_conv_3") + shortcut

        _, x = active(batch["image"] / 255.0, "input")
        for number in range(1, len(STEM) + 1):
            x = separable(x, f"stem_conv_{number}")
        _, x = active(x, "stem")
        x = operations.pool_largest(operations.pad(x, 1), 3, 2)
        for i, (blocks, _) in enumerate(BLOCKS, start=1):
            for j in range(1, blocks + 1):
                x = block(x, 2 if i > 1 and j == 1 else 1, f"s{i}_b{j}")
        _, x = active(x, "output")
        logit = operations.mean(pointwise(x, "output") + weight("output/bias"), (1, 2))
        error = operations.mean(operations.cross_entropy(batch["label"], logit))
        decays = {name: decay_of(name, config) for name in weights}
        squares = sum(
            decay * operations.total(weights[name] * weights[name])
            for name, decay in decays.items()
            if decay
        )
        return error + squares, measured

    steps = config.decay_epochs * max(config.train_examples // config.batch_size, 1)

    def rate(operations: Operations, step: Any) -> Any:
        return config.learning_rate * (1.0 - operations.minimum(step / steps, 1.0))

    return [Player(loss, {"tiny_resnet/*": Adam(rate, epsilon=config.epsilon)})]
