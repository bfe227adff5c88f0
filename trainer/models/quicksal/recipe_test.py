"""The network, and why the earlier reproduction never learned: each cause beside its cure."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import layers, ops

from trainer import backend
from trainer.backbones.mobilenet_v2 import convert, torchvision_weights
from trainer.errors import UserError
from trainer.models.quicksal import import_torchvision
from trainer.models.quicksal.config import TINY, Config
from trainer.models.quicksal.recipe import (
    MOMENTUM,
    NonzeroParameters,
    build_decoder,
    build_encoder,
    cross_entropy_and_overlap,
    mean_absolute_error,
    normalise,
    optimizers_of,
    recipe,
)
from trainer.optimizers.pruning import PruningAdam

Networks = dict[str, keras.Model]


@pytest.fixture(scope="module")
def networks() -> Networks:
    config = dataclasses.replace(TINY, depth=4)
    return {"encoder": build_encoder(config), "decoder": build_decoder(config)}


def trained(networks: Networks) -> int:
    variables = [v for network in networks.values() for v in network.trainable_variables]
    return sum(int(np.prod(v.shape)) for v in variables)


def scenes(count: int, size: int) -> dict[str, np.ndarray]:
    """Bright discs on dark noise, and where they are: 15 % of the pixels."""
    generator = np.random.default_rng(0)
    rows, columns = np.mgrid[:size, :size]
    masks = []
    for _ in range(count):
        row, column = generator.uniform(0.35, 0.65, 2) * size
        masks.append((rows - row) ** 2 + (columns - column) ** 2 < (0.22 * size) ** 2)
    mask = np.stack(masks)
    image = generator.uniform(0, 120, (count, size, size, 3)) + 110 * mask[..., None]
    return {"image": image.astype(np.float32), "mask": mask.astype(np.uint8)}


def test_there_are_the_papers_3_3_million_parameters(networks: Networks) -> None:
    assert trained(networks) == 3_277_313
    assert sum(network.count_params() for network in networks.values()) == 3_319_681


def test_a_map_has_the_size_of_the_picture(networks: Networks) -> None:
    maps = networks["encoder"](np.zeros((2, 64, 64, 3), np.float32))
    logit = networks["decoder"](maps)
    assert tuple(logit.shape) == (2, 64, 64, 1)
    # Undecided at first.
    assert float(ops.max(ops.abs(ops.sigmoid(logit) - 0.5))) < 0.1


def test_an_encoder_of_imagenet_has_torchvisions_weights() -> None:
    ours = recipe(Config(image_size=64)).networks["encoder"]
    for name, value in convert(torchvision_weights()).items():
        layer, variable = name.split("/")
        found = getattr(ours.get_layer(layer), variable)
        np.testing.assert_array_equal(ops.convert_to_numpy(found), value)


def test_imported_weights_are_the_encoders_and_nothing_elses(networks: Networks) -> None:
    state = torchvision_weights()
    assert import_torchvision.settings_of(state) == {"encoder": "random"}
    paths = {f"networks/encoder/{v.path}" for v in networks["encoder"].weights}
    assert set(import_torchvision.convert(state)) == paths
    assert not any(path.startswith(import_torchvision.LEFT) for path in paths)
    with pytest.raises(UserError, match="it has none"):
        import_torchvision.settings_of({"conv1.weight": np.zeros((64, 3, 7, 7))})


def test_the_losses_of_a_map_by_hand() -> None:
    # Half of the object is found, for sure, and nothing else.
    logit = np.array([[[50.0, -50.0], [-50.0, -50.0]]], np.float32)
    mask = np.array([[[1.0, 1.0], [0.0, 0.0]]], np.float32)
    assert float(mean_absolute_error(logit, mask)) == pytest.approx(0.25)
    # One pixel of four costs 50 nats; of the two that either has, 1 is common: 1 - (1+1)/(2+1).
    wanted = 50.0 / 4 + 1 / 3
    assert float(cross_entropy_and_overlap(logit, mask)) == pytest.approx(wanted, rel=1e-5)
    assert float(cross_entropy_and_overlap(100 * mask - 50, mask)) == pytest.approx(0, abs=1e-5)


def gradient_of(loss, logit: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """By central differences, in float64."""
    found = np.zeros_like(logit)
    for place in np.ndindex(logit.shape):
        for sign in (1, -1):
            moved = logit.copy()
            moved[place] += sign * 1e-4
            found[place] += sign * float(loss(moved, mask)) / 2e-4
    return found


def test_a_black_map_is_a_trap_for_the_papers_loss_and_none_for_ours() -> None:
    """Under a mean absolute error the best constant is the median, black, and nothing leads out."""
    mask = np.zeros((1, 5, 5))
    mask[0, 1:3, 1:3] = 1.0  # 16 % of the pixels
    constants = np.linspace(-12.0, 12.0, 49)

    def best(loss) -> float:
        costs = [float(loss(np.full((1, 5, 5), c), mask)) for c in constants]
        return float(constants[np.argmin(costs)])

    assert best(mean_absolute_error) == -12.0
    assert -2.5 < best(cross_entropy_and_overlap) < 0.0
    black = np.full((1, 5, 5), -12.0)
    inside = mask > 0
    earlier = gradient_of(mean_absolute_error, black, mask)[inside] * mask.size
    ours = gradient_of(cross_entropy_and_overlap, black, mask)[inside] * mask.size
    assert np.abs(earlier).max() < 1e-5
    assert (ours < -0.9).all()


@pytest.mark.filterwarnings("ignore:You are using a softmax over axis -1:UserWarning")
def test_a_softmax_over_one_channel_says_1_and_learns_nothing() -> None:
    logit = np.random.default_rng(0).normal(size=(1, 4, 4))
    mask = np.zeros((1, 4, 4))
    mask[0, 0] = 1.0

    def earlier(logit, mask):
        return ops.mean(ops.abs(ops.softmax(ops.expand_dims(logit, -1))[..., 0] - mask))

    assert float(earlier(logit, mask)) == pytest.approx(0.75)  # 1 - mean(mask), for ever
    assert not gradient_of(earlier, logit, mask).any()
    assert np.abs(gradient_of(mean_absolute_error, logit, mask)).min() > 1e-4


def test_statistics_follow_the_pictures_within_an_epoch() -> None:
    """With Keras's momentum of 0.999 for MobileNetV2, validation sees initial values for long."""
    x = np.random.default_rng(0).normal(3.0, 2.0, (16, 8, 8, 4)).astype(np.float32)
    apart = {}
    for momentum in (0.999, MOMENTUM):
        layer = layers.BatchNormalization(momentum=momentum)
        for _ in range(100):
            trained = layer(x, training=True)
        apart[momentum] = float(ops.mean(ops.abs(layer(x, training=False) - trained)))
    assert apart[0.999] > 1.0 and apart[MOMENTUM] < 0.01


def test_pictures_are_standardised_once() -> None:
    image = np.zeros((1, 2, 2, 3), np.uint8)
    image[..., :] = (124, 116, 104)  # 255 times ImageNet's mean
    assert np.abs(ops.convert_to_numpy(normalise(image))).max() < 0.02
    # White: (1 - mean) / deviation.
    white = ops.convert_to_numpy(normalise(np.full((1, 1, 1, 3), 255, np.uint8)))
    np.testing.assert_allclose(white[0, 0, 0], [2.2489, 2.4286, 2.64], atol=1e-4)


@pytest.mark.parametrize(
    ("epochs", "half_cycle"),
    [(16, 2_000), (15, 1_875), (40, 2_000), (4, 1_000), (1, 250)],
)
def test_the_rate_goes_by_steps_in_whole_cycles(
    networks: Networks, epochs: int, half_cycle: int
) -> None:
    optimizers = optimizers_of(Config(epochs=epochs), networks)  # 500 steps each
    for name, factor in (("encoder", 0.1), ("decoder", 1.0)):
        rate = optimizers[name]._learning_rate
        assert rate.half_cycle == half_cycle
        assert float(rate(0)) == pytest.approx(factor * 1e-4)
        assert float(rate(half_cycle)) == pytest.approx(factor * 1e-3)
        assert float(rate(500 * epochs)) < factor * 3e-4


def test_as_many_weights_are_kept_as_the_sparsity_leaves(networks: Networks) -> None:
    optimizers = optimizers_of(Config(sparsity=0.9575), networks)
    left = 0
    for name, network in networks.items():
        optimizer = optimizers[name]
        assert isinstance(optimizer, PruningAdam)
        assert (optimizer.steps, optimizer.every) == (8 * 500, 100)
        left += sum(optimizer.kept.values())
        others = [v for v in network.trainable_variables if v.path not in optimizer.kept]
        left += sum(int(np.prod(v.shape)) for v in others)
    assert 138_000 < left <= 0.0425 * trained(networks) < 140_000
    # A short training chooses more often, and is done before its last step.
    short = optimizers_of(Config(sparsity=0.5, train_examples=160, epochs=2), networks)["decoder"]
    assert (short.steps, short.every) == (20, 1)
    with pytest.raises(ValueError, match="can be kept"):
        optimizers_of(Config(sparsity=0.99), networks)


def test_nonzero_parameters_are_counted() -> None:
    image = keras.Input((4,))
    small = keras.Model(image, layers.Dense(5)(image))
    small.layers[-1].kernel.assign(np.tile([1.0, 0, 0, 0, 2.0], (4, 1)))
    found = NonzeroParameters(small).result()
    assert found == {"nonzero_parameters": 8e-6, "sparsity": 1 - 8 / 25}


@pytest.mark.slow
def test_it_fits_a_few_pictures_and_prunes_what_it_learned() -> None:
    """The diagnosis that the earlier reproduction lacked: eight pictures, an error below 0.02."""
    batch = scenes(8, 64)
    ours = recipe(
        Config(
            image_size=64,
            highest_learning_rate=2e-3,
            sparsity=0.8,
            pruning_epochs=150,
            batch_size=8,
            epochs=300,
            train_examples=8,
        )
    )
    step = backend.current().TrainStep(ours)
    for number in range(300):
        logs = step(number, batch)
    step.write()
    assert float(logs["absolute_error"]) < 0.02 < 0.15 < float(logs["error_of_black"])
    saliency = ops.convert_to_numpy(ours.predict(batch)["saliency"])
    assert np.abs(saliency - batch["mask"]).mean() < 0.03
    assert ours.metrics(())[1].result()["sparsity"] == pytest.approx(0.8, abs=0.005)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_size": 100}, "image_size must be a multiple of 32"),
        ({"depth": 1}, "depth must be at least 1, and 4 where"),
        ({"sparsity": 1.0}, "sparsity must be from 0 to below 1"),
        ({"lowest_learning_rate": 1e-2}, "learning rates must be above 0"),
        ({"encoder_rate": -1.0}, "encoder_rate must be at least 0"),
        ({"pruning_epochs": 0}, "pruning_epochs must be at least 1"),
    ],
)
def test_impossible_settings_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Config(**settings)
