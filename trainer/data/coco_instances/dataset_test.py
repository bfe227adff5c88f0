import io
import json
import pickle

import numpy as np
import pytest
from PIL import Image

from trainer.data.coco_detection.dataset import open_dataset as open_detection
from trainer.data.coco_instances import dataset as instances
from trainer.data.coco_instances.dataset import open_dataset, recognises
from trainer.data.coco_instances.sample import write_sample
from trainer.errors import BadItem


@pytest.fixture
def root(tmp_path):
    write_sample(tmp_path)
    return tmp_path


def change(root, function):
    path = root / "annotations" / "instances_train2017.json"
    content = json.loads(path.read_text())
    function(content)
    path.write_text(json.dumps(content))


def pixels(mask):
    return np.asarray(Image.open(io.BytesIO(mask)))


def test_it_is_the_detection_view_with_a_mask_of_each_instance(root):
    masked, plain = open_dataset(root), open_detection(root)
    assert (masked.splits, masked.class_names) == (plain.splits, plain.class_names)
    for split, count in masked.splits.items():
        for index in range(count):
            assert masked.key(split, index) == plain.key(split, index)
            example = dict(masked.read(split, index))
            assert len(example.pop("mask")) == len(example["label"])
            assert repr(example) == repr(plain.read(split, index))


def test_each_mask_is_that_of_the_box_beside_it(root):
    dataset = open_dataset(root)
    found = 0
    for index in range(dataset.splits["train"]):
        example = dataset.read("train", index)
        with Image.open(io.BytesIO(example["image"])) as image:
            size = image.size
        for mask, box, area in zip(example["mask"], example["box"], example["area"], strict=True):
            drawn = pixels(mask)
            assert drawn.shape == size[::-1]
            left, top, right, bottom = box.astype(int)
            assert set(np.unique(drawn)) == {0, 255}
            assert (drawn[top:bottom, left:right] == 255).all()
            assert (drawn > 0).sum() == area
            found += 1
    assert found == 21  # 7 pictures with 3 each


def test_a_picture_without_annotations_has_no_masks(root):
    example = open_dataset(root).read("validation", 3)
    assert example["mask"].shape == (0,)
    assert example["mask"].dtype == object


def test_an_outline_that_cannot_be_drawn_is_told_with_its_annotation(root):
    def damage(content):
        content["annotations"][0]["segmentation"] = [[1, 2]]
        content["annotations"][5]["segmentation"] = {"size": [1, 1], "counts": [2**33]}
        del content["annotations"][9]["segmentation"]

    identities = [
        a["image_id"]
        for a in json.loads((root / "annotations/instances_train2017.json").read_text())[
            "annotations"
        ]
    ]
    change(root, damage)
    dataset = open_dataset(root)
    reasons = {}
    for index in range(dataset.splits["train"]):
        try:
            dataset.read("train", index)
        except BadItem as error:
            reasons[dataset.key("train", index)] = error.reason
    assert reasons == {
        f"train2017/{identities[0]:012d}.jpg": "annotation 0 of the file: a polygon of it has no x "
        "and y of 3 points or more",
        f"train2017/{identities[5]:012d}.jpg": "annotation 5 of the file: its run lengths are of "
        "another size than the picture",
        f"train2017/{identities[9]:012d}.jpg": "annotation 9 of the file: its segmentation is "
        "neither polygons nor run lengths",
    }


def test_more_masks_than_can_be_meant_are_refused_at_once(root, monkeypatch):
    monkeypatch.setattr(instances, "MOST_MASK_PIXELS", 2 * 48 * 36)
    dataset = open_dataset(root)
    with pytest.raises(BadItem, match="3 masks of 1,728 pixels"):
        dataset.read("train", 0)
    assert dataset.read("train", 7)["image_id"] == 121


def test_a_copy_in_another_process_reads_the_same(root):
    dataset = open_dataset(root)
    copy = pickle.loads(pickle.dumps(dataset))  # noqa: S301
    assert repr(copy.read("train", 2)) == repr(dataset.read("train", 2))


def test_it_is_chosen_by_its_name_only(root):
    assert not recognises(root)
