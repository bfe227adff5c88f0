import numpy as np
import pytest

from trainer.data.examples import decode_example
from trainer.data.manifest import read_manifest
from trainer.data.sampling import first_records, spread_records
from trainer.dataset import Feature
from trainer.errors import UserError

FEATURES = {"key": Feature("bytes"), "number": Feature("int64")}


@pytest.fixture
def folder(tmp_path, write_examples):
    # Shards take turns, so the records of three shards are 0, 3, 6, …, then 1, 4, 7, …
    splits = {"train": [{"key": b"%d" % n, "number": n} for n in range(30)]}
    return write_examples(tmp_path / "a", splits, FEATURES, shards=3)


STORED = [*range(0, 30, 3), *range(1, 30, 3), *range(2, 30, 3)]


def numbers(records):
    return [decode_example(FEATURES, record)["number"] for record in records]


def test_the_first_records_are_those_of_the_first_shards(folder):
    manifest = read_manifest(folder)
    assert numbers(first_records(folder, manifest, "train", 12)) == STORED[:12]
    assert numbers(first_records(folder, manifest, "train", 99)) == STORED
    with pytest.raises(UserError, match="must be one of train; got 'test'"):
        first_records(folder, manifest, "test", 1)


def test_records_are_evenly_spaced(folder):
    manifest = read_manifest(folder)
    assert numbers(spread_records(folder, manifest, "train", 5)) == [
        STORED[n] for n in (0, 6, 12, 18, 24)
    ]
    assert numbers(spread_records(folder, manifest, "train", 1)) == [0]
    assert numbers(spread_records(folder, manifest, "train", 0)) == []
    for most in (30, 31, 1000):
        assert numbers(spread_records(folder, manifest, "train", most)) == STORED


def test_a_large_split_is_not_read_from_begin_to_end(tmp_path, write_examples, monkeypatch):
    monkeypatch.setattr("trainer.data.sampling.STREAMED_BYTES", 1000)
    features = {"key": Feature("bytes"), "number": Feature("int64"), "image": Feature("bytes")}
    splits = {"train": [{"key": b"%d" % n, "number": n, "image": bytes(400)} for n in range(100)]}
    folder = write_examples(tmp_path / "large", splits, features, shards=2)
    manifest = read_manifest(folder)
    stored = [*range(0, 100, 2), *range(1, 100, 2)]
    found = numbers(spread_records(folder, manifest, "train", 10))
    places = [stored.index(number) for number in found]
    # All records but for their keys have one size: every tenth, or the one after it.
    assert len(places) == 10
    assert np.abs(np.array(places) - np.arange(0, 100, 10)).max() <= 1
    assert found == numbers(spread_records(folder, manifest, "train", 10))
    # A part of the split that no sample needs may be missing.
    path = manifest.files(folder, "train")[0]
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    assert numbers(spread_records(folder, manifest, "train", 10)) == found


def test_of_a_large_split_no_record_is_taken_twice(tmp_path, write_examples, monkeypatch):
    monkeypatch.setattr("trainer.data.sampling.STREAMED_BYTES", 1000)
    features = {"key": Feature("bytes"), "number": Feature("int64"), "image": Feature("bytes")}
    sizes = [5000, 10, 10, 10, 3000, 10]
    splits = {
        "train": [{"key": b"%d" % n, "number": n, "image": bytes(s)} for n, s in enumerate(sizes)]
    }
    folder = write_examples(tmp_path / "uneven", splits, features, shards=1)
    found = numbers(spread_records(folder, read_manifest(folder), "train", 5))
    assert found == sorted(set(found))
    assert found[0] == 0
