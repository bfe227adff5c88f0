"""Reads COCO 2017 as an instance segmentation dataset: pictures, boxes, classes and masks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from trainer.data.coco_detection.annotations import AnnotationFile, ObjectTable, Texts
from trainer.data.coco_detection.dataset import FEATURES, marked
from trainer.data.coco_detection.dataset import INFO as DETECTION
from trainer.data.coco_detection.view import CocoView
from trainer.data.coco_instances.masks import draw, encode_mask
from trainer.data.images import MAX_PIXELS
from trainer.dataset import DatasetInfo, Example, Feature
from trainer.errors import BadItem

INFO = DatasetInfo(
    title="COCO 2017, instance segmentation",
    homepage=DETECTION.homepage,
    licence=DETECTION.licence,
    layout=DETECTION.layout,
)

MOST_MASK_PIXELS = 2**31
"""Most pixels of all masks of one picture together (ours): 6,990 masks of 640 × 480, ten seconds'
work, where COCO has up to some hundred."""

_FEATURES = {
    **FEATURES,
    "mask": Feature(
        "bytes",
        (None,),
        description="each instance's mask as grey PNG: 255 within its outline, 0 elsewhere",
        content="mask",
    ),
}


class CocoInstances(CocoView["_OutlineFile"]):
    """The instances of COCO as boxes and masks.

    Raises:
        UserError: see `CocoView`.
    """

    features = _FEATURES

    def __init__(self, root: Path):
        super().__init__(root, "instances", INFO.layout, _OutlineFile)

    def read(self, split: str, index: int) -> Example:
        """A picture, what is marked in it, and a mask of each; nothing, if there is nothing.

        Raises:
            BadItem: the picture, its entry, or one of its annotations cannot be used.
        """
        file = self._files[split]
        picture = file.picture(index)
        objects = file.objects.of(index)
        data = self._read_picture(split, picture)
        pixels = picture.width * picture.height
        if pixels > MAX_PIXELS or pixels * len(objects.number) > MOST_MASK_PIXELS:
            raise BadItem(
                f"{len(objects.number):,} masks of {pixels:,} pixels",
                f"pictures of at most {MAX_PIXELS:,} pixels, masks of {MOST_MASK_PIXELS:,} in all",
            )
        masks = np.empty(len(objects.number), object)
        texts = file.texts.of(objects.number.tolist())
        for place, (number, text) in enumerate(zip(objects.number, texts, strict=True)):
            try:
                mask = draw(json.loads(text).get("segmentation"), picture.height, picture.width)
            except BadItem as error:
                reason = f"annotation {number} of the file: {error.reason}"
                raise BadItem(reason, error.expected) from error
            masks[place] = encode_mask(mask)
        return {"image": data, **marked(objects), "mask": masks, "image_id": picture.id}


class _OutlineFile(AnnotationFile):
    """An annotation file whose outlines are kept."""

    def __init__(self, path: Path):
        self.texts = Texts()
        super().__init__(path, ObjectTable("annotation"))

    def add(self, entry: object, text: str) -> None:
        super().add(entry, text)
        self.texts.append(text)

    def seal(self, places: np.ndarray[Any, Any]) -> None:
        super().seal(places)
        self.texts.seal()


def recognises(root: Path) -> bool:
    """Never: `coco_detection` recognises the same files, so this view is chosen by its name."""
    return False


def open_dataset(root: Path) -> CocoInstances:
    """Opens COCO 2017 as an instance segmentation dataset.

    Raises:
        UserError: a file is missing or damaged.
    """
    return CocoInstances(root)
