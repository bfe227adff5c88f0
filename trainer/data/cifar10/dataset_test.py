import io
import pickle
import struct

import numpy as np
import pytest
from PIL import Image

from trainer.data.cifar10.dataset import open_dataset, recognises
from trainer.data.cifar10.sample import write_sample
from trainer.errors import BadItem, UserError

NAMES = [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]


def write_python_version(binary, folder):
    """The same content as the binary version in `binary`, as Python 3 writes it for Python 2."""
    folder.mkdir()
    for name in NAMES:
        records = np.fromfile(binary / f"{name}.bin", np.uint8).reshape(-1, 3073)
        batch = {b"labels": records[:, 0].tolist(), b"data": records[:, 1:], b"batch_label": b"a"}
        (folder / name).write_bytes(pickle.dumps(batch, 2))


def everything(dataset):
    return {
        split: [dataset.read(split, index) for index in range(items)]
        for split, items in dataset.splits.items()
    }


@pytest.fixture
def sample(tmp_path):
    write_sample(tmp_path / "sample")
    return tmp_path / "sample"


def test_pixels_are_planes_of_red_green_and_blue(sample):
    path = sample / "cifar-10-batches-bin" / "test_batch.bin"
    planes = np.arange(3072).reshape(3, 32, 32) % 256
    path.write_bytes(b"\x07" + planes.astype(np.uint8).tobytes())
    example = open_dataset(sample).read("test", 0)
    pixels = np.asarray(Image.open(io.BytesIO(example["image"])))
    assert example["label"] == 7
    assert pixels.shape == (32, 32, 3)
    for row, column, channel in ((0, 1, 0), (1, 0, 1), (31, 30, 2)):
        assert pixels[row, column, channel] == (channel * 1024 + row * 32 + column) % 256


def test_the_folder_itself_and_the_one_around_it_are_the_same(sample):
    inner, outer = open_dataset(sample / "cifar-10-batches-bin"), open_dataset(sample)
    assert everything(inner) == everything(outer)
    assert inner.key("train", 17) == outer.key("train", 17) == "data_batch_2.bin#7"


def test_both_versions_are_the_same(sample, tmp_path):
    write_python_version(sample / "cifar-10-batches-bin", tmp_path / "cifar-10-batches-py")
    dataset = open_dataset(tmp_path)
    assert dataset.splits == {"train": 50, "test": 10}
    assert dataset.key("train", 17) == "data_batch_2#7"
    assert everything(dataset) == everything(open_dataset(sample))


def python_2_batch(labels, pixels):
    """A batch as Python 2's cPickle wrote it: text opcodes for names, byte strings for content."""

    def text(content):
        return b"T" + struct.pack("<i", len(content)) + content

    dtype = b"cnumpy\ndtype\n" + text(b"u1") + b"K\x00K\x01\x87R"
    dtype += b"(K\x03" + text(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b")
    array += b"\x87R(K\x01" + b"K" + bytes([len(pixels)]) + b"M" + struct.pack("<H", 3072) + b"\x86"
    array += dtype + b"\x89" + text(pixels.tobytes()) + b"tb"
    numbers = b"(" + b"".join(b"K" + bytes([label]) for label in labels) + b"l"
    return b"\x80\x02}(" + text(b"data") + array + text(b"labels") + numbers + b"u."


def test_pickles_of_python_2_are_read(sample, tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    write_python_version(sample / "cifar-10-batches-bin", folder)
    pixels = np.random.default_rng(1).integers(0, 256, (2, 3072), np.uint8)
    (folder / "test_batch").write_bytes(python_2_batch([4, 2], pixels))
    dataset = open_dataset(tmp_path)
    assert dataset.splits["test"] == 2
    example = dataset.read("test", 1)
    image = np.asarray(Image.open(io.BytesIO(example["image"])))
    assert example["label"] == 2
    np.testing.assert_array_equal(image.transpose(2, 0, 1).ravel(), pixels[1])


class Attack:
    def __reduce__(self):
        return print, ("code of the file was run",)


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps({b"labels": [0], b"data": Attack()}),
        pickle.dumps({b"labels": [0], b"data": np.zeros((1, 3072))}),
        pickle.dumps({b"labels": [0], b"data": np.zeros((1, 3072), np.uint8), b"x": Attack()}),
        pickle.dumps({b"labels": [0.5], b"data": np.zeros((1, 3072), np.uint8)}),
        pickle.dumps([1, 2]),
        b"no pickle",
        b"\x80",
    ],
)
def test_a_pickle_that_is_no_batch_is_told_and_not_run(sample, tmp_path, content, capsys):
    folder = tmp_path / "cifar-10-batches-py"
    write_python_version(sample / "cifar-10-batches-bin", folder)
    (folder / "test_batch").write_bytes(content)
    with pytest.raises(UserError, match="test_batch must be a batch of CIFAR-10's Python version"):
        _ = open_dataset(tmp_path).splits
    assert capsys.readouterr().out == ""


def test_a_label_that_is_no_class_is_a_bad_item(sample):
    path = sample / "cifar-10-batches-bin" / "data_batch_3.bin"
    content = bytearray(path.read_bytes())
    content[3073] = 10
    path.write_bytes(content)
    dataset = open_dataset(sample)
    assert dataset.read("train", 20)["label"] == 0
    with pytest.raises(BadItem, match="the label is 10"):
        dataset.read("train", 21)


def test_a_record_that_is_cut_short_is_a_bad_item(sample):
    path = sample / "cifar-10-batches-bin" / "data_batch_3.bin"
    path.write_bytes(path.read_bytes()[:-1000])
    dataset = open_dataset(sample)
    assert dataset.splits["train"] == 50
    with pytest.raises(BadItem, match=r"the record is cut short \(2,073 bytes\)"):
        dataset.read("train", 29)
    assert dataset.key("train", 30) == "data_batch_4.bin#0"


def test_a_missing_or_empty_batch_is_named(sample):
    folder = sample / "cifar-10-batches-bin"
    (folder / "data_batch_4.bin").write_bytes(b"")
    with pytest.raises(UserError, match=r"data_batch_4\.bin is missing or empty"):
        open_dataset(sample)
    (folder / "data_batch_2.bin").unlink()
    assert recognises(sample)
    with pytest.raises(UserError, match=r"data_batch_2\.bin, data_batch_4\.bin are missing"):
        open_dataset(sample)
