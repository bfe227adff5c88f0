"""Which real picture is most like a generated one, and the panels that show it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from trainer.metrics.frechet import as_unit
from trainer.recipe import Panel

SHOWN = 16  # ours: pictures of a panel


def panels(
    batch: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray], class_names: Sequence[str]
) -> list[Panel]:
    """What was drawn, the real pictures that come nearest to it, and real pictures as they come.

    Args:
        batch: `image`, the real pictures of an evaluation batch.
        outputs: `image`, what was drawn; `generated_probability`, where a judge knows classes.
        class_names: name of each class.
    """
    drawn, real = as_unit(outputs["image"])[:SHOWN], as_unit(batch["image"])
    title = "Drawn from noise"
    captions: tuple[str, ...] = ()
    if "generated_probability" in outputs:
        title = "Drawn from noise, with what the judge takes them for"
        guesses = np.asarray(outputs["generated_probability"])[:SHOWN]
        captions = tuple(f"{class_names[int(g.argmax())]} {g.max():.0%}" for g in guesses)
    return [
        Panel(title, drawn, captions),
        Panel(
            f"The nearest of {len(real)} real pictures, none of which the training has seen",
            real[nearest(drawn, real)],
        ),
        Panel("Real pictures of the evaluation split", real[:SHOWN]),
    ]


def nearest(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """For each picture the number of the other that differs least, by squared differences.

    Args:
        images: [n, height, width, channels].
        others: [m, height, width, channels].

    Returns:
        int64 [n], each from 0 to m - 1.
    """
    numbers: np.ndarray = squared_distances(_rows(images), _rows(others)).argmin(axis=1)
    return numbers


def squared_distances(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Squared Euclidean distance of each point [n, size] from each other one [m, size]: [n, m]."""
    squares = np.square(points).sum(axis=1)[:, None] + np.square(others).sum(axis=1)[None, :]
    distances: np.ndarray = np.maximum(squares - 2.0 * points @ others.T, 0.0)
    return distances


def _rows(images: np.ndarray) -> np.ndarray:
    return np.asarray(images, np.float64).reshape(len(images), -1)
