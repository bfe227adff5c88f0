"""Which class each image of ImageNet's validation is of, and what the classes are called.

Two sources tell it. The development kit has one line per image in the order of their numbers, with
the challenge's own number of the class, which `meta.mat` turns into a WordNet id. Kaggle's files
name image and WordNet id.
"""

from __future__ import annotations

import dataclasses
import gzip
import io
import re
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from trainer.data.files import read_file
from trainer.data.imagenet.archive import index_content
from trainer.data.imagenet.synsets import WNID
from trainer.data.matlab import list_variables, read_variable
from trainer.errors import BadItem, UserError

DEVKIT = "ILSVRC2012_devkit_t12"
DEVKIT_ARCHIVE = f"{DEVKIT}.tar.gz"
SOLUTION = "LOC_val_solution.csv"
MAPPING = "LOC_synset_mapping.txt"

_LABELS = "ILSVRC2012_validation_ground_truth.txt"
_META = "meta.mat"
_CLASS_NUMBER = re.compile(r"[0-9]{1,9}")
_MAX_ARCHIVE = 2**26  # bytes of the unpacked development kit: 64 MiB (ours)
_MAX_META = 2**24  # bytes of the unpacked synsets: 16 MiB (ours)
_MAX_LINES = 200_000  # of a text file (ours); the labels have 50,000
_SHOWN = 40  # characters of a wrong line that are told


@dataclasses.dataclass(frozen=True)
class GroundTruth:
    """What is known about the validation images and the classes.

    Attributes:
        source: file that says which image is of which class; "" if there is none.
        wnids: name of an image without extension -> WordNet id of its class.
        faults: name of an image without extension -> why its class is not known.
        words: WordNet id -> synonyms; of every class there is, or empty if no file tells.
    """

    source: str = ""
    wnids: Mapping[str, str] = dataclasses.field(default_factory=dict)
    faults: Mapping[str, str] = dataclasses.field(default_factory=dict)
    words: Mapping[str, str] = dataclasses.field(default_factory=dict)


def read_ground_truth(root: Path) -> GroundTruth:
    """What the development kit says, unpacked or not, or else Kaggle's files, if any is there.

    Raises:
        UserError: a file of the development kit is missing, or a file is damaged as a whole.
    """
    if (root / DEVKIT).is_dir():
        labels, meta = (_read(root, f"{DEVKIT}/data/{name}") for name in (_LABELS, _META))
        return _from_devkit(f"{DEVKIT}/data/{_LABELS}", labels, meta, root / DEVKIT)
    if (root / DEVKIT_ARCHIVE).is_file():
        labels, meta = _unpack(root, (_LABELS, _META))
        return _from_devkit(_LABELS, labels, meta, root / DEVKIT_ARCHIVE)
    return _from_kaggle(root)


def _unpack(root: Path, names: tuple[str, str]) -> list[bytes]:
    """The content of two files in the archive of the development kit."""
    path = root / DEVKIT_ARCHIVE
    packed = _read(root, DEVKIT_ARCHIVE)
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(packed)) as file:
            content = file.read(_MAX_ARCHIVE + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise _wrong(path, f"it is damaged or cut short ({error})") from error
    if len(content) > _MAX_ARCHIVE:
        raise _wrong(path, f"it unpacks to more than {_MAX_ARCHIVE:,} bytes")
    archive = index_content(path, lambda at, count: content[at : at + count], len(content))
    found = {archive.name(i): i for i in reversed(range(len(archive))) if i not in archive.faults}
    missing = [name for name in names if name not in found]
    if missing:
        raise _wrong(path, f"it has no {' and no '.join(missing)}")
    places = [(archive.offsets[found[name]], archive.sizes[found[name]]) for name in names]
    return [content[offset : offset + size] for offset, size in places]


def _from_devkit(source: str, labels: bytes, meta: bytes, place: Path) -> GroundTruth:
    synsets = _synsets(meta, place)
    wnids, faults = {}, {}
    for number, line in _lines(labels, source):
        image = f"ILSVRC2012_val_{number:08d}"
        if _CLASS_NUMBER.fullmatch(line) and int(line) in synsets:
            wnids[image] = synsets[int(line)][0]
        else:
            faults[image] = f"line {number:,} of {source} is {line[:_SHOWN]!r}"
    return GroundTruth(source, wnids, faults, dict(synsets.values()))


def _synsets(meta: bytes, place: Path) -> dict[int, tuple[str, str]]:
    """The challenge's number of a class -> its WordNet id and synonyms."""
    file = io.BytesIO(meta)
    try:
        variables = list_variables(file)
        if "synsets" not in variables:
            raise ValueError("it has no synsets")
        synsets = read_variable(file, variables["synsets"], _MAX_META)
        if not isinstance(synsets, list):
            raise ValueError("its synsets are no structures")
        numbered = dict(_synset(entry) for entry in synsets)
        if not len({wnid for wnid, _ in numbered.values()}) == len(numbered) == len(synsets):
            raise ValueError("a synset is there twice")
    except ValueError as error:
        raise _wrong(place / "data" / _META, str(error)) from error
    return numbered


def _synset(entry: object) -> tuple[int, tuple[str, str]]:
    values = entry if isinstance(entry, dict) else {}
    number, wnid, words = (values.get(name) for name in ("ILSVRC2012_ID", "WNID", "words"))
    if not (
        isinstance(number, np.ndarray)
        and number.size == 1
        and number.dtype.kind in "iuf"
        and np.isfinite(number).all()
        and isinstance(wnid, str)
        and WNID.fullmatch(wnid)
        and isinstance(words, str)
    ):
        raise ValueError("a synset lacks its ILSVRC2012_ID, WNID or words, or they are of no use")
    return int(number.item()), (wnid, words)


def _from_kaggle(root: Path) -> GroundTruth:
    words = {}
    if (root / MAPPING).is_file():
        for _, line in _lines(_read(root, MAPPING), MAPPING):
            wnid, _, synonyms = line.partition(" ")
            if WNID.fullmatch(wnid):
                words[wnid] = synonyms
    if not (root / SOLUTION).is_file():
        return GroundTruth(words=words)
    wnids: dict[str, str] = {}
    faults: dict[str, str] = {}
    for number, line in _lines(_read(root, SOLUTION), SOLUTION):
        image, _, boxes = line.partition(",")  # a WordNet id and four corners for each box
        wnid = boxes.split(" ")[0]
        if image == "ImageId":  # the names of the columns
            continue
        if not WNID.fullmatch(wnid) or (words and wnid not in words):
            faults[image] = f"line {number:,} of {SOLUTION} is {line[:_SHOWN]!r}, without a class"
        elif wnids.setdefault(image, wnid) != wnid:
            faults[image] = f"{SOLUTION} says {wnids[image]} and {wnid}"
    return GroundTruth(SOLUTION, wnids, faults, words)


def _lines(content: bytes, source: str) -> Iterator[tuple[int, str]]:
    """Each line and its number from 1, without those of nothing at the end."""
    count = content.rstrip().count(b"\n") + 1
    if count > _MAX_LINES:
        raise UserError(
            f"{source} must have a line for each image or class; it has {count:,}. Get it again."
        )
    for number, line in enumerate(io.BytesIO(content.rstrip()), 1):
        yield number, line.decode("utf-8", "backslashreplace").strip()


def _read(root: Path, path: str) -> bytes:
    try:
        return read_file(root.resolve(), path, "a file of ImageNet's")
    except BadItem as error:
        raise _wrong(root / path, error.reason) from error


def _wrong(path: Path, came: str) -> UserError:
    return UserError(
        f"{path} must be a whole file of ImageNet's, as it was published; {came}. Get it again."
    )
