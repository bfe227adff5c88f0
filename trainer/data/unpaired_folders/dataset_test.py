import os
import pickle
import shutil

import pytest

from trainer import catalog
from trainer.data.unpaired_folders.dataset import open_dataset, recognises
from trainer.data.unpaired_folders.sample import write_sample
from trainer.errors import BadItem, UserError

FOLDERS = ("trainA", "trainB", "testA", "testB")


def write(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return root


def everything(dataset):
    return {
        (split, dataset.key(split, index)): dataset.read(split, index)
        for split, items in dataset.splits.items()
        for index in range(items)
    }


def test_each_picture_is_an_example_of_its_domain(tmp_path):
    write(tmp_path, "trainA/2.jpg", "trainA/10.jpg", "trainB/1.png", "testA/1.jpg", "testB/1.jpg")
    dataset = open_dataset(tmp_path)
    assert everything(dataset) == {
        ("train", "trainA/10.jpg"): {"image": b"trainA/10.jpg", "label": 0},
        ("train", "trainA/2.jpg"): {"image": b"trainA/2.jpg", "label": 0},
        ("train", "trainB/1.png"): {"image": b"trainB/1.png", "label": 1},
        ("test", "testA/1.jpg"): {"image": b"testA/1.jpg", "label": 0},
        ("test", "testB/1.jpg"): {"image": b"testB/1.jpg", "label": 1},
    }
    assert dataset.class_names == ("A", "B")
    assert dataset.evaluation_split == "test"


def test_domains_need_not_have_as_many_pictures(tmp_path):
    assert write_sample(tmp_path) == {"train": 18, "test": 7}
    dataset = open_dataset(tmp_path)
    assert [dataset.read("train", index)["label"] for index in range(18)] == [0] * 8 + [1] * 10


@pytest.mark.parametrize("missing", FOLDERS)
@pytest.mark.parametrize("empty", [False, True])
def test_a_folder_without_pictures_is_told(tmp_path, missing, empty):
    write_sample(tmp_path)
    shutil.rmtree(tmp_path / missing)
    if empty:
        write(tmp_path, f"{missing}/.DS_Store")
    assert recognises(tmp_path)
    advice = {
        "testA": r"Move some pictures of trainA/ there\.",
        "testB": r"Move some pictures of trainB/ there\.",
    }.get(missing, r"Put the pictures of that domain there\.")
    with pytest.raises(UserError, match=f"has no pictures in {missing}/. {advice}"):
        open_dataset(tmp_path)


def test_without_test_folders_the_way_out_is_told(tmp_path):
    write(tmp_path, "trainA/1.jpg", "trainB/1.jpg")
    with pytest.raises(UserError, match=r"in testA/ and testB/\. Move some pictures of trainA/"):
        open_dataset(tmp_path)


def test_what_is_no_picture_file_is_a_bad_item(tmp_path):
    root = write(tmp_path / "data", *(f"{folder}/1.jpg" for folder in FOLDERS))
    write(tmp_path, "secret")
    (root / "trainA" / "2").mkdir()
    os.mkfifo(root / "trainA" / "3")
    (root / "trainA" / "4").symlink_to(tmp_path / "secret")
    (root / "trainA" / "5").symlink_to("nowhere")
    (root / "trainA" / ".6").touch()
    dataset = open_dataset(root)
    assert dataset.splits["train"] == 6
    for index, reason in enumerate(("something else", "something else", "leads out", "no such"), 1):
        assert dataset.key("train", index) == f"trainA/{index + 1}"
        with pytest.raises(BadItem, match=reason):
            dataset.read("train", index)
    assert dataset.read("train", 5)["label"] == 1


def test_lists_of_munit_are_not_read(tmp_path):
    write(tmp_path, *(f"{folder}/1.jpg" for folder in FOLDERS))
    expected = everything(open_dataset(tmp_path))
    (tmp_path / "list_trainA.txt").write_text("./2.jpg\n")
    assert everything(open_dataset(tmp_path)) == expected


def test_recognised_by_a_training_folder_of_either_domain(tmp_path):
    assert not recognises(tmp_path)
    write(tmp_path / "a", "trainA")  # a file
    assert not recognises(tmp_path / "a")
    write(tmp_path / "b", "trainB/1.jpg")
    assert recognises(tmp_path / "b")
    write_sample(tmp_path / "sample")
    assert catalog.open_dataset(tmp_path / "sample")[0] == "unpaired_folders"


def test_it_can_be_sent_to_another_process(tmp_path):
    write_sample(tmp_path)
    dataset = open_dataset(tmp_path)
    sent = pickle.loads(pickle.dumps(dataset))  # noqa: S301
    assert everything(sent) == everything(dataset)
