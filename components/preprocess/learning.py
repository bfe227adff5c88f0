"""The transform graph, made by TF Transform, with a pass over the training split where needed."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import tensorflow as tf
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
from apache_beam.metrics import Metrics
from apache_beam.options.pipeline_options import PipelineOptions
from tensorflow_transform.analyzer_nodes import TENSOR_REPLACEMENTS
from tensorflow_transform.tf_metadata import schema_utils
from tfx_bsl.public import tfxio

from components.preprocess.graph import input_specs
from components.preprocess.shards import (
    BATCH_SIZE,
    COUNTERS,
    FAILURE,
    TALLY,
    read_examples,
    told,
)
from components.preprocess.storage import Folder
from trainer.catalog import model_part
from trainer.dataset import Feature
from trainer.errors import UserError


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """A model's `preprocessing_fn` with its config, as TF Transform takes it.

    Attributes:
        model: name of the model.
        config: its Config.
    """

    model: str
    config: Any

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The transformed features of a batch.

        Raises:
            UserError: it needs a feature that the examples do not have.
        """
        given = _Given(inputs)
        given.model = self.model
        return dict(model_part(self.model, "data").preprocessing_fn(given, self.config))


class _Given(dict[str, Any]):
    model: str

    def __missing__(self, name: str) -> Any:
        raise UserError(
            f"The examples must have the feature {name!r}, which {self.model} needs; they have "
            f"{', '.join(sorted(self))}. Choose another dataset."
        )


def looked_at(preprocessing: Preprocessing, raw: Mapping[str, Feature]) -> list[str]:
    """The features that a pass over the training split has to look at; none if there need be none.

    Those that assertions of the function look at are among them.

    Args:
        preprocessing: the function.
        raw: features of the raw examples, but for `key`.
    """
    analyses: list[Any] = []

    def noting(inputs: Mapping[str, Any]) -> dict[str, Any]:
        outputs = preprocessing(inputs)
        analyses.extend(tf.compat.v1.get_collection(TENSOR_REPLACEMENTS))
        return outputs

    columns: list[str] = tft.get_analyze_input_columns(noting, input_specs(raw))
    return sorted(columns) if analyses else []


def settings_read(preprocessing: Preprocessing, raw: Mapping[str, Feature]) -> dict[str, Any]:
    """The settings that what the function does depends on: field of the Config -> value.

    Args:
        preprocessing: the function.
        raw: features of the raw examples, but for `key`.
    """
    config = preprocessing.config
    fields = {field.name for field in dataclasses.fields(config)}
    read: dict[str, Any] = {}

    class Watched(type(config)):  # type: ignore[misc]
        def __getattribute__(self, name: str) -> Any:
            value = super().__getattribute__(name)
            if name in fields:
                read[name] = value
            return value

    watched = copy.copy(config)
    object.__setattr__(watched, "__class__", Watched)
    tft.get_analyze_input_columns(
        dataclasses.replace(preprocessing, config=watched), input_specs(raw)
    )
    return dict(sorted(read.items()))


def learn_from_nothing(
    preprocessing: Preprocessing, raw: Mapping[str, Feature], folder: str
) -> None:
    """Writes the graph that follows from no example: right if no pass is needed, else provisional.

    Args:
        preprocessing: the function.
        raw: features of the raw examples, but for `key`.
        folder: an empty folder on this machine; its subfolder `graph` takes the graph.
    """
    with beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner"])) as pipeline:
        nothing = pipeline | beam.Create([], reshuffle=False)
        _analyse(nothing, preprocessing, raw, folder)


def learn_from_shards(
    pipeline: beam.Pipeline,
    preprocessing: Preprocessing,
    raw: Mapping[str, Feature],
    examples: Folder,
    files: Iterable[str],
    columns: Iterable[str],
    left_out: Iterable[str],
    draft: Folder,
    folder: str,
) -> None:
    """Adds to a pipeline a pass over shards that writes the graph.

    Args:
        pipeline: to be run.
        preprocessing: the function.
        raw: features of the raw examples, `key` among them.
        examples: the folder of the raw examples.
        files: shards of the training split.
        columns: the features that have to be looked at.
        left_out: keys, in hexadecimal, of examples that the function refuses.
        draft: where workers leave word of failures.
        folder: an empty folder that all workers reach; its subfolder `graph` takes the graph.
    """
    without_key = {name: feature for name, feature in raw.items() if name != "key"}
    read = _ReadColumns(examples, draft, raw, columns, left_out)
    batches = (
        pipeline
        | "Name" >> beam.Create(list(files))
        | "Spread" >> beam.Reshuffle()
        | "Read" >> beam.ParDo(read).with_output_types(pa.RecordBatch)
    )
    _analyse(batches, preprocessing, without_key, folder)


def _analyse(
    batches: beam.PCollection,
    preprocessing: Preprocessing,
    raw: Mapping[str, Feature],
    folder: str,
) -> None:
    with tft_beam.Context(temp_dir=f"{folder}/temporary", desired_batch_size=BATCH_SIZE):
        learnt = (batches, _adapter(raw)) | "Analyse" >> tft_beam.AnalyzeDataset(preprocessing)
        _ = learnt | "Write" >> tft_beam.WriteTransformFn(f"{folder}/graph")


class _ReadColumns(beam.DoFn):  # type: ignore[misc]
    """Reads shards as batches for TF Transform, with blanks for what nobody looks at."""

    def __init__(
        self,
        examples: Folder,
        draft: Folder,
        raw: Mapping[str, Feature],
        columns: Iterable[str],
        left_out: Iterable[str],
    ):
        self._examples = examples
        self._draft = draft
        self._raw = raw
        self._columns = frozenset(columns)
        self._left_out = frozenset(left_out)
        self._counter = Metrics.counter(COUNTERS, "examples")

    def setup(self) -> None:
        """Makes out how TF Transform wants its batches."""
        features = {name: feature for name, feature in self._raw.items() if name != "key"}
        self._schema: pa.Schema = _adapter(features).arrow_schema

    def process(self, file: str) -> Iterator[pa.RecordBatch]:
        """The batches of one shard; none once a worker has left word of a failure."""
        with told(self._draft):
            if self._draft.exists(FAILURE):
                return
            batch = []
            for example in read_examples(self._examples, file, self._raw):
                if example["key"].hex() not in self._left_out:
                    batch.append(example)
                if len(batch) == BATCH_SIZE:
                    yield self._arrow(batch)
                    batch = []
            if batch:
                yield self._arrow(batch)

    def _arrow(self, examples: Sequence[Mapping[str, Any]]) -> pa.RecordBatch:
        columns = []
        for field in self._schema:
            feature = self._raw[field.name]
            if field.name in self._columns:
                values = [_elements(feature, example[field.name]) for example in examples]
            else:
                values = [_blank(feature)] * len(examples)
            columns.append(pa.array(values, field.type))
        self._counter.inc(len(examples))
        TALLY.add(len(examples))
        return pa.RecordBatch.from_arrays(columns, schema=self._schema)


def _elements(feature: Feature, value: Any) -> list[Any]:
    """The elements of a value, in one list."""
    if feature.encoding == "raw":
        return [np.asarray(value, feature.dtype).tobytes()]
    elements: list[Any] = value.ravel().tolist() if feature.shape else [value]
    return elements


def _blank(feature: Feature) -> list[Any]:
    """As many elements as the feature has at least."""
    if feature.encoding == "raw":
        return [b""]
    fewest = math.prod(size or 0 for size in feature.shape)
    return [b"" if feature.dtype == "bytes" else 0] * fewest


def _adapter(raw: Mapping[str, Feature]) -> tfxio.TensorAdapterConfig:
    """How TF Transform makes tensors of record batches."""
    source = tfxio.TFExampleBeamRecord(
        physical_format="inmem",
        telemetry_descriptors=["paper2hub"],
        schema=schema_utils.schema_from_feature_spec({n: _column(n, f) for n, f in raw.items()}),
    )
    return source.TensorAdapterConfig()


def _column(name: str, feature: Feature) -> tf.io.FixedLenFeature | tf.io.RaggedFeature:
    if feature.encoding == "raw":
        return tf.io.FixedLenFeature((), tf.string)
    dtype = {"bytes": tf.string, "int64": tf.int64, "float32": tf.float32}[feature.dtype]
    if not feature.ragged:
        return tf.io.FixedLenFeature(feature.shape, dtype)
    rows = [tf.io.RaggedFeature.UniformRowLength(size) for size in feature.shape[1:]]
    return tf.io.RaggedFeature(dtype, name, rows, row_splits_dtype=tf.int64)
