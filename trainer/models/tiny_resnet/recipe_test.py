import keras
import numpy as np
import pytest
from keras import layers, ops

from trainer.models.tiny_resnet.config import BLOCKS, Config
from trainer.models.tiny_resnet.recipe import build_network, rate, recipe


def test_parameters_are_those_of_the_notebook() -> None:
    network = build_network(Config())
    assert network.count_params() == 817_247
    assert sum(int(np.prod(v.shape)) for v in network.trainable_variables) == 809_497


def test_resolutions_are_those_of_the_notebook() -> None:
    network = build_network(Config())
    ends = [f"s{i}_b{count}_sum" for i, (count, _) in enumerate(BLOCKS, start=1)]
    maps = keras.Model(network.input, [network.get_layer(name).output for name in ends])
    found = maps(np.zeros((1, 64, 64, 3), np.float32))
    assert [tuple(x.shape[1:]) for x in found] == [(32, 32, 64), (16, 16, 128), (8, 8, 256)]


def test_a_picture_of_any_size_is_answered_where_the_earlier_script_failed() -> None:
    """Its head averaged 8 x 8 pixels; of the 4 x 4 or 2 x 2 of smaller sizes it left nothing."""
    network = build_network(Config(num_classes=5))
    maps = keras.Model(network.input, network.get_layer("output_relu").output)
    earlier = layers.AveragePooling2D(8)
    for size in (64, 32, 16):
        picture = np.random.default_rng(0).random((2, size, size, 3), np.float32)
        logit = ops.convert_to_numpy(network(picture, training=False))
        assert logit.shape == (2, 5) and np.isfinite(logit).all()
        assert (0 in earlier(maps(picture)).shape) == (size < 64)


def test_the_rate_falls_in_a_straight_line_or_stays() -> None:
    falling = rate(Config(batch_size=10, train_examples=100))
    got = [float(falling(step)) for step in (0, 150, 200)]
    np.testing.assert_allclose(got, [0.01, 0.005, 0.01 / 3], rtol=1e-5)
    assert rate(Config(decay_epochs=0)) == 0.01


def test_weight_decay_is_that_of_keras_and_of_the_layers_that_had_it() -> None:
    ours = recipe(Config(num_classes=5))
    network = ours.networks["tiny_resnet"]
    batch = {"image": np.zeros((2, 16, 16, 3), np.uint8), "label": np.array([0, 1])}
    total, logs = ours.updates[0].loss(batch)

    def squares(layer: str, kind: str = "kernel") -> float:
        return float(ops.sum(ops.square(getattr(network.get_layer(layer), kind))))

    wanted = 5e-4 * squares("output")
    wanted += 5e-4 * sum(squares(f"stem_conv_{i}", "depthwise_kernel") for i in (1, 2, 3))
    for i, (blocks, _) in enumerate(BLOCKS, start=1):
        for j in range(1, blocks + 1):
            wanted += 1e-4 * squares(f"s{i}_b{j}_conv_1")
            wanted += 1e-4 * squares(f"s{i}_b{j}_conv_2", "depthwise_kernel")
            wanted += 1e-4 * squares(f"s{i}_b{j}_conv_3")
    assert float(total) - float(logs["cross_entropy"]) == pytest.approx(wanted, rel=1e-3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"training_size": 4}, "training_size must be at least 8"),
        ({"image_size": 7}, "image_size must be at least 8"),
        ({"epochs": 40}, "decay_epochs must be 0 or at least epochs, 40"),
    ],
)
def test_impossible_settings_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Config(**settings)
