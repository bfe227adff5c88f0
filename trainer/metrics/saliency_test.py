"""Golden numbers: PySODMetrics 1.6.2 with `normalize=False` on the very pictures of `maps`."""

from collections.abc import Iterator

import numpy as np
import pytest

from trainer.metrics.saliency import (
    Saliency,
    adaptive_f_beta,
    f_beta_curve,
    intersection_over_union,
    mean_absolute_error,
    weighted_f_beta,
)


def maps() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Three maps of discs that moved a little, on uneven grounds, and the discs."""
    rows, columns = np.mgrid[:24, :32]
    for k in range(3):
        mask = (rows - 10 - k) ** 2 + (columns - 14 - 2 * k) ** 2 < 36 + 10 * k
        moved = np.roll(mask, (k, 2), (0, 1))
        ground = 0.2 * (rows / 23) + 0.1 * np.cos(columns * rows / 9.0)
        yield np.clip(0.7 * moved + ground, 0, 1), mask


def test_numbers_are_those_of_the_fields_own_tool() -> None:
    metric = Saliency()
    for saliency, mask in maps():
        metric.update({"mask": mask[None].astype(np.uint8)}, {"saliency": saliency[None]})
    found = metric.result()
    assert found["adaptive_f_beta"] == pytest.approx(0.7823612995243944, abs=1e-12)
    assert found["max_f_beta"] == pytest.approx(0.7823612995243944, abs=1e-12)
    assert found["weighted_f_beta"] == pytest.approx(0.46348843732690953, abs=1e-12)
    assert found["mean_absolute_error"] == pytest.approx(0.1885348529751281, abs=1e-12)


def test_a_perfect_map_has_no_error() -> None:
    mask = np.zeros((8, 8), bool)
    mask[2:5, 3:7] = True
    saliency = mask.astype(np.float64)
    assert mean_absolute_error(saliency, mask) == 0
    for measure in (adaptive_f_beta, weighted_f_beta, intersection_over_union):
        assert measure(saliency, mask) == pytest.approx(1)
    assert f_beta_curve(saliency, mask)[:255] == pytest.approx(np.ones(255))


def test_a_map_by_hand() -> None:
    # The object is 2 of 4 pixels; one of them is found, and one beside it.
    mask = np.array([[True, True], [False, False]])
    saliency = np.array([[1.0, 0.0], [1.0, 0.0]])
    assert mean_absolute_error(saliency, mask) == 0.5
    assert intersection_over_union(saliency, mask) == pytest.approx(1 / 3)
    assert adaptive_f_beta(saliency, mask) == pytest.approx(0.5)
    # All levels but the last find the same; at 0 everything is found: P = 1/2, R = 1.
    curve = f_beta_curve(saliency, mask)
    assert curve[:255] == pytest.approx(np.full(255, 0.5))
    assert curve[255] == pytest.approx(1.3 * 0.5 / (0.3 * 0.5 + 1))


def test_a_map_that_is_black_all_over_is_worth_nothing() -> None:
    """Its error is the mask's share alone, which is why it is a trap for a loss."""
    mask = np.zeros((20, 20), bool)
    mask[6:14, 5:15] = True
    black = np.zeros((20, 20))
    assert mean_absolute_error(black, mask) == pytest.approx(0.2)
    assert intersection_over_union(black, mask) == 0
    assert weighted_f_beta(black, mask) == pytest.approx(0)
    # Everything is found at the level 0, where twice the mean of nothing is; the rest finds none.
    assert f_beta_curve(black, mask)[:255] == pytest.approx(np.zeros(255))


def test_a_mask_without_an_object_counts_too() -> None:
    nothing, black = np.zeros((4, 4), bool), np.zeros((4, 4))
    assert intersection_over_union(black, nothing) == 1
    assert weighted_f_beta(black, nothing) == adaptive_f_beta(black, nothing) == 0
    assert not f_beta_curve(black, nothing).any()
