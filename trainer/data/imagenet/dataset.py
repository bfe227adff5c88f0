"""Reads ImageNet-1k (ILSVRC 2012): its archives as they are, unpacked, or in Kaggle's layout."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

from trainer.data.files import read_file, readable
from trainer.data.image_folder.dataset import list_classes
from trainer.data.imagenet.archive import index_archive
from trainer.data.imagenet.ground_truth import (
    DEVKIT,
    DEVKIT_ARCHIVE,
    MAPPING,
    SOLUTION,
    GroundTruth,
    read_ground_truth,
)
from trainer.data.imagenet.synsets import WNID, class_names
from trainer.data.listing import folders_in
from trainer.dataset import DatasetInfo, Example, Feature
from trainer.errors import BadItem, UserError

INFO = DatasetInfo(
    title="ImageNet-1k (ILSVRC 2012)",
    homepage="https://www.image-net.org/download.php",
    licence="non-commercial research and education; the images belong to their owners",
    layout="ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar, or train/<wnid>/ and val/ "
    f"unpacked, with {DEVKIT}[.tar.gz] unless val/ has folders, too; or Kaggle's "
    f"ILSVRC/Data/CLS-LOC/ with {SOLUTION}",
)

_KAGGLE = "ILSVRC/Data/CLS-LOC"
_PLACES = {
    "train": ("ILSVRC2012_img_train.tar", ("train", f"{_KAGGLE}/train")),
    "validation": ("ILSVRC2012_img_val.tar", ("val", f"{_KAGGLE}/val")),
}
_NAMED = 5  # classes that an error names


class ImageNet:
    """ImageNet-1k on disk, open for reading; archives stay packed, and are read where they are.

    Each split is read from its archive, or from its folder if there is no archive. Classes are
    those of the training images, by their WordNet ids; labels are their positions in sorted order,
    as in torchvision and pycls. There may be fewer than 1,000, as long as the validation has no
    others. The test images have no labels and are left out.

    Raises:
        UserError: a split is missing, a file that tells the classes is missing or damaged, an
            archive is none, or the two splits do not have the same classes.
    """

    evaluation_split = "validation"

    def __init__(self, root: Path):
        self._pictures = {split: _find(root, split) for split in _PLACES}
        truth = read_ground_truth(root)
        train = self._pictures["train"]
        wnids = sorted({group for group in train.groups if group})
        _check_classes(root, train, wnids)
        self._labels = {wnid: label for label, wnid in enumerate(wnids)}
        validation = self._pictures["validation"]
        self._flat = not any(validation.groups)
        self._truth = truth if self._flat else GroundTruth()
        self._lost = self._find_lost(root, wnids)
        self.class_names = class_names(wnids, truth.words)
        self.features = {
            "image": Feature("bytes", description="the image file, JPEG", content="image"),
            "label": Feature(
                "int64",
                description=f"number of the class, 0 to {len(wnids) - 1}",
                content="label",
            ),
        }
        self.splits = {
            "train": len(train),
            "validation": len(validation) + len(self._lost),
        }

    def key(self, split: str, index: int) -> str:
        """Path of the image below the root, through archives, too; or where it should be."""
        pictures = self._pictures[split]
        if index < len(pictures):
            return pictures.key(index)
        return f"{pictures.place}/{readable(self._lost[index - len(pictures)])}.JPEG"

    def read(self, split: str, index: int) -> Example:
        """The image file as it is, and its label.

        Raises:
            BadItem: it cannot be read, or its class is not known.
        """
        pictures = self._pictures[split]
        if index >= len(pictures):
            raise BadItem(
                "a label without an image: there is no such file",
                f"an image for each label of {self._truth.source}",
            )
        image = pictures.read(index)
        if split == "validation" and self._flat:
            wnid = self._wnid(_stem(pictures.name(index)))
        else:
            wnid = pictures.group(index)
            if not wnid:
                raise BadItem(
                    f"an image without a class: it lies directly in {pictures.place}/",
                    f"{pictures.place}/<wnid>/<image>",
                )
        return {"image": image, "label": self._labels[wnid]}

    def _wnid(self, image: str) -> str:
        """The class of a validation image that does not lie in a folder of its class."""
        expected = f"a class for each image in {self._truth.source}"
        if image in self._truth.faults:
            raise BadItem(f"its class is not known: {self._truth.faults[image]}", expected)
        if image not in self._truth.wnids:
            raise BadItem("an image without a label", expected)
        return self._truth.wnids[image]

    def _find_lost(self, root: Path, wnids: list[str]) -> tuple[str, ...]:
        """Names of the images that have labels alone; checks that every label is a class."""
        validation, truth = self._pictures["validation"], self._truth
        lost: set[str] = set()
        if not self._flat:
            present = {group for group in validation.groups if group}
        elif truth.source:
            images = {_stem(validation.name(index)) for index in range(len(validation))}
            present = {truth.wnids[image] for image in images & truth.wnids.keys()}
            lost = (truth.wnids.keys() | truth.faults.keys()) - images
        else:
            raise UserError(
                f"The labels of {validation.place} must be in {DEVKIT_ARCHIVE}, {DEVKIT}/ or "
                f"{SOLUTION}; {str(root)!r} has none of them. Put the development kit there, or "
                "sort the images into folders named by their WordNet ids."
            )
        unknown = present - set(wnids)
        if unknown:
            train = self._pictures["train"]
            raise UserError(
                f"Every class of the validation must also be among the training images; "
                f"{train.place} has {len(wnids):,} classes and lacks {_some(unknown)}."
                f"{_first_fault(train)} Complete it, or take the images of these classes away."
            )
        return tuple(sorted(lost))


def recognises(root: Path) -> bool:
    """Whether a file or folder is there that is ImageNet's alone, or all of `train/` are wnids.

    Tiny ImageNet's folders are named by WordNet ids, too; its `wnids.txt` tells it.
    """
    files = (archive for archive, _ in _PLACES.values())
    if any((root / name).is_file() for name in (*files, DEVKIT_ARCHIVE, SOLUTION, MAPPING)):
        return True
    if (root / DEVKIT).is_dir() or (root / _KAGGLE).is_dir():
        return True
    folders = folders_in(root / "train")
    return bool(folders) and all(map(WNID.fullmatch, folders)) and not (root / "wnids.txt").exists()


def open_dataset(root: Path) -> ImageNet:
    """Opens ImageNet-1k.

    Raises:
        UserError: something is missing or does not fit together; see `ImageNet`.
    """
    return ImageNet(root)


class _Pictures(Protocol):
    """The images of a split by number: in an archive or in folders."""

    @property
    def place(self) -> str:
        """Path of the archive or the folder, below the root."""

    @property
    def groups(self) -> tuple[str, ...]:
        """The classes, one for each folder or inner archive; "" for none."""

    @property
    def faults(self) -> Mapping[int, str]:
        """What is wrong with the archive: number -> reason."""

    def __len__(self) -> int: ...

    def group(self, index: int) -> str:
        """The class of an image, one of `groups`."""

    def name(self, index: int) -> str:
        """The name of an image's file."""

    def key(self, index: int) -> str:
        """Path of an image below the root."""

    def read(self, index: int) -> bytes:
        """The file of an image, or a BadItem."""


class _Folder:
    """The images in the folders of a folder, or directly in it."""

    faults: Mapping[int, str] = {}

    def __init__(self, root: Path, place: str):
        self.place = place
        self._root = root.resolve()
        self._listing = list_classes(root / place)

    @property
    def groups(self) -> tuple[str, ...]:
        return self._listing.groups

    def __len__(self) -> int:
        return len(self._listing)

    def group(self, index: int) -> str:
        return self._listing.group(index)

    def name(self, index: int) -> str:
        return self._listing.names[index]

    def key(self, index: int) -> str:
        return readable(self._path(index))

    def read(self, index: int) -> bytes:
        if not self.name(index):
            raise BadItem("a label without an image: the class folder is empty", "images")
        return read_file(self._root, self._path(index), "an image of ImageNet's")

    def _path(self, index: int) -> str:
        return "/".join(filter(None, (self.place, self.group(index), self.name(index))))


def _find(root: Path, split: str) -> _Pictures:
    archive, folders = _PLACES[split]
    if (root / archive).is_file():
        return index_archive(root / archive, of_archives=split == "train")
    for folder in folders:
        if (root / folder).is_dir():
            return _Folder(root, folder)
    raise UserError(
        f"ImageNet must have {INFO.layout}; {str(root)!r} has neither {archive} nor "
        f"{' nor '.join(f'{folder}/' for folder in folders)}."
    )


def _check_classes(root: Path, train: _Pictures, wnids: list[str]) -> None:
    others = [wnid for wnid in wnids if not WNID.fullmatch(wnid)]
    if not wnids:
        raise UserError(
            f"The training images must lie in folders or archives named by WordNet ids, such as "
            f"n01440764; {root / train.place} has none."
        )
    if others:
        raise UserError(
            f"Every folder of training images must be named by a WordNet id, such as n01440764; "
            f"{root / train.place} also has {_some(others)}. Move that elsewhere."
        )


def _some(names: Iterable[str]) -> str:
    """The first few of some names, and how many more there are."""
    ordered = sorted(names)
    more = f" and {len(ordered) - _NAMED:,} more" if len(ordered) > _NAMED else ""
    return ", ".join(repr(readable(name)) for name in ordered[:_NAMED]) + more


def _first_fault(pictures: _Pictures) -> str:
    """A sentence on what is wrong with an archive; empty if nothing is."""
    return next((f" It is damaged: {fault}." for fault in pictures.faults.values()), "")


def _stem(name: str) -> str:
    """A file's name without its extension."""
    return name.rpartition(".")[0] or name
