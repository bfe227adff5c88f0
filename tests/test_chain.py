"""The steps fit together: every model goes from raw files to an export that answers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import load_file, save_file

from components.evaluate.evaluate import evaluate
from components.export_hub.answer import answer
from components.export_hub.export_hub import export_hub
from components.report.report import report
from components.train.train import train
from tests.conftest import Prepared, model_cases
from trainer.artifact import read_json, sha256, write_json
from trainer.catalog import load_paper
from trainer.data.manifest import read_manifest
from trainer.errors import UserError

Prepare = Callable[[str], Prepared]

OUTPUTS = ("checkpoint", "logs", "evaluation", "metrics", "confusion")


def run_chain(ready: Prepared, folder: Path) -> None:
    """All steps from train on; outputs carry the names of their artifacts."""
    examples, transformed = str(ready.examples), str(ready.transformed_examples)
    out = {n: str(folder / n) for n in OUTPUTS}
    train(ready.model, transformed, out["checkpoint"], out["logs"], ready.settings)
    evaluate(
        ready.model,
        transformed,
        out["checkpoint"],
        out["evaluation"],
        out["metrics"],
        out["confusion"],
    )
    export(ready, ready.transformed_examples, folder, "export")
    report(
        ready.model,
        examples,
        out["checkpoint"],
        out["evaluation"],
        str(folder / "export"),
        str(folder / "report.html"),
    )


def export(ready: Prepared, transformed_examples: Path, folder: Path, name: str) -> None:
    """Exports what run_chain has trained and evaluated in a folder, to a subfolder."""
    export_hub(
        ready.model,
        str(ready.examples),
        str(transformed_examples),
        str(ready.transform_graph),
        str(folder / "checkpoint"),
        str(folder / "evaluation"),
        str(folder / name),
    )


@pytest.mark.parametrize("model", model_cases())
def test_from_raw_files_to_an_export_that_answers(
    model: str, prepared: Prepare, tmp_path: Path
) -> None:
    ready = prepared(model)
    run_chain(ready, tmp_path)

    export = read_json(tmp_path / "export" / "export.json")
    # What is in the raw examples is served as it is there; noise is not.
    inputs = next(iter(export["signatures"].values()))["inputs"]
    raw = read_manifest(ready.examples).features
    assert export["serving_default"].endswith("_encoded") == (set(inputs) <= set(raw))
    assert max(export["parity"]["largest_difference"].values()) <= 1e-5
    for file, digest in export["sha256"].items():
        assert sha256(tmp_path / "export" / file) == digest
    assert " answers: " in answer(str(tmp_path / "export"))
    # The Keras files, one a network, open with nothing of ours registered: plain layers only.
    files = list((tmp_path / "export").glob("*.keras"))
    assert files
    for file in files:
        for layer in keras.saving.load_model(file, compile=False)._flatten_layers():
            assert type(layer).__module__.startswith("keras."), layer

    paper, measured = load_paper(model), read_json(tmp_path / "evaluation" / "metrics.json")
    card = (tmp_path / "export" / "README.md").read_text(encoding="utf-8")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    published = [r.metric for r in paper.results if r.metric in measured["metrics"]]
    for text in (card, page):
        assert paper.title in text
        for metric in published or list(measured["metrics"])[:1]:
            assert f"{measured['metrics'][metric]:.4g}" in text
    assert "hub.load" in card and "## Limits" in card
    # One file: nothing is loaded from elsewhere.
    assert 'src="data:image/png' in page
    assert "<script" not in page and "<link" not in page


def test_an_export_that_differs_from_predict_is_refused(prepared: Prepare, tmp_path: Path) -> None:
    """Training data made by another graph than the one that is served."""
    ready = prepared("autoencoder")
    run_chain(ready, tmp_path)
    other = tmp_path / "transformed_examples"
    shutil.copytree(ready.transformed_examples, other)
    raw = read_json(ready.examples / "manifest.json")
    split = raw["evaluation_split"]
    # The keys of the stored examples now belong to other pictures: serving and training differ.
    manifest = read_json(other / "manifest.json")
    from trainer.data.examples import decode_example, encode_example
    from trainer.data.records import RecordWriter, read_records

    known = read_manifest(other)
    paths = known.files(other, split)
    decoded = [decode_example(known.features, r) for p in paths for r in read_records(p)]
    rotated = [{**e, "key": decoded[i - 1]["key"]} for i, e in enumerate(decoded)]
    with RecordWriter(paths[0]) as writer:
        for example in rotated:
            writer.write(encode_example(known.features, example))
    manifest["splits"][split]["shards"] = [vars(writer.shard(paths[0].name))]
    write_json(other / "manifest.json", manifest)
    with pytest.raises(RuntimeError, match=r"must answer as predict does.*reconstruct_encoded by"):
        export(ready, other, tmp_path, "refused")
    assert not (tmp_path / "refused").exists()


def test_weights_that_know_no_names_take_those_of_the_examples(
    prepared: Prepare, tmp_path: Path
) -> None:
    ready = prepared("autoencoder")
    run_chain(ready, tmp_path)
    state = tmp_path / "checkpoint" / "state.json"
    write_json(state, {**read_json(state), "class_names": []})
    export(ready, ready.transformed_examples, tmp_path, "imported")
    named, imported = (
        read_json(tmp_path / name / "export.json")["class_names"] for name in ("export", "imported")
    )
    assert imported == named == [str(digit) for digit in range(10)]


def test_faults_of_the_user_are_told_in_a_line(prepared: Prepare, tmp_path: Path) -> None:
    ready = prepared("autoencoder")
    checkpoint = str(tmp_path / "checkpoint")
    transformed = str(ready.transformed_examples)
    with pytest.raises(UserError, match=r"Did you mean 'epochs'"):
        train("autoencoder", transformed, checkpoint, "", {"epoch": 3})
    with pytest.raises(UserError, match=r"folder with a facts\.json"):
        train("autoencoder", str(ready.examples), checkpoint, "")
    with pytest.raises(UserError, match="backend must be tensorflow or jax; got 'torch'"):
        train("autoencoder", transformed, checkpoint, "", ready.settings, backend="torch")
    with pytest.raises(UserError, match=r"batch_size must be at most the number of training ex"):
        train("autoencoder", transformed, checkpoint, "", {**ready.settings, "batch_size": 10**6})
    train("autoencoder", transformed, checkpoint, "", ready.settings)
    with pytest.raises(UserError, match=r"goes on only with the settings it began with.*code_size"):
        train("autoencoder", transformed, checkpoint, "", {**ready.settings, "code_size": 3})

    arrays = load_file(next(Path(checkpoint).glob("*.safetensors")))
    name = next(n for n in arrays if n.startswith("networks/"))
    damaged = {**arrays, name: np.full_like(arrays[name], np.nan)}
    save_file(damaged, next(Path(checkpoint).glob("*.safetensors")))
    with pytest.raises(UserError, match=r"must have the SHA-256 that state\.json names"):
        train("autoencoder", transformed, checkpoint, "", {**ready.settings, "epochs": 2})


def test_a_loss_that_becomes_nan_ends_the_training_and_keeps_the_last_checkpoint(
    prepared: Prepare, tmp_path: Path
) -> None:
    ready = prepared("autoencoder")
    settings = {**ready.settings, "learning_rate": 1e30}
    with pytest.raises(UserError, match=r"stay finite; at step \d+ reconstruction_loss became"):
        train("autoencoder", str(ready.transformed_examples), str(tmp_path), "", settings)


def test_the_saved_model_takes_png_and_jpeg_of_any_size(prepared: Prepare, tmp_path: Path) -> None:
    ready = prepared("autoencoder")
    run_chain(ready, tmp_path)
    served = tf.saved_model.load(str(tmp_path / "export" / "saved_model")).signatures
    square = tf.cast(tf.fill((40, 40, 3), 128), tf.uint8)
    pictures = tf.stack([tf.io.encode_png(square), tf.io.encode_jpeg(square, quality=100)])
    outputs = served["serving_default"](image=pictures)
    assert outputs["image"].shape == (2, 28, 28, 1)
    np.testing.assert_allclose(outputs["image"][0], outputs["image"][1], atol=1e-2)
    grey = tf.fill((1, 28, 28, 1), 128 / 255)
    np.testing.assert_allclose(
        served["reconstruct"](image=grey)["image"][0], outputs["image"][0], atol=1e-5
    )
    about = json.loads((tmp_path / "export" / "export.json").read_text())
    assert about["signatures"]["reconstruct"]["inputs"] == {"image": "float32 [batch, 28, 28, 1]"}
