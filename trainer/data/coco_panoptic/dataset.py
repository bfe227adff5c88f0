"""Reads COCO 2017 as a panoptic dataset: pictures and the segments that their pixels belong to."""

from __future__ import annotations

import array
import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from trainer.data.coco_detection.annotations import (
    AnnotationFile,
    Objects,
    ObjectTable,
    Picture,
    is_file_name,
)
from trainer.data.coco_detection.dataset import marked
from trainer.data.coco_detection.view import FOLDERS, IMAGE, IMAGE_ID, CocoView, annotation_files
from trainer.data.files import read_file
from trainer.data.images import MAX_PIXELS
from trainer.dataset import DatasetInfo, Example, Feature
from trainer.errors import BadItem, UserError

INFO = DatasetInfo(
    title="COCO 2017, panoptic segmentation",
    homepage="https://cocodataset.org/#download",
    licence="annotations: CC BY 4.0; images: each under its terms on Flickr",
    layout="{train,val}2017/<image>.jpg, annotations/panoptic_{train,val}2017.json, and "
    "[annotations/]panoptic_{train,val}2017/<image>.png",
)

_HEADER = struct.Struct(">8sI4sIIBB")  # signature; length, "IHDR", width, height, depth, colours
_RGB = 2  # PNG's colour type
_EXPECTED = "a PNG of the picture's size, RGB of 8 bits, as COCO has for segments"

_FEATURES = {
    "image": IMAGE,
    "mask": Feature(
        "bytes",
        (),
        description="RGB PNG as it came: a pixel's segment is R + 256 G + 65536 B, 0 for none",
        content="mask",
    ),
    "segment_id": Feature(
        "int64", (None,), description="number of each segment in the mask, 1 to 16777215"
    ),
    "box": Feature(
        "float32",
        (None, 4),
        description="left, top, right, bottom of each segment in pixels",
        content="box",
    ),
    "label": Feature(
        "int64",
        (None,),
        description="number of each segment's class, in the order of category ids: 0 to 79 for "
        "things, 80 to 132 for stuff",
        content="label",
    ),
    "crowd": Feature(
        "int64", (None,), description="1 for a group of things that is marked as one, else 0"
    ),
    "area": Feature("float32", (None,), description="number of each segment's pixels"),
    "image_id": IMAGE_ID,
}


class CocoPanoptic(CocoView["_SegmentFile"]):
    """The segments of COCO.

    Raises:
        UserError: see `CocoView`; or a folder of pictures of segments is missing.
    """

    features = _FEATURES

    def __init__(self, root: Path):
        super().__init__(root, "panoptic", INFO.layout, _SegmentFile)
        self._folders = {}
        for split, folder in FOLDERS.items():
            names = [f"{parent}panoptic_{folder}" for parent in ("annotations/", "")]
            there = [name for name in names if (root / name).is_dir()]
            if not there:
                raise UserError(
                    f"COCO must have {INFO.layout}; {str(root)!r} has no folder "
                    f"{' or '.join(names)}. Unpack panoptic_{folder}.zip, which lies within the "
                    "archive of annotations."
                )
            self._folders[split] = there[0]

    def read(self, split: str, index: int) -> Example:
        """A picture, the picture of its segments, and what they are.

        Raises:
            BadItem: a picture or an entry cannot be used, or the two do not say the same.
        """
        file = self._files[split]
        picture = file.picture(index)
        name = file.mask_name(index)
        objects = file.objects.of(index)
        data = self._read_picture(split, picture)
        mask = read_file(
            self._root, f"{self._folders[split]}/{name}", "a picture of segments for every picture"
        )
        _check_segments(_segment_ids(mask, picture), objects)
        return {
            "image": data,
            "mask": mask,
            "segment_id": objects.id,
            **marked(objects),
            "image_id": picture.id,
        }


class _SegmentFile(AnnotationFile):
    """A panoptic annotation file: an annotation is all there is of a picture."""

    def __init__(self, path: Path):
        self._mask_names: list[str] = []  # of each annotation; "" if it cannot be used
        self._annotations = array.array("q")  # annotation of each segment
        super().__init__(path, ObjectTable("segment"))

    def add(self, entry: object, text: str) -> None:
        fields: dict[str, Any] = entry if isinstance(entry, dict) else {}
        name, segments = fields.get("file_name"), fields.get("segments_info")
        if is_file_name(name) and isinstance(segments, list):
            for segment in segments:
                self._annotations.append(len(self._mask_names))
                self.objects.add(segment)
            self._mask_names.append(name)
        else:
            self._mask_names.append("")

    def seal(self, places: np.ndarray[Any, Any]) -> None:
        of_segments = places[np.array(self._annotations, np.int64)]
        self.objects.seal(of_segments, len(self.pictures), self.categories)
        listed = np.flatnonzero(places >= 0)
        self._counts = np.bincount(places[listed], minlength=len(self.pictures))
        self._of_picture = np.full(len(self.pictures), -1)
        self._of_picture[places[listed]] = listed
        self._annotations = array.array("q")

    def mask_name(self, index: int) -> str:
        """Name of the file that shows a picture's segments.

        Raises:
            BadItem: the picture has not just one annotation, or that cannot be used.
        """
        expected = "one annotation per picture, with file_name and the list segments_info"
        if self._counts[index] != 1:
            raise BadItem(f"the picture has {self._counts[index]} annotations", expected)
        number = int(self._of_picture[index])
        name = self._mask_names[number]
        if not name:
            raise BadItem(
                f"annotations[{number}]: its file_name is not the name of a file, or it has no "
                "list of segments",
                expected,
            )
        return name


def _segment_ids(mask: bytes, picture: Picture) -> np.ndarray[Any, Any]:
    """The segment of each pixel, uint32 [height × width], row by row; 0 for none."""
    if len(mask) < _HEADER.size or not mask.startswith(b"\x89PNG\r\n\x1a\n"):
        raise BadItem("its picture of segments is no PNG", _EXPECTED)
    _, _, _, width, height, depth, colour_type = _HEADER.unpack_from(mask)
    if (width, height) != (picture.width, picture.height):
        raise BadItem(
            f"its picture of segments has {width} × {height} pixels, the picture {picture.width} × "
            f"{picture.height}",
            _EXPECTED,
        )
    if (depth, colour_type) != (8, _RGB):
        raise BadItem("its picture of segments is not RGB of 8 bits", _EXPECTED)
    if width * height > MAX_PIXELS:
        raise BadItem(f"{width * height:,} pixels", f"at most {MAX_PIXELS:,} pixels")
    try:
        with Image.open(io.BytesIO(mask), formats=("PNG",)) as image:
            if image.size != (width, height):
                raise ValueError("it has two headers")
            # Four bytes for each pixel are a number; the fourth, how opaque it is, is left out.
            pixels = np.frombuffer(image.convert("RGBA").tobytes(), "<u4")
    except Exception as error:  # decoders raise a dozen kinds for damaged data
        raise BadItem(f"its picture of segments is damaged ({error})", _EXPECTED) from error
    ids: np.ndarray[Any, Any] = pixels & 0xFFFFFF
    return ids


def _check_segments(ids: np.ndarray[Any, Any], objects: Objects) -> None:
    """That the segments drawn are the segments listed, and have as many pixels."""
    # Runs of equal pixels are far fewer than pixels, and much faster to sort.
    begins = np.flatnonzero(np.concatenate([[True], ids[1:] != ids[:-1]]))
    lengths = np.diff(begins, append=len(ids))
    drawn, which = np.unique(ids[begins], return_inverse=True)
    pixels = dict(zip(drawn.tolist(), np.bincount(which, lengths).tolist(), strict=True))
    pixels.pop(0, None)
    listed = dict(zip(objects.id.tolist(), objects.area.tolist(), strict=True))
    if len(listed) < len(objects.id):
        raise BadItem("two segments have the same id", "segments with an id of their own")
    expected = "the same segments in segments_info and in the picture of segments"
    for segment in sorted(pixels.keys() - listed.keys()):
        raise BadItem(f"segment {segment} is drawn but not listed", expected)
    for segment in sorted(listed.keys() - pixels.keys()):
        raise BadItem(f"segment {segment} is listed but not drawn", expected)
    for segment, area in listed.items():
        if pixels[segment] != area:
            raise BadItem(
                f"segment {segment} has {pixels[segment]:,.0f} pixels, its area is {area:,.0f}",
                "areas that are numbers of pixels",
            )


def recognises(root: Path) -> bool:
    """Whether there is a panoptic annotation file, and none of instances."""
    there = {
        kind: any(path.is_file() for path in annotation_files(root, kind).values())
        for kind in ("panoptic", "instances")
    }
    return there["panoptic"] and not there["instances"]


def open_dataset(root: Path) -> CocoPanoptic:
    """Opens COCO 2017 as a panoptic dataset.

    Raises:
        UserError: a file or folder is missing or damaged.
    """
    return CocoPanoptic(root)
