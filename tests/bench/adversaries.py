"""What players of generative adversarial networks have in common."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tests.bench.train_plain import Adam, Batch, Loss, Operations, Player, Values


def digits(config: Any, random: np.random.Generator) -> dict[str, np.ndarray]:
    """Grey pictures with values in 0 to 255, and labels where there are classes."""
    count, side = config.batch_size, config.image_size
    image = (255.0 * random.random((count, side, side, 1), np.float32)).astype(np.uint8)
    if not config.num_classes:
        return {"image": image}
    return {"image": image, "label": random.integers(0, config.num_classes, count)}


def adversaries(config: Any, discriminator_loss: Loss, generator_loss: Loss) -> list[Player]:
    """Who discriminates and who draws, and the judge where there are classes."""

    def adam(rate: float) -> Adam:
        return Adam(lambda *_: rate, config.momentum, 1e-8)

    return [
        Player(discriminator_loss, {"discriminator/*": adam(config.discriminator_learning_rate)}),
        Player(generator_loss, {"generator/*": adam(config.learning_rate)}),
        *([judge()] if config.num_classes else []),
    ]


def judge() -> Player:
    """Who learns the classes of real pictures beside the players."""

    def judge_loss(operations: Operations, weights: Values, batch: Batch) -> tuple[Any, Values]:
        image = operations.as_float(batch["image"]) / 127.5 - 1.0
        return judged(operations, weights, "judge", image, batch["label"]), {}

    return Player(judge_loss, {"judge/*": Adam(lambda *_: 1e-3)})


def judged(operations: Operations, weights: Values, network: str, x: Any, label: Any) -> Any:
    """Cross-entropy of a judge on real pictures in [-1, 1]."""
    from trainer.metrics.class_coverage import SMALLEST_MAP, WIDTHS

    for number in range(len(WIDTHS)):
        halve = min(x.shape[1:3]) >= 2 * SMALLEST_MAP - 1
        name = f"{network}/convolution_{number}"
        x = operations.convolve_same(x, weights[f"{name}/kernel"], 2 if halve else 1)
        x = operations.relu(x + weights[f"{name}/bias"])
    x = operations.reshape(x, (-1, math.prod(x.shape[1:])))
    kernel, bias = (weights[f"{network}/logit/{kind}"] for kind in ("kernel", "bias"))
    logit = operations.matmul(x, kernel) + bias
    return operations.mean(operations.cross_entropy(label, logit))
