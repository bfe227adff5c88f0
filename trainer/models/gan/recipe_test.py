from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import keras
import numpy as np
import pytest

from trainer import backend
from trainer.config import DatasetFacts, suited_to, with_settings
from trainer.errors import UserError
from trainer.models.gan.config import TINY, Config
from trainer.models.gan.recipe import build_discriminator, build_generator, kept, recipe
from trainer.recipe import Recipe


def batch_of(ours: Recipe, size: int = 4, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    noise = {n: random.standard_normal((size, *s), np.float32) for n, s in ours.noise.items()}
    image = random.integers(0, 256, (size, 28, 28, 1), np.uint8)
    return {"image": image, "label": random.integers(0, 10, size), **noise}


def test_networks_have_the_papers_sizes() -> None:
    # Of the normalised layers, four numbers per unit take the place of the bias.
    generator = 100 * 1200 + 1200 * 1200 + 2 * 4 * 1200 + 1201 * 784
    assert build_generator(Config()).count_params() == generator
    discriminator = 785 * 1200 + 241 * 1200 + 241
    assert build_discriminator(Config()).count_params() == discriminator


@pytest.mark.parametrize(
    "setting", ["noise_size=0", "image_size=0", "maxout_units=0", "kept_pixels=0", "kept_units=1.5"]
)
def test_settings_that_make_no_network_are_refused(setting: str) -> None:
    name, value = setting.split("=")
    with pytest.raises(UserError, match=f"^{name} must be"):
        with_settings(Config(), {name: value})
    with pytest.raises(UserError, match="widths must be"):
        with_settings(Config(), {"widths": "(4, 0)"})


def test_an_undecided_discriminator_is_at_log_2() -> None:
    ours = recipe(TINY)
    for variable in ours.networks["discriminator"].variables:
        variable.assign(np.zeros(variable.shape))
    batch = batch_of(ours)
    loss, logs = ours.updates[0].loss(batch)
    assert float(loss) == pytest.approx(2 * np.log(2))
    assert float(logs["real_score"]) == float(logs["generated_score"]) == pytest.approx(0.5)
    assert float(ours.updates[1].loss(batch)) == pytest.approx(np.log(2))


def test_the_discriminator_takes_the_largest_of_each_units_pieces() -> None:
    config = dataclasses.replace(TINY, image_size=2, maxout_units=3, maxout_pieces=2)
    network = build_discriminator(config)
    random = np.random.default_rng(0)
    weights = [random.standard_normal(w.shape) for w in network.weights]
    network.set_weights(weights)
    image, *factors = (random.uniform(size=s) for s in ((5, 2, 2, 1), (5, 2, 2, 1), (5, 3), (5, 3)))
    x = (image * factors[0]).reshape(5, 4)
    for layer in range(2):
        kernel, bias = weights[2 * layer : 2 * layer + 2]
        x = (x @ kernel + bias).reshape(5, 3, 2).max(axis=-1) * factors[1 + layer]
    wanted = x @ weights[4] + weights[5]
    np.testing.assert_allclose(network([image, *factors]), wanted, rtol=1e-4)


def test_dropout_keeps_the_papers_parts_and_the_mean() -> None:
    noise = np.random.default_rng(0).standard_normal((400, 784 + 480), np.float32)
    shown, *units = (np.asarray(factor) for factor in kept(noise, Config()))
    assert shown.shape == (400, 28, 28, 1) and [u.shape for u in units] == [(400, 240)] * 2
    np.testing.assert_allclose(np.unique(shown), [0, 1.25])
    assert (shown > 0).mean() == pytest.approx(0.8, abs=0.005)
    for factor in units:
        np.testing.assert_allclose(np.unique(factor), [0, 2])
        assert (factor > 0).mean() == pytest.approx(0.5, abs=0.01)
    assert abs(np.corrcoef(units[0].ravel(), units[1].ravel())[0, 1]) < 0.02


def test_without_dropout_all_is_kept() -> None:
    config = dataclasses.replace(TINY, kept_pixels=1.0, kept_units=1.0)
    noise = np.random.default_rng(0).standard_normal((2, 784 + 8), np.float32)
    assert all((np.asarray(factor) == 1).all() for factor in kept(noise, config))


def test_all_that_is_random_comes_with_the_batch() -> None:
    ours = recipe(TINY)
    batch = batch_of(ours)
    first, again = (float(ours.updates[0].loss(batch)[0]) for _ in range(2))
    assert first == again
    for name, update in (
        ("noise", 0),
        ("real_dropout", 0),
        ("generated_dropout", 0),
        ("generator_noise", 1),
        ("generator_dropout", 1),
    ):
        other = {
            **batch,
            name: np.random.default_rng(9).standard_normal(batch[name].shape, np.float32),
        }
        found = [ours.updates[update].loss(b) for b in (batch, other)]
        one, two = (float(f[0] if isinstance(f, tuple) else f) for f in found)
        assert one != two, f"{name} changes nothing"


def test_a_picture_does_not_depend_on_those_drawn_with_it() -> None:
    ours = recipe(TINY)
    noise = batch_of(ours, 8)["noise"]
    together, alone = (
        np.asarray(ours.signatures["generate"].function(n)["image"]) for n in (noise, noise[:1])
    )
    np.testing.assert_allclose(together[:1], alone, atol=1e-6)
    assert together.shape == (8, 28, 28, 1) and together.min() >= 0 and together.max() <= 1


def test_without_classes_there_is_no_judge() -> None:
    facts = DatasetFacts(class_names=(), train_examples=10, shorter_side=28, channels=1)
    ours = recipe(suited_to(dataclasses.replace(TINY, num_classes=10), facts, {}))
    assert set(ours.networks) == {"generator", "discriminator"} and len(ours.updates) == 2
    batch = {k: v for k, v in batch_of(ours).items() if k != "label"}
    assert set(ours.predict(batch)) == {"image"}
    assert len(ours.metrics(())) == 2


@pytest.fixture
def mixed_precision() -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy(before)


def test_losses_and_pictures_are_float32_in_mixed_precision(mixed_precision: None) -> None:
    ours = recipe(TINY)
    batch = batch_of(ours)
    losses = [update.loss(batch) for update in ours.updates]
    for found in losses:
        loss = found[0] if isinstance(found, tuple) else found
        assert keras.backend.standardize_dtype(loss.dtype) == "float32" and np.isfinite(loss)
    for name, values in ours.predict(batch).items():
        assert keras.backend.standardize_dtype(values.dtype) == "float32", name


def test_it_learns_what_pictures_look_like() -> None:
    # All real pictures are white on the left and black on the right.
    config = dataclasses.replace(
        TINY, widths=(32, 32), maxout_units=16, learning_rate=2e-3, discriminator_learning_rate=1e-3
    )
    ours = recipe(config)
    image = np.zeros((16, 28, 28, 1), np.uint8)
    image[:, :, :14] = 255
    step = backend.current().TrainStep(ours)
    for number in range(150):
        step(number, {**batch_of(ours, 16, number), "image": image})
    step.write()
    drawn = np.asarray(ours.predict(batch_of(ours, 16))["image"])
    assert drawn[:, :, :14].mean() > 0.75 and drawn[:, :, 14:].mean() < 0.25
