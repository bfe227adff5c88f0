"""The autoencoder of Hinton and Salakhutdinov."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tests.bench.train_plain import Adam, Batch, Operations, Player, Values

SETTINGS: dict[str, Any] = {}
SMALL: dict[str, Any] = {"batch_size": 8}
STEPS = 40


def examples(config: Any, random: np.random.Generator) -> dict[str, np.ndarray]:
    """Grey pictures with values in [0, 1]."""
    side = config.image_size
    return {"image": random.random((config.batch_size, side, side, 1), np.float32)}


def players(config: Any) -> list[Player]:
    """The one that learns."""
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

    return [Player(loss, {"autoencoder/*": Adam(rate)})]
