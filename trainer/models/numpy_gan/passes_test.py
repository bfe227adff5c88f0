import itertools
from collections.abc import Callable

import numpy as np
import pytest

from trainer.models.numpy_gan import passes

SIZES = {"generator": (3, 5, 6), "discriminator": (6, 5, 4, 1)}


def weights(random: np.random.Generator, name: str) -> list[np.ndarray]:
    found = []
    for inputs, units in zip(SIZES[name], SIZES[name][1:], strict=False):
        found += [random.standard_normal((inputs, units)), random.standard_normal(units)]
    return found


def differences(function: Callable[[], float], array: np.ndarray, step: float) -> np.ndarray:
    """Central differences of a function by every number of an array."""
    found = np.zeros_like(array)
    for index in np.ndindex(array.shape):
        before = array[index]
        values = []
        for moved in (before + step, before - step):
            array[index] = moved
            values.append(function())
        array[index] = before
        found[index] = (values[0] - values[1]) / (2 * step)
    return found


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("player", ["discriminator", "generator"])
def test_gradients_equal_finite_differences(player: str, seed: int) -> None:
    random = np.random.default_rng(seed)
    others = [*weights(random, "generator" if player == "discriminator" else "discriminator")]
    if player == "discriminator":
        others.append(random.uniform(-1, 1, (7, 6)))
    others.append(random.standard_normal((7, 3)))
    moving = weights(random, player)
    function = getattr(passes, player)
    _, gradients = function(moving, others)
    for array, gradient in zip(moving, gradients, strict=True):
        wanted = differences(lambda: float(function(moving, others)[0][0]), array, 1e-5)
        scale = max(np.abs(wanted).max(), 1e-3)
        assert np.abs(gradient - wanted).max() / scale < 1e-7


def test_losses_and_gradients_are_finite_where_probabilities_are_0_or_1() -> None:
    """A float32 probability is 1 from a logit of 17 on, and its logarithm's complement infinite."""
    logit = np.array([[-200.0], [-17.0], [0.0], [17.0], [200.0]], np.float32)
    assert passes.sigmoid(logit).dtype == np.float32
    np.testing.assert_allclose(
        passes.sigmoid(logit)[:, 0], [0, 4.14e-8, 0.5, 1, 1], rtol=1e-3, atol=1e-30
    )
    with np.errstate(all="raise", under="ignore"):
        assert passes.cross_entropy(logit, 0.0) == pytest.approx((17 + 200 + np.log(2)) / 5)
        assert passes.cross_entropy(logit, 1.0) == pytest.approx((17 + 200 + np.log(2)) / 5)
    # -log(0.5) for an undecided discriminator.
    assert passes.cross_entropy(np.zeros((3, 1)), 0.9) == pytest.approx(np.log(2))


def earlier_step(random: np.random.Generator, image: np.ndarray) -> float:
    """The discriminator's loss of the earlier attempt, which no step survived.

    Weights from N(0, 1), pictures from 0 to 255, and logarithms of probabilities.
    """
    sums = image
    for inputs, units in ((784, 256), (256, 128), (128, 1)):
        x = np.maximum(sums, 0)
        sums = x @ random.standard_normal((inputs, units)).astype(np.float32)
    with np.errstate(all="ignore"):
        probability = 1 / (1 + np.exp(-sums))
        return float(-np.mean(np.log(probability) + np.log(1 - probability)))


def test_the_earlier_attempt_was_infinite_at_its_first_step_and_this_is_not() -> None:
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (64, 784)).astype(np.float32)
    assert not np.isfinite(earlier_step(random, image))
    sizes = {"discriminator": (784, 256, 128, 1), "generator": (64, 128, 256, 784)}
    players = {}
    for name, units in sizes.items():
        pairs = list(itertools.pairwise(units))
        players[name] = [
            array.astype(np.float32)
            for inputs, width in pairs
            for array in (
                random.standard_normal((inputs, width)) * np.sqrt(2 / inputs),
                np.zeros(width),
            )
        ]
    noise = random.standard_normal((64, 64)).astype(np.float32)
    standard = image / 127.5 - 1
    numbers, gradients = passes.discriminator(
        players["discriminator"], [*players["generator"], standard, noise]
    )
    assert np.isfinite(numbers).all() and all(np.isfinite(g).all() for g in gradients)
    assert all(g.dtype == np.float32 for g in gradients)
    assert 0.5 < numbers[0] < 5


def test_the_saturating_form_has_no_gradient_where_the_other_has() -> None:
    """While the discriminator is sure, log(1 - D) is flat, and the generator learns nothing."""
    logit = np.array([[-30.0]])
    saturating = -passes.sigmoid(logit)  # the gradient of log(1 - D) by the logit
    ours = passes.sigmoid(logit) - 1.0  # of -log D
    assert abs(saturating) < 1e-12 and ours == pytest.approx(-1.0)
