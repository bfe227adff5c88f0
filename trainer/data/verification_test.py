import json
import os

import pytest

from trainer.data.examples import encode_example
from trainer.data.facts import FACTS
from trainer.data.manifest import CHANGES, MANIFEST, QUARANTINE
from trainer.data.records import RecordWriter
from trainer.data.verification import Finding, verify_examples
from trainer.dataset import Feature
from trainer.errors import UserError

SHARD = "train-00000-of-00002.tfrecord"
OTHER = "train-00001-of-00002.tfrecord"
SINGLE = "train-00000-of-00001.tfrecord"
FEATURES = {"key": Feature("bytes"), "image": Feature("bytes"), "label": Feature("int64")}
REFUSED = [{"split": "train", "key": "train/bad.png", "reason": "empty", "expected": "a picture"}]
CHANGED = [{"split": "test", "key": "test/0.png", "change": "turned by 90 degrees"}]


def examples(split, count):
    return [
        {"key": f"{split}/{n}.png".encode(), "image": bytes(range(n + 20)), "label": n % 2}
        for n in range(count)
    ]


@pytest.fixture
def folder(tmp_path, write_examples):
    splits = {"train": examples("train", 7), "test": examples("test", 4)}
    return write_examples(tmp_path / "examples", splits, refused=REFUSED, changed=CHANGED)


@pytest.fixture
def change_manifest(folder):
    def change(place, value):
        values = json.loads((folder / MANIFEST).read_text())
        *path, last = place
        target = values
        for step in path:
            target = target[step]
        target[last] = value
        (folder / MANIFEST).write_text(json.dumps(values))

    return change


def problems(folder):
    return [str(finding) for finding in verify_examples(folder).findings]


def test_a_folder_as_it_was_written_is_whole(folder):
    found = verify_examples(folder)
    assert found.findings == ()
    assert found.problems == 0
    assert dict(found.splits) == {"train": 7, "test": 4}
    assert found.records == 11
    assert found.bytes == sum(path.stat().st_size for path in folder.glob("*.tfrecord"))


def test_a_folder_without_a_manifest_cannot_be_verified(tmp_path):
    with pytest.raises(UserError, match="has none"):
        verify_examples(tmp_path)


@pytest.fixture
def shard(tmp_path, write_examples):
    """A folder of one shard, its content, and where each of its records begins."""
    split = examples("train", 4)
    folder = write_examples(tmp_path / "single", {"train": split}, shards=1)
    begins = [0]
    for example in split:
        begins.append(begins[-1] + 16 + len(encode_example(FEATURES, example)))
    content = (folder / SINGLE).read_bytes()
    assert 300 < len(content) == begins.pop()
    return folder, content, begins


def test_every_flipped_bit_is_found_and_its_record_named(shard):
    folder, content, begins = shard
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        (folder / SINGLE).write_bytes(damaged)
        found = verify_examples(folder)
        (finding,) = found.findings
        number = sum(begin <= place for begin in begins) - 1
        assert finding.file == SINGLE
        assert finding.record == number
        assert finding.offset == begins[number]
        assert finding.wrong_byte == place
        assert finding.key == f"train/{number}.png"
        assert found.records == 3


def test_every_changed_byte_is_found_and_its_record_named(shard):
    folder, content, begins = shard
    keys = [content.index(f"train/{number}.png".encode()) for number in range(4)]
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 0xFF
        (folder / SINGLE).write_bytes(damaged)
        (finding,) = verify_examples(folder).findings
        assert finding.file == SINGLE
        assert finding.record == sum(begin <= place for begin in begins) - 1
        assert finding.offset == begins[finding.record]
        if place in keys:  # it can no longer be read as text; what there is of it is shown
            assert finding.key == f"\\x8brain/{finding.record}.png"


def test_a_cut_at_every_length_is_found(shard):
    folder, content, begins = shard
    for size in range(len(content)):
        (folder / SINGLE).write_bytes(content[:size])
        *records, whole = verify_examples(folder).findings
        assert whole.file == SINGLE
        assert f"it has {size:,} bytes" in whole.problem
        assert f"the manifest says {len(content):,}" in whole.problem
        if size in begins:
            assert records == []
            assert f" and {begins.index(size)} records" in whole.problem
        else:
            assert [r.record for r in records] == [sum(begin < size for begin in begins) - 1]


def test_a_missing_shard_and_one_too_many_are_told(folder):
    (folder / OTHER).rename(folder / "train-00000-of-00001.tfrecord")
    assert problems(folder) == [
        f"{OTHER}: it is missing",
        "train-00000-of-00001.tfrecord: the manifest does not know it",
    ]


def test_other_files_and_folders_are_told(folder):
    (folder / ".hidden").write_text("")
    (folder / "notes\nof mine").mkdir()
    os.mkfifo(folder / "pipe")
    assert problems(folder) == [
        ".hidden: the manifest does not know it",
        "'notes\\nof mine': the manifest does not know it",
        "pipe: the manifest does not know it",
    ]


def test_a_shard_that_is_no_file_is_told_without_waiting_for_it(folder):
    (folder / SHARD).unlink()
    (folder / OTHER).unlink()
    (folder / SHARD).mkdir()
    os.mkfifo(folder / OTHER)
    assert problems(folder) == [
        f"{SHARD}: it is not a file but something else",
        f"{OTHER}: it is not a file but something else",
    ]


def test_shards_that_were_exchanged_are_told(folder):
    (folder / SHARD).rename(folder / "between")
    (folder / OTHER).rename(folder / SHARD)
    (folder / "between").rename(folder / OTHER)
    found = problems(folder)
    assert [line.partition(":")[0] for line in found] == [SHARD, OTHER]
    assert found[0].endswith("bytes and 4 records") or "3 records" in found[0]


@pytest.mark.parametrize(
    ("place", "value", "problem"),
    [
        (("records",), 5, "it has 4 records; the manifest says 5"),
        (("bytes",), 5, "the manifest says 5"),
        (("crc32c",), "0" * 8, "; the manifest says 00000000"),
        (("sha256",), "0" * 64, "; the manifest says 0000"),
    ],
)
def test_a_changed_manifest_is_told(folder, change_manifest, place, value, problem):
    change_manifest(("splits", "train", "shards", 0, *place), value)
    (line,) = problems(folder)
    assert line.startswith(f"{SHARD}: it has ")
    assert problem in line


def test_a_file_that_is_whole_but_for_its_checksums_is_told(folder):
    path = folder / SHARD
    with RecordWriter(path) as writer:
        for example in examples("train", 7)[::2]:
            writer.write(encode_example(FEATURES, {**example, "label": 1 - example["label"]}))
    (line,) = problems(folder)
    assert line.startswith(f"{SHARD}: it has the CRC-32C ")
    assert " and the SHA-256 " in line


def test_a_record_that_is_not_as_declared_is_told_with_its_key(folder, change_manifest):
    change_manifest(("features", "label", "dtype"), "float32")
    found = problems(folder)
    assert len(found) == 11
    assert found[0].startswith(
        f"{SHARD}, record 0, at byte 0, key 'train/0.png': it is no example as the manifest "
        "declares it (Feature 'label' must be one float32;"
    )


def test_a_record_without_a_key_is_told(tmp_path, write_examples):
    features = {"key": Feature("bytes"), "label": Feature("int64")}
    folder = write_examples(tmp_path / "a", {"train": [{"key": b"a", "label": 1}]}, features, 1)
    file = "train-00000-of-00001.tfrecord"
    with RecordWriter(folder / file) as writer:
        writer.write(encode_example({"label": Feature("int64")}, {"label": 1}))
    line = problems(folder)[0]
    assert line.startswith(f"{file}, record 0, at byte 0: it is no example")


def test_keys_that_come_twice_are_told_whatever_split_they_are_in(tmp_path, write_examples):
    splits = {"train": examples("train", 5), "test": examples("test", 2)}
    splits["test"][1]["key"] = b"train/3.png"
    splits["train"][4]["key"] = b"train/3.png"
    folder = write_examples(tmp_path / "examples", splits)
    first = "record 1 of train-00001-of-00002.tfrecord has the same key"
    found = verify_examples(folder)
    assert found.records == 7
    assert [(f.file, f.record, f.key) for f in found.findings] == [
        (OTHER, 1, "train/3.png"),
        ("test-00001-of-00002.tfrecord", 0, "train/3.png"),
    ]
    assert found.findings[0].problem == "record 2 of train-00000-of-00002.tfrecord has the same key"
    assert found.findings[1].problem == first


def test_entries_of_the_quarantine_and_of_changes_are_counted(folder, change_manifest):
    (folder / QUARANTINE).write_text("")
    lines = [json.dumps({"split": "test", "key": key, "change": "turned"}) for key in "ab"]
    (folder / CHANGES).write_text("".join(f"{line}\n" for line in lines))
    assert problems(folder) == [
        f"{QUARANTINE}: it is about 0 items of train; the manifest says 1 were quarantined",
        f"{CHANGES}: it is about 2 items of test; the manifest says 1 were changed",
    ]
    (folder / QUARANTINE).unlink()
    (folder / CHANGES).write_text("{\n")
    found = problems(folder)
    assert found[0] == f"{QUARANTINE}: it is missing"
    assert "on each line; line 1 begins with b'{" in found[1]


def test_an_item_that_was_changed_twice_is_counted_once(folder):
    line = (folder / CHANGES).read_text()
    (folder / CHANGES).write_text(line + line.replace("turned by 90", "converted from 16"))
    assert problems(folder) == []


def test_what_preprocess_writes_besides_is_known(folder):
    (folder / FACTS).write_text("{}")
    assert problems(folder) == []


def test_splits_may_have_features_of_their_own(folder, change_manifest):
    features = json.loads((folder / MANIFEST).read_text())["features"]
    change_manifest(("split_features",), {"test": features})
    change_manifest(("features", "label", "dtype"), "float32")
    assert {line.split("-")[0] for line in problems(folder)} == {"train"}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"format": 2}', b"[" * 10**5])
def test_an_unreadable_manifest_is_a_finding(folder, content):
    (folder / MANIFEST).write_bytes(content)
    found = verify_examples(folder)
    (finding,) = found.findings
    assert finding.file == MANIFEST
    assert "damaged" in finding.problem or "must have format" in finding.problem
    assert "\n" not in str(finding)


def test_findings_beyond_those_asked_for_are_counted(folder, change_manifest):
    change_manifest(("features", "label", "dtype"), "float32")
    found = verify_examples(folder, listed=4)
    assert len(found.findings) == 4
    assert found.more == 7
    assert found.problems == 11
    assert [f.record for f in found.findings] == [0, 1, 2, 3]


def test_bytes_are_told_as_they_are_read_and_an_interruption_ends_it(folder):
    told = []
    found = verify_examples(folder, advance=told.append)
    assert sum(told) == found.bytes

    def stop(count):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verify_examples(folder, advance=stop)


def test_a_finding_is_one_line():
    finding = Finding("a.tfrecord", "it is damaged", 3, 4711, 4720, "写真\n.png")
    assert str(finding) == "a.tfrecord, record 3, at byte 4,711, key '写真\\n.png': it is damaged"
    assert str(Finding("a.tfrecord", "it is missing")) == "a.tfrecord: it is missing"
