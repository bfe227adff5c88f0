import keras
import numpy as np
import pytest
from keras import layers, ops
from keras.initializers import RandomNormal

from trainer import backend
from trainer.models.batchnorm_only.config import TINY, Config
from trainer.models.batchnorm_only.partial import PartlyTrainedConv2D
from trainer.models.batchnorm_only.recipe import (
    DisabledFeatures,
    build_network,
    rate,
    recipe,
    trained_parameters,
)
from trainer.recipe import Recipe

GROUPS = ("batchnorm", "shortcut", "output", "convolution")


def counts(**settings) -> list[int]:
    """Trained parameters: all, and of each group alone but the last."""
    return [
        trained_parameters(build_network(Config(trained=trained, **settings)))
        for trained in (GROUPS, ("batchnorm",), ("shortcut",), ("output",))
    ]


@pytest.mark.parametrize(
    ("variant", "width", "wanted"),
    [  # He et al. 2015, section 4.2, with shortcuts that have weights; pycls agrees on 56 and 110
        ("ResNet-14", 1, [175_258, 1_120, 2_560, 650]),
        ("ResNet-56", 1, [855_770, 4_256, 2_560, 650]),
        ("ResNet-14", 4, [2_777_674, 4_480, 40_960, 2_570]),
        pytest.param("ResNet-110", 1, [1_730_714, 8_288, 2_560, 650], marks=pytest.mark.slow),
        pytest.param("ResNet-866", 1, [13_979_930, 64_736, 2_560, 650], marks=pytest.mark.slow),
    ],
)
def test_counts_of_cifar_networks(variant: str, width: int, wanted: list[int]) -> None:
    assert counts(variant=variant, width=width) == wanted


@pytest.mark.parametrize(
    ("variant", "wanted"),
    [  # torchvision's
        ("ResNet-18", [11_689_512, 9_600, 172_032, 513_000]),
        ("ResNet-50", [25_557_032, 53_120, 2_768_896, 2_049_000]),
        pytest.param(
            "ResNet-200", [64_673_832, 176_000, 2_768_896, 2_049_000], marks=pytest.mark.slow
        ),
    ],
)
def test_counts_of_imagenet_networks(variant: str, wanted: list[int]) -> None:
    assert counts(variant=variant, num_classes=1000, image_size=224) == wanted


def values(network: keras.Model) -> dict[str, np.ndarray]:
    return {v.path: np.array(ops.convert_to_numpy(v)) for v in network.weights}


def batch(size: int = 8, count: int = 8) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {
        "image": random.integers(0, 256, (count, size, size, 3)).astype(np.float32),
        "label": random.integers(0, 10, count),
    }


def trained(ours: Recipe, steps: int = 3) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Weights before and after so many steps."""
    network = ours.networks["resnet"]
    step = backend.current().TrainStep(ours)
    before = values(network)
    for number in range(steps):
        step(number, batch())
    step.write()
    return before, values(network)


def test_only_scales_offsets_and_statistics_change() -> None:
    before, after = trained(recipe(Config(image_size=8, learning_rate=0.02)))
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert {name.rpartition("/")[2] for name in changed} == {
        *("gamma", "beta", "moving_mean", "moving_variance"),
    }
    assert sum(before[name].size for name in changed) == 2 * 1_120
    assert changed == {name for name in before if "_bn" in name}


def test_the_control_trains_two_weights_of_each_filter_and_the_rest_to_the_last_bit_stays() -> None:
    ours = recipe(Config(image_size=8, learning_rate=0.02, trained=("random",)))
    network = ours.networks["resnet"]
    assert trained_parameters(network) == 1_120
    before, after = trained(ours)
    differing = {name: before[name] != after[name] for name in before}
    for layer in network.layers:
        if isinstance(layer, PartlyTrainedConv2D):
            moved = differing[layer.kernel.path].sum(axis=(0, 1, 2))
            assert moved.tolist() == [2] * layer.filters
    others = [n for n, d in differing.items() if d.any() and not n.endswith("kernel")]
    assert {name.rpartition("/")[2] for name in others} == {"moving_mean", "moving_variance"}
    again = build_network(Config(image_size=8, trained=("random",)))
    assert all(np.array_equal(before[name], value) for name, value in values(again).items())


def test_a_partly_trained_convolution_answers_as_a_whole_one() -> None:
    layer = PartlyTrainedConv2D(4, 3, trained=2, seed=1)
    image = np.random.default_rng(0).standard_normal((2, 5, 5, 3)).astype(np.float32)
    wanted = ops.convert_to_numpy(layer(image))
    plain = layer.as_keras_layer()
    plain.build((None, 5, 5, 3))
    plain.set_weights(layer.get_weights())
    np.testing.assert_array_equal(ops.convert_to_numpy(plain(image)), wanted)
    drawn = ops.convert_to_numpy(layer.trained_weights())
    assert (drawn != 0).sum(axis=(0, 1, 2)).tolist() == [2] * 4
    with pytest.raises(ValueError, match=r"must have at least 2 weights; those of .* have 1"):
        PartlyTrainedConv2D(4, 1, trained=2, seed=1).build((None, 5, 5, 1))


def test_the_rate_falls_to_a_tenth_with_the_first_step_after_a_milestone() -> None:
    schedule = rate(Config(train_examples=256, batch_size=128))
    got = [float(schedule(np.int32(step))) for step in (0, 159, 160, 239, 240)]
    np.testing.assert_allclose(got, [0.1, 0.1, 0.01, 0.01, 0.001], rtol=1e-6)
    warm = rate(
        Config(train_examples=256, batch_size=128, warmup_epochs=5, milestones=(), epochs=90)
    )
    np.testing.assert_allclose(
        [float(warm(np.int32(s))) for s in (0, 5, 10, 11)], [0, 0.05, 0.1, 0.1]
    )


def test_weights_begin_as_the_authors_do() -> None:
    network = build_network(Config(width=4))
    gamma = np.concatenate([v for n, v in values(network).items() if n.endswith("gamma")])
    assert gamma.min() >= 0 and gamma.max() <= 1 and gamma.mean() == pytest.approx(0.5, abs=0.03)
    found = values(network)
    assert not np.concatenate([v for n, v in found.items() if n.endswith("beta")]).any()
    # 3 x 3 weights of 256 channels.
    kernel = found[network.get_layer("s3_b2_conv_1").kernel.path]
    assert kernel.std() == pytest.approx((2 / (9 * 256)) ** 0.5, rel=0.01)
    # Not cut off at two standard deviations.
    assert (np.abs(kernel) > 2 * kernel.std()).mean() == pytest.approx(0.0455, abs=0.003)


@pytest.mark.parametrize("group", ["batchnorm", "random"])
def test_weight_decay_is_that_of_pytorch_and_of_what_is_trained(group: str) -> None:
    ours = recipe(Config(image_size=8, trained=(group,)))
    total, logs = ours.updates[0].loss(batch())
    network = ours.networks["resnet"]
    if group == "batchnorm":
        numbers = list(network.trainable_variables)
    else:
        kernels = [x for x in network.layers if isinstance(x, PartlyTrainedConv2D)]
        numbers = [layer.trained_weights() for layer in kernels]
    squares = sum(float(ops.sum(number**2)) for number in numbers)
    decay = float(total) - float(logs["cross_entropy"])
    # Its gradient is 1e-4 times each weight, which PyTorch adds to the gradient.
    assert decay == pytest.approx(0.5 * 1e-4 * squares, rel=2e-3)


def test_disabled_features_are_those_of_small_scale() -> None:
    network = build_network(TINY)
    gammas = [layer.gamma for layer in network.layers if layer.name.endswith("_bn_1")]
    for gamma in gammas:  # six blocks: 16 + 16 + 32 + 32 + 64 + 64 of 560 features
        gamma.assign(np.full(gamma.shape, -0.009))
    (share,) = DisabledFeatures(network).result().values()
    # Of 336 others, drawn from U(0, 1), one in a hundred is that small.
    assert share == pytest.approx(100 * (224 + 3.36) / 560, abs=1.5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 0}, "width must be at least 1; got 0"),
        ({"trained": ()}, "must name at least one group"),
        ({"trained": ("output", "output")}, "each once"),
        ({"trained": ("random", "convolution")}, "random, which is a part, beside convolution"),
        ({"milestones": (120, 80)}, r"must rise; got \[120, 80\]"),
    ],
)
def test_impossible_settings_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Config(**settings)


def earlier_network(blocks: int) -> keras.Model:
    """A network whose blocks are those of the earlier reproduction, as far as its pooled features.

    The last ReLU of a block comes before the sum, not after it; scales are drawn from N(0, 1).
    """

    def half(x, width, stride, activate=True):
        x = layers.Conv2D(width, 3, stride, "same", use_bias=False)(x)
        x = layers.BatchNormalization(gamma_initializer=RandomNormal(0.0, 1.0))(x)
        return layers.ReLU()(x) if activate else x

    image = keras.Input((8, 8, 3))
    x = layers.ReLU()(layers.Conv2D(16, 3, padding="same", use_bias=False)(image))
    for width in (16, 32, 64):
        for number in range(blocks):
            stride = 1 if number else 2
            shortcut = x if number else half(x, width, stride, activate=False)
            x = layers.Add()([shortcut, half(half(x, width, stride), width, 1)])
    return keras.Model(image, layers.GlobalAveragePooling2D()(x))


def test_features_do_not_grow_with_depth_as_the_earlier_reproductions_did() -> None:
    """Its sums only ever added what is not negative: with 36 blocks a run and more, it diverged."""
    image = np.random.default_rng(0).standard_normal((16, 8, 8, 3)).astype(np.float32)

    def size(network: keras.Model) -> float:
        return float(ops.mean(ops.abs(network(image, training=True))))

    def ours(blocks: int) -> keras.Model:
        network = build_network(Config(variant=f"ResNet-{6 * blocks + 2}", image_size=8))
        return keras.Model(network.input, network.get_layer("pool").output)

    keras.utils.set_random_seed(0)
    failing, cured = size(earlier_network(9)), size(ours(9))
    assert failing > 2 * cured
    assert failing > 2.5 * size(earlier_network(2))
