"""Reads CIFAR-10: the binary version, and the Python version without trusting its pickles."""

from __future__ import annotations

import functools
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from trainer.data.images import encode_png
from trainer.dataset import DatasetInfo, Example, Feature
from trainer.errors import BadItem, UserError

INFO = DatasetInfo(
    title="CIFAR-10",
    homepage="https://www.cs.toronto.edu/~kriz/cifar.html",
    licence="none stated",
    layout="[cifar-10-batches-bin/]{data_batch_1..5,test_batch}.bin, "
    "or [cifar-10-batches-py/]{data_batch_1..5,test_batch}",
)

_BATCHES = {"train": tuple(f"data_batch_{n}" for n in range(1, 6)), "test": ("test_batch",)}
_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
_PIXELS = 3 * 32 * 32
_RECORD = 1 + _PIXELS  # the binary version: one byte for the label, then R, G and B planes


class Cifar10:
    """CIFAR-10 on disk, open for reading; a batch is read when it is first needed.

    Raises:
        UserError: a batch is missing or empty.
    """

    class_names = _CLASSES
    evaluation_split = "test"

    def __init__(self, root: Path):
        folder, suffix, kind = _find(root)
        missing = [
            name + suffix
            for names in _BATCHES.values()
            for name in names
            if not (folder / (name + suffix)).is_file()
            or not (folder / (name + suffix)).stat().st_size
        ]
        if missing:
            raise UserError(
                f"CIFAR-10 must have {INFO.layout}; in {str(folder)!r} {', '.join(missing)} "
                f"{'are' if len(missing) > 1 else 'is'} missing or empty."
            )
        self._batches: dict[str, list[_Batch]] = {
            split: [kind(folder / (name + suffix)) for name in names]
            for split, names in _BATCHES.items()
        }
        self.features = {
            "image": Feature(
                "bytes", description="the picture, 32 × 32 pixels, as RGB PNG", content="image"
            ),
            "label": Feature("int64", description="number of the class, 0 to 9", content="label"),
        }

    @functools.cached_property
    def splits(self) -> dict[str, int]:
        """Number of items of each split; the Python version must read its batches to know."""
        return {name: sum(b.items for b in batches) for name, batches in self._batches.items()}

    def key(self, split: str, index: int) -> str:
        """Name of the batch's file and the number in it."""
        batch, number = self._locate(split, index)
        return f"{batch.path.name}#{number}"

    def read(self, split: str, index: int) -> Example:
        """The picture as RGB PNG, and its label.

        Raises:
            BadItem: the record is cut short, or its label is not a class.
            UserError: a batch of the Python version is damaged.
        """
        batch, number = self._locate(split, index)
        label, pixels = batch.record(number)
        if label not in range(len(_CLASSES)):
            raise BadItem(f"the label is {label}", "a label from 0 to 9")
        return {
            "image": encode_png(pixels.reshape(3, 32, 32).transpose(1, 2, 0)),
            "label": label,
        }

    def _locate(self, split: str, index: int) -> tuple[_Batch, int]:
        number = index
        for batch in self._batches[split]:
            if number < batch.items:
                return batch, number
            number -= batch.items
        raise IndexError(f"Split {split!r} has {self.splits[split]} items; got {index}.")


def recognises(root: Path) -> bool:
    """Whether the test batch is there, of either version, in the root or its official folder."""
    folder, suffix, _ = _find(root)
    return (folder / f"test_batch{suffix}").is_file()


def open_dataset(root: Path) -> Cifar10:
    """Opens CIFAR-10, the binary version where both are there.

    Raises:
        UserError: a batch is missing or empty.
    """
    return Cifar10(root)


class _BinaryBatch:
    """One file of the binary version, mapped from the disk."""

    def __init__(self, path: Path):
        self.path = path
        self.items = -(-path.stat().st_size // _RECORD)  # a piece of a record counts as an item

    def record(self, number: int) -> tuple[int, np.ndarray[Any, Any]]:
        record = self._content[number * _RECORD : (number + 1) * _RECORD]
        if record.size < _RECORD:
            raise BadItem(
                f"the record is cut short ({record.size:,} bytes)", f"{_RECORD:,} bytes per record"
            )
        return int(record[0]), record[1:]

    @functools.cached_property
    def _content(self) -> np.ndarray[Any, Any]:
        return np.memmap(self.path, np.uint8, "r")


class _PickledBatch:
    """One file of the Python version, read when first needed (30 MB)."""

    def __init__(self, path: Path):
        self.path = path

    @functools.cached_property
    def items(self) -> int:
        labels, pixels = self._content
        return max(len(labels), len(pixels))

    def record(self, number: int) -> tuple[int, np.ndarray[Any, Any]]:
        labels, pixels = self._content
        if number >= len(pixels):
            raise BadItem("a label without an image", "as many images as labels")
        if number >= len(labels):
            raise BadItem("an image without a label", "as many labels as images")
        return labels[number], pixels[number]

    @functools.cached_property
    def _content(self) -> tuple[list[int], np.ndarray[Any, Any]]:
        try:
            with open(self.path, "rb") as file:
                batch = _BatchUnpickler(file, encoding="bytes").load()
            labels, pixels = batch[b"labels"], batch[b"data"]
            valid = pixels.dtype == np.uint8 and pixels.shape[1:] == (_PIXELS,)
            if not valid or not all(type(label) is int for label in labels):
                raise ValueError("its labels or data are of another type or shape")
        except Exception as error:  # a damaged pickle can fail in any way
            raise UserError(
                f"{self.path} must be a batch of CIFAR-10's Python version, a pickled dictionary "
                f"with labels and data [n, {_PIXELS}] of bytes; it is not "
                f"({' '.join(str(error).split())}). Get the file again."
            ) from error
        return labels, pixels


_Batch = _BinaryBatch | _PickledBatch


class _BatchUnpickler(pickle.Unpickler):
    """Loads dictionaries, lists, bytes, numbers and arrays, and refuses to look up anything else.

    A pickle names the functions that rebuild its objects; these are all that a batch may name, so
    that a file from the internet cannot run code here.
    """

    def find_class(self, module: str, name: str) -> Any:
        known = {
            ("numpy.core.multiarray", "_reconstruct"): _new_array,
            ("numpy._core.multiarray", "_reconstruct"): _new_array,
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
            ("_codecs", "encode"): _latin1,  # bytes, as Python 3 writes them for Python 2
        }
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return known[module, name]


def _new_array(*_: object) -> np.ndarray[Any, Any]:
    """An empty array, which the unpickler then gives its type, shape and content."""
    return np.empty(0, np.uint8)


def _latin1(text: str, encoding: object) -> bytes:
    return text.encode("latin1")


def _find(root: Path) -> tuple[Path, str, type[_Batch]]:
    """The folder of the batches, the end of their names, and how to read them."""
    for name, suffix, kind in (
        ("cifar-10-batches-bin", ".bin", _BinaryBatch),
        ("cifar-10-batches-py", "", _PickledBatch),
    ):
        for folder in (root, root / name):
            if any((folder / f"{n}{suffix}").is_file() for n in ("data_batch_1", "test_batch")):
                return folder, suffix, kind
    return root, ".bin", _BinaryBatch
