import io
import itertools
import pickle
import random
import zipfile
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies

from trainer.errors import UserError
from trainer.torch_checkpoint import read_torch_checkpoint, state_dict

FIXTURES = Path(__file__).parent / "testdata"
TORCH_FILES = ("archive.pyth", "protocol4.pyth", "legacy.pyth")
FILES = (*TORCH_FILES, "weights.safetensors")

EXPECTED = {
    "matrix": np.float32([[0, 1, 2], [3, 4, 5]]),
    "transposed": np.float32([[0, 3], [1, 4], [2, 5]]),
    "row": np.float32([3, 4, 5]),
    "every_second": np.float64([1, 3, 5, 7]),
    "parameter": np.float32([0.5, -0.5]),
    "half": np.float16([1.5, -2]),
    "bfloat16": np.float32([[1, -3], [2.0**100, 2.0**-100]]),
    "integer": np.int32([-(2**31), 2**31 - 1]),
    "byte": np.uint8([0, 255]),
    "mask": np.array([True, False, True]),
    "complex": np.complex64([1 + 2j]),
    "empty": np.zeros((0, 3), np.float32),
    "num_batches_tracked": np.array(7),
}


def value(plain: Any) -> bytes:
    """The pickle instructions that build a plain value, without beginning and end."""
    return pickle.dumps(plain, 2)[2:-1]


def storage_id(kind: str = "FloatStorage", key: Any = "0", length: Any = 6) -> bytes:
    storage = b"ctorch\n" + kind.encode() + b"\n"
    return b"(" + value("storage") + storage + value(key) + value("cpu") + value(length) + b"tQ"


def tensor(
    offset: Any = 0, size: Any = (2, 3), stride: Any = (3, 1), storage: bytes | None = None
) -> bytes:
    arguments = (storage or storage_id()) + value(offset) + value(size) + value(stride)
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + value(False) + value(None) + b"tR"


def dictionary(**entries: bytes) -> bytes:
    """A whole pickle: a dict of values given as instructions."""
    return b"\x80\x02}" + b"".join(value(k) + v + b"s" for k, v in entries.items()) + b"."


def archive(
    path: Path,
    pickled: bytes,
    data: bytes = np.arange(6, dtype="<f4").tobytes(),
    compression: int = zipfile.ZIP_STORED,
    **records: bytes,
) -> Path:
    """A checkpoint in the zip format with one storage, "0"."""
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in {"data.pkl": pickled, "data/0": data, **records}.items():
            file.writestr(f"archive/{name}", content)
    return path


def assert_refused(path: Path, because: str = "was not loaded") -> None:
    with pytest.raises(UserError, match=because) as error:
        read_torch_checkpoint(path)
    assert "\n" not in str(error.value)
    assert "was not loaded" in str(error.value)
    assert len(str(error.value)) < 1500


@pytest.mark.parametrize("file", FILES)
def test_every_format_gives_the_same_arrays(file: str) -> None:
    state = state_dict(read_torch_checkpoint(FIXTURES / file))
    for name, expected in EXPECTED.items():
        assert state[name].dtype == expected.dtype, name
        np.testing.assert_array_equal(state[name], expected, strict=True, err_msg=name)


@pytest.mark.parametrize("file", TORCH_FILES)
def test_what_stands_beside_the_weights_is_kept(file: str) -> None:
    checkpoint = read_torch_checkpoint(FIXTURES / file)
    assert checkpoint["epoch"] == 3
    assert checkpoint["test_err"] == 29.7
    assert checkpoint["cfg"].startswith("MODEL:")
    assert checkpoint["size"] == (2, 3)
    assert checkpoint["dtype"] == "torch.bfloat16"
    momentum = checkpoint["optimizer_state"]["state"][0]["momentum_buffer"]
    np.testing.assert_array_equal(momentum, [1, 1])


@pytest.mark.parametrize("file", TORCH_FILES)
def test_shared_storages_stay_shared(file: str) -> None:
    state = state_dict(read_torch_checkpoint(FIXTURES / file))
    state["matrix"][1, 0] = 9
    assert state["row"][0] == state["transposed"][0, 1] == 9
    assert not np.shares_memory(state["matrix"], state["parameter"])


def test_big_endian_archives_are_read(tmp_path: Path) -> None:
    numbers = np.arange(6, dtype=">f4").tobytes()
    pickled = dictionary(weight=tensor())
    checkpoint = read_torch_checkpoint(
        archive(tmp_path / "a.pth", pickled, numbers, byteorder=b"big")
    )
    np.testing.assert_array_equal(checkpoint["weight"], EXPECTED["matrix"])
    assert checkpoint["weight"].dtype.isnative
    assert_refused(archive(tmp_path / "b.pth", pickled, byteorder=b"middle"), "byte order")


def test_strides_of_single_rows_mean_nothing(tmp_path: Path) -> None:
    pickled = dictionary(weight=tensor(size=(1, 6), stride=(2**62, 1)))
    weight = read_torch_checkpoint(archive(tmp_path / "a.pth", pickled))["weight"]
    np.testing.assert_array_equal(weight, [[0, 1, 2, 3, 4, 5]])


def test_weights_are_found_at_the_top_or_under_a_known_name() -> None:
    weight = np.ones(2)
    assert state_dict({"a": weight}) == {"a": weight}
    assert state_dict({"epoch": 1, "state_dict": {"a": weight}}) == {"a": weight}
    assert state_dict({"net": {"a": weight}, "b": 1}, names=("net",)) == {"a": weight}
    both = {"model_state": {"a": weight}, "model": {"b": weight}}
    assert list(state_dict(both)) == ["a"]


def test_the_data_parallel_prefix_is_removed_only_where_all_have_it() -> None:
    weight = np.ones(2)
    assert list(state_dict({"module.a": weight, "module.b.module.c": weight})) == [
        "a",
        "b.module.c",
    ]
    assert list(state_dict({"module.a": weight, "b": weight})) == ["module.a", "b"]


def test_a_checkpoint_without_weights_says_what_it_holds() -> None:
    with pytest.raises(UserError, match=r"model_state.*found 'epoch' \(int\), 'net' \(dict\)"):
        state_dict({"epoch": 3, "net": {"a": 1}})
    with pytest.raises(UserError, match="found nothing"):
        state_dict({})


class Malice:
    """Pickled, it asks the reader to create a file."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("protocol", [2, 4])
def test_pickled_code_does_not_run(tmp_path: Path, protocol: int) -> None:
    trace = tmp_path / "trace"
    pickled = pickle.dumps({"model_state": Malice(trace)}, protocol)
    pickle.loads(pickled)  # noqa: S301 - it is ours, and shows that the attack works
    assert trace.exists()
    trace.unlink()
    assert_refused(
        archive(tmp_path / "a.pth", pickled),
        r"names '(__builtin__.getattr|builtins.getattr|pathlib)",
    )
    legacy = (FIXTURES / "legacy.pyth").read_bytes()
    header = legacy[: legacy.index(b"\x80\x02}", 40)]
    (tmp_path / "b.pth").write_bytes(header + pickled)
    assert_refused(tmp_path / "b.pth", "names")
    assert not trace.exists()


def test_a_shell_command_is_named_and_refused(tmp_path: Path) -> None:
    pickled = b"\x80\x02cos\nsystem\n" + value("exit 1") + b"\x85R."
    assert_refused(archive(tmp_path / "a.pth", pickled), "names 'os.system'")


@pytest.mark.parametrize(
    ("pickled", "because"),
    [
        (b"\x80\x02cbuiltins\neval\n.", "builtins.eval"),
        (b"\x80\x02\x8c\x02os\x8c\x06system\x93.", "os.system"),
        (b"\x80\x02" + value("text") + b")R.", "calls a str"),
        (b"\x80\x02ctorch\nFloatStorage\n)R.", "cannot be called"),
        (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}b.", "sets attributes"),
        (b"\x80\x02ccollections\nOrderedDict\n)\x81.", "instruction NEWOBJ"),
        (b"\x80\x02(i__main__\nA\n.", "instruction INST"),
        (b"\x80\x02P0\n.", "instruction PERSID"),
        (b"\x80\x02cnumpy\ndtype\n" + value(("O8", False, True)) + b"R.", "type 'O8'"),
        (b"\x80\x02c_codecs\nencode\n" + value(("a", "rot13")) + b"R.", "rot13"),
        (b"\x80\x02" + value(2**200) + b".", "128 bits"),
        (b"\x80\x02}(" + value((1, 2)) + value(3) + b"u.", "another type"),
        (b"\x80\x02" + value([1]) + b".", "holds a list"),
        (b"\x80\x02.", "damaged"),
        (b"\x80\x02}(" + value(1) + b"u.", "damaged"),
        (b"\x80\x02t.", "damaged"),
        (b"\x80\x02h\x05.", "damaged"),
        (b"\x80\x02}", "damaged"),
        (b"", "damaged"),
        (b"\x80\x02X\xff\xff\xff\x7f.", "damaged"),
        (b"\x80\x02\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.", "damaged"),
        (dictionary(a=tensor(offset=1)), "reaches to number 7 of a storage of 6"),
        (dictionary(a=tensor(stride=(4, 1))), "reaches to number 7"),
        (dictionary(a=tensor(stride=(-1, 1))), "negative"),
        (dictionary(a=tensor(offset=-1)), "negative"),
        (dictionary(a=tensor(size=(-2, -3))), "negative"),
        (dictionary(a=tensor(size=(2, 3, 1))), "3 sizes and 2 strides"),
        (dictionary(a=tensor(size=(1,) * 65, stride=(1,) * 65)), "65 sizes"),
        (dictionary(a=tensor(size=(10**12,), stride=(0,))), "repeats numbers"),
        (dictionary(a=tensor(size=(0, 2**62, 2**62), stride=(1, 1, 1))), "damaged"),
        (dictionary(a=tensor(size=("2", 3))), "another type"),
        (dictionary(a=tensor(storage=value("0"))), "another type"),
        (dictionary(a=tensor(storage=storage_id(length=2**50))), "larger than the whole file"),
        (dictionary(a=tensor(storage=storage_id(length=-6))), "refers to"),
        (dictionary(a=tensor(storage=storage_id(length="6"))), "refers to"),
        (dictionary(a=tensor(storage=storage_id(key=0))), "refers to"),
        (dictionary(a=tensor(storage=storage_id(key="1"))), "damaged"),
        (dictionary(a=tensor(storage=storage_id(length=7))), "24 bytes, not as declared"),
        (dictionary(a=storage_id(), b=storage_id(length=3)), "declared twice"),
        (dictionary(a=storage_id(), b=storage_id(kind="IntStorage")), "declared twice"),
        (dictionary(a=value("nonsense") + b"Q"), "refers to"),
        (dictionary(a=value(("storage", "os.system", "0", "cpu", 6)) + b"Q"), "refers to"),
    ],
)
def test_hostile_pickles_are_refused(tmp_path: Path, pickled: bytes, because: str) -> None:
    assert_refused(archive(tmp_path / "a.pth", pickled), because)


def test_nesting_cannot_overflow_the_stack(tmp_path: Path) -> None:
    depth = 100_000
    as_key = b"\x80\x02})" + b"\x85" * depth + b"Ns."
    assert_refused(archive(tmp_path / "a.pth", as_key), "another type")


def test_an_endless_description_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.torch_checkpoint._MOST_INSTRUCTIONS", 1000)
    shorter = b"\x80\x02" + b"N" * 990 + b"}."
    assert read_torch_checkpoint(archive(tmp_path / "a.pth", shorter)) == {}
    pickled = b"\x80\x02" + b"N" * 1000 + b"}."
    assert_refused(archive(tmp_path / "a.pth", pickled), "longer than any checkpoint's")


def test_nothing_unfolds_into_more_than_the_file(tmp_path: Path) -> None:
    pickled = dictionary(a=tensor(storage=storage_id(length=10**7)))
    zeros = bytes(4 * 10**7)
    file = archive(tmp_path / "a.pth", pickled, zeros, compression=zipfile.ZIP_DEFLATED)
    assert file.stat().st_size < 10**5
    assert_refused(file, "compressed")


def test_a_zip_file_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as file:
        file.writestr("readme.txt", "hello")
    assert_refused(tmp_path / "a.pth", "without the one data.pkl")


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n0000", b"\x80\x02K\x01.", b"PK"])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.pth").write_bytes(content)
    assert_refused(tmp_path / "a.pth")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert_refused(tmp_path / "none.pth", "none.pth.*No such file")
    assert_refused(tmp_path, "Is a directory")


@pytest.mark.parametrize("file", FILES)
def test_a_file_cut_short_is_refused(tmp_path: Path, file: str) -> None:
    whole = (FIXTURES / file).read_bytes()
    for length in itertools.chain(range(0, len(whole), 197), [len(whole) - 1]):
        (tmp_path / file).write_bytes(whole[:length])
        assert_refused(tmp_path / file)


@pytest.mark.parametrize("file", FILES)
def test_flipped_bytes_raise_nothing_but_user_errors(tmp_path: Path, file: str) -> None:
    whole = (FIXTURES / file).read_bytes()
    source = random.Random(file)  # noqa: S311 - a repeatable choice of positions
    for _ in range(60):
        damaged = bytearray(whole)
        for position in source.sample(range(len(whole)), source.choice([1, 1, 4])):
            damaged[position] = source.randrange(256)
        (tmp_path / file).write_bytes(damaged)
        read_or_refuse(tmp_path / file)


@hypothesis.settings(max_examples=80, deadline=None, database=None, derandomize=True)
@hypothesis.given(
    edits=strategies.lists(
        strategies.tuples(strategies.integers(0, 4000), strategies.binary(min_size=1, max_size=9)),
        max_size=4,
    )
)
def test_edited_pickles_raise_nothing_but_user_errors(
    tmp_path_factory: pytest.TempPathFactory, edits: list[tuple[int, bytes]]
) -> None:
    with zipfile.ZipFile(FIXTURES / "archive.pyth") as file:
        records = {name.partition("/")[2]: file.read(name) for name in file.namelist()}
    pickled = bytearray(records.pop("data.pkl"))
    for position, content in edits:
        pickled[position % len(pickled) : position % len(pickled) + len(content)] = content
    path = tmp_path_factory.getbasetemp() / "edited.pth"
    data = records.pop("data/0")
    # Written anew, so that the checksums fit and the pickle is what is put to the test.
    read_or_refuse(archive(path, bytes(pickled), data, **records))


def read_or_refuse(path: Path) -> None:
    """Reads a checkpoint that may be damaged; anything but a UserError fails the test."""
    try:
        state = state_dict(read_torch_checkpoint(path))
    except UserError as error:
        assert "\n" not in str(error)
    else:
        for array in state.values():
            array.copy()
            np.save(io.BytesIO(), array)
