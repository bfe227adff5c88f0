"""What every dataset adapter promises, checked on the sample that it writes in its own layout."""

import hashlib
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.create_tfrecords.create_tfrecords import create_tfrecords
from trainer import catalog
from trainer.data.check import check_example
from trainer.data.examples import decode_example
from trainer.data.manifest import QUARANTINE, read_manifest
from trainer.data.records import read_records

NAMES = catalog.dataset_names()

DIGEST_SCRIPT = """
import sys
from tests.test_every_dataset import digest
print(digest(*sys.argv[1:]))
"""


@pytest.fixture(scope="module", params=NAMES)
def sample(request, tmp_path_factory):
    """Name of an adapter, the folder of its sample, and how many items each split must have."""
    root = tmp_path_factory.mktemp("data") / "sample with spaces, dépôt"
    module = __import__(f"trainer.data.{request.param}.sample", fromlist=["write_sample"])
    return request.param, root, dict(module.write_sample(root))


def items(dataset):
    """Every (split, key, example) in order."""
    for split, count in dataset.splits.items():
        for index in range(count):
            yield split, dataset.key(split, index), dataset.read(split, index)


def digest(root, name):
    """SHA-256 of all there is to read."""
    _, dataset = catalog.open_dataset(root, name)
    facts = (name, tuple(dataset.class_names), dict(dataset.splits), dataset.evaluation_split)
    total = hashlib.sha256(repr(facts).encode())
    for item in items(dataset):
        total.update(repr(item).encode())
    return total.hexdigest()


def stored(folder):
    """split -> the examples that create_tfrecords has written, in order."""
    manifest = read_manifest(folder)
    return {
        split: [
            decode_example(manifest.features, record)
            for path in manifest.files(folder, split)
            for record in read_records(path)
        ]
        for split in manifest.splits
    }


def test_exactly_one_adapter_recognises_it(sample):
    name, root, _ = sample
    # Where datasets read the very same files in different ways, one of them is the usual one.
    found = catalog.open_dataset(root)[0]
    assert catalog.dataset_module(found).INFO.layout == catalog.dataset_module(name).INFO.layout
    fitting = [n for n in NAMES if catalog.dataset_module(n).recognises(root)]
    assert all(n == found or catalog.dataset_module(n).INFO.general for n in fitting)
    assert not any(catalog.dataset_module(n).recognises(root / "absent") for n in NAMES)


def test_it_tells_where_it_comes_from(sample):
    info = catalog.dataset_module(sample[0]).INFO
    assert info.title and info.licence and info.layout
    assert "\n" not in info.layout
    assert info.homepage.startswith("http")
    readme = Path(catalog.dataset_module(sample[0]).__file__).with_name("README.md")
    assert readme.read_text(encoding="utf-8").startswith("# ")


def test_splits_are_as_written(sample):
    name, root, counts = sample
    _, dataset = catalog.open_dataset(root, name)
    assert dict(dataset.splits) == counts
    assert set(dataset.splits) <= {"train", "validation", "test"}
    assert "train" in dataset.splits
    assert dataset.evaluation_split in set(dataset.splits) - {"train"}


def test_examples_have_the_features_declared(sample):
    _, dataset = catalog.open_dataset(sample[1], sample[0])
    assert dataset.features
    assert "key" not in dataset.features
    assert all(feature.description for feature in dataset.features.values())
    for split, key, example in items(dataset):
        assert example.keys() == dataset.features.keys(), (split, key)
        for name, feature in dataset.features.items():
            if feature.shape:
                assert example[name].dtype == np.dtype(feature.dtype.replace("bytes", "object"))
                sizes = zip(feature.shape, example[name].shape, strict=True)
                assert all(size in (None, actual) for size, actual in sizes)
            else:
                kind = {"bytes": bytes, "float32": float}.get(feature.dtype, int)
                assert type(example[name]) is kind
        _, changes = check_example(dataset.features, example, key, len(dataset.class_names))
        assert changes == []


def test_names_mean_the_same_everywhere(sample):
    _, dataset = catalog.open_dataset(sample[1], sample[0])
    features = dataset.features
    for name, feature in features.items():
        if name in ("image", "mask", "box", "label", "text"):
            assert feature.content == name
    assert [f.content for f in features.values()].count("image") <= 1
    rows = [name for name, feature in features.items() if feature.ragged and name != "text"]
    for split, key, example in items(dataset):  # what describes objects has a row for each
        assert len({len(example[name]) for name in rows}) <= 1, (split, key)


def test_every_class_is_in_every_split(sample):
    _, dataset = catalog.open_dataset(sample[1], sample[0])
    assert len(set(dataset.class_names)) == len(dataset.class_names)
    seen = {split: set() for split in dataset.splits}
    for split, _, example in items(dataset):
        seen[split].update(np.ravel(example.get("label", [])).tolist())
    for labels in seen.values():
        assert labels == set(range(len(dataset.class_names)))


def test_keys_are_unique(sample):
    _, dataset = catalog.open_dataset(sample[1], sample[0])
    keys = [key for _, key, _ in items(dataset)]
    assert len(set(keys)) == len(keys)
    assert all(keys)


def test_no_example_stands_in_two_splits(sample):
    _, dataset = catalog.open_dataset(sample[1], sample[0])
    splits = {}
    for split, _, example in items(dataset):
        content = tuple(value for name, value in sorted(example.items()) if name != "label")
        splits.setdefault(repr(content), set()).add(split)
    assert all(len(found) == 1 for found in splits.values())


def test_another_process_reads_the_same(sample):
    command = [sys.executable, "-c", DIGEST_SCRIPT, str(sample[1]), sample[0]]
    root = Path(__file__).parents[1]
    answer = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == digest(sample[1], sample[0])


def test_it_goes_through_create_tfrecords_and_back(sample, tmp_path):
    name, root, counts = sample
    create_tfrecords(str(tmp_path / "examples"), str(root), name)
    _, dataset = catalog.open_dataset(root, name)
    manifest = read_manifest(tmp_path / "examples")
    assert manifest.dataset == name
    assert manifest.class_names == tuple(dataset.class_names)
    assert {split: content.records for split, content in manifest.splits.items()} == counts
    assert (tmp_path / "examples" / QUARANTINE).read_text(encoding="utf-8") == ""
    there = {
        (split, example["key"].decode()): {k: v for k, v in example.items() if k != "key"}
        for split, examples in stored(tmp_path / "examples").items()
        for example in examples
    }
    expected = {(split, key): dict(example) for split, key, example in items(dataset)}
    assert there.keys() == expected.keys()
    for place, example in expected.items():
        for feature, value in example.items():
            np.testing.assert_array_equal(there[place][feature], value)


def encode(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


PICTURE = Image.fromarray(np.random.default_rng(7).integers(0, 256, (40, 40, 3), np.uint8))
BROKEN = {
    "truncated.jpg": (encode(PICTURE, "JPEG")[:-500], "the image is truncated"),
    "empty.jpg": (b"", "the file is empty (0 bytes)"),
    "png named.jpg": (encode(PICTURE, "PNG"), "the name ends in .jpg but the content is PNG"),
    "cmyk.jpg": (encode(PICTURE.convert("CMYK"), "JPEG"), "CMYK colours"),
    "sixteen.png": (
        encode(Image.fromarray(np.full((40, 40), 40_000, np.uint16)), "PNG"),
        "16 bits per channel",
    ),
    "animated.gif": (
        encode(PICTURE, "GIF", save_all=True, append_images=[PICTURE.rotate(90)]),
        "an animated GIF",
    ),
    "text.png": (b"a note, not a picture\n", "not an image; the file begins with b'a note"),
    "": (None, "a label without an image: the class folder is empty"),
    "naïve 写真 и so on.jpeg": (encode(PICTURE, "JPEG"), None),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_quarantined_and_nothing_else_is_lost(name, tmp_path):
    from trainer.data.image_folder.sample import write_sample

    counts = write_sample(tmp_path / "data")
    content, reason = BROKEN[name]
    folder = tmp_path / "data" / "train" / ("n01440764" if name else "n99999999")
    folder.mkdir(exist_ok=True)
    if name:
        (folder / name).write_bytes(content)
    create_tfrecords(str(tmp_path / "examples"), str(tmp_path / "data"), max_bad_fraction=0.1)
    lines = (tmp_path / "examples" / QUARANTINE).read_text(encoding="utf-8").splitlines()
    key = "/".join(filter(None, ("train", folder.name, name)))
    manifest = read_manifest(tmp_path / "examples")
    keys = {
        e["key"].decode() for examples in stored(tmp_path / "examples").values() for e in examples
    }
    if reason is None:
        assert lines == []
        assert key in keys
        assert manifest.splits["train"].records == counts["train"] + 1
    else:
        (refused,) = map(json.loads, lines)
        assert (refused["split"], refused["key"]) == ("train", key)
        assert refused["reason"].startswith(reason)
        assert refused["expected"]
        assert manifest.splits["train"].quarantined == 1
        assert manifest.splits["train"].records == counts["train"]
    others = {split: manifest.splits[split].records for split in counts if split != "train"}
    assert others == {split: count for split, count in counts.items() if split != "train"}
