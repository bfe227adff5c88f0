import io
import os
import pickle
import shutil

import numpy as np
import pytest
from PIL import Image

from trainer import catalog
from trainer.data.image_folder import sample as image_folder_sample
from trainer.data.paired_pictures.dataset import open_dataset, recognises
from trainer.data.paired_pictures.sample import write_sample
from trainer.errors import BadItem, UserError


def picture(width, height=4, kind="PNG"):
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def write(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def test_a_pair_is_kept_as_it_came(tmp_path):
    files = {
        "train/2_AB.jpg": picture(8, kind="JPEG"),
        "train/10_AB.jpg": picture(12, kind="JPEG"),
        "val/1.png": picture(2),
    }
    dataset = open_dataset(write(tmp_path, files))
    assert dataset.splits == {"train": 2, "validation": 1}
    assert dataset.class_names == ()
    for split, index, key in (
        ("train", 0, "train/10_AB.jpg"),
        ("train", 1, "train/2_AB.jpg"),
        ("validation", 0, "val/1.png"),
    ):
        assert dataset.key(split, index) == key
        assert dataset.read(split, index) == {"image": files[key]}


def test_the_left_half_of_the_sample_is_the_outline(tmp_path):
    write_sample(tmp_path)
    dataset = open_dataset(tmp_path)
    for index in range(dataset.splits["train"]):
        pixels = np.asarray(Image.open(io.BytesIO(dataset.read("train", index)["image"])))
        outline, filled = (half[16, 16].astype(int) for half in np.split(pixels, 2, axis=1))
        assert outline.min() > 200
        assert filled.max() < 230


@pytest.mark.parametrize(
    ("folders", "split"),
    [(["val"], "validation"), (["test"], "test"), (["val", "test"], "validation")],
)
def test_evaluation_is_on_validation_or_else_on_test(tmp_path, folders, split):
    dataset = open_dataset(
        write(tmp_path, {f"{f}/1.jpg": picture(4, kind="JPEG") for f in ["train", *folders]})
    )
    assert dataset.evaluation_split == split
    assert len(dataset.splits) == 1 + len(folders)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_picture_of_odd_width_is_a_bad_item(tmp_path, kind):
    files = {"train/1.x": picture(511, kind=kind), "train/2.x": picture(512, 3, kind)}
    dataset = open_dataset(write(tmp_path, {**files, "val/1.jpg": b""}))
    with pytest.raises(BadItem, match="the width of 511 pixels is odd"):
        dataset.read("train", 0)
    assert dataset.read("train", 1)["image"] == files["train/2.x"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"text",
        b"\x89PNG\r\n\x1a\n",
        picture(512)[:20],
        picture(512, kind="JPEG")[:20],
        picture(3, kind="GIF"),
        b"\xff\xd8\xff",
    ],
)
def test_what_has_no_width_is_left_to_the_checks_of_all_images(tmp_path, content):
    dataset = open_dataset(write(tmp_path, {"train/1.jpg": content, "val/1.jpg": b""}))
    assert dataset.read("train", 0)["image"] == content


def test_a_thousand_damaged_headers_are_examples_or_bad_items(tmp_path):
    generator = np.random.default_rng(0)
    files = {}
    for number in range(1000):
        content = bytearray(picture(512, 2, ("PNG", "JPEG")[number % 2]))
        for place in generator.integers(0, 200, 3):
            content[place] = generator.integers(0, 256)
        files[f"train/{number}.jpg"] = bytes(content[: generator.integers(1, 2 * len(content))])
    dataset = open_dataset(write(tmp_path, {**files, "val/1.jpg": b""}))
    refused = 0
    for index in range(1000):
        try:
            assert dataset.read("train", index)["image"] == files[dataset.key("train", index)]
        except BadItem as error:
            assert error.reason.endswith("is odd")
            refused += 1
    assert 0 < refused < 200


def test_what_is_no_file_is_a_bad_item(tmp_path):
    root = write(tmp_path / "data", {"train/1.jpg": picture(4), "val/1.jpg": picture(4)})
    write(tmp_path, {"secret": b"secret"})
    (root / "train" / "2.jpg").mkdir()
    os.mkfifo(root / "train" / "3.jpg")
    (root / "train" / "4.jpg").symlink_to(tmp_path / "secret")
    (root / "train" / ".5.jpg").touch()
    dataset = open_dataset(root)
    assert dataset.splits["train"] == 4
    for index, reason in enumerate(("something else", "something else", "leads out"), 1):
        with pytest.raises(BadItem, match=reason):
            dataset.read("train", index)


@pytest.mark.parametrize(
    ("folders", "came"), [(["train"], "train/"), (["val"], "val/"), ([], "none")]
)
def test_missing_folders_are_told(tmp_path, folders, came):
    write(tmp_path, {f"{folder}/1.jpg": picture(4) for folder in folders})
    with pytest.raises(UserError, match=f"has pictures in {came} alone. Move some of train/ to"):
        open_dataset(tmp_path)


def test_recognised_by_flat_folders_of_pictures(tmp_path):
    write_sample(tmp_path)
    assert catalog.open_dataset(tmp_path)[0] == "paired_pictures"
    (tmp_path / "val").rename(tmp_path / "test")
    assert recognises(tmp_path)
    (tmp_path / "test" / "class").mkdir()
    assert not recognises(tmp_path)
    (tmp_path / "test" / "class").rmdir()
    (tmp_path / "train" / "class").mkdir()
    assert not recognises(tmp_path)
    shutil.rmtree(tmp_path / "train")
    assert not recognises(tmp_path)
    write(tmp_path, {"train/notes.txt": b""})
    assert not recognises(tmp_path)


def test_a_folder_of_classes_is_not_taken_for_pairs(tmp_path):
    image_folder_sample.write_sample(tmp_path)
    assert not recognises(tmp_path)


def test_it_can_be_sent_to_another_process(tmp_path):
    write_sample(tmp_path)
    dataset = open_dataset(tmp_path)
    sent = pickle.loads(pickle.dumps(dataset))  # noqa: S301
    assert sent.read("train", 3) == dataset.read("train", 3)
