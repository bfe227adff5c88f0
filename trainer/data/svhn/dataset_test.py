import io
import os
import pickle

import numpy as np
import pytest
import scipy.io
from PIL import Image

from trainer.data.svhn.dataset import open_dataset, recognises
from trainer.data.svhn.sample import write_digits, write_sample
from trainer.errors import BadItem, UserError

COUNTING = (np.arange(32 * 32 * 3 * 3).reshape(32, 32, 3, 3) % 251).astype(np.uint8)


def write(root, images=COUNTING, labels=(1, 10, 3), compress=True):
    root.mkdir(exist_ok=True)
    for name in ("train", "test"):
        write_digits(root / f"{name}_32x32.mat", images, np.array([labels]).T, compress)
    return root


@pytest.mark.parametrize("compress", [False, True])
def test_a_picture_is_the_last_index_and_10_is_the_digit_0(tmp_path, compress):
    dataset = open_dataset(write(tmp_path, compress=compress))
    assert dataset.splits == {"train": 3, "test": 3}
    assert dataset.key("test", 2) == "test_32x32.mat#2"
    for index, digit in enumerate((1, 0, 3)):
        example = dataset.read("train", index)
        pixels = np.asarray(Image.open(io.BytesIO(example["image"])))
        np.testing.assert_array_equal(pixels, COUNTING[..., index])
        assert example["label"] == digit
        assert dataset.class_names[digit] == str(digit)


def test_the_files_are_as_scipy_reads_them(tmp_path):
    write_sample(tmp_path)
    theirs = scipy.io.loadmat(tmp_path / "train_32x32.mat")
    dataset = open_dataset(tmp_path)
    for index in range(40):
        example = dataset.read("train", index)
        pixels = np.asarray(Image.open(io.BytesIO(example["image"])))
        np.testing.assert_array_equal(pixels, theirs["X"][..., index])
        assert example["label"] == theirs["y"][index, 0] % 10


def test_extra_is_left_out(tmp_path):
    counts = write_sample(tmp_path)
    assert (tmp_path / "extra_32x32.mat").is_file()
    dataset = open_dataset(tmp_path)
    assert dict(dataset.splits) == counts == {"train": 40, "test": 20}


def test_one_picture_is_enough(tmp_path):
    dataset = open_dataset(write(tmp_path, COUNTING[..., :1], [7]))
    assert dataset.splits["train"] == 1
    assert dataset.read("train", 0)["label"] == 7


def test_labels_may_lie_in_a_row_and_be_of_any_number_type(tmp_path):
    write(tmp_path)
    variables = {"X": COUNTING, "y": np.array([[4.0, 10.0, 2.5]])}
    scipy.io.savemat(tmp_path / "test_32x32.mat", variables)
    dataset = open_dataset(tmp_path)
    assert [dataset.read("test", index)["label"] for index in range(2)] == [4, 0]
    with pytest.raises(BadItem, match=r"the label is 2\.5"):
        dataset.read("test", 2)


@pytest.mark.parametrize("label", [0, 11, 255])
def test_a_label_that_is_no_digit_is_a_bad_item(tmp_path, label):
    dataset = open_dataset(write(tmp_path, labels=(1, label, 3)))
    with pytest.raises(BadItem, match=f"the label is {label}; expected a label from 1 to 10"):
        dataset.read("train", 1)
    assert dataset.read("train", 2)["label"] == 3


def test_numbers_without_a_partner_are_bad_items(tmp_path):
    more_labels = open_dataset(write(tmp_path / "a", labels=(1, 2, 3, 4)))
    assert more_labels.splits["train"] == 4
    with pytest.raises(BadItem, match="a label without an image: X has 3"):
        more_labels.read("train", 3)
    more_images = open_dataset(write(tmp_path / "b", labels=(1, 2)))
    assert more_images.splits["train"] == 3
    with pytest.raises(BadItem, match="an image without a label: y has 2"):
        more_images.read("train", 2)


def test_pictures_are_not_sent_to_other_processes(tmp_path):
    dataset = open_dataset(write(tmp_path))
    expected = dataset.read("train", 1)
    packed = pickle.dumps(dataset)
    assert len(packed) < 3_000
    assert pickle.loads(packed).read("train", 1) == expected  # noqa: S301


def test_recognised_by_the_training_digits(tmp_path):
    assert not recognises(tmp_path)
    assert recognises(write(tmp_path))


def test_a_missing_file_is_named(tmp_path):
    (write(tmp_path) / "test_32x32.mat").unlink()
    with pytest.raises(UserError, match=r"lacks test_32x32\.mat"):
        open_dataset(tmp_path)


def save(path, **variables):
    scipy.io.savemat(path, variables)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.write_bytes(b""), "it begins with b''"),
        (lambda path: path.write_bytes(b"<html>"), "it begins with b'<html>'"),
        (lambda path: path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(512) + b"\x89HDF"), "HDF5"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "it is cut short"),
        (lambda path: save(path, X=COUNTING), "it has no y"),
        (lambda path: save(path, y=np.ones((3, 1))), "it has no X"),
        (lambda path: save(path, X=COUNTING[:, :28], y=[[1]]), r"shape \(32, 28, 3, 3\)"),
        (lambda path: save(path, X=COUNTING[..., None] * 1, y=[[1]]), r"shape \(32, 32, 3, 3, 1\)"),
        (lambda path: save(path, X=COUNTING * 1.0, y=[[1]]), "its X is not of bytes"),
        (lambda path: save(path, X="text", y=[[1]]), "its X is not of bytes"),
        (lambda path: save(path, X=COUNTING, y=np.ones((3, 2))), r"its y is of shape \(3, 2\)"),
    ],
)
def test_another_file_is_told_on_opening(tmp_path, change, message):
    path = write(tmp_path) / "train_32x32.mat"
    change(path)
    with pytest.raises(UserError, match=rf"train_32x32\.mat must be a whole MATLAB .*{message}"):
        open_dataset(tmp_path)


def test_more_pictures_than_there_is_room_for_are_told_on_opening(tmp_path):
    path = write(tmp_path, compress=False) / "train_32x32.mat"
    content = path.read_bytes()
    three, many = (np.array([32, 32, 3, n], "<i4").tobytes() for n in (3, 2**30))
    assert three in content
    path.write_bytes(content.replace(three, many))
    with pytest.raises(UserError, match=r"bytes are there for numbers of shape \(32, 32, 3, 10"):
        open_dataset(tmp_path)


def test_labels_that_are_no_numbers_are_told(tmp_path):
    save(write(tmp_path) / "train_32x32.mat", X=COUNTING, y="123")
    with pytest.raises(UserError, match="its X or y is not numbers"):
        open_dataset(tmp_path).read("train", 0)


def test_damage_behind_the_headers_is_told_on_reading(tmp_path):
    path = write(tmp_path) / "train_32x32.mat"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"train_32x32\.mat must be .* of X are damaged"):
        open_dataset(tmp_path).read("train", 0)


def test_a_file_that_changes_is_told(tmp_path):
    dataset = open_dataset(write(tmp_path))
    write(tmp_path, COUNTING[..., :2], (1, 2))
    with pytest.raises(UserError, match=r"train_32x32\.mat must be a whole MATLAB file"):
        dataset.read("train", 0)


def test_a_file_that_goes_away_is_told(tmp_path):
    dataset = open_dataset(write(tmp_path))
    (tmp_path / "train_32x32.mat").unlink()
    os.mkfifo(tmp_path / "train_32x32.mat")
    with pytest.raises(UserError, match="it is not a file but something else"):
        dataset.read("train", 0)
