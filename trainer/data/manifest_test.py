import json

import pytest

from components.create_tfrecords.create_tfrecords import create_tfrecords
from trainer.data.image_folder.sample import write_sample
from trainer.data.manifest import MANIFEST, read_manifest, write_manifest
from trainer.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("manifest")
    write_sample(root / "data")
    create_tfrecords(str(root / "examples"), str(root / "data"))
    return root / "examples"


def test_a_manifest_comes_back_as_it_was_written(folder, tmp_path):
    manifest = read_manifest(folder)
    write_manifest(tmp_path, manifest)
    assert read_manifest(tmp_path) == manifest
    assert (tmp_path / MANIFEST).read_bytes() == (folder / MANIFEST).read_bytes()


def test_a_folder_without_one_is_told(tmp_path):
    with pytest.raises(UserError, match=r"as create_tfrecords writes it; .* has none"):
        read_manifest(tmp_path)


def damaged(values, place, value):
    *path, last = place
    target = values
    for step in path:
        target = target[step]
    if value is KeyError:
        del target[last]
    else:
        target[last] = value
    return values


SHARD = ("splits", "train", "shards", 0)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("format",), 1, "must have format 2; it has 1"),
        (("format",), KeyError, "it has None"),
        (("splits",), 5, "damaged"),
        (("splits", "train", "quarantined"), "7", "not one"),
        ((*SHARD, "records"), -1, "not one"),
        ((*SHARD, "records"), True, "not one"),
        ((*SHARD, "bytes"), KeyError, "damaged"),
        ((*SHARD, "file"), "../../etc/passwd", "has the name"),
        ((*SHARD, "file"), "..", "has the name"),
        ((*SHARD, "file"), "a\0.tfrecord", "has the name"),
        ((*SHARD, "sha256"), 5, "damaged"),
        ((*SHARD, "crc32c"), "123", "checksum of other than 8 digits"),
        (("features", "key"), KeyError, "examples have no key"),
        (("features", "image", "dtype"), "int65", "dtype of a feature must be one of"),
        (("features", "image", "shape"), [-1], "must be 0 or more"),
        (("features", "image", "shape"), [True], "must be 0 or more"),
        (("splits",), {}, "there is no split"),
        ((*SHARD, "more"), 1, "damaged"),
        (("features", "image", "shape"), 3, "damaged"),
        (("title",), None, "title is None"),
        (("notes",), KeyError, "damaged"),
    ],
)
def test_a_damaged_manifest_is_told_in_a_line(folder, tmp_path, place, value, message):
    values = damaged(json.loads((folder / MANIFEST).read_text()), place, value)
    (tmp_path / MANIFEST).write_text(json.dumps(values))
    with pytest.raises(UserError, match=message) as error:
        read_manifest(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe", b"null", b"[" * 10**5])
def test_what_is_no_json_object_is_told(tmp_path, content):
    (tmp_path / MANIFEST).write_bytes(content)
    with pytest.raises(UserError, match=MANIFEST):
        read_manifest(tmp_path)
