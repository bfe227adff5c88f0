"""Log-likelihood of pictures under a Parzen window on generated ones.

Goodfellow et al. 2014, table 1, after Breuleux et al. 2011: a normal distribution is put on each of
10,000 generated pictures, its deviation is chosen on pictures set aside, and what counts is the
mean log-likelihood of the other real pictures. It says little about how pictures look (Theis et
al. 2016, https://arxiv.org/abs/1511.01844) and is here because the paper reports it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from trainer.metrics.frechet import as_unit
from trainer.metrics.nearest import squared_distances

DEVIATIONS = tuple(10.0 ** (-1.0 + i / 9.0) for i in range(10))
"""Deviations to choose from: ten from 0.1 to 1, as in the authors' `parzen_ll.py`."""

SET_ASIDE = 0.1
"""Part of the real pictures on which the deviation is chosen: 1,000 of 10,000, as many as in the
authors' `parzen_ll.py`, which takes them from the training pictures (ours: from the evaluation's,
which then count no more)."""

_ROWS = 500  # real pictures at once: 500 x 10,000 numbers are 20 MB


def log_likelihood(points: np.ndarray, centres: np.ndarray, deviation: float) -> np.ndarray:
    """Log-density in nats of each point under equal normal distributions on the centres.

    Args:
        points: [n, size].
        centres: [m, size].
        deviation: of each distribution in each direction.

    Returns:
        float64 [n].
    """
    return _log_density(
        squared_distances(points, centres), len(centres), centres.shape[1], deviation
    )


def _log_density(distances: np.ndarray, centres: int, size: int, deviation: float) -> np.ndarray:
    exponents = np.asarray(distances, np.float64) / (-2.0 * deviation**2)
    largest = exponents.max(axis=1, keepdims=True)
    sums = np.exp(exponents - largest).sum(axis=1)
    constant = np.log(centres) + size * np.log(deviation * np.sqrt(2.0 * np.pi))
    density: np.ndarray = largest[:, 0] + np.log(sums) - constant
    return density


class ParzenWindow:
    """Mean log-likelihood of real pictures under a Parzen window on the generated ones, in nats.

    Reads `image` of the batch and of the outputs, as `FrechetDistance` does, and keeps all of
    them: for pictures of digits, 60 MB of 10,000 each. Fewer generated pictures than the paper's
    10,000 make it lower.
    """

    def __init__(self) -> None:
        self._real: list[np.ndarray] = []
        self._generated: list[np.ndarray] = []

    def update(self, batch: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]) -> None:
        """Takes in one batch of real pictures and one of generated ones."""
        for kept, images in ((self._real, batch["image"]), (self._generated, outputs["image"])):
            unit = as_unit(images)
            kept.append(unit.reshape(len(unit), -1))

    def result(self) -> dict[str, float]:
        """`parzen_log_likelihood`, its standard error over the pictures, and the deviation."""
        real, generated = np.concatenate(self._real), np.concatenate(self._generated)
        aside = max(1, round(SET_ASIDE * len(real)))
        scored = real[aside:] if len(real) > aside else real
        near = squared_distances(real[:aside], generated)
        size = real.shape[1]
        deviation = max(
            DEVIATIONS, key=lambda d: float(_log_density(near, len(generated), size, d).mean())
        )
        found = np.concatenate(
            [
                log_likelihood(scored[start : start + _ROWS], generated, deviation)
                for start in range(0, len(scored), _ROWS)
            ]
        )
        return {
            "parzen_log_likelihood": float(found.mean()),
            "parzen_standard_error": float(found.std() / np.sqrt(len(found))),
            "parzen_deviation": deviation,
        }
