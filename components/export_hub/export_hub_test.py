import numpy as np
import pytest

from components.export_hub.export_hub import model_card
from trainer.data.manifest import Manifest, Shard, Split
from trainer.engine.checkpoint import State
from trainer.engine.export import Exported, difference


def test_the_difference_is_the_largest_one_and_relative_beyond_1() -> None:
    wanted = {"small": np.array([0.5, 0.25]), "large": np.array([100.0, -200.0])}
    got = {"small": np.array([0.5, 0.125]), "large": np.array([100.0, -199.0])}
    assert difference(wanted, wanted) == 0.0
    assert difference(got, wanted) == pytest.approx(0.125)
    assert difference({**got, "small": wanted["small"]}, wanted) == pytest.approx(1 / 200)


def test_the_card_says_what_how_good_how_made_and_how_to_load() -> None:
    manifest = Manifest(
        dataset="folder",
        title="My pictures",
        homepage="https://example.org",
        licence="CC0",
        source_digest="0",
        class_names=("cat", "dog"),
        evaluation_split="validation",
        features={},
        splits={"validation": Split((Shard("file", 4, 1, "0", "0"),))},
    )
    state = State(
        model="regnety",
        config={"variant": "400MF", "epochs": 2},
        class_names=("cat", "dog"),
        step=7,
        epoch=2,
        file="",
        sha256="",
        origin="Trained on My pictures.",
        versions={"keras": "3"},
    )
    measured = {
        "split": "validation",
        "examples": 4,
        "dataset": "My pictures",
        "metrics": {"top_1_accuracy": 75.0, "cross_entropy": 0.5},
    }
    signature = Exported(
        {"image": "string [batch]"}, {"probability": "float32 [batch, 2]"}, "Takes it."
    )
    card = model_card("regnety", state, manifest, measured, {"classify_encoded": signature})
    assert "# regnety 400MF" in card
    assert "| top_1_accuracy | 75 % | 74.1 % (ImageNet-1k, pycls model zoo, 100 epochs) |" in card
    assert "| cross_entropy | 0.5 | – |" in card
    assert "Licence: CC0" in card and "cat, dog" in card
    assert "| `classify_encoded` | `image`: string [batch] |" in card
    assert "hub.load" in card and "2 epochs, 7 steps" in card
