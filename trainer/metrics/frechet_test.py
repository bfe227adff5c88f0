from __future__ import annotations

import numpy as np
import pytest

from trainer.metrics import frechet
from trainer.metrics.frechet import (
    FrechetDistance,
    Moments,
    as_unit,
    frechet_distance,
    kernel_distance,
)


def normal(count: int, size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, size))


def test_moments_in_batches_are_those_of_all_vectors() -> None:
    # Far from 0 and close together: sums of squares would cancel to nothing.
    vectors = 1e6 + normal(50, 4) @ np.diag([1.0, 2.0, 3.0, 0.5])
    moments = Moments(4)
    for part in np.split(vectors, [1, 1, 20]):  # one of them is empty
        moments.update(part)
    assert moments.count == 50
    np.testing.assert_allclose(moments.mean, vectors.mean(axis=0), rtol=1e-15)
    np.testing.assert_allclose(moments.covariance, np.cov(vectors.T), rtol=1e-6)


def test_the_distance_of_diagonal_normal_distributions_is_known() -> None:
    # Along each axis it is (difference of means)^2 + (difference of deviations)^2.
    means, deviations = np.array([[0.0, 1.0], [3.0, 5.0]]), np.array([[1.0, 2.0], [4.0, 2.0]])
    covariances = [np.diag(d**2) for d in deviations]
    got = frechet_distance(means[0], covariances[0], means[1], covariances[1])
    assert got == pytest.approx((9 + 16) + (9 + 0))


def test_the_distance_of_normal_distributions_that_do_not_commute_is_known() -> None:
    # tr((CD)^1/2) of two 2x2 matrices is sqrt(tr(CD) + 2 sqrt(det(CD))).
    c, d = np.array([[2.0, 1.0], [1.0, 2.0]]), np.array([[3.0, 0.0], [0.0, 1.0]])
    # CD = [[6, 1], [3, 2]]: trace 8, determinant 9.
    wanted = 4.0 + 4.0 - 2.0 * np.sqrt(8.0 + 2.0 * 3.0)
    got = frechet_distance(np.zeros(2), c, np.zeros(2), d)
    assert got == pytest.approx(wanted)
    assert frechet_distance(np.zeros(2), d, np.zeros(2), c) == pytest.approx(wanted)


def test_fewer_samples_than_numbers_give_a_real_distance() -> None:
    one, other = normal(5, 40, 1), normal(7, 40, 2)
    arguments = (one.mean(0), np.cov(one.T), other.mean(0), np.cov(other.T))
    got = frechet_distance(*arguments)
    assert np.isfinite(got) and got > 0
    assert frechet_distance(*arguments[:2], *arguments[:2]) == pytest.approx(0.0, abs=1e-6)


def test_the_kernel_distance_of_a_small_example() -> None:
    # One number each: k(a, b) = (ab + 1)^3. Among {0, 1}: 1; among {2, 0}: 1; across: 1, 1, 27, 1.
    got = kernel_distance(np.array([[0.0], [1.0]]), np.array([[2.0], [0.0]]))
    assert got == pytest.approx(1 + 1 - 2 * (1 + 1 + 27 + 1) / 4)


def test_the_kernel_distance_has_no_bias_however_few_the_samples() -> None:
    found = [kernel_distance(normal(10, 3, 2 * i), normal(10, 3, 2 * i + 1)) for i in range(4000)]
    error = np.std(found) / np.sqrt(len(found))
    assert abs(np.mean(found)) < 4 * error < 0.1 * np.std(found)


def two_numbers(images: np.ndarray) -> np.ndarray:
    """The first two pixels: features whose moments can be known."""
    return images.reshape(len(images), -1)[:, :2]


def score(real: np.ndarray, generated: np.ndarray, batch: int) -> dict[str, float]:
    metric = FrechetDistance(two_numbers, "pixels")
    for start in range(0, len(real), batch):
        part = slice(start, start + batch)
        metric.update({"image": real[part]}, {"image": generated[part]})
    return metric.result()


def test_equal_pictures_are_at_no_distance_and_shifted_ones_at_the_squared_shift() -> None:
    image = np.random.default_rng(0).uniform(0, 0.5, (300, 2, 1, 1)).astype(np.float32)
    same = score(image, image, 64)
    assert same["frechet_distance_pixels"] == pytest.approx(0.0, abs=1e-9)
    shifted = score(image, image + np.float32(0.25), 64)
    assert shifted["frechet_distance_pixels"] == pytest.approx(2 * 0.25**2, rel=1e-5)
    assert shifted["kernel_distance_pixels"] > same["kernel_distance_pixels"]


@pytest.mark.parametrize("batch", [1, 7, 300])
def test_the_size_of_batches_does_not_matter(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frechet, "BLOCK", 50)
    random = np.random.default_rng(1)
    real, generated = random.uniform(size=(2, 300, 2, 1, 1)).astype(np.float32)
    whole = FrechetDistance(two_numbers, "pixels")
    whole.update({"image": real}, {"image": generated})
    wanted, got = whole.result(), score(real, generated, batch)
    name = "frechet_distance_pixels"
    assert got[name] == pytest.approx(wanted[name], rel=1e-9)


def test_no_more_than_a_block_of_pictures_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frechet, "BLOCK", 50)
    sizes = []

    def counted(images: np.ndarray) -> np.ndarray:
        sizes.append(len(images))
        return two_numbers(images)

    metric = FrechetDistance(counted, "pixels")
    image = np.zeros((20, 2, 1, 1), np.float32)
    for _ in range(7):
        metric.update({"image": image}, {"image": image})
    metric.result()
    assert sizes == [60, 60, 60, 60, 20, 20]


def test_there_may_be_more_of_one_kind() -> None:
    random = np.random.default_rng(1)
    real, generated = (random.uniform(size=(n, 2, 1, 1)).astype(np.float32) for n in (40, 25))
    whole = FrechetDistance(two_numbers, "pixels")
    whole.update({"image": real}, {"image": generated})
    parts = FrechetDistance(two_numbers, "pixels")
    for i in range(0, 40, 10):
        parts.update({"image": real[i : i + 10]}, {"image": generated[i : i + 10]})
    assert parts.result() == pytest.approx(whole.result(), rel=1e-9)
    alone = FrechetDistance(two_numbers, "pixels")
    alone.update({"image": real}, {"image": generated[:0]})
    assert alone.result() == {}


def test_bytes_and_numbers_between_0_and_1_are_the_same_pictures() -> None:
    image = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    np.testing.assert_array_equal(as_unit(image), as_unit(image / np.float32(255)))
    assert as_unit(image).dtype == np.float32 and as_unit(image).max() == 1.0
