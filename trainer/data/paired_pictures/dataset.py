"""Reads pairs of pictures in the layout of pix2pix: one file holds both halves, A left of B."""

from __future__ import annotations

import struct
from pathlib import Path, PurePosixPath

import simplejpeg

from trainer.data.files import read_file, readable
from trainer.data.listing import all_in, folders_in
from trainer.dataset import DatasetInfo, Example, Feature
from trainer.errors import BadItem, UserError

INFO = DatasetInfo(
    title="Paired pictures",
    homepage="https://github.com/phillipi/pix2pix",
    licence="that of the images",
    layout="train/<number>[_AB].jpg beside val/ and/or test/ like it, both pictures of a pair in "
    "one file and no folders within",
)

_FOLDERS = {"train": "train", "validation": "val", "test": "test"}
_EXTENSIONS = (".jpg", ".jpeg", ".png")
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_SIZE = slice(16, 24)  # signature 8, chunk length 4, "IHDR" 4, then width 4 and height 4


class PairedPictures:
    """Pairs of pictures, open for reading; an example is a pair, as it came, in one image.

    The left half is A, the right half is B. The files of a folder are listed once, in sorted order.
    Hidden files (names beginning with a dot) are no items; everything else is one, fit or not.
    Numbers are measured on `validation`, or on `test` where there is no other.

    Raises:
        UserError: a folder of the training or of both other splits is missing or empty.
    """

    class_names = ()

    def __init__(self, root: Path):
        self._root = root.resolve()
        names = {split: tuple(all_in(root / folder)) for split, folder in _FOLDERS.items()}
        self._names = {split: found for split, found in names.items() if found}
        if "train" not in self._names or len(self._names) == 1:
            raise UserError(
                f"Paired pictures must have {INFO.layout}; {str(root)!r} has pictures in "
                f"{' and '.join(f'{_FOLDERS[split]}/' for split in self._names) or 'none'} "
                "alone. Move some of train/ to val/."
            )
        self.splits = {split: len(found) for split, found in self._names.items()}
        self.evaluation_split = "validation" if "validation" in self.splits else "test"
        self.features = {
            "image": Feature(
                "bytes",
                description="the image file, JPEG or PNG: its left half is A, its right half B",
                content="image",
            )
        }

    def key(self, split: str, index: int) -> str:
        """Path of the pair below the root."""
        return readable(self._path(split, index))

    def read(self, split: str, index: int) -> Example:
        """The image file as it is.

        Raises:
            BadItem: it is not an ordinary file inside the root, or cannot be cut into halves.
        """
        image = read_file(self._root, self._path(split, index), "a picture of two halves")
        width = _width(image)
        if width % 2:
            raise BadItem(
                f"the width of {width:,} pixels is odd", "two halves of the same width side by side"
            )
        return {"image": image}

    def _path(self, split: str, index: int) -> str:
        return f"{_FOLDERS[split]}/{self._names[split][index]}"


def recognises(root: Path) -> bool:
    """Whether `train/` has picture files and no folder, and so has `val/` or `test/`."""
    flat = [folder for folder in _FOLDERS.values() if _holds_pictures(root / folder)]
    return "train" in flat and len(flat) > 1


def open_dataset(root: Path) -> PairedPictures:
    """Opens paired pictures.

    Raises:
        UserError: a folder is missing or empty; see `PairedPictures`.
    """
    return PairedPictures(root)


def _holds_pictures(folder: Path) -> bool:
    if folders_in(folder):
        return False
    return any(PurePosixPath(name).suffix.lower() in _EXTENSIONS for name in all_in(folder))


def _width(image: bytes) -> int:
    """Width in pixels, by the header; 0 for what is neither JPEG nor PNG, or damaged.

    Other checks tell what is wrong with those.
    """
    if image.startswith(_PNG) and len(image) >= _PNG_SIZE.stop:
        width, _ = struct.unpack(">2I", image[_PNG_SIZE])
        return int(width)
    try:
        _, jpeg_width, _, _ = simplejpeg.decode_jpeg_header(image, strict=False)
    except (ValueError, KeyError):  # it looks up -1 where it finds no subsampling
        return 0
    return int(jpeg_width)
