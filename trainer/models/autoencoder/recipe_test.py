import itertools

import keras
import numpy as np
import pytest

from trainer.engine.complexity import complexity
from trainer.models.autoencoder.config import TINY, Config
from trainer.models.autoencoder.recipe import SquaredError, recipe, squared_error


def test_parameters_are_those_of_the_papers_network() -> None:
    # 784-1000-500-250-30 and back: every layer has width_in * width_out weights and biases.
    widths = [784, 1000, 500, 250, 30, 250, 500, 1000, 784]
    wanted = sum((a + 1) * b for a, b in itertools.pairwise(widths))
    assert complexity(recipe(Config()).networks["autoencoder"]).parameters == wanted == 2_837_314


def test_an_undecided_redrawing_costs_ln_2_per_pixel() -> None:
    ours = recipe(TINY)
    for variable in ours.networks["autoencoder"].variables:
        variable.assign(keras.ops.zeros_like(variable))
    image = np.random.default_rng(0).uniform(size=(4, 28, 28, 1)).astype(np.float32)
    loss, logs = ours.updates[0].loss({"image": image})
    assert float(loss) == pytest.approx(np.log(2), rel=1e-6)
    # All logits are 0, so every pixel is drawn at one half.
    assert float(logs["squared_error"]) == pytest.approx(((image - 0.5) ** 2).sum() / 4, rel=1e-5)


def test_squared_error_sums_over_the_pixels_of_each_picture() -> None:
    black, grey = np.zeros((2, 2, 2, 1)), np.full((2, 2, 2, 1), 0.5)
    np.testing.assert_allclose(squared_error(black, grey), [1.0, 1.0])
    metric = SquaredError()
    metric.update({"image": black}, {"image": grey})
    metric.update({"image": black}, {"image": black})
    result = metric.result()
    assert result["squared_error"] == pytest.approx(0.5)
    assert result["mean_squared_error"] == pytest.approx(0.125)
    assert result["psnr"] == pytest.approx(-10 * np.log10(0.125))
