import io
import json
import shutil
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from trainer.data.coco_panoptic.dataset import open_dataset, recognises
from trainer.data.coco_panoptic.sample import write_sample
from trainer.data.images import encode_png
from trainer.errors import BadItem, UserError

NAME = "000000000009"


@pytest.fixture
def root(tmp_path):
    write_sample(tmp_path)
    return tmp_path


def change(root, function):
    path = root / "annotations" / "panoptic_train2017.json"
    content = json.loads(path.read_text())
    function(content)
    path.write_text(json.dumps(content))


def mask_path(root):
    return root / "annotations" / "panoptic_train2017" / f"{NAME}.png"


def ids(mask):
    colours = np.asarray(Image.open(io.BytesIO(mask))).astype(int)
    return colours[:, :, 0] + 256 * colours[:, :, 1] + 65536 * colours[:, :, 2]


def refusal(root, index=0):
    dataset = open_dataset(root)
    with pytest.raises(BadItem) as error:
        dataset.read("train", index)
    assert dataset.read("train", 1)["label"].size
    assert error.value.expected
    return error.value.reason


def test_segments_are_what_the_mask_shows(root):
    dataset = open_dataset(root)
    assert dataset.class_names == ("person", "car", "dog", "sky-other-merged", "grass-merged")
    for split, count in dataset.splits.items():
        for index in range(count):
            example = dataset.read(split, index)
            drawn = ids(example["mask"])
            for identity, area, box in zip(
                example["segment_id"], example["area"], example["box"], strict=True
            ):
                rows, columns = np.nonzero(drawn == identity)
                assert len(rows) == area
                corners = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
                assert box.tolist() == corners
            assert set(np.unique(drawn)) - {0} == set(example["segment_id"].tolist())
            assert (drawn == 0).any()


def test_the_mask_is_the_file_as_it_came(root):
    example = open_dataset(root).read("train", 0)
    assert example["mask"] == mask_path(root).read_bytes()
    assert example["image_id"] == 9
    assert example["segment_id"].tolist() == [3226956, 7000001, 65799, 131847, 201223]
    assert example["label"].tolist() == [3, 4, 0, 1, 2]
    assert example["crowd"].tolist() == [0, 0, 0, 0, 1]


def test_masks_may_lie_in_the_root(root):
    key = open_dataset(root).key("train", 0)
    for split in ("train2017", "val2017"):
        (root / "annotations" / f"panoptic_{split}").rename(root / f"panoptic_{split}")
    dataset = open_dataset(root)
    assert dataset.key("train", 0) == key == f"train2017/{NAME}.jpg"
    assert (
        dataset.read("train", 0)["mask"]
        == (root / "panoptic_train2017" / f"{NAME}.png").read_bytes()
    )


def test_a_missing_folder_of_masks_is_named(root):
    shutil.rmtree(root / "annotations" / "panoptic_val2017")
    with pytest.raises(UserError, match=r"no folder annotations/panoptic_val2017 or panoptic_val"):
        open_dataset(root)


def segment(content, number, **values):
    content["annotations"][0]["segments_info"][number].update(values)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda c: segment(c, 0, area=433), "segment 3226956 has 434 pixels, its area is 433"),
        (lambda c: segment(c, 0, id=5), "segment 3226956 is drawn but not listed"),
        (lambda c: segment(c, 0, id=7000001), "two segments have the same id"),
        (lambda c: segment(c, 0, category_id=4), "its category_id is not in the list"),
        (lambda c: segment(c, 0, id=2**24), "its id is not a whole number from 1 to 16,777,215"),
        (lambda c: c["annotations"][0]["segments_info"].pop(), "201223 is drawn but not listed"),
        (
            lambda c: c["annotations"][0]["segments_info"].append(
                {"id": 99, "category_id": 1, "bbox": [0, 0, 1, 1], "area": 1, "iscrowd": 0}
            ),
            "segment 99 is listed but not drawn",
        ),
        (lambda c: c["annotations"][0].update(segments_info=None), "it has no list of segments"),
        (lambda c: c["annotations"][0].update(file_name="../a.png"), "its file_name is not"),
        (lambda c: c["annotations"][0].update(file_name="absent.png"), "there is no such file"),
        (lambda c: c["annotations"].pop(0), "the picture has 0 annotations"),
        (lambda c: c["annotations"].append(c["annotations"][0]), "the picture has 2 annotations"),
        (lambda c: c["images"][0].update(width=49), "its annotations are for 49 × 36"),
    ],
)
def test_what_the_two_do_not_agree_on_is_refused(root, damage, reason):
    change(root, damage)
    assert reason in refusal(root)


def test_an_annotation_of_no_picture_is_an_item(root):
    def stray(content):
        content["annotations"][0]["image_id"] = 4

    change(root, stray)
    dataset = open_dataset(root)
    assert dataset.splits["train"] == 9
    assert dataset.key("train", 8) == "annotations/panoptic_train2017.json#annotations[0]"
    assert "an annotation without a picture" in refusal(root, 8)
    assert "the picture has 0 annotations" in refusal(root, 0)


def png(array, mode=None):
    file = io.BytesIO()
    Image.fromarray(array, mode).save(file, "PNG")
    return file.getvalue()


GOOD = encode_png(np.zeros((36, 48, 3), np.uint8))


def bomb(width, height):
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    return (
        GOOD[:8] + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + GOOD[33:]
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "its picture of segments is no PNG"),
        (GOOD[:20], "its picture of segments is no PNG"),
        (b"\xff\xd8\xff" + bytes(100), "its picture of segments is no PNG"),
        (GOOD[:60], "its picture of segments is damaged"),
        (encode_png(np.zeros((48, 36, 3), np.uint8)), "its picture of segments has 36 × 48 pixels"),
        (encode_png(np.zeros((36, 48, 1), np.uint8)), "its picture of segments is not RGB"),
        (png(np.zeros((36, 48, 4), np.uint8)), "its picture of segments is not RGB"),
        (bomb(2**31 - 1, 2**31 - 1), "its picture of segments has 2147483647 × 2147483647"),
        (GOOD[:33] + bomb(60_000, 60_000)[8:], "its picture of segments is damaged"),
        (GOOD[:33] + bomb(48, 30)[8:], "its picture of segments is damaged (it has two headers)"),
        (GOOD, "segment 65799 is listed but not drawn"),
    ],
)
def test_a_mask_that_cannot_be_used_is_refused(root, content, reason):
    mask_path(root).write_bytes(content)
    assert reason in refusal(root)


def test_a_huge_picture_is_refused_before_it_is_decoded(root):
    # The size in the header of the picture and in both annotations agree, and the file is small.
    path = root / "train2017" / f"{NAME}.jpg"
    content = bytearray(path.read_bytes())
    place = content.index(b"\xff\xc0") + 5
    content[place : place + 4] = struct.pack(">HH", 65_000, 65_000)
    path.write_bytes(content)
    mask_path(root).write_bytes(bomb(65_000, 65_000))
    change(root, lambda c: c["images"][0].update(width=65_000, height=65_000))
    assert refusal(root) == "4,225,000,000 pixels"


def test_instances_beside_it_go_before(root):
    assert recognises(root)
    (root / "annotations" / "instances_val2017.json").write_text("{}")
    assert not recognises(root)
    assert open_dataset(root).splits["train"] == 8
