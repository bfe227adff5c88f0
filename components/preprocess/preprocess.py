"""Raw examples become transformed examples and the graph that transformed them."""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import apache_beam as beam
import numpy as np
import tensorflow as tf
import tensorflow_transform.beam as tft_beam
from apache_beam.options.pipeline_options import PipelineOptions
from PIL import Image
from tensorflow_transform.tf_metadata import schema_utils
from tfx_bsl.public import tfxio

from trainer.artifact import read_json, whole_folder, write_json
from trainer.catalog import load_config, model_part
from trainer.config import DatasetFacts, suited_to, with_settings
from trainer.data.examples import decode_example, encode_example
from trainer.data.facts import write_facts
from trainer.data.manifest import Manifest, Shard, Split, read_manifest, write_manifest
from trainer.data.records import RecordWriter, read_records
from trainer.dataset import Feature
from trainer.reproducible import settle_saved_model

MEASURED_PICTURES = 256
"""Pictures whose size is looked at to tell the size that a dataset's pictures have (ours)."""

BATCH_SIZE = 64
"""Examples that go through the graph at once: bounds the memory of a worker (ours)."""

RECORD = "record"
"""Column that carries each raw example past the graph."""


def preprocess(
    model: str,
    examples: str,
    transformed_examples: str,
    transform_graph: str,
    settings: dict[str, Any] | None = None,
    beam_options: str = "--runner=FnApiRunner",
) -> dict[str, dict[str, Any]]:
    """Applies a model's preprocessing to all examples, by Beam and TF Transform.

    The training split decides what has to be learnt from the data; every split goes through the
    same graph, which is kept for serving. Which shard an example is in, and where, follows from its
    key alone, so the result does not depend on the runner.

    Args:
        model: Name of the model.
        examples: Folder of examples, as create_tfrecords writes it.
        transformed_examples: Folder to write the transformed examples to.
        transform_graph: Folder to write the transform graph to.
        settings: Changes to the model's configuration, such as {"image_size": 64}.
        beam_options: Options of the Beam pipeline, separated by spaces.
    """
    manifest = read_manifest(examples)
    facts = dataset_facts(manifest, examples)
    chosen = settings or {}
    config = suited_to(with_settings(load_config(model), chosen), facts, chosen)
    data = model_part(model, "data")
    raw_for_training = getattr(data, "RAW_FOR_TRAINING", ())
    stored_as = getattr(data, "STORED_AS", {})

    def transform(inputs: Mapping[str, Any]) -> dict[str, Any]:
        return dict(data.preprocessing_fn(inputs, config))

    def transform_for_training(inputs: Mapping[str, Any]) -> dict[str, Any]:
        # Only what the training split stores, so that nothing is decoded in vain.
        return {k: v for k, v in transform(inputs).items() if k not in raw_for_training}

    raw = {name: f for name, f in manifest.features.items() if name != "key"}
    source = tfxio.TFExampleBeamRecord(
        physical_format="tfrecord",
        telemetry_descriptors=["paper2hub"],
        schema=schema_utils.schema_from_feature_spec({n: _column(f) for n, f in raw.items()}),
        raw_record_column_name=RECORD,
    )
    with whole_folder(transformed_examples) as folder, whole_folder(transform_graph) as graph:
        features: dict[str, dict[str, Feature]] = {}
        with (
            tempfile.TemporaryDirectory() as scratch,
            beam.Pipeline(options=PipelineOptions(beam_options.split())) as pipeline,
            tft_beam.Context(
                temp_dir=scratch, desired_batch_size=BATCH_SIZE, passthrough_keys={RECORD}
            ),
        ):
            batches = {
                split: pipeline
                | f"Name {split}" >> beam.Create([str(p) for p in manifest.files(examples, split)])
                | f"Read {split}" >> beam.FlatMap(read_records)
                | f"Batch {split}" >> source.BeamSource(batch_size=BATCH_SIZE)
                for split in manifest.splits
            }
            adapter = source.TensorAdapterConfig()
            learnt = (batches["train"], adapter) | "Learn" >> tft_beam.AnalyzeDataset(transform)
            _ = learnt | tft_beam.WriteTransformFn(str(graph))
            for split in manifest.splits:
                kept: tuple[str, ...] = ()
                applied = learnt
                if split == "train" and raw_for_training:
                    kept = raw_for_training
                    applied = (batches[split], adapter) | "Learn for training" >> (
                        tft_beam.AnalyzeDataset(transform_for_training)
                    )
                transformed, metadata = ((batches[split], adapter), applied) | (
                    f"Transform {split}" >> tft_beam.TransformDataset(output_record_batches=True)
                )
                features[split] = {
                    "key": manifest.features["key"],
                    **{name: manifest.features[name] for name in kept},
                    **_stored(metadata.schema, stored_as),
                }
                shards = len(manifest.splits[split].shards)
                _ = (
                    transformed
                    | f"Encode {split}"
                    >> beam.FlatMap(_encode, manifest.features, features[split], kept, shards)
                    | f"Gather {split}" >> beam.GroupByKey()
                    | f"Write {split}" >> beam.Map(_write_shard, str(folder), split, shards)
                )
        settle_saved_model(graph / "transform_fn")
        splits = {
            split: Split(_shards(folder, split), manifest.splits[split].quarantined)
            for split in manifest.splits
        }
        for split, done in splits.items():
            if done.records != manifest.splits[split].records:
                raise RuntimeError(
                    f"{split} must keep its {manifest.splits[split].records} examples; "
                    f"{done.records} came out of the Beam pipeline."
                )
        write_facts(folder, facts)
        evaluated = features[manifest.evaluation_split]
        write_manifest(
            folder,
            dataclasses.replace(
                manifest,
                features=evaluated,
                split_features={k: v for k, v in features.items() if v != evaluated},
                splits=splits,
            ),
        )
    counts = {split: done.records for split, done in splits.items()}
    return {"transformed_examples": {"model": model, **counts}, "transform_graph": {"model": model}}


def dataset_facts(manifest: Manifest, examples: str | Path) -> DatasetFacts:
    """What a model's config may adapt to: classes, training examples, size of pictures."""
    sides = []
    if "image" in manifest.features:
        records = (r for path in manifest.files(examples, "train") for r in read_records(path))
        for record in islice(records, MEASURED_PICTURES):
            with Image.open(BytesIO(decode_example(manifest.features, record)["image"])) as image:
                sides.append(min(image.size))
    return DatasetFacts(
        class_names=manifest.class_names,
        train_examples=manifest.splits["train"].records,
        shorter_side=int(statistics.median(sides)) if sides else 0,
    )


def _column(feature: Feature) -> tf.io.FixedLenFeature:
    kinds = {"bytes": tf.string, "int64": tf.int64, "float32": tf.float32}
    kind = tf.string if feature.encoding == "raw" else kinds[feature.dtype]
    return tf.io.FixedLenFeature(() if feature.encoding == "raw" else feature.shape, kind)


def _stored(schema: Any, stored_as: Mapping[str, str]) -> dict[str, Feature]:
    """How transformed features are kept: tensors as raw bytes, numbers and strings as lists.

    TF Transform knows int64, float32 and strings only; `stored_as` names narrower types.
    """
    stored = {}
    for name, column in schema_utils.schema_as_feature_spec(schema).feature_spec.items():
        shape = tuple(column.shape)
        dtype: Any = (
            "bytes" if column.dtype == tf.string else stored_as.get(name, column.dtype.name)
        )
        encoding: Literal["list", "raw"] = "raw" if shape and dtype != "bytes" else "list"
        stored[name] = Feature(dtype, shape, encoding)
    return stored


def _encode(
    batch: tuple[Any, Any],
    raw: Mapping[str, Feature],
    stored: Mapping[str, Feature],
    kept: Iterable[str],
    shards: int,
) -> Iterator[tuple[int, tuple[int, bytes, bytes]]]:
    """Each example of a batch, keyed by its shard, with what decides its place in the shard."""
    columns, _ = batch
    arrays = {}
    for name in columns.schema.names:
        if name in stored:
            values = columns.column(name).flatten()
            array = values.to_numpy(zero_copy_only=False)
            if stored[name].encoding == "raw":
                array = _narrowed(name, array, stored[name].dtype)
            arrays[name] = array.reshape(columns.num_rows, *stored[name].shape)
    for row, record in enumerate(columns.column(RECORD).flatten().to_pylist()):
        source = decode_example(raw, record)
        values = {name: source[name] for name in ("key", *kept)}
        values |= {name: array[row] for name, array in arrays.items()}
        key = source["key"]
        place = zlib.crc32(key)
        yield place % shards, (place, key, encode_example(stored, values))


def _narrowed(name: str, array: np.ndarray, dtype: str) -> np.ndarray:
    """The array in the type it is stored in, which must hold every value."""
    narrow = array.astype(dtype)
    if narrow.dtype != array.dtype and not np.array_equal(narrow, array):
        raise ValueError(f"STORED_AS says {dtype} for {name}, which cannot hold all its values.")
    return narrow


def _write_shard(
    gathered: tuple[int, Iterable[tuple[int, bytes, bytes]]], folder: str, split: str, shards: int
) -> None:
    number, examples = gathered
    name = f"{split}-{number:05d}-of-{shards:05d}.tfrecord"
    with RecordWriter(Path(folder) / name) as writer:
        for _, _, record in sorted(examples):
            writer.write(record)
    write_json(Path(folder) / f"{name}.json", dataclasses.asdict(writer.shard(name)))


def _shards(folder: Path, split: str) -> tuple[Shard, ...]:
    """The shards that were written, from the notes beside them, which are removed."""
    shards = []
    for note in sorted(folder.glob(f"{split}-*-of-*.tfrecord.json")):
        shards.append(Shard(**read_json(note)))
        note.unlink()
    return tuple(shards)
