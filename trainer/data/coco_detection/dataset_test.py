import io
import json
import os
import pickle

import numpy as np
import pytest
from PIL import Image

from trainer.data.coco_detection.dataset import open_dataset, recognises
from trainer.data.coco_detection.sample import write_sample
from trainer.errors import BadItem, UserError


def jpeg(width, height, kind="JPEG", **options):
    file = io.BytesIO()
    Image.new("RGB", (width, height), (9, 99, 199)).save(file, kind, **options)
    return file.getvalue()


@pytest.fixture
def root(tmp_path):
    """Two pictures of 20 × 10 to train on, the first with two instances; one to evaluate on."""
    for split, names in (("train2017", ("1.jpg", "2.jpg")), ("val2017", ("3.jpg",))):
        (tmp_path / split).mkdir()
        for name in names:
            (tmp_path / split / name).write_bytes(jpeg(20, 10))
        images = [
            {"id": int(name[0]), "file_name": name, "width": 20, "height": 10} for name in names
        ]
        annotations = [
            {"image_id": 1, "category_id": 7, "bbox": [1, 2, 3, 4], "area": 11.5, "iscrowd": 0},
            {"image_id": 1, "category_id": 2, "bbox": [0, 0, 20, 10], "area": 150, "iscrowd": 1},
        ]
        write(
            tmp_path,
            split,
            images=images,
            annotations=annotations if split == "train2017" else [],
            categories=[{"id": 7, "name": "cat"}, {"id": 2, "name": "dog"}],
        )
    return tmp_path


def place(root, split):
    return root / "annotations" / f"instances_{split}.json"


def write(root, split, **changes):
    path = place(root, split)
    path.parent.mkdir(exist_ok=True)
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**content, **changes}))


def refusal(dataset, split, index):
    with pytest.raises(BadItem) as error:
        dataset.read(split, index)
    return error.value.reason


def test_an_example_has_what_the_file_says(root):
    dataset = open_dataset(root)
    assert dataset.class_names == ("dog", "cat")
    assert dataset.splits == {"train": 2, "validation": 1}
    assert dataset.key("train", 1) == "train2017/2.jpg"
    example = dataset.read("train", 0)
    assert example["image"] == (root / "train2017" / "1.jpg").read_bytes()
    assert example["box"].tolist() == [[1, 2, 4, 6], [0, 0, 20, 10]]
    assert example["label"].tolist() == [1, 0]
    assert example["crowd"].tolist() == [0, 1]
    assert example["area"].tolist() == [11.5, 150]
    assert example["image_id"] == 1


def test_a_picture_without_annotations_is_kept(root):
    example = open_dataset(root).read("validation", 0)
    assert example["box"].shape == (0, 4)
    assert example["label"].shape == example["crowd"].shape == example["area"].shape == (0,)


def test_pictures_that_are_not_listed_are_no_items(root):
    (root / "train2017" / "9.jpg").write_bytes(jpeg(20, 10))
    assert open_dataset(root).splits["train"] == 2


def test_a_copy_in_another_process_reads_the_same(root):
    dataset = open_dataset(root)
    copy = pickle.loads(pickle.dumps(dataset))  # noqa: S301
    assert repr(copy.read("train", 0)) == repr(dataset.read("train", 0))


@pytest.mark.parametrize("content", [jpeg(10, 20), jpeg(21, 10), jpeg(20, 11, "PNG")])
def test_a_picture_of_another_size_is_refused(root, content):
    (root / "train2017" / "1.jpg").write_bytes(content)
    dataset = open_dataset(root)
    assert "its annotations are for 20 × 10" in refusal(dataset, "train", 0)
    assert dataset.read("train", 1)["image_id"] == 2


def test_the_size_is_that_of_the_pixels_whatever_exif_says(root):
    exif = Image.Exif()
    exif[0x0112] = 6
    (root / "train2017" / "1.jpg").write_bytes(jpeg(20, 10, exif=exif))
    assert open_dataset(root).read("train", 0)["image_id"] == 1


@pytest.mark.parametrize("content", [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a no"])
def test_what_is_no_picture_is_left_to_the_check_of_pictures(root, content):
    (root / "train2017" / "1.jpg").write_bytes(content)
    assert open_dataset(root).read("train", 0)["image"] == content


def test_files_that_cannot_be_read_are_refused(root):
    outside = root.with_name("outside.jpg")
    outside.write_bytes(jpeg(20, 10))
    for number, make in enumerate(
        (
            lambda path: None,
            lambda path: path.mkdir(),
            lambda path: path.symlink_to(outside),
            lambda path: os.mkfifo(path),
        )
    ):
        path = root / "train2017" / "1.jpg"
        path.unlink(missing_ok=True)
        make(path)
        reasons = ("no such file", "something else", "leads out of the data folder", "something")
        assert reasons[number] in refusal(open_dataset(root), "train", 0)
        if path.is_dir():
            path.rmdir()


def test_a_broken_annotation_is_told_with_its_picture(root):
    content = json.loads(place(root, "train2017").read_text())
    content["annotations"][1]["category_id"] = 80
    write(root, "train2017", **content)
    dataset = open_dataset(root)
    assert "annotation 1 of the file: its category_id is not" in refusal(dataset, "train", 0)
    assert dataset.read("train", 1)["label"].shape == (0,)


@pytest.mark.parametrize(
    "lacking", ["annotations/instances_val2017.json", "annotations/instances_train2017.json"]
)
def test_a_missing_annotation_file_is_named(root, lacking):
    (root / lacking).unlink()
    assert recognises(root)
    with pytest.raises(UserError, match=f"lacks {lacking}"):
        open_dataset(root)


def test_a_missing_folder_is_named(root):
    (root / "train2017").rename(root / "train")
    with pytest.raises(UserError, match=r"lacks train2017/\."):
        open_dataset(root)


@pytest.mark.parametrize(
    "categories",
    [
        [{"id": 7, "name": "cat"}],
        [{"id": 7, "name": "cat"}, {"id": 2, "name": "hound"}],
        [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}],
    ],
)
def test_both_splits_must_have_the_same_categories(root, categories):
    write(root, "val2017", categories=categories)
    with pytest.raises(UserError, match="must have the same categories"):
        open_dataset(root)


def test_a_file_that_is_cut_short_is_told(root):
    path = place(root, "val2017")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"instances_val2017\.json must be .* is cut short"):
        open_dataset(root)


def test_recognised_by_an_annotation_file(root, tmp_path):
    assert recognises(root)
    assert not recognises(tmp_path / "train2017")


def test_the_sample_has_crowds_and_pictures_without_instances(tmp_path):
    write_sample(tmp_path)
    dataset = open_dataset(tmp_path)
    for split, count in dataset.splits.items():
        examples = [dataset.read(split, index) for index in range(count)]
        assert any(example["crowd"].any() for example in examples)
        assert any(not len(example["label"]) for example in examples)
        areas = np.concatenate([example["area"] for example in examples])
        boxes = np.concatenate([example["box"] for example in examples])
        sides = boxes[:, 2:] - boxes[:, :2]
        np.testing.assert_array_equal(areas, sides[:, 0] * sides[:, 1])
