"""What every example must hold whatever its dataset: rules by the content of its features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from trainer.data.images import SIDEWAYS, CheckedImage, Unusual, check_image
from trainer.data.manifest import Check
from trainer.dataset import Example, Feature
from trainer.errors import BadItem

OVERHANG = 1.0
"""Pixels by which a box may reach over the edge of its image, and is cut off there (ours): boxes
are measured by hand and rounded."""


def check_example(
    features: Mapping[str, Feature],
    example: Example,
    name: str,
    classes: int,
    unusual: Unusual = "quarantine",
    check: Check = "decode",
) -> tuple[dict[str, Any], list[str]]:
    """An example as it is to be stored, and what was changed about it.

    Args:
        features: what it holds.
        example: as its dataset reads it.
        name: of its image's file, for the extension.
        classes: how many classes there are; 0 where labels are not bounded.
        unusual: see `trainer.data.images.check_image`.
        check: see there.

    Raises:
        BadItem: a picture, mask, box, label, text or number cannot be used; the reason says which.
    """
    stored = dict(example)
    changes: list[str] = []
    image: CheckedImage | None = None
    for feature, declared in features.items():
        if declared.content == "image":  # before all that lies on it
            image = check_image(stored[feature], name, unusual, check)
            stored[feature] = image.data
            if image.change:
                changes.append(image.change)
    for feature, declared in features.items():
        value = stored[feature]
        if image and image.orientation != 1 and declared.content in ("box", "mask"):
            _check_turned(feature, value, image)
        if declared.content == "mask":
            _check_masks(feature, value, image, check)
        elif declared.content == "box":
            stored[feature] = _checked_boxes(feature, value, image)
        elif declared.content == "label":
            _check_labels(feature, value, classes)
        elif declared.content == "text":
            _check_texts(feature, value)
        elif declared.dtype == "float32" and not np.isfinite(value).all():
            raise BadItem(f"{feature} has a value that is NaN or infinite", "finite numbers")
    return stored, changes


def _check_turned(name: str, value: Any, image: CheckedImage) -> None:
    """Refuses boxes and masks of which nobody can know whether they are of the upright picture.

    Some tools for drawing them heed EXIF, others do not. Only a mask that lies on its side tells.
    """
    masks = [value] if isinstance(value, bytes) else value
    if not len(masks):
        return
    sideways = image.orientation in SIDEWAYS and image.width != image.height
    if isinstance(masks[0], bytes) and sideways:
        return  # its size is compared with that of the upright picture
    raise BadItem(
        f"the EXIF orientation is {image.orientation}, and {name} may be drawn on the picture "
        "before or after it is turned",
        "a picture without EXIF orientation where there are boxes or masks",
    )


def _check_masks(name: str, values: Any, image: CheckedImage | None, check: Check) -> None:
    masks = [values] if isinstance(values, bytes) else list(values)
    for number, mask in enumerate(masks):
        which = name if isinstance(values, bytes) else f"{name} {number}"
        try:
            checked = check_image(mask, "mask.png", check=check)
        except BadItem as error:
            raise BadItem(f"{which}: {error.reason}", "masks that are PNG") from error
        if checked.change:
            raise BadItem(f"{which} asks viewers to turn it (EXIF)", "masks without EXIF")
        if image and (checked.width, checked.height) != (image.width, image.height):
            turned = " after it was turned upright" if image.change else ""
            raise BadItem(
                f"{which} has {checked.width} × {checked.height} pixels, "
                f"the image {image.width} × {image.height}{turned}",
                "masks of the size of the image",
            )


def _checked_boxes(name: str, values: Any, image: CheckedImage | None) -> np.ndarray[Any, Any]:
    """The boxes, cut off at the edge of the image where they reach over it by next to nothing."""
    boxes = np.asarray(values)
    rows = boxes.reshape(-1, 4)
    for number, (left, top, right, bottom) in enumerate(rows.tolist()):
        which = f"{name} {number}" if boxes.ndim > 1 else name
        corners = f"({left:g}, {top:g}, {right:g}, {bottom:g})"
        if not np.isfinite((left, top, right, bottom)).all():
            raise BadItem(f"{which} has a corner that is NaN or infinite: {corners}", "numbers")
        if left >= right or top >= bottom:
            raise BadItem(
                f"{which} is inverted or empty: {corners}", "left < right and top < bottom"
            )
        if image and (
            min(left, top) < -OVERHANG
            or right > image.width + OVERHANG
            or bottom > image.height + OVERHANG
            or left >= image.width
            or top >= image.height
            or right <= 0
            or bottom <= 0
        ):
            raise BadItem(
                f"{which} reaches out of the image: {corners}",
                f"boxes within its {image.width} × {image.height} pixels",
            )
    if image is None:
        return boxes
    limits = np.array([image.width, image.height] * 2, boxes.dtype)
    clipped: np.ndarray[Any, Any] = np.clip(rows, 0, limits)
    return clipped.reshape(boxes.shape)


def _check_labels(name: str, values: Any, classes: int) -> None:
    for label in [values] if isinstance(values, int) else values.ravel().tolist():
        if label < 0 or (classes and label >= classes):
            raise BadItem(
                f"{name} is {label}", f"a label from 0 to {classes - 1}" if classes else "0 or more"
            )


def _check_texts(name: str, values: Any) -> None:
    texts = [values] if isinstance(values, bytes) else list(values)
    for number, text in enumerate(texts):
        which = name if isinstance(values, bytes) else f"{name} {number}"
        try:
            empty = not text.decode("utf-8").strip()
        except UnicodeDecodeError as error:
            raise BadItem(f"{which} is not UTF-8 ({error.reason})", "text in UTF-8") from error
        if empty:
            raise BadItem(f"{which} is empty", "text with something in it")
