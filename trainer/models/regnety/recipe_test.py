import json
from pathlib import Path

import keras
import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.golden import golden_state
from trainer.engine import checkpoint
from trainer.engine.complexity import Complexity, complexity
from trainer.engine.import_weights import import_weights
from trainer.errors import UserError
from trainer.models.regnety.config import Config
from trainer.models.regnety.recipe import build_regnety, normalise, recipe

GOLDEN = json.loads((Path(__file__).parent / "testdata" / "pycls.json").read_text())
"""Logits of pycls's own networks, for weights and inputs made by the rules below."""


@pytest.mark.parametrize(
    ("variant", "parameters", "multiply_adds", "activations"),
    [  # pycls: dev/model_complexity.json
        ("200MF", 3_162_996, 199_519_076, 2_168_052),
        ("400MF", 4_344_144, 401_849_056, 3_892_496),
        ("600MF", 6_055_160, 601_227_608, 4_334_296),
        ("800MF", 6_263_168, 797_183_328, 5_249_888),
    ],
)
def test_counts_equal_those_of_pycls(
    variant: str, parameters: int, multiply_adds: int, activations: int
) -> None:
    network = build_regnety(Config(variant=variant))
    assert complexity(network) == Complexity(parameters, multiply_adds, activations)


@pytest.mark.parametrize("variant", ["200MF", "800MF"])
def test_logits_equal_those_of_pycls(variant: str, tmp_path: Path) -> None:
    golden = GOLDEN[variant]
    save_file(golden_state(golden["state"]), tmp_path / "weights.safetensors")
    state = import_weights("regnety", "pycls", tmp_path / "weights.safetensors", tmp_path / "ours")
    assert state.config["variant"] == variant
    ours = recipe(state.load_config())
    checkpoint.restore(tmp_path / "ours", ours, networks_only=True)
    image = np.random.default_rng(0).uniform(-2, 2, (2, 3, 224, 224)).transpose(0, 2, 3, 1)
    logit = keras.ops.convert_to_numpy(
        ours.networks["regnety"](image.astype(np.float32), training=False)
    )
    scale = golden["logits_std"]
    np.testing.assert_allclose(logit[:, :8], golden["logits_first8"], rtol=1e-3, atol=1e-3 * scale)
    assert logit.argmax(axis=1).tolist() == golden["argmax"]
    assert logit.mean() == pytest.approx(golden["logits_mean"], rel=1e-3)
    assert logit.std() == pytest.approx(golden["logits_std"], rel=1e-3)


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    state = golden_state(GOLDEN["200MF"]["state"])
    del state["s4.b7.f.a.weight"]
    save_file(state, tmp_path / "weights.safetensors")
    with pytest.raises(UserError, match=r"lacks networks/regnety/s4_b7_f_a/kernel"):
        import_weights("regnety", "pycls", tmp_path / "weights.safetensors", tmp_path / "ours")
    with pytest.raises(UserError, match="must come from pycls; got 'timm'"):
        import_weights("regnety", "timm", tmp_path / "weights.safetensors", tmp_path / "ours")


def test_normalise_standardises_and_puts_blue_first() -> None:
    image = np.zeros((1, 1, 1, 3), np.uint8)
    image[..., 0] = 255  # red
    blue, green, red = keras.ops.convert_to_numpy(normalise(image))[0, 0, 0]
    assert red == pytest.approx((1 - 0.485) / 0.229, rel=1e-6)
    assert green == pytest.approx(-0.456 / 0.224, rel=1e-6)
    assert blue == pytest.approx(-0.406 / 0.225, rel=1e-6)


def test_weight_decay_is_that_of_pytorch() -> None:
    config = Config(num_classes=3, image_size=32, batch_size=4, train_examples=8)
    ours = recipe(config)
    batch = {"image": np.zeros((4, 32, 32, 3), np.uint8), "label": np.zeros(4, np.int64)}
    total, logs = ours.updates[0].loss(batch)
    squares = sum(float(keras.ops.sum(v**2)) for v in ours.networks["regnety"].trainable_variables)
    # The gradient of this term is 5e-5 times each weight, which PyTorch adds to the gradient.
    decay = float(total) - float(logs["cross_entropy"])
    assert decay == pytest.approx(0.5 * 5e-5 * squares, rel=1e-3)
