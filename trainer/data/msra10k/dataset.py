"""Reads MSRA10K: pictures, and for each a mask of what stands out in it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from trainer.data.files import read_file, readable
from trainer.dataset import DatasetInfo, Example, Feature
from trainer.errors import BadItem, UserError

INFO = DatasetInfo(
    title="MSRA10K",
    homepage="https://mmcheng.net/msra10k/",
    licence="none stated",
    layout="[MSRA10K_Imgs_GT/]Imgs/<name>.jpg and <name>.png for each picture and its mask",
)

_PART = 10  # ours: one in ten is for validation, one in ten for the test


class Msra10k:
    """MSRA10K on disk, open for reading; the files are listed once and read late.

    The dataset has no official split; this one is ours. The pictures are sorted by the SHA-256 of
    their names: the last tenth is the test split, the tenth before is for validation, the rest for
    training (8,000, 1,000 and 1,000 of 10,000). So neither the order of the disk nor a generator
    of random numbers matters, and a picture more or less moves next to none of the others.

    Every file in `Imgs` belongs to an item; hidden ones (names beginning with a dot) do not count.

    Raises:
        UserError: there is no folder `Imgs`, or fewer than three pictures are in it.
    """

    class_names: tuple[str, ...] = ()
    evaluation_split = "test"

    def __init__(self, root: Path):
        self._root = root.resolve()
        folder = _find(root)
        if not folder.is_dir():
            raise UserError(f"MSRA10K must have {INFO.layout}; {str(root)!r} has no folder Imgs.")
        self._folder = folder.relative_to(root).as_posix()
        with os.scandir(folder) as entries:
            files = {entry.name for entry in entries if not entry.name.startswith(".")}
        stems = {name[:-4] for name in files if name.endswith((".jpg", ".png"))}
        self._pairs = {stem for stem in stems if {f"{stem}.jpg", f"{stem}.png"} <= files}
        # A pair goes by its picture's name, what is left by its own.
        paired = {f"{stem}.png" for stem in self._pairs}
        names = sorted(files - paired, key=lambda name: hashlib.sha256(os.fsencode(name)).digest())
        part = max(1, len(names) // _PART)
        if len(names) < 3:
            raise UserError(
                f"MSRA10K must have three pictures at least, one for each split; {str(folder)!r} "
                f"has {len(names)}."
            )
        self._names = {
            "train": sorted(names[: -2 * part]),
            "validation": sorted(names[-2 * part : -part]),
            "test": sorted(names[-part:]),
        }
        self.splits = {split: len(of_split) for split, of_split in self._names.items()}
        self.features = {
            "image": Feature("bytes", description="the picture's file, JPEG", content="image"),
            "mask": Feature(
                "bytes",
                description="grey PNG as it came; what stands out has values above 127",
                content="mask",
            ),
        }

    def key(self, split: str, index: int) -> str:
        """Path of the picture below the root; of its mask, if there is only that."""
        return readable(f"{self._folder}/{self._names[split][index]}")

    def read(self, split: str, index: int) -> Example:
        """The picture and its mask, both as they came.

        Raises:
            BadItem: the other one of the two is missing, or a file cannot be read.
        """
        name = self._names[split][index]
        stem, _, extension = name.rpartition(".")
        expected = "a picture <name>.jpg and a mask <name>.png"
        if stem not in self._pairs or extension != "jpg":
            kinds = {"jpg": "a picture without a mask", "png": "a mask without a picture"}
            raise BadItem(kinds.get(extension, "neither a picture nor a mask"), expected)
        try:
            mask = read_file(self._root, f"{self._folder}/{stem}.png", expected)
        except BadItem as error:
            raise BadItem(f"its mask: {error.reason}", error.expected) from error
        return {
            "image": read_file(self._root, f"{self._folder}/{name}", expected),
            "mask": mask,
        }


def recognises(root: Path) -> bool:
    """Whether there is a folder `Imgs`, in the root or its official folder, with both kinds."""
    folder = _find(root)
    wanted = {".jpg", ".png"}
    if folder.is_dir():
        with os.scandir(folder) as entries:
            for entry in entries:
                wanted.discard(entry.name[-4:])
                if not wanted:
                    return True
    return False


def open_dataset(root: Path) -> Msra10k:
    """Opens MSRA10K.

    Raises:
        UserError: there is no folder `Imgs`, or next to nothing in it.
    """
    return Msra10k(root)


def _find(root: Path) -> Path:
    """The folder of pictures and masks."""
    inner = root / "MSRA10K_Imgs_GT" / "Imgs"
    return inner if inner.is_dir() else root / "Imgs"
