import dataclasses

import keras
import numpy as np
import pytest
from keras import ops

from trainer import backend
from trainer.models.numpy_gan import passes
from trainer.models.numpy_gan.config import TINY, Config
from trainer.models.numpy_gan.recipe import recipe


def arrays(network: keras.Model) -> list[np.ndarray]:
    return [np.array(ops.convert_to_numpy(v)) for v in network.trainable_variables]


def batch_of(config: Config, count: int, step: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(step)
    return {
        "image": random.integers(0, 256, (count, 28, 28, 1)).astype(np.uint8),
        "label": random.integers(0, 10, count),
        "noise": random.standard_normal((count, config.noise_size), np.float32),
        "generator_noise": random.standard_normal((count, config.noise_size), np.float32),
    }


def test_what_is_drawn_is_what_the_passes_by_hand_draw() -> None:
    ours = recipe(Config())
    noise = np.random.default_rng(0).standard_normal((3, 64), np.float32)
    drawn = ops.convert_to_numpy(ours.predict({"noise": noise, "image": None})["image"])
    wanted = np.tanh(passes.forward(arrays(ours.networks["generator"]), noise)[1][-1])
    np.testing.assert_allclose(drawn.reshape(3, -1), (wanted + 1) / 2, atol=1e-6)


def test_weights_begin_as_he_says() -> None:
    kernels = arrays(recipe(Config()).networks["discriminator"])[::2]
    assert [k.shape for k in kernels] == [(784, 256), (256, 128), (128, 1)]
    assert kernels[0].std() == pytest.approx((2 / (1.04 * 784)) ** 0.5, rel=0.01)
    assert kernels[1].std() == pytest.approx((2 / (1.04 * 256)) ** 0.5, rel=0.02)


def test_it_learns_what_pictures_look_like() -> None:
    # All real pictures are white on the left and black on the right.
    widths = {"generator_widths": (32,), "discriminator_widths": (32,)}
    config = dataclasses.replace(TINY, learning_rate=5e-3, **widths)
    ours = recipe(config)
    image = np.zeros((16, 28, 28, 1), np.uint8)
    image[:, :, :14] = 255
    step = backend.current().TrainStep(ours)
    for number in range(300):
        logs = step(number, {**batch_of(config, 16, number), "image": image})
    assert all(np.isfinite(float(value)) for value in logs.values())
    step.write()
    drawn = np.asarray(ours.predict(batch_of(config, 16, 0))["image"])
    assert drawn[:, :, :14].mean() > 0.75 and drawn[:, :, 14:].mean() < 0.25


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"generator_widths": (8, 0)}, r"Each of generator_widths .* got \[8, 0\]"),
        ({"clip_norm": 0.0}, "clip_norm must be above 0; got 0.0"),
    ],
)
def test_impossible_settings_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Config(**settings)
