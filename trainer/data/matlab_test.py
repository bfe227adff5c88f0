import io
import struct
import time
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from trainer.data.matlab import UINT8, list_variables, read_variable

MATLABS_OWN = Path(scipy.io.__file__).parent / "matlab" / "tests" / "data"


def read(content):
    file = io.BytesIO(content)
    return {n: read_variable(file, v) for n, v in list_variables(file).items()}


def written(variables, **options):
    file = io.BytesIO()
    scipy.io.savemat(file, variables, **options)
    return file.getvalue()


def element(kind, content):
    return struct.pack("<2I", kind, len(content)) + content + bytes(-len(content) % 8)


def array(kind, shape, name, *parts):
    header = element(6, struct.pack("<2I", kind, 0))
    header += element(5, struct.pack(f"<{len(shape)}i", *shape)) + element(1, name)
    return element(14, header + b"".join(parts))


def file_of(*arrays, version=0x0100, order=b"IM"):
    return bytes(124) + struct.pack("<H", version) + order + b"".join(arrays)


def packed(content):
    return struct.pack("<2I", 15, len(content := zlib.compress(content))) + content


NUMBERS = array(9, (2, 3), b"n", element(2, bytes(range(6))))


@pytest.mark.parametrize("content", [file_of(NUMBERS), file_of(packed(NUMBERS))])
def test_numbers_are_stored_column_after_column(content):
    (variable,) = list_variables(io.BytesIO(content)).values()
    assert (variable.name, variable.kind, variable.shape) == ("n", UINT8, (2, 3))
    value = read(content)["n"]
    assert value.dtype == np.uint8
    assert value.tolist() == [[0, 2, 4], [1, 3, 5]]


def test_small_elements_are_within_their_tag():
    one = struct.pack("<2H", 2, 1) + b"\x07\x00\x00\x00"
    assert read(file_of(array(9, (1, 1), b"n", one)))["n"].tolist() == [[7]]


def test_characters_come_row_after_row():
    two_rows = array(4, (2, 3), b"c", element(4, "adbecf".encode("utf-16-le")))
    assert read(file_of(two_rows))["c"] == "abcdef"
    utf8 = array(4, (1, 4), b"c", element(16, "épée".encode()))
    assert read(file_of(utf8))["c"] == "épée"


def test_structures_are_dictionaries():
    names = element(5, struct.pack("<i", 4)) + element(1, b"id\0\0wnid")
    values = [NUMBERS, array(4, (1, 1), b"", element(16, b"x")), element(14, b""), NUMBERS]
    (first, second) = read(file_of(array(2, (2, 1), b"s", names, *values)))["s"]
    assert first["id"].tolist() == [[0, 2, 4], [1, 3, 5]]
    assert first["wnid"] == "x"
    assert second["id"].size == 0
    assert second["wnid"].shape == (2, 3)


@pytest.mark.parametrize("compressed", [False, True])
def test_reads_what_scipy_writes(compressed):
    cell = np.empty(2, object)
    cell[:] = [np.arange(3.0), "word"]
    variables = {
        "X": np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
        "y": np.array([[-1], [300]], np.int16),
        "d": np.array([[0.5, np.nan]]),
        "words": "tench, Tinca tinca",
        "cell": cell,
    }
    values = read(written(variables, do_compression=compressed))
    assert list(values) == list(variables)
    for name in "Xyd":
        np.testing.assert_array_equal(values[name], variables[name])
    assert values["words"] == variables["words"]
    np.testing.assert_array_equal(values["cell"][0], [[0, 1, 2]])
    assert values["cell"][1] == "word"


@pytest.mark.parametrize(
    "path", sorted(MATLABS_OWN.glob("test*_[67].*.mat")), ids=lambda path: path.name
)
def test_reads_what_matlab_itself_has_written(path):
    if "hdf5" in path.name:
        with pytest.raises(ValueError, match=r"version 7\.3"):
            list_variables(io.BytesIO(path.read_bytes()))
        return
    ours = read(path.read_bytes())
    theirs = scipy.io.loadmat(path, chars_as_strings=True)
    for name, value in theirs.items():
        if isinstance(value, np.ndarray) and value.dtype.kind in "uif":
            np.testing.assert_array_equal(ours[name], value)
        elif isinstance(value, np.ndarray) and value.dtype.kind == "U":
            assert ours[name].replace(" ", "") == "".join(value.ravel()).replace(" ", "")
        elif path.name.startswith(("testobject", "testfunc", "testsparse")):
            assert name.startswith("__") or ours[name] is None
        elif isinstance(value, np.ndarray) and value.dtype.names:
            assert [list(one) for one in ours[name]] == [list(value.dtype.names)] * value.size


def test_big_endian_files_are_read():
    ours = read((MATLABS_OWN / "big_endian.mat").read_bytes())
    theirs = scipy.io.loadmat(MATLABS_OWN / "big_endian.mat")
    assert ours["strings"][0] == theirs["strings"][0, 0][0]
    np.testing.assert_array_equal(ours["floats"], theirs["floats"])


def nested(levels):
    value = NUMBERS
    for _ in range(levels):
        value = array(1, (1, 1), b"", value)
    return file_of(value)


def bomb(size):
    content = array(9, (size, 1), b"n", element(2, bytes(size)))
    return file_of(packed(content))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "begins with b''"),
        (b"<html>a page</html>" * 20, "begins with b'<html>a page'"),
        (b"\x89HDF\r\n\x1a\n" + bytes(600), "version 7.3"),
        (b"MATLAB 7.3 MAT-file".ljust(600), "version 7.3"),
        (file_of(version=0x0200), "version 7.3"),
        (file_of(version=0x0300), "version 0x0300"),
        (file_of(NUMBERS)[:-1], "cut short"),
        (file_of(NUMBERS)[:131], "cut short"),
        (file_of(element(7, b"12345678")), "byte 128 begins no variable"),
        (file_of(NUMBERS, bytes(64)), "begins no variable"),
        (file_of(element(14, struct.pack("<2I", 6, 9))), "a value reaches out of its variable"),
        (file_of(packed(NUMBERS)[:-9]), "cut short"),
        (file_of(packed(NUMBERS[:-1])), "shorter than it says"),
        (file_of(packed(NUMBERS + b"x")), "longer than it says"),
        (file_of(packed(b"")), "compressed data are cut short"),
        (file_of(packed(element(7, b"12345678"))), "compressed data are not an array"),
        (file_of(element(15, b"no zlib data here")), "damaged"),
        (file_of(array(9, (2, 4), b"n", element(2, bytes(6)))), "6 bytes .* of shape"),
        (file_of(array(9, (2, -3), b"n", element(2, bytes(6)))), "negative size"),
        (file_of(array(9, (6,), b"n", element(2, bytes(6)))), "header is damaged"),
        (file_of(array(9, (2, 3), b"n", element(77, bytes(6)))), "stored as type 77"),
        (file_of(array(4, (2, 3), b"c", element(9, bytes(8)))), "stored as type 9"),
        (file_of(array(4, (1, 1), b"c", element(16, b"\xff"))), "utf-8"),
        (file_of(array(1, (2**30, 2**30), b"c", NUMBERS)), "bytes are there for"),
        (file_of(array(2, (1, 1), b"s", element(5, bytes(4)))), "cut short"),
        (file_of(array(2, (1, 1), b"s", element(5, bytes(4)), element(1, b""))), "field names"),
        (nested(9), "more than 8 deep"),
        (file_of(*[array(9, (0, 0), b"%d" % n) for n in range(1001)]), "more than 1,000"),
    ],
)
def test_what_is_damaged_is_told(content, message):
    with pytest.raises(ValueError, match=message):
        read(content)


def test_eight_structures_deep_is_still_read():
    assert read(nested(8))


@pytest.mark.parametrize("size", [6, 100_000])
def test_a_checksum_that_does_not_fit_is_told(size):
    numbers = array(9, (size, 1), b"n", element(2, bytes(size)))
    content = bytearray(file_of(packed(numbers)))
    content[-1] ^= 1
    with pytest.raises(ValueError, match=r"compressed data.* are damaged"):
        read(bytes(content))


def test_a_small_file_cannot_ask_for_much_memory():
    liar = packed(array(9, (2**30, 1), b"n", struct.pack("<2I", 2, 2**30)))
    inner = bytearray(zlib.decompress(liar[8:]))
    inner[4:8] = struct.pack("<I", 2**30)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"n has 1,073,741,824 bytes, more than \d\d,\d"):
            read(file_of(packed(bytes(inner))))
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
    file = io.BytesIO(bomb(10_000_000))
    (variable,) = list_variables(file).values()
    with pytest.raises(ValueError, match="more than 1,000,000"):
        read_variable(file, variable, 1_000_000)
    assert read_variable(file, variable).shape == (10_000_000, 1)


def test_ten_thousand_damaged_files_are_values_or_value_errors():
    generator = np.random.default_rng(0)
    structures = np.zeros((3, 1), [("id", object), ("wnid", object)])
    for number in range(3):
        structures[number, 0] = (np.array([[number]]), f"n0144076{number}")
    bases = [
        written({"s": structures, "X": np.zeros((4, 4), np.uint8)}, do_compression=compressed)
        for compressed in (False, True)
    ]
    outcomes = {True: 0, False: 0}
    begin = time.monotonic()
    for _ in range(5_000):
        for base in bases:
            content = np.frombuffer(base, np.uint8).copy()
            places = generator.integers(100, len(content), 3)
            content[places] = generator.integers(0, 256, 3)
            cut = generator.integers(0, len(content)) if generator.random() < 0.2 else None
            try:
                read(content[:cut].tobytes())
                outcomes[True] += 1
            except ValueError:
                outcomes[False] += 1
    assert min(outcomes.values()) > 100
    assert time.monotonic() - begin < 30
