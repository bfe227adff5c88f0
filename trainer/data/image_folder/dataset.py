"""Reads a folder of images in ImageNet's layout: `<split>/<class>/<image>`."""

from __future__ import annotations

from pathlib import Path

from trainer.data.files import read_file, readable
from trainer.data.listing import Listing, all_in, folders_in, others_in
from trainer.dataset import DatasetInfo, Example, Feature
from trainer.errors import BadItem, UserError

INFO = DatasetInfo(
    title="Image folder",
    homepage="https://pytorch.org/vision/stable/generated/torchvision.datasets.ImageFolder.html",
    licence="that of the images",
    layout="train/<class>/<image> beside val/ or validation/ and/or test/ like it",
    general=True,
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
        self._folders = _find_splits(root)
        self._listings = {
            split: list_classes(root / folder) for split, folder in self._folders.items()
        }
        classes = [group for group in self._listings["train"].groups if group]
        self._labels = {group: label for label, group in enumerate(classes)}
        self.class_names = tuple(readable(group) for group in classes)
        self.features = {
            "image": Feature("bytes", description="the image file, JPEG or PNG", content="image"),
            "label": Feature(
                "int64",
                description=f"number of the class, 0 to {len(classes) - 1}",
                content="label",
            ),
        }
        self.splits = {split: len(listing) for split, listing in self._listings.items()}
        self.evaluation_split = "validation" if "validation" in self.splits else "test"
        for split, listing in self._listings.items():
            unknown = sorted(set(listing.groups) - {"", *classes})
            if unknown:
                raise UserError(
                    f"Every class in {self._folders[split]}/ must also be in train/; "
                    f"{readable(unknown[0])!r} is not ({len(unknown)} such). Move its images into "
                    f"folders named like those in {root / 'train'}."
                )

    def key(self, split: str, index: int) -> str:
        """Path of the item below the root; bytes that are no UTF-8 are shown as `\\xff`."""
        return readable(self._path(split, index))

    def read(self, split: str, index: int) -> Example:
        """The image file as it is, and its label.

        Raises:
            BadItem: it is not an ordinary file inside a class folder, and inside the root.
        """
        listing, folder = self._listings[split], self._folders[split]
        group = listing.group(index)
        expected = f"{folder}/<class>/<image>"
        if not listing.names[index]:
            raise BadItem("a label without an image: the class folder is empty", expected)
        if not group:
            raise BadItem(f"an image without a class: it lies directly in {folder}/", expected)
        image = read_file(self._root, self._path(split, index), expected)
        return {"image": image, "label": self._labels[group]}

    def _path(self, split: str, index: int) -> str:
        listing = self._listings[split]
        parts = (self._folders[split], listing.group(index), listing.names[index])
        return "/".join(part for part in parts if part)


def recognises(root: Path) -> bool:
    """Whether there is a folder `train` with a folder in it."""
    return bool(folders_in(root / "train"))


def open_dataset(root: Path) -> ImageFolder:
    """Opens an image folder.

    Raises:
        UserError: the folders do not fit together; see `ImageFolder`.
    """
    return ImageFolder(root)


def list_classes(folder: Path) -> Listing:
    """The files of each class folder; the group "" is what lies beside them.

    A class folder with nothing in it has one file of no name, so that it can be told.

    Raises:
        UserError: a folder cannot be read.
    """
    stray = others_in(folder)
    contents = {"": stray} if stray else {}
    for group in folders_in(folder):
        contents[group] = all_in(folder / group) or [""]
    return Listing.of(contents)


def _find_splits(root: Path) -> dict[str, str]:
    """split -> the name of its folder."""
    found = {}
    for split, folders in _FOLDERS.items():
        there = [folder for folder in folders if folders_in(root / folder)]
        if split == "validation" and not there:  # flat: each image is told to have no class
            there = [folder for folder in folders if (root / folder).is_dir()]
        if len(there) > 1:
            raise UserError(
                f"The {split} split must be one folder; {str(root)!r} has {' and '.join(there)}. "
                "Remove or rename one."
            )
        if there:
            found[split] = there[0]
    if "train" not in found:
        raise UserError(f"An image folder must have {INFO.layout}; {str(root)!r} has no train/.")
    if len(found) == 1:
        raise UserError(
            "An image folder must have a split to evaluate on; "
            f"{str(root)!r} has train/ alone. Move some images of each class to val/<class>/."
        )
    return found
