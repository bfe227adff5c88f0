import gzip
import io
import struct

import numpy as np
import pytest
from PIL import Image

from trainer.data.mnist.dataset import open_dataset
from trainer.errors import BadItem, UserError

IMAGES = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)


def write(root, images=IMAGES, labels=(3, 1, 4), compress=False):
    root.mkdir(exist_ok=True)
    for prefix in ("train", "t10k"):
        files = {
            "images-idx3": struct.pack(">4I", 2051, *images.shape) + images.tobytes(),
            "labels-idx1": struct.pack(">2I", 2049, len(labels)) + bytes(labels),
        }
        for name, content in files.items():
            path = root / f"{prefix}-{name}-ubyte"
            if compress:
                path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(content))
            else:
                path.write_bytes(content)
    return root


@pytest.mark.parametrize("compress", [False, True])
def test_images_and_labels_are_read(tmp_path, compress):
    dataset = open_dataset(write(tmp_path, compress=compress))
    assert dataset.splits == {"train": 3, "test": 3}
    for index in range(3):
        example = dataset.read("test", index)
        image = Image.open(io.BytesIO(example["image"]))
        assert image.mode == "L"
        np.testing.assert_array_equal(np.asarray(image), IMAGES[index])
        assert example["label"] == [3, 1, 4][index]
    assert dataset.key("test", 2) == "t10k-images-idx3-ubyte#2"


def test_the_folder_tells_the_datasets_apart(tmp_path):
    assert open_dataset(write(tmp_path / "mnist")).class_names == tuple("0123456789")
    fashion = open_dataset(write(tmp_path / "Fashion-MNIST"))
    assert fashion.class_names[0] == "T-shirt/top"
    assert len(fashion.class_names) == 10
    assert open_dataset(write(tmp_path / "KMNIST")).class_names[-1] == "wo"


def test_numbers_without_a_partner_are_bad_items(tmp_path):
    more_labels = open_dataset(write(tmp_path / "a", labels=(0, 1, 2, 3)))
    assert more_labels.splits["train"] == 4
    assert more_labels.read("train", 2)["label"] == 2
    with pytest.raises(BadItem, match="a label without an image: train-images-idx3-ubyte has 3"):
        more_labels.read("train", 3)
    more_images = open_dataset(write(tmp_path / "b", labels=(0, 1)))
    assert more_images.splits["train"] == 3
    with pytest.raises(BadItem, match="an image without a label: train-labels-idx1-ubyte has 2"):
        more_images.read("train", 2)


def test_a_label_that_is_no_class_is_a_bad_item(tmp_path):
    dataset = open_dataset(write(tmp_path, labels=(9, 10, 0)))
    assert dataset.read("train", 0)["label"] == 9
    with pytest.raises(BadItem, match="the label is 10"):
        dataset.read("train", 1)


def test_a_missing_file_is_named(tmp_path):
    write(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(UserError, match=r"has no t10k-labels-idx1-ubyte\[\.gz\]"):
        open_dataset(tmp_path)


def test_a_wrong_header_is_told_on_opening(tmp_path):
    for number, header in enumerate((b"", b"<html>", struct.pack(">2I", 2051, 3))):
        root = write(tmp_path / str(number))
        (root / "train-labels-idx1-ubyte").write_bytes(header)
        with pytest.raises(UserError, match=r"train-labels-idx1-ubyte must begin with .* 2049"):
            open_dataset(root)


@pytest.mark.parametrize("change", [-1, 1])
def test_a_body_of_another_length_is_told_on_reading(tmp_path, change):
    path = write(tmp_path) / "train-images-idx3-ubyte"
    content = path.read_bytes()
    path.write_bytes(content[:-1] if change < 0 else content + b"\x00")
    with pytest.raises(UserError, match=f"must hold 60 bytes after its header; .* {60 + change}"):
        open_dataset(tmp_path).read("train", 0)


def test_a_cut_gzip_file_is_told(tmp_path):
    path = write(tmp_path, compress=True) / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UserError, match=r"images-idx3-ubyte\.gz must be a whole gzip file"):
        open_dataset(tmp_path).read("train", 0)


@pytest.mark.parametrize("compress", [False, True])
def test_a_header_that_claims_more_than_there_can_be_is_told_on_opening(tmp_path, compress):
    write(tmp_path, compress=compress)
    path = tmp_path / ("train-labels-idx1-ubyte" + ".gz" * compress)
    content = struct.pack(">2I", 2049, 10**9) + b"abc"
    path.write_bytes(gzip.compress(content) if compress else content)
    with pytest.raises(UserError, match="must hold the 1,000,000,000 bytes that its"):
        open_dataset(tmp_path)


def test_of_a_compressed_file_no_more_is_read_than_its_header_says(tmp_path):
    write(tmp_path, compress=True)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + bytes(10**7)))
    with pytest.raises(UserError, match="must hold 60 bytes after its header; it holds 61"):
        open_dataset(tmp_path).read("train", 0)
