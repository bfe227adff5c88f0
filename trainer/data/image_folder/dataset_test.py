import os

import pytest

from trainer.data.image_folder.dataset import open_dataset, recognises
from trainer.errors import BadItem, UserError


def write(root, *names):
    for name in names:
        path = root / name
        if name.endswith("/"):
            path.mkdir(parents=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(name.encode())
    return root


def keys(dataset, split):
    return [dataset.key(split, index) for index in range(dataset.splits[split])]


def refusal(dataset, split, index):
    with pytest.raises(BadItem) as error:
        dataset.read(split, index)
    return error.value.reason


def test_labels_are_positions_of_the_sorted_class_folders(tmp_path):
    write(tmp_path, "train/b/2", "train/b/10", "train/a/1", "train/Z/1", "val/b/1")
    dataset = open_dataset(tmp_path)
    assert dataset.class_names == ("Z", "a", "b")
    assert keys(dataset, "train") == ["train/Z/1", "train/a/1", "train/b/10", "train/b/2"]
    assert [dataset.read("train", index)["label"] for index in range(4)] == [0, 1, 2, 2]
    assert dataset.read("validation", 0) == {"image": b"val/b/1", "label": 2}


@pytest.mark.parametrize(
    ("folders", "split"),
    [(["val"], "validation"), (["validation", "test"], "validation"), (["test"], "test")],
)
def test_evaluation_is_on_validation_or_else_on_test(tmp_path, folders, split):
    write(tmp_path, "train/a/1", *[f"{folder}/a/2" for folder in folders])
    dataset = open_dataset(tmp_path)
    assert dataset.evaluation_split == split
    assert len(dataset.splits) == 1 + len(folders)


def test_hidden_files_are_no_items(tmp_path):
    write(tmp_path, "train/a/1", "train/a/.DS_Store", "train/.DS_Store", "train/.cache/1")
    write(tmp_path, "val/a/1")
    assert keys(open_dataset(tmp_path), "train") == ["train/a/1"]


def test_what_is_no_file_in_a_class_folder_is_a_bad_item(tmp_path):
    write(tmp_path, "train/a/1", "train/a/deeper/2", "train/empty/", "train/stray", "val/a/1")
    dataset = open_dataset(tmp_path)
    assert dataset.class_names == ("a", "empty")
    assert keys(dataset, "train") == ["train/stray", "train/a/1", "train/a/deeper", "train/empty"]
    assert refusal(dataset, "train", 0).startswith("an image without a class")
    assert dataset.read("train", 1)["label"] == 0
    assert refusal(dataset, "train", 2) == "it is not a file but something else"
    assert refusal(dataset, "train", 3).startswith("a label without an image")


def test_links_may_point_inside_the_root_only(tmp_path):
    write(tmp_path, "secret/1")
    root = write(tmp_path / "data", "train/a/1", "val/a/1")
    (root / "train/a/2").symlink_to(root / "val/a/1")
    (root / "train/a/3").symlink_to(tmp_path / "secret/1")
    (root / "train/a/4").symlink_to("nowhere")
    (root / "train/b").symlink_to(tmp_path / "secret")
    dataset = open_dataset(root)
    assert dataset.read("train", 1)["image"] == b"val/a/1"
    assert refusal(dataset, "train", 2).endswith("symbolic link leads out of the data folder")
    assert refusal(dataset, "train", 3) == "there is no such file"
    assert dataset.key("train", 4) == "train/b/1"
    assert refusal(dataset, "train", 4).endswith("symbolic link leads out of the data folder")


def test_the_root_itself_may_be_a_link(tmp_path):
    write(tmp_path / "data", "train/a/1", "val/a/1")
    (tmp_path / "link").symlink_to("data")
    assert open_dataset(tmp_path / "link").read("train", 0)["label"] == 0


def test_a_pipe_does_not_hang_the_reader(tmp_path):
    write(tmp_path, "train/a/1", "val/a/1")
    os.mkfifo(tmp_path / "train/a/2")
    assert "not a file" in refusal(open_dataset(tmp_path), "train", 1)


def test_names_that_are_no_text_get_a_key_that_is(tmp_path):
    write(tmp_path, "train/a/1", "val/a/1")
    (tmp_path / "train/a" / os.fsdecode(b"\xff.jpg")).write_bytes(b"x")
    dataset = open_dataset(tmp_path)
    assert keys(dataset, "train") == ["train/a/1", r"train/a/\xff.jpg"]
    assert dataset.read("train", 1)["image"] == b"x"


def test_a_test_folder_without_labels_is_left_out(tmp_path):
    write(tmp_path, "train/a/1", "val/a/1", "test/1", "test/2")
    assert set(open_dataset(tmp_path).splits) == {"train", "validation"}


def test_a_flat_validation_folder_is_told_item_by_item(tmp_path):
    write(tmp_path, "train/a/1", "val/1", "val/2")
    dataset = open_dataset(tmp_path)
    assert keys(dataset, "validation") == ["val/1", "val/2"]
    assert "an image without a class" in refusal(dataset, "validation", 1)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["train/a/1"], r"train/ alone\. Move some images of each class to val/<class>/"),
        (["train/a/1", "test/1"], "train/ alone"),
        (["train/a/1", "val/a/1", "val/b/1"], "in val/ must also be in train/; 'b' is not"),
        (["train/a/1", "val/a/1", "validation/a/1"], "has val and validation. Remove or rename"),
        (["val/a/1"], r"has no train/"),
    ],
)
def test_folders_that_do_not_fit_together_are_told(tmp_path, names, message):
    with pytest.raises(UserError, match=message):
        open_dataset(write(tmp_path, *names))


def test_recognised_by_a_class_folder_in_train(tmp_path):
    assert not recognises(write(tmp_path / "flat", "train/1.png"))
    assert not recognises(tmp_path / "absent")
    assert recognises(write(tmp_path / "right", "train/a/1.png"))
