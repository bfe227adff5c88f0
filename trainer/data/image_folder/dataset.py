"""Reads a folder of images in ImageNet's layout: `<split>/<class>/<image>`."""

from __future__ import annotations

import bisect
import dataclasses
import os
from pathlib import Path

from trainer.dataset import DatasetInfo, Example, Feature
from trainer.errors import BadItem, UserError

INFO = DatasetInfo(
    title="Image folder",
    homepage="https://www.image-net.org/download.php",
    licence="that of the images; ImageNet: non-commercial research and education",
    layout="train/<class>/<image> beside val/ or validation/ and/or test/ like it",
)

_FOLDERS = {"train": ("train",), "validation": ("val", "validation"), "test": ("test",)}


class ImageFolder:
    """An image folder, open for reading; the files are listed once, in sorted order, and read late.

    Classes are the folders in `train/`, by their names; labels are their positions in sorted order.
    Hidden files (names beginning with a dot) are no items; everything else is one, fit or not. A
    `test/` without folders, such as ImageNet's own, has no labels and is left out.

    Raises:
        UserError: `train/` has no class folder, a split is there twice, there is no split to
            evaluate on, or one of its classes is not in `train/`.
    """

    def __init__(self, root: Path):
        self._root = root.resolve()
        self._listings = _list_splits(root)
        classes = [group for group in self._listings["train"].groups if group]
        self._labels = {group: label for label, group in enumerate(classes)}
        self.class_names = tuple(_readable(group) for group in classes)
        self.features = {
            "image": Feature("bytes", description="the image file, JPEG or PNG"),
            "label": Feature("int64", description=f"number of the class, 0 to {len(classes) - 1}"),
        }
        self.splits = {split: len(listing.names) for split, listing in self._listings.items()}
        self.evaluation_split = "validation" if "validation" in self.splits else "test"
        for listing in self._listings.values():
            unknown = sorted(set(listing.groups) - {"", *classes})
            if unknown:
                raise UserError(
                    f"Every class in {listing.folder}/ must also be in train/; "
                    f"{_readable(unknown[0])!r} is not ({len(unknown)} such). Move its images into "
                    f"folders named like those in {root / 'train'}."
                )

    def key(self, split: str, index: int) -> str:
        """Path of the item below the root; bytes that are no UTF-8 are shown as `\\xff`."""
        listing = self._listings[split]
        parts = (listing.folder, listing.group(index), listing.names[index])
        return _readable("/".join(part for part in parts if part))

    def read(self, split: str, index: int) -> Example:
        """The image file as it is, and its label.

        Raises:
            BadItem: it is not an ordinary file inside a class folder, and inside the root.
        """
        listing = self._listings[split]
        group, name = listing.group(index), listing.names[index]
        expected = f"{listing.folder}/<class>/<image>"
        if not name:
            raise BadItem("a label without an image: the class folder is empty", expected)
        path = self._root / listing.folder / group / name
        if not path.resolve().is_relative_to(self._root):
            raise BadItem(
                "a symbolic link leads out of the data folder", "a file inside the data folder"
            )
        if not group:
            raise BadItem(
                f"an image without a class: it lies directly in {listing.folder}/", expected
            )
        if not path.is_file():
            raise BadItem("a class folder holds something that is not a file", expected)
        return {"image": path.read_bytes(), "label": self._labels[group]}


def recognises(root: Path) -> bool:
    """Whether there is a folder `train` with a folder in it."""
    return bool(_class_folders(root / "train"))


def open_dataset(root: Path) -> ImageFolder:
    """Opens an image folder.

    Raises:
        UserError: the folders do not fit together; see `ImageFolder`.
    """
    return ImageFolder(root)


@dataclasses.dataclass(frozen=True)
class _Listing:
    """The items of one split: file names, those of each group (class folder) after one another."""

    folder: str
    groups: list[str]  # "" holds what lies directly in the split's folder
    starts: list[int]
    names: list[str]  # "" stands for an empty class folder

    def group(self, index: int) -> str:
        return self.groups[bisect.bisect_right(self.starts, index) - 1]


def _list_splits(root: Path) -> dict[str, _Listing]:
    listings = {}
    for split, folders in _FOLDERS.items():
        there = [folder for folder in folders if _class_folders(root / folder)]
        if split == "validation" and not there:  # flat, as ImageNet's archive has it: to be told
            there = [folder for folder in folders if (root / folder).is_dir()]
        if len(there) > 1:
            raise UserError(
                f"The {split} split must be one folder; {str(root)!r} has {' and '.join(there)}. "
                "Remove or rename one."
            )
        if there:
            listings[split] = _list_split(root / there[0])
    if "train" not in listings:
        raise UserError(f"An image folder must have {INFO.layout}; {str(root)!r} has no train/.")
    if len(listings) == 1:
        raise UserError(
            "An image folder must have a split to evaluate on; "
            f"{str(root)!r} has train/ alone. Move some images of each class to val/<class>/."
        )
    return listings


def _list_split(folder: Path) -> _Listing:
    stray = sorted(e.name for e in _visible(folder) if not e.is_dir())
    contents = {"": stray} if stray else {}
    for group in _class_folders(folder):
        contents[group] = sorted(e.name for e in _visible(folder / group)) or [""]
    listing = _Listing(folder.name, list(contents), [], [])
    for names in contents.values():
        listing.starts.append(len(listing.names))
        listing.names.extend(names)
    return listing


def _class_folders(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    return sorted(entry.name for entry in _visible(folder) if entry.is_dir())


def _visible(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return [entry for entry in entries if not entry.name.startswith(".")]


def _readable(name: str) -> str:
    """A file's name as text that can be written down, whatever bytes the disk has for it."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
