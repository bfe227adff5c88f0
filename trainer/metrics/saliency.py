"""How well a map of saliency shows where the salient object is.

The numbers are those of PySODMetrics without its stretching of each map to the whole of [0, 1]:
a map that is grey all over earns nothing here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.ndimage import convolve, distance_transform_edt

BETA_SQUARED = 0.3
"""Weight of the recall in F-measures (Achanta et al. 2009, section 4)."""

THRESHOLDS = 256  # of the maximal F-measure: the grey levels of a picture


class Saliency:
    """Errors and overlaps of maps with masks, means over the pictures.

    Reads `mask` of the batch, [batch, height, width], where what is not 0 is the object, and
    `saliency` of the outputs, [batch, height, width] in [0, 1]. In a mask without an object,
    F-measures are 0, and the overlap is 1 where nothing is found.
    """

    def __init__(self) -> None:
        self._pictures = 0
        self._sums = dict.fromkeys(_MEASURES, 0.0)
        self._curve = np.zeros(THRESHOLDS)

    def update(self, batch: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]) -> None:
        """Takes in one batch of masks and the maps drawn for them."""
        for mask, saliency in zip(batch["mask"], outputs["saliency"], strict=True):
            mask, saliency = np.asarray(mask) != 0, np.asarray(saliency, np.float64)
            self._pictures += 1
            for name, measure in _MEASURES.items():
                self._sums[name] += measure(saliency, mask)
            self._curve += f_beta_curve(saliency, mask)

    def result(self) -> dict[str, float]:
        """The means of

        - `mean_absolute_error`;
        - `adaptive_f_beta`: F-measure of what is at least twice the map's mean;
        - `weighted_f_beta`: Margolin's;
        - `intersection_over_union` of what is at least one half;

        and `max_f_beta`, the largest mean of 256 thresholds. All are between 0 and 1.
        """
        count = max(self._pictures, 1)
        means = {name: total / count for name, total in self._sums.items()}
        return means | {"max_f_beta": float(self._curve.max()) / count}


def mean_absolute_error(saliency: np.ndarray, mask: np.ndarray) -> float:
    """Mean over the pixels of the difference between a map in [0, 1] and a mask."""
    return float(np.abs(saliency - mask).mean())


def intersection_over_union(saliency: np.ndarray, mask: np.ndarray) -> float:
    """Common pixels of the object and what a map gives at least one half, over those of either."""
    found = saliency >= 0.5
    union = np.count_nonzero(found | mask)
    return float(np.count_nonzero(found & mask) / union) if union else 1.0


def f_beta(precision: Any, recall: Any) -> Any:
    """(1 + b) P R / (b P + R) with b = 0.3; 0 where nothing is right (Achanta et al. 2009, eq. 6).

    Args:
        precision: in [0, 1].
        recall: in [0, 1].
    """
    right = precision * recall
    total = np.where(right > 0, BETA_SQUARED * precision + recall, 1.0)
    return (1.0 + BETA_SQUARED) * right / total


def adaptive_f_beta(saliency: np.ndarray, mask: np.ndarray) -> float:
    """F-measure of the pixels that have twice the map's mean at least (Achanta et al. 2009)."""
    found = saliency >= min(2.0 * saliency.mean(), 1.0)
    hits = np.count_nonzero(found & mask)
    if not hits:
        return 0.0
    return float(f_beta(hits / found.sum(), hits / mask.sum()))


def f_beta_curve(saliency: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """F-measures [256] of the pixels that have 255, 254 … 0 of 255 at least."""
    levels = np.floor(saliency * 255.0).astype(np.int64)
    inside, outside = (
        np.cumsum(np.bincount(levels[where], minlength=THRESHOLDS)[::-1]) for where in (mask, ~mask)
    )
    precision = inside / np.maximum(inside + outside, 1)
    curve: np.ndarray = f_beta(precision, inside / max(mask.sum(), 1))
    return curve


def weighted_f_beta(saliency: np.ndarray, mask: np.ndarray) -> float:
    """F-measure by errors that neighbours excuse and that weigh more far from the object.

    Margolin, Zelnik-Manor and Tal 2014, section 4: the window of 7 x 7 with a deviation of 5 and
    the distance at which a weight is halfway, 5 pixels, are those of its code; b is 0.3.
    """
    if not mask.any():
        return 0.0
    distance, (rows, columns) = distance_transform_edt(~mask, return_indices=True)
    error = np.abs(saliency - mask)
    # Outside, the error of the nearest pixel of the object.
    spread = convolve(error[rows, columns], _WINDOW, mode="constant")
    error = np.where(mask & (spread < error), spread, error)
    weighted = error * np.where(mask, 1.0, 2.0 - 0.5 ** (distance / 5.0))
    hits = mask.sum() - weighted[mask].sum()
    recall = 1.0 - weighted[mask].mean()
    precision = hits / (hits + weighted[~mask].sum() + _TINY)
    return float(
        (1.0 + BETA_SQUARED) * (precision * recall) / (recall + BETA_SQUARED * precision + _TINY)
    )


_TINY = np.spacing(1.0)
_SQUARES = np.arange(-3, 4) ** 2
_WINDOW = np.exp(-(_SQUARES[:, None] + _SQUARES) / (2.0 * 5.0**2))
_WINDOW /= _WINDOW.sum()


_MEASURES = {
    "mean_absolute_error": mean_absolute_error,
    "adaptive_f_beta": adaptive_f_beta,
    "weighted_f_beta": weighted_f_beta,
    "intersection_over_union": intersection_over_union,
}
