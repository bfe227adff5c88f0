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


def card(signature: str, described: Exported, files: list[str]) -> str:
    """The card of a RegNetY with one signature."""
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
    return model_card(
        "regnety", state, manifest, measured, {signature: described}, signature, files
    )


def test_the_card_says_what_how_good_how_made_and_how_to_load() -> None:
    takes = Exported({"image": "string [batch]"}, {"probability": "float32 [batch, 2]"}, "It is.")
    text = card("classify_encoded", takes, ["model.keras"])
    assert "# regnety 400MF" in text
    assert "| top_1_accuracy | 75 % | 74.1 % (ImageNet-1k, pycls model zoo, 100 epochs) |" in text
    assert "| cross_entropy | 0.5 | – |" in text
    assert "Licence: CC0" in text and "cat, dog" in text
    assert "| `classify_encoded` | `image`: string [batch] |" in text
    assert "hub.load" in text and "2 epochs, 7 steps" in text
    assert "(image=tf.constant([picture]))" in text and "`model.keras` opens with" in text


def test_the_card_of_a_generator_gives_it_noise() -> None:
    takes = Exported({"noise": "float32 [batch, 100]"}, {"image": "float32 [batch, 8]"}, "It is.")
    text = card("generate", takes, ["first.keras", "second.keras"])
    assert '["serving_default"](noise=tf.random.normal([1, 100])))' in text
    assert "picture.png" not in text and "preprocessing" not in text
    assert "`first.keras`, `second.keras` open with" in text
