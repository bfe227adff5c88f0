"""Reads CUB-200-2011: birds, their species, a box around each, and captions where they are."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trainer.data.files import read_file, readable
from trainer.dataset import DatasetInfo, Example, Feature
from trainer.errors import BadItem, UserError

INFO = DatasetInfo(
    title="CUB-200-2011",
    homepage="https://www.vision.caltech.edu/datasets/cub_200_2011/",
    licence="none stated; the images belong to their photographers",
    layout="[CUB_200_2011/]{images,image_class_labels,classes,bounding_boxes,train_test_split}.txt "
    "and [CUB_200_2011/]images/<class>/<image>.jpg; captions in text_c10/<class>/<image>.txt",
)

_TABLES = ("images", "image_class_labels", "classes", "bounding_boxes", "train_test_split")
_SPLITS = {"1": "train", "0": "test"}
_WHOLE = re.compile(r"\d{1,9}", re.ASCII)
_NUMBER = re.compile(r"[-+]?\d+(\.\d*)?([eE][-+]?\d+)?", re.ASCII)
_LARGEST = 2**24  # coordinate in pixels (ours): from there on float32 leaves out whole pixels
_MOST_BYTES = 2**24  # of a table or of captions (ours); images.txt has less than a MiB


class Cub:
    """CUB-200-2011 on disk, open for reading; the tables are read once, the pictures late.

    What a table says of an image that `images.txt` does not list, or says twice, cannot be used;
    such an image is an item all the same, so that it is told and not lost.

    Raises:
        UserError: a table is missing or unreadable, or the classes are not numbered from 1.
    """

    evaluation_split = "test"

    def __init__(self, root: Path):
        self._root = root.resolve()
        folder = _find(root)
        missing = [f"{t}.txt" for t in _TABLES if not (folder / f"{t}.txt").is_file()]
        if missing:
            raise UserError(
                f"CUB-200-2011 must have {INFO.layout}; {str(folder)!r} lacks {', '.join(missing)}."
            )
        self._prefix = "" if folder == root else f"{folder.name}/"
        captions = [f"{self._prefix}text_c10", "text_c10"]
        self._captions = next((name for name in captions if (root / name).is_dir()), "")
        tables = {name: _Table(self._root, f"{self._prefix}{name}.txt") for name in _TABLES}
        classes = _classes(tables["classes"])
        self.class_names = tuple(map(_class_name, classes))
        if len(set(self.class_names)) < len(classes):
            raise UserError(
                f"{folder / 'classes.txt'} must give classes different names; its {len(classes)} "
                f"have {len(set(self.class_names))}. Get the file again."
            )
        self._items: dict[str, list[_Item]] = {split: [] for split in _SPLITS.values()}
        for item in _items(tables, {name: label for label, name in enumerate(classes)}):
            split = tables["train_test_split"].values.get(item.id, "")
            self._items[_SPLITS.get(split, "train")].append(item)
        self.splits = {split: len(items) for split, items in self._items.items()}
        self.features: Mapping[str, Feature] = {
            "image": Feature("bytes", description="the picture's file, JPEG", content="image"),
            "label": Feature(
                "int64",
                description=f"number of the species, 0 to {len(classes) - 1}",
                content="label",
            ),
            "box": Feature(
                "float32",
                (4,),
                description="left, top, right, bottom of the bird in pixels",
                content="box",
            ),
            "text": Feature(
                "bytes",
                (None,),
                description="captions of the picture, ten of each"
                + ("" if self._captions else "; there are none on this disk"),
                content="text",
            ),
        }

    def key(self, split: str, index: int) -> str:
        """Path of the picture from the folder CUB_200_2011, or place in a table if it has none."""
        return self._items[split][index].key

    def read(self, split: str, index: int) -> Example:
        """The picture as it came, its species, the box of its bird, and its captions.

        Raises:
            BadItem: the tables do not agree on it, or one of its files cannot be read.
        """
        item = self._items[split][index]
        if item.problem:
            raise BadItem(item.problem, "one line for each image in each table, which agree")
        image = read_file(
            self._root,
            f"{self._prefix}images/{item.path}",
            "a picture for every line of images.txt",
        )
        return {
            "image": image,
            "label": item.label,
            "box": np.array(item.box, np.float32),
            "text": self._read_captions(item.path),
        }

    def _read_captions(self, path: str) -> np.ndarray[Any, Any]:
        """The captions of a picture, one per line; an empty array where the dataset has none."""
        lines: list[bytes] = []
        if self._captions:
            file = f"{self._captions}/{path.removesuffix('.jpg')}.txt"
            expected = "a file of captions, one per line, for every picture"
            try:
                content = read_file(self._root, file, expected)
            except BadItem as error:
                raise BadItem(f"its captions: {error.reason}", expected) from error
            if len(content) > _MOST_BYTES:
                raise BadItem(f"its captions have {len(content):,} bytes", expected)
            lines = [line.strip() for line in content.rstrip().split(b"\n")]
        captions = np.empty(len(lines), object)
        captions[:] = lines
        return captions


def recognises(root: Path) -> bool:
    """Whether the tables of images and boxes are there, in the root or in CUB_200_2011/."""
    folder = _find(root)
    return all((folder / name).is_file() for name in ("images.txt", "bounding_boxes.txt"))


def open_dataset(root: Path) -> Cub:
    """Opens CUB-200-2011.

    Raises:
        UserError: a table is missing or damaged as a whole.
    """
    return Cub(root)


def _find(root: Path) -> Path:
    """The folder of the tables."""
    inner = root / "CUB_200_2011"
    return inner if (inner / "images.txt").is_file() else root


@dataclasses.dataclass(frozen=True)
class _Item:
    """One image, as the tables have it.

    Attributes:
        key: its name.
        id: its number in the tables; -1 if unknown.
        path: of its file, below images/.
        label: of its class, from 0.
        box: left, top, right, bottom.
        problem: why it cannot be used; empty if it can.
    """

    key: str
    id: int
    path: str = ""
    label: int = 0
    box: tuple[float, ...] = ()
    problem: str = ""


class _Table:
    """A text file with a number and a value in each line.

    Attributes:
        name: of the file.
        values: number -> value; the first, where a number has several.
        lines: (number, value) of each line; the number is -1 if the line has none.
        repeated: numbers that have several lines.

    Raises:
        UserError: the file cannot be read.
    """

    def __init__(self, root: Path, path: str):
        self.name = path.rpartition("/")[2]
        try:
            content = read_file(root, path, "a table of CUB-200-2011")
        except BadItem as error:
            raise UserError(f"{path} must be {error.expected}; {error.reason}.") from error
        if len(content) > _MOST_BYTES:
            raise UserError(
                f"{path} must be a table of CUB-200-2011, of at most {_MOST_BYTES:,} bytes; it has "
                f"{len(content):,}."
            )
        self.lines: list[tuple[int, str]] = []
        self.values: dict[int, str] = {}
        self.repeated: set[int] = set()
        for line in os.fsdecode(content).split("\n"):
            first, _, value = line.strip().partition(" ")
            if not first:
                continue
            number = int(first) if _WHOLE.fullmatch(first) else -1
            self.lines.append((number, value.strip()))
            if number in self.values:
                self.repeated.add(number)
            elif number >= 0:
                self.values[number] = value.strip()


def _items(tables: Mapping[str, _Table], labels: Mapping[str, int]) -> Iterator[_Item]:
    """All images that a table knows of, those of images.txt first and in its order."""
    others = [tables[n] for n in ("image_class_labels", "bounding_boxes", "train_test_split")]
    seen: set[int | str] = set()
    for number, (identity, path) in enumerate(tables["images"].lines, start=1):
        key = f"images.txt#{number}"
        if identity < 0 or not path:
            yield _Item(key, -1, problem=f"line {number} of images.txt is no number and a path")
        elif identity in seen or path in seen:
            yield _Item(key, identity, problem="images.txt has its number or its path twice")
        else:
            yield _item(identity, path, others, labels)
        seen |= {identity, path}
    for table in others:
        for identity in table.values:
            if identity not in seen:
                seen.add(identity)
                problem = f"{table.name} has image {identity}, images.txt has not"
                yield _Item(f"{table.name}#{identity}", identity, problem=problem)


def _item(identity: int, path: str, tables: list[_Table], labels: Mapping[str, int]) -> _Item:
    """An image of images.txt with what the other tables have for it."""
    key = f"images/{readable(path)}"

    def bad(problem: str) -> _Item:
        return _Item(key, identity, problem=problem)

    for table in tables:
        if identity not in table.values:
            return bad(f"{table.name} has no line for image {identity}")
        if identity in table.repeated:
            return bad(f"{table.name} has several lines for image {identity}")
    label, box, split = (table.values[identity] for table in tables)
    if split not in _SPLITS:
        return bad(f"train_test_split.txt has {readable(split)!r} for image {identity}, not 1 or 0")
    folder, _, name = path.partition("/")
    if not name or "/" in name:
        return bad("its path in images.txt is not <class>/<image>")
    if folder not in labels or label != str(labels[folder] + 1):
        return bad(
            f"image_class_labels.txt has class {readable(label)!r} for it, but it lies in "
            f"{readable(folder)}/"
        )
    numbers = box.split()
    if len(numbers) != 4 or not all(map(_NUMBER.fullmatch, numbers)):
        return bad(f"bounding_boxes.txt has {readable(box)!r} for it, not four numbers")
    left, top, width, height = map(float, numbers)
    if not all(abs(value) <= _LARGEST for value in (left, top, width, height)):
        return bad(f"bounding_boxes.txt has {readable(box)!r} for it, which is no place in pixels")
    corners = (left, top, left + width, top + height)
    return _Item(key, identity, path, labels[folder], corners)


def _classes(table: _Table) -> list[str]:
    """The folders of the classes, in the order of their numbers.

    Raises:
        UserError: the classes are not numbered from 1 without a gap.
    """
    numbers = [number for number, _ in table.lines]
    if sorted(numbers) != list(range(1, len(numbers) + 1)) or not numbers:
        raise UserError(
            f"{table.name} must number the classes from 1 without a gap, one per line; it has "
            f"{len(numbers)} lines, and not these numbers. Get the file again."
        )
    if not all(table.values.values()):
        raise UserError(f"{table.name} must name every class; a name is empty. Get it again.")
    return [table.values[number] for number in sorted(numbers)]


def _class_name(folder: str) -> str:
    """The name of a class for people: "Black footed Albatross" for 001.Black_footed_Albatross."""
    return readable(re.sub(r"^\d+\.", "", folder, flags=re.ASCII).replace("_", " "))
