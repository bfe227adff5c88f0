"""Reads Tiny ImageNet: images of 64 × 64 pixels, each with its class and a box around it."""

from __future__ import annotations

import dataclasses
import io
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trainer.data.files import read_file, readable
from trainer.data.imagenet.synsets import WNID, class_names
from trainer.data.listing import Listing, all_in, folders_in
from trainer.dataset import DatasetInfo, Example, Feature
from trainer.errors import BadItem, UserError

INFO = DatasetInfo(
    title="Tiny ImageNet",
    homepage="http://cs231n.stanford.edu/tiny-imagenet-200.zip",
    licence="none stated; the images are ImageNet's: non-commercial research and education",
    layout="[tiny-imagenet-200/]wnids.txt with train/<wnid>/images/ and val/images/",
)

_FOLDER = "tiny-imagenet-200"
_CLASSES, _WORDS, _VALIDATION = "wnids.txt", "words.txt", "val/val_annotations.txt"
_NUMBER = re.compile(r"-?[0-9]{1,6}")
_MAX_LINES = 200_000  # of a text file (ours); words.txt has 82,115
_SHOWN = 60  # characters of a wrong line that are told


class TinyImageNet:
    """Tiny ImageNet on disk, open for reading.

    Labels are the positions of the classes' WordNet ids in sorted order, as image folders have
    them; `wnids.txt` has another order. The test images have no labels and are left out.

    Raises:
        UserError: files of the layout are missing, `wnids.txt` is not what `train/` has, or a text
            file is damaged as a whole.
    """

    evaluation_split = "validation"

    def __init__(self, root: Path):
        self._root = _find(root).resolve()
        wnids = _read_classes(self._root)
        words = _read_words(self._root)
        self.class_names = class_names(wnids, words)
        self._splits = {
            "train": _list_train(self._root, wnids),
            "validation": _list_validation(self._root, wnids),
        }
        self.splits = {name: len(split.listing) for name, split in self._splits.items()}
        self.features = {
            "image": Feature(
                "bytes", description="the image file, JPEG of 64 × 64 pixels", content="image"
            ),
            "label": Feature(
                "int64", description=f"number of the class, 0 to {len(wnids) - 1}", content="label"
            ),
            "box": Feature(
                "float32",
                (4,),
                description="left, top, right and bottom edge of the object, in pixels",
                content="box",
            ),
        }

    def key(self, split: str, index: int) -> str:
        """Path of the image below the folder of the dataset."""
        return readable(self._path(split, index))

    def read(self, split: str, index: int) -> Example:
        """The image file as it is, its label, and the box around the object.

        Raises:
            BadItem: the image cannot be read, or the line about it is missing or not as it must be.
        """
        items = self._splits[split]
        if index in items.faults:
            raise BadItem(items.faults[index], "a line with four corners for each image")
        return {
            "image": read_file(self._root, self._path(split, index), "an image"),
            "label": int(items.labels[index]),
            "box": items.boxes[index],
        }

    def _path(self, split: str, index: int) -> str:
        listing = self._splits[split].listing
        return f"{listing.group(index)}/{listing.names[index]}"


def recognises(root: Path) -> bool:
    """Whether the list of classes and a folder `train` are there, in the root or its folder."""
    folder = _find(root)
    return (folder / _CLASSES).is_file() and (folder / "train").is_dir()


def open_dataset(root: Path) -> TinyImageNet:
    """Opens Tiny ImageNet.

    Raises:
        UserError: something is missing or does not fit together; see `TinyImageNet`.
    """
    return TinyImageNet(root)


@dataclasses.dataclass(frozen=True)
class _Items:
    """The items of one split.

    Attributes:
        listing: the images, grouped by the folders that they lie in.
        labels: int64 [n].
        boxes: float32 [n, 4]: left, top, right and bottom edge.
        faults: number of an item that cannot be used -> why.
    """

    listing: Listing
    labels: np.ndarray[Any, Any]
    boxes: np.ndarray[Any, Any]
    faults: Mapping[int, str]


@dataclasses.dataclass
class _Line:
    """What a line says about an image."""

    wnid: str
    corners: tuple[int, ...]
    fault: str = ""


def _find(root: Path) -> Path:
    inner = root / _FOLDER
    return inner if (inner / _CLASSES).is_file() else root


def _read_classes(root: Path) -> list[str]:
    wnids = [line for line in _lines(_read(root, _CLASSES), _CLASSES) if line]
    wrong = [wnid for wnid in wnids if not WNID.fullmatch(wnid)]
    if wrong or not wnids or len(set(wnids)) < len(wnids):
        came = f"it has {wrong[0][:_SHOWN]!r}" if wrong else "it has one twice, or none"
        raise _wrong(root / _CLASSES, f"have a WordNet id on each line, such as n01443537; {came}")
    folders = folders_in(root / "train")
    others = sorted(set(folders) ^ set(wnids))
    if others:
        raise _wrong(
            root / _CLASSES,
            f"list the folders in train/; {readable(others[0])!r} is in one of the two alone "
            f"({len(others):,} such)",
        )
    return sorted(wnids)


def _read_words(root: Path) -> dict[str, str]:
    """WordNet id -> synonyms; empty without the file, as nothing depends on it but names."""
    if not (root / _WORDS).is_file():
        return {}
    entries = (line.partition("\t") for line in _lines(_read(root, _WORDS), _WORDS))
    return {wnid: readable(words) for wnid, _, words in entries if WNID.fullmatch(wnid)}


def _list_train(root: Path, wnids: list[str]) -> _Items:
    contents, labels, lines = {}, [], []
    for label, wnid in enumerate(wnids):
        source = f"train/{wnid}/{wnid}_boxes.txt"
        fault = f"{source} has no line about it"
        try:
            content = read_file(root, source, "boxes")
        except BadItem as error:
            content, fault = b"", f"{source}: {error.reason}"
        names, found = _match(
            all_in(root / "train" / wnid / "images"), _parse(content, source, wnid), fault
        )
        contents[f"train/{wnid}/images"] = names
        labels += [label] * len(names)
        lines += found
    return _items(Listing.of(contents), labels, lines)


def _list_validation(root: Path, wnids: list[str]) -> _Items:
    if not (root / "val" / "images").is_dir():
        raise UserError(
            f"Tiny ImageNet must have {INFO.layout}; {str(root)!r} has no val/images/. Unpack it "
            "again: images sorted into val/<wnid>/ are not read."
        )
    parsed = _parse(_read(root, _VALIDATION), _VALIDATION)
    names, lines = _match(
        all_in(root / "val" / "images"), parsed, f"{_VALIDATION} has no line about it"
    )
    numbers = {wnid: label for label, wnid in enumerate(wnids)}
    for line in lines:
        if not line.fault and line.wnid not in numbers:
            line.fault = f"{_VALIDATION} says its class is {line.wnid[:_SHOWN]!r}"
    labels = [numbers.get(line.wnid, 0) for line in lines]
    return _items(Listing.of({"val/images": names}), labels, lines)


def _items(listing: Listing, labels: list[int], lines: list[_Line]) -> _Items:
    boxes = np.array([line.corners for line in lines], np.float32).reshape(-1, 4)
    # The files name the first and the last pixel that the object covers.
    boxes[:, 2:] += 1
    faults = {index: line.fault for index, line in enumerate(lines) if line.fault}
    return _Items(listing, np.array(labels, np.int64), boxes, faults)


def _match(images: list[str], lines: dict[str, _Line], fault: str) -> tuple[list[str], list[_Line]]:
    """Names of all images and of all lines without one, and the line of each.

    Args:
        images: names of the files that are there.
        lines: name of an image -> what its line says.
        fault: what is wrong with an image without a line.
    """
    lost = sorted(lines.keys() - set(images))
    for name in lost:
        lines[name].fault = "a line without an image: there is no such file"
    found = [lines.get(name) or _Line("", _NOWHERE, fault) for name in (*images, *lost)]
    return [*images, *lost], found


_NOWHERE = (0, 0, 0, 0)


def _parse(content: bytes, source: str, wnid: str = "") -> dict[str, _Line]:
    """What the lines of an annotation file say: image, class unless it is given, four corners."""
    lines: dict[str, _Line] = {}
    for number, line in enumerate(_lines(content, source), 1):
        name, *fields = line.split("\t")
        if not line:
            continue
        says = wnid or (fields.pop(0) if fields else "")
        if len(fields) == 4 and all(map(_NUMBER.fullmatch, fields)):
            parsed = _Line(says, tuple(map(int, fields)))
        else:
            shown = readable(line[:_SHOWN])
            parsed = _Line(says, _NOWHERE, f"line {number:,} of {source} is {shown!r}")
        if lines.setdefault(name, parsed) != parsed:
            lines[name].fault = f"{source} has two lines about it that differ"
    return lines


def _lines(content: bytes, source: str) -> Iterable[str]:
    """The lines of a text, in whatever bytes it has, without white space at either end."""
    if content.count(b"\n") > _MAX_LINES:
        raise UserError(
            f"{source} must have at most {_MAX_LINES:,} lines; it has {content.count(10):,}. "
            "Unpack the dataset again."
        )
    return (os.fsdecode(line).strip() for line in io.BytesIO(content))


def _read(root: Path, path: str) -> bytes:
    try:
        return read_file(root, path, INFO.layout)
    except BadItem as error:
        raise _wrong(root / path, f"be a file that can be read; {error.reason}") from error


def _wrong(path: Path, must: str) -> UserError:
    return UserError(f"{path} must {must}. Unpack the dataset again.")
