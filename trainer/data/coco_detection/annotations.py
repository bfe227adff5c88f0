"""What COCO's annotation files have in common, packed into arrays: pictures, categories, objects.

A damaged file may have anything anywhere, so every entry is looked at before it is used. What is
wrong with an entry is told when its picture is asked for, so that the others can be used.
"""

from __future__ import annotations

import array
import dataclasses
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from trainer.data.coco_detection.json_stream import read_lists
from trainer.errors import BadItem, UserError

LARGEST = 2**24
"""Largest coordinate in pixels (ours): from there on float32 leaves out whole pixels."""

_MOST_PIXELS = 2**53  # of an area; beyond, a float64 leaves out whole pixels
_INT64 = range(-(2**63), 2**63)
_SIDE = range(1, 2**31)
_BLOCK = 32  # texts that are compressed together


class AnnotationFile:
    """An annotation file of COCO, read from beginning to end.

    Its items are the pictures it lists, and behind them each annotation that is of none of these:
    it cannot be used, and as an item it is told rather than lost.

    Args:
        path: the file, in the folder `annotations`.
        objects: where the objects that it marks are to go.

    Attributes:
        categories: of the objects.
        pictures: the list `images`.
        objects: what is marked in them.

    Raises:
        UserError: the file as a whole is damaged, or its categories are not right.
    """

    def __init__(self, path: Path, objects: ObjectTable):
        self._name = f"{path.parent.name}/{path.name}"
        self.pictures = Pictures()
        self.objects = objects
        self._owners = array.array("q")  # image_id of each annotation
        self._unowned: list[int] = []  # annotations without one
        categories = []
        for name, entry, text in read_lists(path, ("images", "annotations", "categories")):
            if name == "images":
                self.pictures.add(entry)
            elif name == "categories":
                categories.append(entry)
            else:
                identity = entry.get("image_id") if isinstance(entry, dict) else None
                if is_id(identity):
                    self._owners.append(identity)
                else:
                    self._unowned.append(len(self._owners))
                    self._owners.append(0)
                self.add(entry, text)
        self.categories = Categories.check(path, categories)
        self.pictures.seal()
        places = self.pictures.find(np.array(self._owners, np.int64))
        places[self._unowned] = -1
        self._strays = np.flatnonzero(places < 0)
        self._owners, self._unowned = array.array("q"), []
        self.seal(places)

    def add(self, entry: object, text: str) -> None:
        """Takes the next entry of the list `annotations`, and its text."""
        self.objects.add(entry)

    def seal(self, places: np.ndarray[Any, Any]) -> None:
        """Is told, after the last entry, the place of each annotation's picture; -1 for none."""
        self.objects.seal(places, len(self.pictures), self.categories)

    def __len__(self) -> int:
        return len(self.pictures) + len(self._strays)

    def key(self, index: int, folder: str) -> str:
        """Name of an item: path of its picture, or place in this file if it has none."""
        if index >= len(self.pictures):
            return f"{self._name}#annotations[{self._strays[index - len(self.pictures)]}]"
        name = self.pictures.name(index)
        return f"{folder}/{name}" if name else f"{self._name}#images[{index}]"

    def picture(self, index: int) -> Picture:
        """The picture that is this item.

        Raises:
            BadItem: its entry cannot be used, or the item is an annotation without a picture.
        """
        if index >= len(self.pictures):
            raise BadItem(
                "an annotation without a picture: no entry of images has its image_id",
                "annotations of the pictures in images",
            )
        return self.pictures.picture(index)


@dataclasses.dataclass(frozen=True)
class Categories:
    """The list `categories`; labels number it in the order of ids, from 0.

    Attributes:
        ids: int64 [n], ascending; of COCO's 80 things, some numbers from 1 to 90.
        names: one of each.
    """

    ids: np.ndarray[Any, Any]
    names: tuple[str, ...]

    @classmethod
    def check(cls, path: Path, entries: Sequence[object]) -> Categories:
        """The categories of a file.

        Raises:
            UserError: there is none, or an id or a name is not right or there twice.
        """
        named: dict[int, str] = {}
        for number, entry in enumerate(entries):
            fields: dict[str, Any] = entry if isinstance(entry, dict) else {}
            identity, name = fields.get("id"), fields.get("name")
            if not (is_id(identity) and is_text(name)):
                raise UserError(
                    f"Every category of {path} must have a whole number as id, and a name; entry "
                    f"{number} of the list has not. Get the file again."
                )
            named[identity] = name
        if not len(entries) == len(named) == len(set(named.values())) > 0:
            raise UserError(
                f"{path} must have categories, each with an id and a name of its own; it has "
                f"{len(entries)}, with {len(named)} ids and {len(set(named.values()))} names. "
                "Get the file again."
            )
        ids = sorted(named)
        return cls(np.array(ids, np.int64), tuple(named[identity] for identity in ids))

    def labels(self, ids: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """The label of each id, int32 [n]; -1 where there is no such category."""
        places = np.searchsorted(self.ids, ids).clip(max=len(self.ids) - 1)
        return np.where(self.ids[places] == ids, places, -1).astype(np.int32)


@dataclasses.dataclass(frozen=True)
class Picture:
    """One entry of the list `images`.

    Attributes:
        id: what annotations call it.
        name: of its file, without a folder.
        width: in pixels.
        height: in pixels.
    """

    id: int
    name: str
    width: int
    height: int


class Pictures:
    """The list `images`, in its order: `add` all entries, `seal`, then look up."""

    def __init__(self) -> None:
        self._problems: dict[int, str] = {}
        self._names: list[str] = []
        self._known = array.array("q")  # places of entries with an id
        self._ids = array.array("q")
        self._sizes = array.array("i")  # width, height of each

    def __len__(self) -> int:
        return len(self._names)

    def add(self, entry: object) -> None:
        """Adds the next entry."""
        place = len(self)
        fields: dict[str, Any] = entry if isinstance(entry, dict) else {}
        identity, name = fields.get("id"), fields.get("file_name")
        width, height = fields.get("width"), fields.get("height")
        if is_id(identity):
            self._known.append(place)
        if not is_id(identity):
            self._problems[place] = "its id is not a whole number"
        elif not is_file_name(name):
            self._problems[place] = "its file_name is not the name of a file, or is a path"
        elif not (_is_side(width) and _is_side(height)):
            self._problems[place] = "its width and height are not whole numbers from 1"
        else:
            self._ids.append(identity)
            self._names.append(name)
            self._sizes.extend((width, height))
            return
        self._ids.append(identity if is_id(identity) else 0)
        self._names.append("")
        self._sizes.extend((0, 0))

    def seal(self) -> None:
        """To be called after the last one: finds those whose id or file another has before it."""
        known, ids = np.array(self._known, np.int64), np.array(self._ids, np.int64)
        order = known[np.argsort(ids[known], kind="stable")]
        self._refuse_second("id", zip(order.tolist(), ids[order].tolist(), strict=True))
        self._refuse_second("file_name", enumerate(self._names))
        self._sorted_places, self._sorted_ids = order, ids[order]

    def _refuse_second(self, field: str, values: Iterable[tuple[int, object]]) -> None:
        seen = set()
        for place, value in values:
            if place not in self._problems and value in seen:
                self._problems[place] = f"an entry before it has the same {field}"
                self._names[place] = ""
            seen.add(value)

    def name(self, index: int) -> str:
        """Name of a picture's file; "" if its entry cannot be used."""
        return self._names[index]

    def find(self, ids: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Where the pictures with these ids are, int64 [n]; -1 for what is not in the list."""
        if not len(self._sorted_ids):
            return np.full(len(ids), -1)
        places = np.searchsorted(self._sorted_ids, ids).clip(max=len(self._sorted_ids) - 1)
        return np.where(self._sorted_ids[places] == ids, self._sorted_places[places], -1)

    def picture(self, index: int) -> Picture:
        """One picture.

        Raises:
            BadItem: its entry cannot be used.
        """
        if index in self._problems:
            raise BadItem(
                f"images[{index}]: {self._problems[index]}",
                "an entry with an id and a file_name of its own, width and height",
            )
        width, height = self._sizes[2 * index : 2 * index + 2]
        return Picture(self._ids[index], self._names[index], width, height)


@dataclasses.dataclass(frozen=True)
class Objects:
    """What is marked in one picture: n instances or segments.

    Attributes:
        box: float32 [n, 4]; left, top, right, bottom in pixels.
        label: int64 [n], in [0, categories).
        crowd: int64 [n]; 1 for a group that is marked as one, 0 for a single object.
        area: float64 [n]; in pixels, as the file has it.
        id: int64 [n]; the number of a segment in the picture of segments; 0 for instances.
        number: int64 [n]; places among all objects of the file.
    """

    box: np.ndarray[Any, Any]
    label: np.ndarray[Any, Any]
    crowd: np.ndarray[Any, Any]
    area: np.ndarray[Any, Any]
    id: np.ndarray[Any, Any]
    number: np.ndarray[Any, Any]


class ObjectTable:
    """The objects of all pictures of a file: `add` them all, `seal`, then look up.

    Args:
        kind: what the file calls an object, "annotation" or "segment".
    """

    def __init__(self, kind: str):
        self._kind = kind
        self._problems: dict[int, str] = {}
        self._integers = array.array("q")  # category_id, iscrowd, id of each
        self._floats = array.array("d")  # left, top, width, height, area of each

    def __len__(self) -> int:
        return len(self._integers) // 3

    def add(self, entry: object) -> None:
        """Adds the next object."""
        problem = _problem(entry, self._kind)
        if problem or not isinstance(entry, dict):
            self._problems[len(self)] = problem
            self._integers.extend((0, 0, 0))
            self._floats.extend((0, 0, 0, 0, 0))
        else:
            identity = entry["id"] if self._kind == "segment" else 0
            self._integers.extend((entry["category_id"], entry.get("iscrowd", 0), identity))
            self._floats.extend((*entry["bbox"], entry["area"]))

    def seal(self, places: np.ndarray[Any, Any], pictures: int, categories: Categories) -> None:
        """Sorts the objects by picture.

        Instances whose box has no width or no height are left out: COCO has two or more
        (cocodataset/cocoapi#355), and DETR leaves them out (detr: datasets/coco.py). Of segments
        none is, because the picture of segments shows them all.

        Args:
            places: place of each object's picture, int64 [n]; -1 for none.
            pictures: how many pictures there are.
            categories: of the file.
        """
        category, crowd, identity = np.array(self._integers, np.int64).reshape(-1, 3).T
        left, top, width, height, area = np.array(self._floats, np.float64).reshape(-1, 5).T
        box = np.stack([left, top, left + width, top + height], axis=1).astype(np.float32)
        kept = places >= 0
        if self._kind == "annotation":
            # A negative size is no small one: it stays, and the check of all boxes refuses it.
            flat = (box[:, 2] == box[:, 0]) | (box[:, 3] == box[:, 1])
            flat[list(self._problems)] = False
            kept &= ~flat
        chosen = np.flatnonzero(kept)
        chosen = chosen[np.argsort(places[chosen], kind="stable")]
        self._starts = np.searchsorted(places[chosen], np.arange(pictures + 1))
        self._number = chosen
        self._box = box[chosen]
        self._label = categories.labels(category[chosen])
        self._crowd = crowd[chosen].astype(np.int8)
        self._area = area[chosen]
        self._id = identity[chosen].astype(np.int32)
        self._integers, self._floats = array.array("q"), array.array("d")

    def of(self, index: int) -> Objects:
        """The objects of one picture, in the order of the file.

        Raises:
            BadItem: one of them cannot be used.
        """
        part = slice(*self._starts[index : index + 2].tolist())
        numbers, labels = self._number[part], self._label[part]
        for number, label in zip(numbers.tolist(), labels.tolist(), strict=True):
            problem = self._problems.get(number, "")
            if label < 0:
                problem = problem or "its category_id is not in the list of categories"
            if problem:
                raise BadItem(
                    f"{self._kind} {number} of the file: {problem}",
                    "category_id, area, iscrowd, and bbox as [left, top, width, height]",
                )
        return Objects(
            box=self._box[part],
            label=labels.astype(np.int64),
            crowd=self._crowd[part].astype(np.int64),
            area=self._area[part],
            id=self._id[part].astype(np.int64),
            number=numbers,
        )


class Texts:
    """Many short JSON texts, compressed to less than half: `append` them all, `seal`, look up."""

    def __init__(self) -> None:
        self._blocks: list[bytes] = []
        self._open: list[str] = []

    def append(self, text: str) -> None:
        """Adds the next text, a JSON value."""
        self._open.append(text)
        if len(self._open) == _BLOCK:
            self.seal()

    def seal(self) -> None:
        """To be called after the last one."""
        # A JSON text never has a zero byte in it, not even within a string.
        self._blocks.append(zlib.compress("\0".join(self._open).encode(), level=1))
        self._open = []

    def of(self, numbers: Sequence[int]) -> list[str]:
        """The texts with these numbers."""
        blocks = {
            block: zlib.decompress(self._blocks[block]).decode().split("\0")
            for block in {number // _BLOCK for number in numbers}
        }
        return [blocks[number // _BLOCK][number % _BLOCK] for number in numbers]


def is_id(value: object) -> TypeGuard[int]:
    """Whether a value is a whole number that 64 bits hold."""
    return type(value) is int and value in _INT64


def is_text(value: object) -> TypeGuard[str]:
    """Whether a value is text with something in it that UTF-8 can write."""
    # JSON can escape one half of a surrogate pair without the other.
    return isinstance(value, str) and value.encode(errors="ignore").decode() == value != ""


def is_file_name(value: object) -> TypeGuard[str]:
    """Whether a value is the name of a file in a folder, and no path."""
    return is_text(value) and value not in (".", "..") and not {"/", "\0"} & set(str(value))


def _problem(entry: object, kind: str) -> str:
    """What is wrong with an object; "" if nothing is."""
    if not isinstance(entry, dict):
        return "it is not a JSON object"
    if not is_id(entry.get("category_id")):
        return "its category_id is not a whole number"
    box = entry.get("bbox")
    if not isinstance(box, list) or len(box) != 4:
        return "its bbox is not four numbers"
    if not all(_is_number(value) and -LARGEST <= value <= LARGEST for value in box):
        return f"its bbox is not four numbers from {-LARGEST:,} to {LARGEST:,}"
    area = entry.get("area")
    if not _is_number(area) or not 0 <= area <= _MOST_PIXELS:
        return "its area is not a number of pixels"
    crowd = entry.get("iscrowd", 0)
    if type(crowd) is not int or crowd not in (0, 1):
        return "its iscrowd is neither 0 nor 1"
    identity = entry.get("id")
    if kind == "segment" and not (type(identity) is int and 0 < identity < 2**24):
        return "its id is not a whole number from 1 to 16,777,215"
    return ""


def _is_number(value: object) -> TypeGuard[float]:
    return type(value) is float or type(value) is int


def _is_side(value: object) -> TypeGuard[int]:
    return type(value) is int and value in _SIDE
