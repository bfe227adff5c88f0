"""What the three views of COCO have in common: splits, keys, and pictures as they came."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Generic, TypeVar

import simplejpeg

from trainer.data.coco_detection.annotations import AnnotationFile, Picture
from trainer.data.files import read_file
from trainer.dataset import Feature
from trainer.errors import BadItem, UserError

FOLDERS = {"train": "train2017", "validation": "val2017"}
"""Split -> folder of its pictures. test2017 has no annotations and is left out."""

IMAGE = Feature("bytes", (), description="the picture's file, JPEG, as it came", content="image")
IMAGE_ID = Feature("int64", (), description="the picture's id in the annotation file")

_JPEG = b"\xff\xd8\xff"
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_SIZE = struct.Struct(">II")  # in the file behind signature 8, chunk length 4, "IHDR" 4


File = TypeVar("File", bound=AnnotationFile)


class CocoView(Generic[File]):
    """COCO on disk, open for reading; an annotation file is read once, a picture when asked for.

    Args:
        root: folder of the dataset.
        kind: the files are `annotations/<kind>_train2017.json` and `<kind>_val2017.json`.
        layout: what the folder must have, for messages.
        read: reads an annotation file.

    Raises:
        UserError: a file or folder is missing, or an annotation file is damaged as a whole, or the
            two splits have different categories.
    """

    evaluation_split = "validation"
    features: Mapping[str, Feature]

    def __init__(self, root: Path, kind: str, layout: str, read: Callable[[Path], File]):
        self._root = root.resolve()
        files = annotation_files(root, kind)
        missing = [str(path.relative_to(root)) for path in files.values() if not path.is_file()]
        missing += [f"{name}/" for name in FOLDERS.values() if not (root / name).is_dir()]
        if missing:
            raise UserError(f"COCO must have {layout}; {str(root)!r} lacks {', '.join(missing)}.")
        self._files = {split: read(path) for split, path in files.items()}
        train, validation = (file.categories for file in self._files.values())
        if train.names != validation.names or train.ids.tolist() != validation.ids.tolist():
            raise UserError(
                "Both splits must have the same categories; those of "
                f"{' and '.join(map(str, files.values()))} differ. Get both files again."
            )
        self.class_names = train.names
        self.splits = {split: len(file) for split, file in self._files.items()}

    def key(self, split: str, index: int) -> str:
        """Path of the picture below the root; `file#place` for an entry that cannot be used."""
        return self._files[split].key(index, FOLDERS[split])

    def _read_picture(self, split: str, picture: Picture) -> bytes:
        """The file of a picture.

        Raises:
            BadItem: it cannot be read, or has another size than the annotation file says.
        """
        data = read_file(
            self._root, f"{FOLDERS[split]}/{picture.name}", "every file that is listed in images"
        )
        size = _size(data)
        if size and size != (picture.width, picture.height):
            raise BadItem(
                f"the picture has {size[0]} × {size[1]} pixels, "
                f"its annotations are for {picture.width} × {picture.height}",
                "pictures of the width and height in the annotation file",
            )
        return data


def annotation_files(root: Path, kind: str) -> dict[str, Path]:
    """Split -> where its annotation file has to be."""
    return {
        split: root / "annotations" / f"{kind}_{folder}.json" for split, folder in FOLDERS.items()
    }


def _size(data: bytes) -> tuple[int, int] | None:
    """Width and height in a picture's header; None if the check of all pictures must tell.

    They are those of the pixels in the file: whoever uses COCO's annotations ignores EXIF.
    """
    if data.startswith(_JPEG):
        try:
            height, width, _, _ = simplejpeg.decode_jpeg_header(data, strict=False)
        except (KeyError, ValueError):  # KeyError where the colours are not known
            return None
        return width, height
    if data.startswith(_PNG) and len(data) >= 24:
        width, height = _PNG_SIZE.unpack_from(data, 16)
        return width, height
    return None
