import numpy as np
import pytest

from trainer.metrics import parzen
from trainer.metrics.parzen import DEVIATIONS, ParzenWindow, log_likelihood


def test_one_centre_is_one_normal_distribution() -> None:
    # At 2 standard deviations in one of three directions: -2^2 / 2 - 3 log(sqrt(2 pi) s).
    got = log_likelihood(np.array([[1.0, 0.0, 0.0]]), np.zeros((1, 3)), 0.5)
    assert got == pytest.approx([-2.0 - 3 * np.log(np.sqrt(2 * np.pi) * 0.5)])


def test_centres_are_mixed_in_equal_parts() -> None:
    points, centres = np.array([[0.3], [5.0]]), np.array([[0.0], [1.0], [1.0]])
    density = np.exp(-0.5 * ((points - centres.T) / 0.2) ** 2) / (0.2 * np.sqrt(2 * np.pi))
    got = log_likelihood(points, centres, 0.2)
    np.testing.assert_allclose(got, np.log(density.mean(axis=1)))


def test_far_points_do_not_have_likelihood_0() -> None:
    # exp(-5,000) is 0 in float64.
    got = log_likelihood(np.array([[10.0]]), np.zeros((4, 1)), 0.1)
    assert got == pytest.approx([-5000 - np.log(np.sqrt(2 * np.pi) * 0.1)])


def scored(real: np.ndarray, generated: np.ndarray, batch: int = 50) -> dict[str, float]:
    metric = ParzenWindow()
    for start in range(0, len(real), batch):
        part = slice(start, start + batch)
        metric.update({"image": real[part]}, {"image": generated[part]})
    return metric.result()


def test_the_deviation_is_that_of_the_pictures() -> None:
    # Pictures about one grey: of the ten deviations the nearest to theirs is the likeliest.
    random = np.random.default_rng(0)
    for wanted in (DEVIATIONS[2], DEVIATIONS[6]):
        real = (0.5 + wanted * random.standard_normal((400, 5, 5, 1))).astype(np.float32)
        result = scored(real, np.full_like(real, 0.5))
        assert result["parzen_deviation"] == wanted
        entropy = 25 * np.log(wanted * np.sqrt(2 * np.pi * np.e))
        assert result["parzen_log_likelihood"] == pytest.approx(-entropy, abs=2.0)
        # The log-density of 25 normal numbers has the variance 25 / 2.
        error = np.sqrt(25 / 2 / 360)
        assert result["parzen_standard_error"] == pytest.approx(error, rel=0.15)


def test_pictures_on_which_the_deviation_is_chosen_do_not_count() -> None:
    # The first tenth lies elsewhere: it decides the deviation, 1, and nothing else.
    real = np.zeros((100, 1, 1, 1), np.float32)
    real[:10] = 1.0
    result = scored(real, np.zeros_like(real))
    assert result["parzen_deviation"] == DEVIATIONS[-1] == 1.0
    assert result["parzen_log_likelihood"] == pytest.approx(-np.log(np.sqrt(2 * np.pi)))


def test_rows_are_worked_on_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    real, generated = np.random.default_rng(0).uniform(size=(2, 200, 3, 3, 1)).astype(np.float32)
    wanted = scored(real, generated)
    monkeypatch.setattr(parzen, "_ROWS", 7)
    assert scored(real, generated, 33) == pytest.approx(wanted)


def test_bytes_are_taken_as_parts_of_255() -> None:
    real = np.random.default_rng(0).integers(0, 256, (50, 3, 3, 1), np.uint8)
    generated = np.random.default_rng(1).uniform(size=(50, 3, 3, 1)).astype(np.float32)
    assert scored(real, generated) == scored(real / np.float32(255), generated)
