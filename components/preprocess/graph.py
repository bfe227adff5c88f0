"""The transform graph that TF Transform wrote, applied to batches of raw examples."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tensorflow as tf

from trainer.dataset import Feature
from trainer.errors import BadItem, UserError

Example = Mapping[str, Any]
"""One example: name -> bytes, int, float or array, as `trainer.data.examples` gives it."""

TRANSFORM_FN = "transform_fn"
"""The folder of the SavedModel within a transform graph, by TF Transform's own rule."""

_DTYPES = {"bytes": tf.string, "int64": tf.int64, "float32": tf.float32}

_FAULTS_OF_EXAMPLES = (
    tf.errors.InvalidArgumentError,  # what decoders and assertions raise
    tf.errors.OutOfRangeError,
    tf.errors.DataLossError,
    tf.errors.UnimplementedError,
    tf.errors.ResourceExhaustedError,  # a batch may be too large, and so may a picture
)

_Outputs = tuple[Mapping[str, Any], Mapping[str, Any]]
"""Name -> tensor, in the type it is stored in; and, where that is narrower than the graph's own,
name -> whether it can hold each example's values, bool [batch]."""


def input_specs(raw: Mapping[str, Feature]) -> dict[str, tf.TypeSpec]:
    """The tensors that `preprocessing_fn` takes: name -> spec, batch first.

    A feature kept as raw bytes is one string. A ragged feature is a RaggedTensor, of shape
    [batch, None] for captions and [batch, None, 4] for boxes.
    """
    return {name: _input_spec(feature) for name, feature in raw.items()}


def stored_features(
    graph: str | Path, model: str, raw: Mapping[str, Feature], stored_as: Mapping[str, str]
) -> dict[str, Feature]:
    """How what a transform graph returns is kept, by name: tensors as raw bytes, others as lists.

    Args:
        graph: folder of the transform graph, on this machine.
        model: name of the model, for messages.
        raw: features of the raw examples.
        stored_as: name -> narrower type; TF Transform knows int64, float32 and strings only.

    Raises:
        UserError: an output has a form that cannot be kept.
    """
    outputs = dict(_load(graph).transform_fn.structured_outputs)
    unknown = stored_as.keys() - outputs.keys()
    if unknown:
        raise UserError(
            f"STORED_AS of {model} must name what preprocessing_fn returns, which is "
            f"{', '.join(sorted(outputs))}; it names {', '.join(sorted(unknown))}."
        )
    return {
        name: _stored(name, outputs[name], model, raw.get(name), stored_as.get(name))
        for name in sorted(outputs)
    }


class Graph:
    """A transform graph, cut down to what is stored; threads may share it.

    It returns exactly what TF Transform's own TransformDataset does.

    Args:
        folder: of the transform graph, on this machine.
        model: name of the model, for messages.
        raw: features of the raw examples, but for `key`.
        stored: features to compute.
        passed_by: raw features that are stored as they are. What only they need, such as decoding a
            picture, is left out of the graph.
    """

    def __init__(
        self,
        folder: str | Path,
        model: str,
        raw: Mapping[str, Feature],
        stored: Mapping[str, Feature],
        passed_by: Iterable[str] = (),
    ):
        self._model = model
        self._raw = raw
        self._stored = stored
        # Kept, for what is cut out of it calls functions that go when it goes.
        self._loaded = _load(folder)
        self._apply = _compiled(self._loaded, stored, set(passed_by))

    def __call__(self, examples: Sequence[Example]) -> list[Example | BadItem]:
        """The values to store of each example, or why it cannot be used.

        If the graph refuses a batch, each half of it is tried by itself, and so on: only examples
        that it refuses by themselves are lost.

        Raises:
            UserError: what the graph returns is not one value of the right type for each example.
        """
        tensors = {n: _batch(f, [e[n] for e in examples]) for n, f in self._raw.items()}
        try:
            outputs = self._apply(tensors)
        except _FAULTS_OF_EXAMPLES as error:
            if len(examples) == 1:
                return [BadItem(_reason(error), f"an example that {self._model} can preprocess")]
            half = len(examples) // 2
            return [*self(examples[:half]), *self(examples[half:])]
        return [*self._rows(outputs, len(examples))]

    def _rows(self, outputs: _Outputs, count: int) -> list[Example]:
        """What the graph returned, example by example."""
        values, fits = outputs
        columns = {name: _column(values[name]) for name in self._stored}
        for name, column in columns.items():
            if len(column) != count:
                raise UserError(
                    f"preprocessing_fn of {self._model} must return one value for each example; "
                    f"for {count} examples it returned {len(column)} of {name!r}."
                )
        for name, fitting in fits.items():
            if not fitting.numpy().all():
                raise UserError(
                    f"STORED_AS of {self._model} says {self._stored[name].dtype} for {name}, which "
                    "cannot hold all its values; name a type that can."
                )
        return [{name: column[i] for name, column in columns.items()} for i in range(count)]


def _load(folder: str | Path) -> Any:
    # Without TF Transform, as the export loads it.
    return tf.saved_model.load(str(Path(folder) / TRANSFORM_FN))


def _compiled(
    model: Any, stored: Mapping[str, Feature], passed_by: set[str]
) -> Callable[[Mapping[str, Any]], _Outputs]:
    """The part of a SavedModel's `transform_fn` that computes what is stored.

    TensorFlow runs whatever can have an effect, such as an assertion or a loop with one inside,
    even where nobody asks for its result. So that part is cut out: what is stored, and all
    assertions but those about features that are passed by.
    """
    function = model.transform_fn
    specs = dict(function.structured_input_signature[0][0])
    placeholders = iter(function.inputs)
    by_input = {
        name: list(itertools.islice(placeholders, _size(specs[name]))) for name in sorted(specs)
    }
    outputs = tf.nest.pack_sequence_as(
        function.structured_outputs, function.outputs, expand_composites=True
    )
    wanted = {
        name: [_origin(tensor, feature) for tensor in _components(outputs[name])]
        for name, feature in stored.items()
    }
    ignored = {tensor.op for name in passed_by for tensor in by_input.get(name, ())}
    effects = [op for op in _effects(function.outputs) if not ignored & _ancestors([op])]
    tensors = {tensor.name: tensor for parts in wanted.values() for tensor in parts}
    needed = _ancestors([*effects, *(t.op for t in tensors.values())], in_time=True)
    fed = {tensor.name for tensor in function.inputs if tensor.op in needed}
    part = function.graph.as_graph_def()
    nodes = {op.name for op in needed}
    kept = [node for node in part.node if node.name in nodes]
    del part.node[:]
    part.node.extend(kept)

    def apply(inputs: Mapping[str, Any]) -> _Outputs:
        given = [part for name in sorted(specs) for part in _components(inputs[name])]
        # Tables of vocabularies are not of this graph; an operation on them brings them in.
        given += [tf.identity(captured) for captured in function.captured_inputs]
        known = dict(zip((t.name for t in function.inputs), given, strict=True))
        computed = [name for name in tensors if name not in known]
        results = tf.graph_util.import_graph_def(
            part,
            input_map={name: known[name] for name in fed},
            return_elements=[*computed, *(op.name for op in effects)],
            name="transform",
        )
        known |= dict(zip(computed, results, strict=False))
        values, fits = {}, {}
        for name, parts in wanted.items():
            value = tf.nest.pack_sequence_as(
                outputs[name], [known[tensor.name] for tensor in parts], expand_composites=True
            )
            if stored[name].dtype not in ("bytes", value.dtype.name):
                narrow = tf.cast(value, stored[name].dtype)
                same = tf.equal(tf.cast(narrow, value.dtype), value)
                fits[name] = tf.reduce_all(same, axis=list(range(1, len(value.shape))))
                value = narrow
            values[name] = value
        return values, fits

    concrete = tf.function(apply, input_signature=[specs], autograph=False).get_concrete_function()

    def call(inputs: Mapping[str, Any]) -> _Outputs:
        return concrete({name: inputs[name] for name in specs})  # type: ignore[no-any-return]

    return call


def _components(value: Any) -> list[Any]:
    """The tensors that a tensor or ragged tensor, or its spec, consists of."""
    flat: list[Any] = tf.nest.flatten(value, expand_composites=True)
    return flat


def _size(spec: tf.TypeSpec) -> int:
    return len(_components(spec))


def _origin(tensor: Any, feature: Feature) -> Any:
    """The tensor that an output repeats: before it is named and, if it is stored so, made wider."""
    while tensor.op.type == "Identity":
        tensor = tensor.op.inputs[0]
    if tensor.op.type == "Cast" and feature.dtype == tensor.op.inputs[0].dtype.name == "uint8":
        tensor = tensor.op.inputs[0]
    return tensor


def _effects(outputs: Iterable[Any]) -> list[Any]:
    """The operations that have to run before a function returns: its outputs wait for them."""
    waiting = [tensor.op for tensor in outputs]
    found = {}
    while waiting:
        for op in waiting.pop().control_inputs:
            if op.type == "NoOp":
                waiting.append(op)
            else:
                found[op.name] = op
    return list(found.values())


def _ancestors(operations: Iterable[Any], in_time: bool = False) -> set[Any]:
    """These operations and those whose results they use, or (`in_time`) wait for as well."""
    waiting = list(operations)
    seen = set(waiting)
    while waiting:
        op = waiting.pop()
        before = {tensor.op for tensor in op.inputs} | set(op.control_inputs if in_time else ())
        waiting += before - seen
        seen |= before
    return seen


def _input_spec(feature: Feature) -> tf.TypeSpec:
    if feature.encoding == "raw":
        return tf.TensorSpec([None], tf.string)
    shape, dtype = [None, *feature.shape], _DTYPES[feature.dtype]
    if feature.ragged:
        return tf.RaggedTensorSpec(shape, dtype, ragged_rank=1, row_splits_dtype=tf.int64)
    return tf.TensorSpec(shape, dtype)


def _batch(feature: Feature, values: Sequence[Any]) -> Any:
    """The values of one feature as the tensor that `input_specs` announces."""
    if feature.encoding == "raw":
        return tf.constant([np.asarray(v, feature.dtype).tobytes() for v in values], tf.string)
    dtype = _DTYPES[feature.dtype]
    if feature.ragged:
        flat = tf.constant(np.concatenate(values).tolist(), dtype)
        flat = tf.reshape(flat, [-1, *feature.shape[1:]])
        lengths = tf.constant([len(value) for value in values], tf.int64)
        return tf.RaggedTensor.from_row_lengths(flat, lengths, validate=False)
    if feature.dtype == "bytes" and feature.shape:
        return tf.constant([value.tolist() for value in values], dtype)
    if feature.dtype == "bytes":
        return tf.constant(values, dtype)
    return tf.constant(np.array(values, feature.dtype))


def _column(tensor: Any) -> Sequence[Any]:
    """The values of a tensor, example by example."""
    if not isinstance(tensor, tf.RaggedTensor):
        array: Sequence[Any] = tensor.numpy()
        return array
    flat, splits = tensor.flat_values.numpy(), tensor.row_splits.numpy().tolist()
    return [flat[begin:end] for begin, end in itertools.pairwise(splits)]


def _stored(
    name: str, spec: tf.TypeSpec, model: str, raw: Feature | None, narrower: str | None
) -> Feature:
    """How an output is kept."""
    ragged = isinstance(spec, tf.RaggedTensorSpec)
    known = isinstance(spec, tf.TensorSpec) or (ragged and spec.ragged_rank == 1)
    sizes = spec.shape[2:] if ragged else spec.shape[1:]
    if not known or None in sizes:
        raise UserError(
            f"preprocessing_fn of {model} must return tensors of known sizes, or ragged ones that "
            f"differ in the size after the batch only; {name!r} is {spec}."
        )
    shape: tuple[int | None, ...] = (None, *sizes) if ragged else tuple(sizes)
    dtype: Any = "bytes" if spec.dtype == tf.string else narrower or spec.dtype.name
    listed = ragged or not shape or dtype == "bytes"
    if dtype == "uint8" and listed:
        raise UserError(
            f"STORED_AS of {model} must say uint8 of tensors of known sizes only; {name!r} is "
            f"{spec}."
        )
    encoding: Literal["list", "raw"] = "list" if listed else "raw"
    if raw is not None and (raw.dtype, raw.shape, raw.encoding) == (dtype, shape, encoding):
        # Boxes may have been given in another unit, and their size must then not be compared.
        content = "" if raw.content == "box" else raw.content
        return Feature(dtype, shape, encoding, raw.description, content)
    return Feature(dtype, shape, encoding, f"as preprocessing_fn of {model} returns it")


def _reason(error: tf.errors.OpError) -> str:
    """What TensorFlow says is wrong, without where in the graph: the last line before that."""
    said = re.split(r"\s*\[\[\{\{node|\s*\[Op:", str(error.message))[0].strip()
    line = " ".join((said or type(error).__name__).splitlines()[-1].split())
    return f"preprocessing it failed ({line[:300]})"
