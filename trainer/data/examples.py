"""One example as the bytes of a tf.train.Example, written and read without TensorFlow."""

from __future__ import annotations

import functools
import math
import numbers
from collections.abc import Mapping
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory

from trainer.data.records import gathered
from trainer.dataset import Feature

_SINGLE_BYTES = tuple(bytes([value]) for value in range(0x80))
_NUMPY_DTYPES: dict[str, np.dtype[Any]] = {
    "int64": np.dtype("<i8"),
    "float32": np.dtype("<f4"),
    "uint8": np.dtype("u1"),
}
_RANGES = {"int64": (-(2**63), 2**63 - 1), "uint8": (0, 2**8 - 1)}
_LARGEST_FLOAT32 = float(np.finfo(np.float32).max)
# Of tf.train.Example's wire format (tensorflow/core/example): field number and wire type 2, a
# length and as many bytes.
_FEATURES_TAG = b"\x0a"  # Example.features = 1
_ENTRY_TAG = b"\x0a"  # Features.feature = 1, a map
_KEY_TAG, _VALUE_TAG = b"\x0a", b"\x12"  # its key = 1 and value = 2
_BYTES_LIST_TAG = b"\x0a"  # Feature.bytes_list = 1
_ELEMENT_TAG = b"\x0a"  # BytesList.value = 1
# Which list of a tf.train.Feature holds the elements of each dtype under the encoding "list".
_LISTS = {"bytes": "bytes_list", "float32": "float_list", "int64": "int64_list"}


def encode_example(features: Mapping[str, Feature], values: Mapping[str, Any]) -> bytes:
    """One example as a serialised tf.train.Example; see `example_pieces`."""
    return b"".join(example_pieces(features, values))


def example_pieces(features: Mapping[str, Feature], values: Mapping[str, Any]) -> list[bytes]:
    """The pieces of a serialised tf.train.Example, in order; the same values give the same bytes.

    What is large in it, such as a picture, is a piece of its own and is not copied.

    Args:
        features: what every example holds.
        values: name -> bytes, int or float for a scalar feature (NumPy's scalars too), otherwise a
            NumPy array of the feature's dtype and shape (for bytes: of dtype object).

    Raises:
        ValueError: the names, or the type, shape or range of a value, are not those declared.
    """
    if values.keys() != features.keys():
        raise ValueError(
            f"An example must have the features {sorted(features)}; got {sorted(values)}."
        )
    fields = []
    for name in sorted(features):
        feature = features[name]
        elements = _elements(name, feature, values[name])
        if feature.encoding == "raw":
            field = _bytes_field([elements.tobytes()])
        elif feature.dtype == "bytes":
            field = _bytes_field(elements.ravel().tolist())
        else:
            message_ = _FEATURE()
            getattr(message_, _LISTS[feature.dtype]).value.extend(elements.ravel().tolist())
            field = [message_.SerializeToString()]
        # One entry of the map Features.feature, as a message with a key and a value.
        fields += _framed([_key(name), *_framed(field, _VALUE_TAG)], _ENTRY_TAG)
    return gathered(_framed(fields, _FEATURES_TAG))


@functools.lru_cache
def _key(name: str) -> bytes:
    key = name.encode()
    return _KEY_TAG + _varint(len(key)) + key


def _bytes_field(values: list[bytes]) -> list[bytes]:
    """A Feature that holds strings of bytes."""
    pieces = [piece for value in values for piece in (_ELEMENT_TAG, _varint(len(value)), value)]
    return _framed(pieces, _BYTES_LIST_TAG)


def _framed(pieces: list[bytes], tag: bytes) -> list[bytes]:
    """A message within another: the tag of its field, its length, its content."""
    return [tag, _varint(sum(map(len, pieces))), *pieces]


def _varint(number: int) -> bytes:
    """A number in groups of seven bits, the lowest first; all but the last have the eighth set."""
    if number < 0x80:
        return _SINGLE_BYTES[number]
    groups = bytearray()
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    groups.append(number)
    return bytes(groups)


def decode_example(features: Mapping[str, Feature], data: bytes) -> dict[str, Any]:
    """The values of a serialised tf.train.Example, in the order of `features`.

    Features of the record that are not asked for are passed over, as TensorFlow's parser does.

    Returns:
        name -> bytes, int or float for a scalar, otherwise a NumPy array of the feature's dtype and
        shape (for bytes: of dtype object), which may be read-only.

    Raises:
        ValueError: the data is no tf.train.Example, or a feature is missing or not as declared.
    """
    try:
        stored = _EXAMPLE.FromString(data).features.feature
    except message.DecodeError as error:
        raise ValueError(
            f"A record must be a serialised tf.train.Example; got {len(data)} bytes that are not "
            f"({error})."
        ) from error
    return {name: _decode(name, feature, stored) for name, feature in features.items()}


def _decode(name: str, feature: Feature, stored: Any) -> Any:
    _check_encoding(name, feature)
    if name not in stored:
        raise ValueError(f"A record must have the feature {name!r}; it has {sorted(stored)}.")
    kind = "bytes_list" if feature.encoding == "raw" else _LISTS[feature.dtype]
    content = getattr(stored[name], kind).value
    if feature.shape == () and feature.encoding == "list" and len(content) == 1:
        return content[0]  # as nearly all are, and an array would take five times as long
    if feature.encoding == "raw":
        array = np.frombuffer(content[0] if len(content) else b"", _NUMPY_DTYPES[feature.dtype])
    elif feature.dtype == "bytes":
        array = _objects(content)
    else:
        array = np.array(content, _NUMPY_DTYPES[feature.dtype])
    if not _fits(array.size, feature):
        held = stored[name].WhichOneof("kind") or "nothing"
        raise ValueError(
            f"Feature {name!r} must be {_describe(feature)}; the record has {array.size} elements "
            f"for it (stored as {held})."
        )
    if feature.shape == ():
        return array.item()
    return array.reshape([-1 if size is None else size for size in feature.shape])


def _fits(elements: int, feature: Feature) -> bool:
    """Whether a feature can have this many elements."""
    fixed = math.prod(size for size in feature.shape if size is not None)
    return elements % fixed == 0 if feature.ragged else elements == fixed


def _elements(name: str, feature: Feature, value: Any) -> np.ndarray[Any, Any]:
    """The value as an array of the feature's shape, in little-endian order."""
    _check_encoding(name, feature)
    if feature.shape:
        dtype = np.dtype(object) if feature.dtype == "bytes" else _NUMPY_DTYPES[feature.dtype]
        fits = isinstance(value, np.ndarray) and value.dtype == dtype
        if not fits or not _has_shape(value, feature.shape):
            raise _mismatch(name, feature, value)
        if feature.dtype == "bytes" and not all(isinstance(v, bytes) for v in value.flat):
            raise _mismatch(name, feature, value)
        array: np.ndarray[Any, Any] = value.astype(dtype, copy=False)
        return array
    if feature.dtype == "bytes":
        if not isinstance(value, bytes):
            raise _mismatch(name, feature, value)
        return _objects([value])
    kind = numbers.Real if feature.dtype == "float32" else numbers.Integral
    if not isinstance(value, kind) or isinstance(value, bool) or not _in_range(feature, value):
        raise _mismatch(name, feature, value)
    return np.array(value, _NUMPY_DTYPES[feature.dtype])


def _has_shape(value: np.ndarray[Any, Any], shape: tuple[int | None, ...]) -> bool:
    return value.ndim == len(shape) and all(
        size in (None, actual) for size, actual in zip(shape, value.shape, strict=True)
    )


def _in_range(feature: Feature, value: Any) -> bool:
    """Whether the dtype can hold the number; infinities and NaN are floats like others."""
    if feature.dtype == "float32":
        return not math.isfinite(value) or bool(abs(value) <= _LARGEST_FLOAT32)
    least, most = _RANGES[feature.dtype]
    return bool(least <= value <= most)


def _objects(values: Any) -> np.ndarray[Any, Any]:
    """Bytes as an array [n] of objects; NumPy's own strings would lose trailing zeros."""
    array = np.empty(len(values), dtype=object)
    array[:] = list(values)
    return array


def _check_encoding(name: str, feature: Feature) -> None:
    without = "uint8" if feature.encoding == "list" else "bytes"
    if feature.dtype == without:
        raise ValueError(
            f"Feature {name!r} cannot be kept: the encoding {feature.encoding!r} must not be used "
            f"with the dtype {without!r}; use the other one."
        )


def _describe(feature: Feature) -> str:
    return f"{feature.dtype} of shape {feature.shape}" if feature.shape else f"one {feature.dtype}"


def _mismatch(name: str, feature: Feature, value: Any) -> ValueError:
    if isinstance(value, np.ndarray):
        got = f"an array of {value.dtype}, shape {value.shape}"
    elif isinstance(value, numbers.Number):
        got = f"the {type(value).__name__} {value!r}"
    else:
        got = f"a {type(value).__name__}"
    return ValueError(f"Feature {name!r} must be {_describe(feature)}; got {got}.")


def _message_classes() -> tuple[Any, ...]:
    """The message classes tf.train.Example and tf.train.Feature, described here field by field.

    Only field numbers and types are on the wire, so the names may be ours: they live in a pool of
    their own and cannot clash with TensorFlow's where both are imported.
    """
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="trainer/data/example.proto", package="trainer.data", syntax="proto3"
    )
    lists = (
        ("BytesList", "bytes_list", field.TYPE_BYTES),
        ("FloatList", "float_list", field.TYPE_FLOAT),
        ("Int64List", "int64_list", field.TYPE_INT64),
    )
    feature = descriptor_pb2.DescriptorProto(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, (type_name, name, element) in enumerate(lists, start=1):
        file.message_type.add(name=type_name).field.add(
            name="value", number=1, label=field.LABEL_REPEATED, type=element
        )
        feature.field.add(
            name=name,
            number=number,
            label=field.LABEL_OPTIONAL,
            type=field.TYPE_MESSAGE,
            type_name=f".trainer.data.{type_name}",
            oneof_index=0,
        )
    file.message_type.append(feature)
    features = file.message_type.add(name="Features")
    features.field.add(
        name="feature",
        number=1,
        label=field.LABEL_REPEATED,
        type=field.TYPE_MESSAGE,
        type_name=".trainer.data.Features.FeatureEntry",
    )
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, label=field.LABEL_OPTIONAL, type=field.TYPE_STRING)
    entry.field.add(
        name="value",
        number=2,
        label=field.LABEL_OPTIONAL,
        type=field.TYPE_MESSAGE,
        type_name=".trainer.data.Feature",
    )
    file.message_type.add(name="Example").field.add(
        name="features",
        number=1,
        label=field.LABEL_OPTIONAL,
        type=field.TYPE_MESSAGE,
        type_name=".trainer.data.Features",
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return tuple(
        message_factory.GetMessageClass(pool.FindMessageTypeByName(f"trainer.data.{name}"))
        for name in ("Example", "Feature")
    )


_EXAMPLE, _FEATURE = _message_classes()
