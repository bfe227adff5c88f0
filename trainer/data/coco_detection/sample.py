"""A small COCO for tests: rectangles of a colour per class; instances as polygons and run lengths.

`coco_panoptic` draws the same scenes with their segments.
"""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

THINGS = {1: "person", 3: "car", 18: "dog"}
"""Category ids and names; COCO's own ids have gaps as well."""

_PICTURES = {"train2017": 8, "val2017": 4}
_COLOURS = {1: (200, 60, 60), 3: (60, 200, 60), 18: (60, 60, 200)}
_LICENCE = {"id": 1, "name": "CC0", "url": "https://creativecommons.org/publicdomain/zero/1.0/"}


@dataclasses.dataclass(frozen=True)
class Scene:
    """One picture of the sample.

    Attributes:
        folder: `train2017` or `val2017`.
        image: its entry in the list `images`.
        boxes: (category id, left, top, right, bottom) of each rectangle; the last of a scene is
            marked as a crowd. The last scene of a folder has none.
    """

    folder: str
    image: dict[str, Any]
    boxes: tuple[tuple[int, int, int, int, int], ...]


def scenes() -> Iterator[Scene]:
    """The scenes of the sample, the same at every call."""
    for folder, count in _PICTURES.items():
        for number in range(count):
            identity = (9 if folder == "train2017" else 139) + 16 * number
            width, height = 48 + 8 * (number % 3), 36 + 4 * (number % 2)
            boxes = tuple(
                (category, 2 + 15 * place, 3 + number, 12 + 15 * place, 16 + number + 3 * place)
                for place, category in enumerate(THINGS)
            )
            image = {
                "license": 1,
                "file_name": f"{identity:012d}.jpg",
                "height": height,
                "width": width,
                "id": identity,
            }
            yield Scene(folder, image, boxes if number < count - 1 else ())


def write_pictures(root: Path) -> Mapping[str, int]:
    """Writes the scenes' pictures; returns the number of items of each split."""
    generator = np.random.default_rng(0)
    for scene in scenes():
        shape = (scene.image["height"], scene.image["width"], 3)
        picture = generator.integers(0, 60, shape, np.uint8)
        for category, left, top, right, bottom in scene.boxes:
            picture[top:bottom, left:right] = _COLOURS[category]
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "JPEG", quality=90)
        folder = root / scene.folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / scene.image["file_name"]).write_bytes(file.getvalue())
    return {"train": _PICTURES["train2017"], "validation": _PICTURES["val2017"]}


def write_json(root: Path, name: str, content: Mapping[str, Any]) -> None:
    """Writes an annotation file with what all of them begin with."""
    folder = root / "annotations"
    folder.mkdir(parents=True, exist_ok=True)
    info = {"description": "a sample in the layout of COCO 2017", "year": 2017}
    document = {"info": info, "licenses": [_LICENCE], **content}
    (folder / name).write_text(json.dumps(document), encoding="utf-8")


def write_sample(root: Path) -> Mapping[str, int]:
    """Writes the sample, the same at every call; returns the number of items of each split."""
    counts = write_pictures(root)
    for folder in _PICTURES:
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for scene in (scene for scene in scenes() if scene.folder == folder):
            images.append(scene.image)
            for place, (category, *corners) in enumerate(scene.boxes):
                left, top, right, bottom = corners
                crowd = place == len(scene.boxes) - 1
                segmentation = _runs(scene, corners) if crowd else _polygons(corners)
                annotations.append(
                    {
                        "segmentation": segmentation,
                        "area": (right - left) * (bottom - top),
                        "iscrowd": int(crowd),
                        "image_id": scene.image["id"],
                        "bbox": [left, top, right - left, bottom - top],
                        "category_id": category,
                        "id": 1000 + len(annotations),
                    }
                )
        content = {
            "images": images,
            "annotations": annotations[::-1],  # as in COCO, not in the order of the pictures
            "categories": [
                {"supercategory": "thing", "id": identity, "name": name}
                for identity, name in THINGS.items()
            ],
        }
        write_json(root, f"instances_{folder}.json", content)
    return counts


def _polygons(corners: list[int]) -> list[list[float]]:
    """A rectangle in two parts, upper and lower."""
    left, top, right, bottom = map(float, corners)
    middle = top + 5
    return [
        [left, top, right, top, right, middle, left, middle],
        [left, middle, right, middle, right, bottom, left, bottom],
    ]


def _runs(scene: Scene, corners: list[int]) -> dict[str, Any]:
    """A rectangle as run lengths down the columns."""
    left, top, right, bottom = corners
    height, width = scene.image["height"], scene.image["width"]
    mask = np.zeros((height, width), np.uint8)
    mask[top:bottom, left:right] = 1
    column_wise = mask.T.ravel()
    begins = np.flatnonzero(np.diff(column_wise, prepend=0))
    return {"size": [height, width], "counts": np.diff([0, *begins, mask.size]).tolist()}
