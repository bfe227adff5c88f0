"""Reads COCO 2017 as a detection dataset: pictures, boxes and classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from trainer.data.coco_detection.annotations import AnnotationFile, Objects, ObjectTable
from trainer.data.coco_detection.view import IMAGE, IMAGE_ID, CocoView, annotation_files
from trainer.dataset import DatasetInfo, Example, Feature

INFO = DatasetInfo(
    title="COCO 2017, detection",
    homepage="https://cocodataset.org/#download",
    licence="annotations: CC BY 4.0; images: each under its terms on Flickr",
    layout="{train,val}2017/<image>.jpg and annotations/instances_{train,val}2017.json",
)

FEATURES = {
    "image": IMAGE,
    "box": Feature(
        "float32",
        (None, 4),
        description="left, top, right, bottom of each instance in pixels",
        content="box",
    ),
    "label": Feature(
        "int64",
        (None,),
        description="number of each instance's class: 0 to 79, in the order of category ids",
        content="label",
    ),
    "crowd": Feature(
        "int64", (None,), description="1 for a group of objects that is marked as one, else 0"
    ),
    "area": Feature(
        "float32", (None,), description="area of each instance's outline in pixels, as published"
    ),
    "image_id": IMAGE_ID,
}
"""What an example of boxes has; the order of instances is the same in all of them."""


class CocoDetection(CocoView[AnnotationFile]):
    """The instances of COCO as boxes.

    Raises:
        UserError: see `CocoView`.
    """

    features = FEATURES

    def __init__(self, root: Path):
        super().__init__(root, "instances", INFO.layout, self._read_annotations)

    def _read_annotations(self, path: Path) -> AnnotationFile:
        return AnnotationFile(path, ObjectTable("annotation"))

    def read(self, split: str, index: int) -> Example:
        """A picture and what is marked in it; nothing, if there is nothing.

        Raises:
            BadItem: the picture, its entry, or one of its annotations cannot be used.
        """
        file = self._files[split]
        picture = file.picture(index)
        objects = file.objects.of(index)
        return {
            "image": self._read_picture(split, picture),
            **marked(objects),
            "image_id": picture.id,
        }


def marked(objects: Objects) -> dict[str, np.ndarray[Any, Any]]:
    """The features box, label, crowd and area."""
    return {
        "box": objects.box,
        "label": objects.label,
        "crowd": objects.crowd,
        "area": objects.area.astype(np.float32),
    }


def recognises(root: Path) -> bool:
    """Whether there is an annotation file of instances; then this view is chosen of the three."""
    return any(path.is_file() for path in annotation_files(root, "instances").values())


def open_dataset(root: Path) -> CocoDetection:
    """Opens COCO 2017 as a detection dataset.

    Raises:
        UserError: a file is missing or damaged.
    """
    return CocoDetection(root)
