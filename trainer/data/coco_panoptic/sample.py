"""A small panoptic COCO for tests: the scenes of `coco_detection`, each with its segments."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trainer.data.coco_detection.sample import THINGS, Scene, scenes, write_json, write_pictures
from trainer.data.images import encode_png

_GRASS, _SKY = 193, 187
_STUFF = {_SKY: "sky-other-merged", _GRASS: "grass-merged"}
_UNLABELLED = 3  # rows at the bottom that belong to no segment


def write_sample(root: Path) -> Mapping[str, int]:
    """Writes the sample, the same at every call; returns the number of items of each split."""
    counts = write_pictures(root)
    for folder in ("train2017", "val2017"):
        masks = root / "annotations" / f"panoptic_{folder}"
        masks.mkdir(parents=True, exist_ok=True)
        images, annotations = [], []
        for scene in (scene for scene in scenes() if scene.folder == folder):
            segments, drawn = _segments(scene)
            name = scene.image["file_name"].replace(".jpg", ".png")
            (masks / name).write_bytes(encode_png(drawn))
            images.append(scene.image)
            annotations.append(
                {"segments_info": segments, "file_name": name, "image_id": scene.image["id"]}
            )
        categories = [
            {"supercategory": "any", "isthing": int(kind is THINGS), "id": identity, "name": name}
            for kind in (THINGS, _STUFF)
            for identity, name in kind.items()
        ]
        content = {"images": images, "annotations": annotations, "categories": categories}
        write_json(root, f"panoptic_{folder}.json", content)
    return counts


def _segments(scene: Scene) -> tuple[list[dict[str, Any]], np.ndarray[Any, Any]]:
    """The segments of a scene, and their picture: uint8 [height, width, 3]."""
    height, width = scene.image["height"], scene.image["width"]
    ids = np.zeros((height, width), np.int64)
    categories = {3_226_956: _SKY, 7_000_001: _GRASS}
    ids[: height // 2], ids[height // 2 : height - _UNLABELLED] = categories
    for place, (category, left, top, right, bottom) in enumerate(scene.boxes):
        identity = 65_536 * (place + 1) + 256 * category + 7
        categories[identity] = category
        ids[top:bottom, left:right] = identity
    segments = []
    for identity, category in categories.items():
        rows, columns = np.nonzero(ids == identity)
        left, top = int(columns.min()), int(rows.min())
        segments.append(
            {
                "id": identity,
                "category_id": category,
                "iscrowd": int(category == max(THINGS)),
                "bbox": [left, top, int(columns.max()) - left + 1, int(rows.max()) - top + 1],
                "area": len(rows),
            }
        )
    colours = np.stack([ids & 255, ids >> 8 & 255, ids >> 16], axis=2)
    return segments, colours.astype(np.uint8)
