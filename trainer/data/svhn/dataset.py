"""Reads SVHN in its format 2: one MATLAB file of cropped digits per split."""

from __future__ import annotations

import functools
import math
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from trainer.data.images import encode_png
from trainer.data.matlab import UINT8, Variable, list_variables, read_variable
from trainer.dataset import DatasetInfo, Example, Feature
from trainer.errors import BadItem, UserError

INFO = DatasetInfo(
    title="SVHN",
    homepage="http://ufldl.stanford.edu/housenumbers/",
    licence="non-commercial use only",
    layout="train_32x32.mat and test_32x32.mat",
)

_FILES = {"train": "train_32x32.mat", "test": "test_32x32.mat"}
_SHAPE = (32, 32, 3)  # of one picture: height, width, colours
_TEN = 10  # how the files write the digit 0


class Svhn:
    """SVHN on disk, open for reading; each process reads a file when it needs the first item of it.

    Of a file, the headers are read on opening. Its pictures then take their full size in memory:
    225 MB for `train`, 80 MB for `test`.

    `extra_32x32.mat` is left out: most results are of `train` alone, and its easier digits would
    be seven in eight of what is trained on.

    Raises:
        UserError: a file is missing, is no MATLAB file of version 5, or lacks its pictures or
            labels.
    """

    class_names = tuple("0123456789")
    evaluation_split = "test"

    def __init__(self, root: Path):
        self._files = {split: _DigitFile(root / name) for split, name in _FILES.items()}
        self.features = {
            "image": Feature(
                "bytes", description="the picture, 32 × 32 pixels, as RGB PNG", content="image"
            ),
            "label": Feature("int64", description="the digit, 0 to 9", content="label"),
        }
        self.splits = {
            split: max(file.pictures, file.labels) for split, file in self._files.items()
        }

    def key(self, split: str, index: int) -> str:
        """Name of the file and the number in it, from 0."""
        return f"{_FILES[split]}#{index}"

    def read(self, split: str, index: int) -> Example:
        """The picture as RGB PNG, and its digit.

        Raises:
            BadItem: there is no picture or no label with this number, or the label is no digit.
            UserError: the file is damaged behind its headers.
        """
        file = self._files[split]
        if index >= file.pictures:
            raise BadItem(
                f"a label without an image: X has {file.pictures:,}", "as many images as labels"
            )
        if index >= file.labels:
            raise BadItem(
                f"an image without a label: y has {file.labels:,}", "as many labels as images"
            )
        pictures, labels = file.content
        label = labels[index].item()
        if label not in range(1, _TEN + 1):
            raise BadItem(f"the label is {label}", "a label from 1 to 10, where 10 is the digit 0")
        return {"image": encode_png(pictures[..., index]), "label": int(label) % _TEN}


def recognises(root: Path) -> bool:
    """Whether the file of training digits is there."""
    return (root / _FILES["train"]).is_file()


def open_dataset(root: Path) -> Svhn:
    """Opens SVHN.

    Raises:
        UserError: a file is missing or not as it must be; see `Svhn`.
    """
    return Svhn(root)


class _DigitFile:
    """One MATLAB file: X, pictures [32, 32, 3, n] of bytes, and y, labels [n, 1]."""

    def __init__(self, path: Path):
        self._path = path
        if not path.is_file():
            raise UserError(
                f"SVHN must have {INFO.layout}; {str(path.parent)!r} lacks {path.name}."
            )
        try:
            with _open(path) as file:
                variables = list_variables(file)
        except (ValueError, OSError) as error:
            raise self._wrong(error) from error
        self._x, self._y = self._variable(variables, "X"), self._variable(variables, "y")
        shape = (*self._x.shape, 1)[:4]  # MATLAB drops a last size of 1
        if self._x.kind != UINT8:
            raise self._wrong("its X is not of bytes")
        if len(self._x.shape) > 4 or shape[:3] != _SHAPE:
            raise self._wrong(f"its X is of shape {self._x.shape}")
        if sorted(self._y.shape)[:-1] != [1]:
            raise self._wrong(f"its y is of shape {self._y.shape}")
        self.pictures = shape[3]
        self.labels = max(self._y.shape)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "content"}

    @functools.cached_property
    def content(self) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """The pictures, uint8 [32, 32, 3, n] with each picture in one place, and labels [n]."""
        try:
            with _open(self._path) as file:
                pictures, labels = read_variable(file, self._x), read_variable(file, self._y)
        except (ValueError, OSError) as error:
            raise self._wrong(error) from error
        if not (
            isinstance(pictures, np.ndarray)
            and isinstance(labels, np.ndarray)
            and pictures.dtype == np.uint8
            and (pictures.size, labels.size) == (math.prod(_SHAPE) * self.pictures, self.labels)
        ):
            raise self._wrong("its X or y is not numbers, or not what its header says")
        return pictures.reshape(*_SHAPE, self.pictures, order="F"), labels.ravel()

    def _variable(self, variables: dict[str, Variable], name: str) -> Variable:
        if name not in variables:
            raise self._wrong(f"it has no {name}")
        return variables[name]

    def _wrong(self, came: object) -> UserError:
        return UserError(
            f"{self._path} must be a whole MATLAB file of version 5 with pictures X [32, 32, 3, n] "
            f"of bytes and labels y [n, 1]; {came}. Get the file again; one that MATLAB or Octave "
            "has written anew must be saved with -v7."
        )


def _open(path: Path) -> BinaryIO:
    """An ordinary file, open for reading; opening a pipe would wait for a writer for ever."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ValueError("it is not a file but something else")
    return open(descriptor, "rb")
