from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from components.preprocess.graph import Graph, input_specs, stored_features
from trainer.dataset import Feature
from trainer.errors import BadItem, UserError

RAW = {
    "text": Feature("bytes", description="a number in letters", content="text"),
    "label": Feature("int64", description="its class", content="label"),
    "box": Feature("float32", (None, 4), description="boxes", content="box"),
}
EXAMPLES = [
    {"text": b"1", "label": 3, "box": np.zeros((0, 4), np.float32)},
    {"text": b"20", "label": 4, "box": np.arange(8, dtype=np.float32).reshape(2, 4)},
    {"text": b"x", "label": 5, "box": np.ones((1, 4), np.float32)},
    {"text": b"-7", "label": 6, "box": np.ones((1, 4), np.float32)},
]
Save = Callable[[Callable[[dict[str, Any]], dict[str, Any]]], Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Saves a function as TF Transform saves `preprocessing_fn`."""

    def saved(function: Callable[[dict[str, Any]], dict[str, Any]]) -> Path:
        module = tf.Module()
        traced = tf.function(function, input_signature=[input_specs(RAW)], autograph=False)
        module.transform_fn = traced.get_concrete_function()
        tf.saved_model.save(module, str(tmp_path / "graph" / "transform_fn"))
        return tmp_path / "graph"

    return saved


def pixels(inputs: dict[str, Any]) -> dict[str, Any]:
    """Two grey pixels of a number; refuses negative ones, and what is no number."""
    number = tf.strings.to_number(inputs["text"], tf.int64)
    tf.debugging.assert_non_negative(number, message="negative")
    pixel = tf.stack([number, number + 1], axis=1)
    image = tf.cast(tf.cast(pixel, tf.uint8), tf.int64)
    return {"image": image, "wide": pixel, "label": inputs["label"], "box": inputs["box"] / 2}


def test_what_is_stored_follows_from_the_graph(save: Save) -> None:
    stored = stored_features(save(pixels), "m", RAW, {"image": "uint8"})
    made = "as preprocessing_fn of m returns it"
    assert stored == {
        # Still in pixels? Nobody knows, so it is not said to be a box.
        "box": Feature("float32", (None, 4), "list", "boxes"),
        "image": Feature("uint8", (2,), "raw", made),
        "label": Feature("int64", (), "list", "its class", "label"),
        "wide": Feature("int64", (2,), "raw", made),
    }


def test_each_example_gets_its_values_or_a_reason(save: Save) -> None:
    folder = save(pixels)
    graph = Graph(folder, "m", RAW, stored_features(folder, "m", RAW, {"image": "uint8"}))
    first, second, letters, negative = graph(EXAMPLES)
    assert first["image"].dtype == np.uint8
    assert (first["image"].tolist(), second["image"].tolist()) == ([1, 2], [20, 21])
    assert second["wide"].dtype == np.int64
    assert (first["label"], second["label"]) == (3, 4)
    assert first["box"].shape == (0, 4)
    np.testing.assert_array_equal(second["box"], EXAMPLES[1]["box"] / 2)
    assert isinstance(letters, BadItem)
    assert letters.reason == "preprocessing it failed (StringToNumberOp could not correctly " + (
        "convert string: x)"
    )
    assert letters.expected == "an example that m can preprocess"
    assert isinstance(negative, BadItem)
    assert "negative" in negative.reason


def test_what_only_a_feature_needs_that_is_passed_by_is_not_computed(save: Save) -> None:
    folder = save(pixels)
    stored = stored_features(folder, "m", RAW, {})
    wanted = {"label": stored["label"]}
    assert all(isinstance(row, dict) for row in Graph(folder, "m", RAW, wanted, ["text"])(EXAMPLES))
    # An assertion holds for all who do not pass by what it is about.
    outcomes = Graph(folder, "m", RAW, wanted, ["box"])(EXAMPLES)
    assert [isinstance(row, BadItem) for row in outcomes] == [False, False, True, True]


def test_a_narrower_type_must_hold_every_value(save: Save) -> None:
    folder = save(pixels)
    graph = Graph(folder, "m", RAW, stored_features(folder, "m", RAW, {"wide": "uint8"}))
    assert graph([{**EXAMPLES[0], "text": b"254"}])[0]["wide"].tolist() == [254, 255]
    with pytest.raises(UserError, match="STORED_AS of m says uint8 for wide, which cannot hold"):
        graph([EXAMPLES[0], {**EXAMPLES[0], "text": b"255"}])


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (lambda i: {"x": i["box"].values[:, 0]}, "for 4 examples it returned 5 of 'x'"),
        (lambda i: {"x": tf.reshape(i["label"], (-1, 2))}, "for 4 examples it returned 2 of 'x'"),
    ],
)
def test_there_must_be_a_value_for_each_example(
    save: Save, output: Callable[[dict[str, Any]], dict[str, Any]], message: str
) -> None:
    folder = save(output)
    graph = Graph(folder, "m", RAW, stored_features(folder, "m", RAW, {}))
    more = {**EXAMPLES[0], "box": np.ones((2, 4), np.float32)}
    with pytest.raises(UserError, match=message):
        graph([more, *EXAMPLES[1:3], EXAMPLES[0]])


def nested(inputs: dict[str, Any]) -> dict[str, Any]:
    return {"x": tf.strings.bytes_split(tf.strings.split(inputs["text"], ","))}


def open_ended(inputs: dict[str, Any]) -> dict[str, Any]:
    return {"x": inputs["box"].to_tensor()}


def sparse(inputs: dict[str, Any]) -> dict[str, Any]:
    return {"x": tf.strings.split(inputs["text"]).to_sparse()}


@pytest.mark.parametrize("output", [nested, open_ended, sparse])
def test_what_cannot_be_kept_is_told(
    save: Save, output: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    with pytest.raises(UserError, match=r"must return tensors of known sizes, or ragged .*'x' is"):
        stored_features(save(output), "m", RAW, {})


def test_narrower_types_that_do_not_fit_are_told(save: Save) -> None:
    folder = save(pixels)
    with pytest.raises(UserError, match=r"must name what preprocessing_fn returns, which is box, "):
        stored_features(folder, "m", RAW, {"imgae": "uint8"})
    for name in ("label", "box"):
        with pytest.raises(UserError, match=f"uint8 of tensors of known sizes only; '{name}' is"):
            stored_features(folder, "m", RAW, {name: "uint8"})


def test_features_kept_as_raw_bytes_go_in_as_strings() -> None:
    raw = {"image": Feature("uint8", (2, 2), "raw"), "many": Feature("bytes", (3,))}
    specs = input_specs(raw)
    assert specs["image"] == tf.TensorSpec([None], tf.string)
    assert specs["many"] == tf.TensorSpec([None, 3], tf.string)
