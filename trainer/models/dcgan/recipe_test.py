from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import keras
import numpy as np
import pytest

from trainer import backend
from trainer.config import DatasetFacts, suited_to, with_settings
from trainer.errors import UserError
from trainer.generators.drawing import standardise
from trainer.models.dcgan.config import TINY, Config
from trainer.models.dcgan.recipe import build_discriminator, build_generator, recipe
from trainer.recipe import Recipe


def batch_of(ours: Recipe, config: Config, size: int = 4, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    noise = {n: random.standard_normal((size, *s), np.float32) for n, s in ours.noise.items()}
    shape = (size, config.image_size, config.image_size, config.channels)
    image = random.integers(0, 256, shape, np.uint8)
    return {"image": image, "label": random.integers(0, 10, size), **noise}


@pytest.mark.parametrize(
    ("image_size", "sides", "widths"),
    [
        (64, (4, 8, 16, 32), (1024, 512, 256, 128)),  # the paper's figure 1
        (28, (7, 14), (256, 128)),
        (32, (4, 8, 16), (512, 256, 128)),
        (96, (6, 12, 24, 48), (1024, 512, 256, 128)),
    ],
)
def test_maps_halve_in_side_and_double_in_number(
    image_size: int, sides: tuple[int, ...], widths: tuple[int, ...]
) -> None:
    config = Config(image_size=image_size)
    assert config.sides == sides and config.widths == widths
    small = dataclasses.replace(config, width=4)
    noise = np.zeros((2, 100), np.float32)
    image = build_generator(small)(noise)
    assert image.shape == (2, image_size, image_size, 3)
    assert build_discriminator(small)(image).shape == (2, 1)


def test_parameters_are_those_of_the_authors_network_in_torch() -> None:
    # With 64 maps and 64 pixels: 3,576,704 and 2,765,568, and biases where nothing normalises;
    # Keras counts the moving mean and variance, too.
    config = Config(width=64)
    generator, discriminator = build_generator(config), build_discriminator(config)
    trainable = [
        sum(int(np.prod(v.shape)) for v in network.trainable_variables)
        for network in (generator, discriminator)
    ]
    assert trainable == [3_576_704 + 3, 2_765_568 + 64 + 1]


@pytest.mark.parametrize("image_size", [0, 3, 30, 44, 100])
def test_sizes_that_do_not_halve_down_are_refused(image_size: int) -> None:
    with pytest.raises(UserError, match="image_size must be"):
        with_settings(Config(), {"image_size": image_size})


@pytest.mark.parametrize("setting", ["noise_size=0", "width=0", "kernel_size=0", "channels=2"])
def test_settings_that_make_no_network_are_refused(setting: str) -> None:
    name, value = setting.split("=")
    with pytest.raises(UserError, match=f"^{name} must be"):
        with_settings(Config(), {name: value})


def test_neither_pictures_are_normalised_where_they_leave_nor_where_they_enter() -> None:
    for network in (build_generator(TINY), build_discriminator(TINY)):
        normalised = [la.name for la in network.layers if la.name.endswith("_bn")]
        assert normalised == (
            ["side_7_bn", "side_14_bn"] if network.name == "generator" else ["side_7_bn"]
        )


def test_initial_weights_are_normal_with_the_papers_deviation() -> None:
    kernel = build_generator(Config(width=16)).get_layer("up_8").get_weights()[0]
    assert kernel.std() == pytest.approx(0.02, rel=0.05)
    gamma = build_generator(Config(width=64)).get_layer("side_4_bn").get_weights()[0]
    assert gamma.mean() == pytest.approx(1.0, abs=0.01)
    assert gamma.std() == pytest.approx(0.02, rel=0.2)


def facts(side: int, channels: int = 3, classes: int = 10) -> DatasetFacts:
    return DatasetFacts(tuple(map(str, range(classes))), 1000, side, channels)


def test_the_dataset_decides_size_colour_and_classes() -> None:
    chosen = {side: suited_to(Config(), facts(side), {}) for side in (0, 20, 28, 32, 63, 64, 500)}
    assert {side: c.image_size for side, c in chosen.items()} == {
        0: 64,
        20: 28,
        28: 28,
        32: 32,
        63: 32,
        64: 64,
        500: 64,
    }
    assert (chosen[32].width, chosen[500].width) == (64, 128)
    grey = suited_to(Config(), facts(28, channels=1, classes=0), {"image_size": 32})
    assert (grey.channels, grey.num_classes, grey.image_size) == (1, 0, Config().image_size)


def test_real_and_generated_pictures_are_normalised_apart() -> None:
    ours = recipe(TINY)
    batch = batch_of(ours, TINY)
    _, logs = ours.updates[0].loss(batch)
    logit = ours.networks["discriminator"](standardise(batch["image"]), training=True)
    wanted = float(keras.ops.mean(keras.ops.sigmoid(logit)))
    assert float(logs["real_score"]) == pytest.approx(wanted, rel=1e-5)


def test_the_two_updates_draw_from_different_noise() -> None:
    ours = recipe(TINY)
    batch = batch_of(ours, TINY)
    other = {**batch, "noise": batch["noise"] + 1.0}
    first, second = (float(ours.updates[0].loss(b)[0]) for b in (batch, other))
    assert first != second
    first, second = (float(ours.updates[1].loss(b)) for b in (batch, other))
    assert first == pytest.approx(second, rel=1e-6)


def test_a_picture_does_not_depend_on_those_drawn_with_it() -> None:
    ours = recipe(TINY)
    noise = batch_of(ours, TINY, 8)["noise"]
    together, alone = (
        np.asarray(ours.signatures["generate"].function(n)["image"]) for n in (noise, noise[:1])
    )
    np.testing.assert_allclose(together[:1], alone, atol=1e-6)
    assert together.shape == (8, 28, 28, 1) and together.min() >= 0 and together.max() <= 1


def test_bytes_become_the_range_of_tanh() -> None:
    np.testing.assert_allclose(standardise(np.array([0, 255], np.uint8)), [-1.0, 1.0])


def test_without_classes_there_is_no_judge() -> None:
    config = dataclasses.replace(TINY, num_classes=0)
    ours = recipe(config)
    assert set(ours.networks) == {"generator", "discriminator"} and len(ours.updates) == 2
    batch = {k: v for k, v in batch_of(ours, config).items() if k != "label"}
    assert set(ours.predict(batch)) == {"image"}
    assert len(ours.metrics(())) == 1


@pytest.fixture
def mixed_precision() -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy(before)


def test_losses_and_pictures_are_float32_in_mixed_precision(mixed_precision: None) -> None:
    ours = recipe(TINY)
    batch = batch_of(ours, TINY)
    for update in ours.updates:
        found = update.loss(batch)
        loss = found[0] if isinstance(found, tuple) else found
        assert keras.backend.standardize_dtype(loss.dtype) == "float32" and np.isfinite(loss)
    for name, values in ours.predict(batch).items():
        assert keras.backend.standardize_dtype(values.dtype) == "float32", name


def test_it_learns_what_pictures_look_like() -> None:
    # All real pictures are white on the left and black on the right.
    config = dataclasses.replace(TINY, learning_rate=2e-3, discriminator_learning_rate=2e-3)
    ours = recipe(config)
    image = np.zeros((16, 28, 28, 1), np.uint8)
    image[:, :, :14] = 255
    step = backend.current().TrainStep(ours)
    for number in range(150):
        step(number, {**batch_of(ours, config, 16, number), "image": image})
    step.write()
    drawn = np.asarray(ours.predict(batch_of(ours, config, 16))["image"])
    assert drawn[:, :, :14].mean() > 0.75 and drawn[:, :, 14:].mean() < 0.25
