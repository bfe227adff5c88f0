"""Reads MNIST, Fashion-MNIST and Kuzushiji-MNIST: two idx files per split, compressed or not."""

from __future__ import annotations

import functools
import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from trainer.data.images import encode_png
from trainer.dataset import DatasetInfo, Example, Feature
from trainer.errors import BadItem, UserError

INFO = DatasetInfo(
    title="MNIST, Fashion-MNIST or Kuzushiji-MNIST",
    homepage="http://yann.lecun.com/exdb/mnist/, "
    "https://github.com/zalandoresearch/fashion-mnist or "
    "https://github.com/rois-codh/kmnist",
    licence="MNIST: none stated; Fashion-MNIST: MIT; Kuzushiji-MNIST: CC BY-SA 4.0",
    layout="{train,t10k}-images-idx3-ubyte[.gz] and {train,t10k}-labels-idx1-ubyte[.gz]",
)

_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
_MOST_INFLATED = 1032  # bytes that deflate makes of one at most (zlib's technical notes)
_DIGITS = tuple("0123456789")
_FASHION = (  # Fashion-MNIST's README, "Labels"
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


_KUZUSHIJI = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")  # Clanuwat et al. 2018
_NAMED = {"fashion": _FASHION, "kmnist": _KUZUSHIJI, "kuzushiji": _KUZUSHIJI}


class Mnist:
    """MNIST on disk, open for reading; a file's body is read when the first item is.

    The datasets cannot be told apart by their files: the class names are Fashion-MNIST's if the
    name of the folder has "fashion" in it, Kuzushiji-MNIST's if it has "kmnist" or "kuzushiji",
    the digits otherwise.

    Raises:
        UserError: a file is missing or its header is not as it must be.
    """

    evaluation_split = "test"

    def __init__(self, root: Path):
        self._files = {
            split: (_IdxFile(root, images, 3), _IdxFile(root, labels, 1))
            for split, (images, labels) in _FILES.items()
        }
        folder = root.resolve().name.lower()
        self.class_names = next((c for name, c in _NAMED.items() if name in folder), _DIGITS)
        self.features = {
            "image": Feature(
                "bytes", description="the picture, white on black, as grey PNG", content="image"
            ),
            "label": Feature("int64", description="number of the class, 0 to 9", content="label"),
        }
        self.splits = {
            split: max(images.shape[0], labels.shape[0])
            for split, (images, labels) in self._files.items()
        }

    def key(self, split: str, index: int) -> str:
        """Name of the file of images, without .gz, and the number in it."""
        return f"{_FILES[split][0]}#{index}"

    def read(self, split: str, index: int) -> Example:
        """The picture as grey PNG, and its label.

        Raises:
            BadItem: there is no image or no label with this number, or the label is not a class.
            UserError: the body of a file is damaged or not as long as its header says.
        """
        images, labels = self._files[split]
        if index >= images.shape[0]:
            raise BadItem(
                f"a label without an image: {images.name} has {images.shape[0]:,}",
                "as many images as labels",
            )
        if index >= labels.shape[0]:
            raise BadItem(
                f"an image without a label: {labels.name} has {labels.shape[0]:,}",
                "as many labels as images",
            )
        label = int(labels.array[index])
        if label >= len(self.class_names):
            raise BadItem(f"the label is {label}", "a label from 0 to 9")
        return {"image": encode_png(images.array[index][:, :, None]), "label": label}


def recognises(root: Path) -> bool:
    """Whether the training images are there, compressed or not."""
    name = _FILES["train"][0]
    return (root / name).is_file() or (root / f"{name}.gz").is_file()


def open_dataset(root: Path) -> Mnist:
    """Opens MNIST, Fashion-MNIST or Kuzushiji-MNIST.

    Raises:
        UserError: a file is missing or its header is not as it must be.
    """
    return Mnist(root)


class _IdxFile:
    """One idx file of bytes: a big-endian header (magic, size of each dimension), then the body."""

    def __init__(self, root: Path, name: str, dimensions: int):
        self.name = name
        plain, compressed = root / name, root / f"{name}.gz"
        self._path = plain if plain.is_file() else compressed
        if not self._path.is_file():
            raise UserError(f"MNIST must have {INFO.layout}; {str(root)!r} has no {name}[.gz].")
        self._compressed = self._path == compressed
        self._offset = 4 * (1 + dimensions)
        header = self._read(self._offset)
        magic = 0x0800 + dimensions  # 08: unsigned bytes
        if len(header) < self._offset or struct.unpack(">I", header[:4])[0] != magic:
            raise self._wrong(f"begin with the number {magic}", f"it begins with {header[:4]!r}")
        self.shape: tuple[int, ...] = struct.unpack(f">{dimensions}I", header[4:])
        if 0 in self.shape[1:]:
            raise self._wrong("have pictures of at least one pixel", f"its sizes are {self.shape}")
        # Before the header is believed: a damaged one would ask for any amount of memory.
        size, room = math.prod(self.shape), self._path.stat().st_size
        if size > (room * _MOST_INFLATED if self._compressed else room):
            raise self._wrong(
                f"hold the {size:,} bytes that its header says", f"it has {room:,} bytes itself"
            )

    @functools.cached_property
    def array(self) -> np.ndarray[Any, Any]:
        """The body, uint8; mapped from the disk unless it is compressed."""
        size = math.prod(self.shape)
        if self._compressed:
            body = np.frombuffer(self._read(self._offset + size + 1), np.uint8)[self._offset :]
        else:
            body = np.memmap(self._path, np.uint8, "r")[self._offset :]
        if body.size != size:
            raise self._wrong(f"hold {size:,} bytes after its header", f"it holds {body.size:,}")
        return body.reshape(self.shape)

    def _read(self, size: int) -> bytes:
        opener = gzip.open if self._compressed else open
        try:
            with opener(self._path, "rb") as file:
                content: bytes = file.read(size)
                return content
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise self._wrong("be a whole gzip file", f"it is not ({error})") from error

    def _wrong(self, must: str, came: str) -> UserError:
        return UserError(f"{self._path} must {must}; {came}. Get the file again.")
