import dataclasses
import json
from pathlib import Path

import keras
import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.golden import golden_state
from trainer.config import DatasetFacts, suited_to
from trainer.engine import checkpoint
from trainer.engine.import_weights import import_weights
from trainer.errors import UserError
from trainer.models.cyclegan.config import TINY, Config
from trainer.models.cyclegan.networks import build_discriminator, build_generator
from trainer.models.cyclegan.recipe import recipe
from trainer.models.cyclegan.schedule import ConstantThenLinear
from trainer.models.cyclegan.translations import Translations, panels

GOLDEN = json.loads((Path(__file__).parent / "testdata" / "mnist_svhn_transfer.json").read_text())
"""Answers of yunjey/mnist-svhn-transfer's networks, for weights and inputs made by rules."""

DIGITS = Config(variant="digits", image_size=32, load_size=32, pool_size=0, channels_a=1)


def numbers(tensor) -> np.ndarray:
    return keras.ops.convert_to_numpy(tensor)


def golden_folder(folder: Path) -> Path:
    """The four networks as files: two with known answers, and their mirror images."""
    folder.mkdir()
    generator = GOLDEN["generator_gray_to_colour"]["state"]
    discriminator = GOLDEN["discriminator_colour"]["state"]
    ends = {"conv1.0.weight": [64, 3, 4, 4], "deconv2.0.weight": [64, 1, 4, 4]}
    files = {
        "g12-40000": generator,
        "g21-40000": [[name, ends.get(name, shape)] for name, shape in generator],
        "d1-40000": [
            [name, [64, 1, 4, 4] if name == "conv1.0.weight" else shape]
            for name, shape in discriminator
        ],
        "d2-40000": discriminator,
    }
    for name, entries in files.items():
        save_file(golden_state(entries), folder / f"{name}.pkl")
    return folder


def test_networks_for_digits_equal_the_reference_number_for_number(tmp_path: Path) -> None:
    state = import_weights(
        "cyclegan", "mnist_svhn_transfer", golden_folder(tmp_path / "theirs"), tmp_path / "ours"
    )
    assert dataclasses.asdict(DIGITS) == state.config
    ours = recipe(state.load_config())
    checkpoint.restore(tmp_path / "ours", ours, networks_only=True)
    answers = {}
    for name, key in (
        ("generator_gray_to_colour", "a_to_b"),
        ("discriminator_colour", "discriminator_b"),
    ):
        golden, network = GOLDEN[name], ours.networks[key]
        assert network.count_params() - statistics(network) == golden["params"]
        image = np.random.default_rng(0).uniform(-1, 1, golden["input_shape"])
        answer = network(image.transpose(0, 2, 3, 1).astype(np.float32), training=False)
        answers[name] = numbers(answer).transpose(0, 3, 1, 2)
        assert answers[name].size == np.prod(golden["output_shape"])
        first = answers[name].ravel()[:8]
        np.testing.assert_allclose(first, golden["output_first8"], rtol=1e-4, atol=1e-5)
        assert answers[name].mean() == pytest.approx(golden["output_mean"], rel=1e-4)
        assert answers[name].std() == pytest.approx(golden["output_std"], rel=1e-4)
    centre = answers["generator_gray_to_colour"][0, :, 16, 16]
    wanted = GOLDEN["generator_gray_to_colour"]["output_centre"]
    np.testing.assert_allclose(centre, wanted, rtol=1e-4)


def statistics(network: keras.Model) -> int:
    return sum(int(np.prod(v.shape)) for v in network.non_trainable_variables)


def test_a_folder_that_lacks_a_network_is_refused(tmp_path: Path) -> None:
    folder = golden_folder(tmp_path / "theirs")
    (folder / "g21-40000.pkl").unlink()
    with pytest.raises(UserError, match=r"g21-\*\.pkl.*b_to_a is not there"):
        import_weights("cyclegan", "mnist_svhn_transfer", folder, tmp_path / "ours")


@pytest.mark.parametrize(("blocks", "parameters"), [(9, 11_378_179), (6, 7_837_699)])
def test_generators_for_photos_have_the_parameters_of_the_authors(
    blocks: int, parameters: int
) -> None:
    network = build_generator(Config(blocks=blocks), 3, 3, 0, "a_to_b")
    assert network.count_params() == parameters
    assert network.output_shape == (None, 256, 256, 3)


def test_a_score_for_photos_is_of_a_patch_of_70_pixels() -> None:
    network = build_discriminator(Config(), 3, 0, "discriminator_a")
    assert network.count_params() == 2_764_737
    assert network.output_shape == (None, 30, 30, 1)
    # Without instance normalisation, which looks at all of a picture, nothing else counts.
    kernels = [layer for layer in network.layers if isinstance(layer, keras.layers.Conv2D)]
    field = 1
    for layer in reversed(kernels):
        field = (field - 1) * layer.strides[0] + layer.kernel_size[0]
    assert field == 70


def test_transposed_convolutions_lie_where_pytorchs_do() -> None:
    network = build_generator(Config(image_size=32, load_size=36, blocks=1, width=1), 3, 3, 0, "x")
    spread, cropping = (network.get_layer(f"up_1{end}") for end in ("", "_cropping"))
    spread.kernel.assign(np.arange(1.0, 19.0).reshape(spread.kernel.shape))
    dot = np.zeros((1, 16, 16, 2), np.float32)
    dot[0, 5, 5, 0] = 1.0
    out = numbers(cropping(spread(dot)))[0, :, :, 0]
    assert out.shape == (32, 32)
    # Stride 2, padding 1, output padding 1: the kernel's first element lands at 2 * 5 - 1.
    assert np.flatnonzero(out.any(axis=1)).tolist() == [9, 10, 11]
    np.testing.assert_array_equal(out[9:12, 9:12].ravel(), np.arange(1.0, 19.0, 2.0))


def test_the_losses_are_those_of_the_paper() -> None:
    config = dataclasses.replace(TINY, pool_size=0, channels_a=3)
    ours = recipe(config)
    random = np.random.default_rng(0)
    batch = {
        f"image_{side}": random.uniform(0, 255, (4, 32, 32, 3)).astype(np.float32) for side in "ab"
    }
    real = {side: batch[f"image_{side}"] / 127.5 - 1.0 for side in "ab"}

    def run(name: str, image: np.ndarray) -> np.ndarray:
        return numbers(ours.networks[name](image, training=True)).astype(np.float64)

    fake = {"b": run("a_to_b", real["a"]), "a": run("b_to_a", real["b"])}
    back = {"a": run("b_to_a", fake["b"]), "b": run("a_to_b", fake["a"])}
    same = {"b": run("a_to_b", real["b"]), "a": run("b_to_a", real["a"])}
    adversarial = sum(np.square(run(f"discriminator_{s}", fake[s]) - 1).mean() for s in "ab")
    cycle = sum(np.abs(back[s] - real[s]).mean() for s in "ab")
    identity = sum(np.abs(same[s] - real[s]).mean() for s in "ab")
    loss, extras = ours.updates[0].loss(batch)
    assert float(loss) == pytest.approx(adversarial + 10 * cycle + 5 * identity, rel=1e-5)
    np.testing.assert_allclose(numbers(extras["fake_b"]), fake["b"], rtol=1e-4, atol=1e-6)
    learnt = sum(
        0.5 * np.square(run(f"discriminator_{s}", real[s]) - 1).mean()
        + 0.5 * np.square(run(f"discriminator_{s}", fake[s])).mean()
        for s in "ab"
    )
    loss, _ = ours.updates[1].loss({**batch, **extras})
    assert float(loss) == pytest.approx(learnt, rel=1e-5)
    squared = recipe(dataclasses.replace(config, cycle_loss="l2", identity_weight=0.0))
    _, extras = squared.updates[0].loss(batch)
    cycle = sum(np.square(back[s] - real[s]).mean() for s in "ab")
    assert float(extras["cycle"]) == pytest.approx(cycle, rel=1e-4)
    assert "identity" not in extras


def test_discriminators_learn_from_the_pool() -> None:
    ours = recipe(dataclasses.replace(TINY, pool_size=1))
    batch = {
        **{f"image_{side}": np.full((1, 32, 32, 3), 99.0, np.float32) for side in "ab"},
        **{f"pool_{side}": np.array([[0.0, -1.0]], np.float32) for side in "ab"},
    }
    first, second = (np.full((1, 32, 32, 3), value, np.float32) for value in (0.25, -0.75))
    for fake in (first, second):
        ours.updates[1].loss({**batch, "fake_a": fake, "fake_b": fake})
    pool = ours.networks["pool_b"].get_layer("pool")
    np.testing.assert_array_equal(numbers(pool.kept), second)
    given_back = ours.networks["pool_a"]([first, batch["pool_a"]])
    np.testing.assert_array_equal(numbers(given_back), second)


def test_the_rate_falls_to_one_part_in_101_as_in_the_authors_code() -> None:
    schedule = ConstantThenLinear(0.0002, 200, 100, 10)
    rates = [float(schedule(np.array(epoch * 10 + 9))) for epoch in (0, 98, 99, 149, 198, 199)]
    factors = [1.0, 1.0, 1 - 1 / 101, 1 - 51 / 101, 1 - 100 / 101, 0.0]
    assert rates == pytest.approx([0.0002 * f for f in factors], abs=1e-10)
    constant = ConstantThenLinear(0.0002, 20, 0, 10)
    assert float(constant(np.array(189))) == pytest.approx(0.0002)


@pytest.mark.parametrize(
    ("variant", "facts", "wanted"),
    [
        ("photos", DatasetFacts(("A", "B"), 2401, 256), (0, 256, 286, 50, 1, 200)),
        ("photos", DatasetFacts(("A", "B"), 10_000, 32), (0, 32, 36, 50, 1, 200)),
        (
            "digits",
            DatasetFacts(tuple(f"{d}/{n}" for d in "AB" for n in range(10)), 133_257, 32),
            (10, 32, 32, 0, 64, 38),
        ),
    ],
)
def test_the_dataset_decides(variant: str, facts: DatasetFacts, wanted: tuple[int, ...]) -> None:
    config = suited_to(Config(variant=variant), facts, {})
    names = ("num_classes", "image_size", "load_size", "pool_size", "batch_size", "epochs")
    assert tuple(getattr(config, name) for name in names) == wanted
    assert config.train_examples == facts.train_examples // 2


@pytest.mark.parametrize("names", [("cat", "dog"), (), ("A/0", "B/1"), ("A/0", "A/1", "B/0")])
def test_a_dataset_without_two_domains_is_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match="CycleGAN needs pictures of two domains"):
        suited_to(Config(), DatasetFacts(names, 100, 64), {})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_size": 30}, "image_size must be a multiple of 4, and 32 or more; got 30"),
        ({"variant": "digits", "image_size": 36}, "a multiple of 8"),
        ({"load_size": 200}, "load_size must be at least image_size, 256; got 200"),
        ({"channels_a": 2}, "channels_a must be 1 or 3; got 2"),
        ({"decay_share": 1.5}, "decay_share must be from 0 to 1; got 1.5"),
    ],
)
def test_settings_that_do_not_fit_are_told(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Config(**settings)


def test_each_judge_learns_its_domain_and_judges_what_comes_to_it() -> None:
    config = dataclasses.replace(TINY, num_classes=2, channels_a=1)
    ours = recipe(config)
    assert set(ours.updates[2].optimizers) == {"judge_a", "judge_b"}
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (6, 32, 32, 3)).astype(np.uint8)
    batch = {"image": image, "domain": np.array([0, 1, 0, 1, 1, 0]), "label": np.arange(6) % 2}
    outputs = {name: numbers(value) for name, value in ours.predict(batch).items()}
    assert outputs["image_a"].shape == (6, 32, 32, 1) and outputs["image_b"].shape[-1] == 3
    translated = 2.0 * outputs["image_b"] - 1.0
    wanted = keras.ops.softmax(ours.networks["judge_b"](translated, training=False))
    np.testing.assert_allclose(outputs["probability_b"], numbers(wanted), atol=1e-5)
    metric = Translations(("A/x", "A/y", "B/x", "B/y"), 2)
    metric.update(batch, outputs)
    found = metric.result()
    in_a = batch["domain"] == 0
    kept = outputs["probability_b"][in_a].argmax(axis=1) == batch["label"][in_a]
    assert found["class_kept_a_to_b"] == pytest.approx(100 * kept.mean())
    known = outputs["real_probability_b"][~in_a].argmax(axis=1) == batch["label"][~in_a]
    assert found["judge_accuracy_b"] == pytest.approx(100 * known.mean())
    grey = image[in_a] @ np.array([[0.299], [0.587], [0.114]]) / 255.0
    error = np.abs(outputs["back_in_a"][in_a] - grey).mean()
    assert found["cycle_error_a"] == pytest.approx(error, rel=1e-4)
    assert found["confusion"].class_names == ("x", "y")
    assert found["confusion"].counts.sum() == 3
    rows = panels(batch, outputs, ("A/x", "A/y", "B/x", "B/y"))
    assert [len(row.images) for row in rows] == [3] * 6
    assert rows[1].captions[0].split()[0] in ("x", "y")
    sampled = numbers(ours.samples(batch)["Translated to the other domain"])
    np.testing.assert_allclose(sampled[0], outputs["image_b"][0], atol=1e-6)
    np.testing.assert_allclose(sampled[1, :, :, :1], outputs["image_a"][1], atol=1e-6)
