import numpy as np
import pytest

from trainer.data.examples import decode_example, encode_example
from trainer.dataset import Feature

FEATURES = {
    "image": Feature("bytes"),
    "label": Feature("int64"),
    "weight": Feature("float32"),
    "box": Feature("float32", (2, 4)),
    "parts": Feature("int64", (3,)),
    "words": Feature("bytes", (2,)),
    "picture": Feature("uint8", (2, 2, 3), "raw"),
    "embedding": Feature("float32", (5,), "raw"),
    "ids": Feature("int64", (2,), "raw"),
    "number": Feature("int64", (), "raw"),
    "outlines": Feature("float32", (None, 4)),
    "none": Feature("int64", (None,)),
    "captions": Feature("bytes", (None,)),
}


def values():
    words = np.empty(2, object)
    words[:] = [b"", "\u72ac\x00".encode()]
    return {
        "image": b"\xff\xd8\x00",
        "label": -(2**63),
        "weight": 0.5,
        "box": np.arange(8, dtype=np.float32).reshape(2, 4) / 3,
        "parts": np.array([2**62, -1, 0]),
        "words": words,
        "picture": np.arange(12, dtype=np.uint8).reshape(2, 2, 3),
        "embedding": np.array([np.nan, np.inf, -0.0, 1e-45, 3e38], np.float32),
        "ids": np.array([1, -1]),
        "number": np.int64(7),
        "outlines": np.arange(12, dtype=np.float32).reshape(3, 4),
        "none": np.zeros(0, np.int64),
        "captions": words[:1],
    }


def test_values_come_back():
    decoded = decode_example(FEATURES, encode_example(FEATURES, values()))
    assert list(decoded) == list(FEATURES)
    for name, value in values().items():
        got = decoded[name]
        if isinstance(value, np.ndarray):
            assert got.dtype == value.dtype
            np.testing.assert_array_equal(got, value, strict=True)
        else:
            assert got == value
            assert type(got) is {"image": bytes, "weight": float}.get(name, int)


def test_bytes_do_not_depend_on_the_order_of_names():
    backwards = dict(reversed(values().items()))
    assert encode_example(FEATURES, backwards) == encode_example(FEATURES, values())


def test_bytes_are_the_wire_format():
    # Example.features(1) { feature(1) { key(1): "a" value(2): int64_list(3) { value(1): [5] } } }
    assert encode_example({"a": Feature("int64")}, {"a": 5}).hex() == "0a0c0a0a0a016112051a030a0105"


def test_tensorflow_reads_the_same():
    import tensorflow as tf

    names = {"bytes": tf.string, "int64": tf.int64, "float32": tf.float32}
    spec = {
        name: tf.io.FixedLenFeature((), tf.string)
        if feature.encoding == "raw"
        else tf.io.FixedLenSequenceFeature(
            feature.shape[1:], names[feature.dtype], allow_missing=True
        )
        if feature.ragged
        else tf.io.FixedLenFeature(feature.shape, names[feature.dtype])
        for name, feature in FEATURES.items()
    }
    data = encode_example(FEATURES, values())
    parsed = tf.io.parse_single_example(data, spec)
    for name, feature in FEATURES.items():
        got = parsed[name].numpy()
        if feature.encoding == "raw":
            got = np.frombuffer(got, feature.dtype).reshape(feature.shape)
        np.testing.assert_array_equal(got, values()[name])
    # Both ways: the message classes of both live in one process, and agree byte by byte.
    theirs = tf.train.Example.FromString(data)
    assert theirs.SerializeToString(deterministic=True) == data


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("label", 1.0, "'label' must be one int64; got the float 1.0"),
        ("label", True, "got the bool True"),
        ("label", 2**63, "'label' must be one int64; got the int 9223372036854775808"),
        ("label", np.array(1), "'label' must be one int64; got an array of int64, shape ()"),
        ("image", "text", "'image' must be one bytes; got a str"),
        ("weight", "1", "'weight' must be one float32; got a str"),
        ("weight", 1e300, "'weight' must be one float32"),
        ("box", np.zeros((4, 2), np.float32), r"float32 of shape (2, 4); got an array of float32"),
        ("box", np.zeros((2, 4)), "got an array of float64, shape (2, 4)"),
        ("parts", [1, 2, 3], "'parts' must be int64 of shape (3,); got a list"),
        ("words", np.array([b"a", b"b"]), "got an array of |S1"),
        ("words", np.array(["a", b"b"], object), "'words' must be bytes of shape (2,)"),
        ("outlines", np.zeros((3, 5), np.float32), "float32 of shape (None, 4)"),
        ("outlines", np.zeros(4, np.float32), "float32 of shape (None, 4)"),
    ],
)
def test_what_is_not_as_declared_is_refused(name, value, message):
    with pytest.raises(ValueError) as error:
        encode_example(FEATURES, {**values(), name: value})
    assert message in str(error.value)


def test_names_must_be_those_declared():
    with pytest.raises(ValueError, match=r"must have the features \['a'\]; got \['a', 'b'\]"):
        encode_example({"a": Feature("int64")}, {"a": 1, "b": 2})


@pytest.mark.parametrize(("dtype", "encoding"), [("uint8", "list"), ("bytes", "raw")])
def test_an_impossible_encoding_is_refused(dtype, encoding):
    feature = Feature(dtype, (1,), encoding)
    with pytest.raises(ValueError, match=f"'{encoding}' must not be used with the dtype '{dtype}'"):
        encode_example({"a": feature}, {"a": np.zeros(1, np.uint8)})


@pytest.mark.parametrize(("shape", "encoding"), [((2, None), "list"), ((None,), "raw")])
def test_only_the_first_size_of_a_list_may_be_open(shape, encoding):
    with pytest.raises(ValueError, match="Only the first size of a feature kept as a list"):
        Feature("float32", shape, encoding)


def test_a_ragged_feature_must_have_whole_rows():
    data = encode_example({"a": Feature("float32", (6,))}, {"a": np.zeros(6, np.float32)})
    with pytest.raises(ValueError, match=r"'a' must be float32 of shape \(None, 4\); .* has 6"):
        decode_example({"a": Feature("float32", (None, 4))}, data)
    assert decode_example({"a": Feature("float32", (None, 3))}, data)["a"].shape == (2, 3)


def test_a_record_that_does_not_fit_is_refused():
    data = encode_example({"a": Feature("int64")}, {"a": 1})
    assert decode_example({}, data) == {}
    with pytest.raises(ValueError, match=r"must have the feature 'b'; it has \['a'\]"):
        decode_example({"b": Feature("int64")}, data)
    with pytest.raises(ValueError, match="'a' must be one float32; the record has 0 elements"):
        decode_example({"a": Feature("float32")}, data)
    with pytest.raises(ValueError, match=r"'a' must be int64 of shape \(2,\); the record has 1"):
        decode_example({"a": Feature("int64", (2,))}, data)
    with pytest.raises(ValueError, match="'a' must be uint8 of shape"):
        decode_example({"a": Feature("uint8", (2,), "raw")}, data)
    with pytest.raises(ValueError, match=r"must be a serialised tf\.train\.Example; got 3 bytes"):
        decode_example({}, b"\xff\xff\xff")
