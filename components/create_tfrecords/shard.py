"""One shard of examples: the unit of work that is done whole or done again."""

from __future__ import annotations

import collections
import dataclasses
import errno
import functools
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xxhash

from trainer.artifact import read_json, write_json
from trainer.data.check import check_example
from trainer.data.examples import example_pieces
from trainer.data.images import Unusual
from trainer.data.manifest import Check, Shard
from trainer.data.records import RecordWriter
from trainer.dataset import Dataset, Feature
from trainer.errors import BadItem, UserError

Duplicates = Literal["quarantine", "keep"]

NOTES = "notes"
"""Folder for what is known of finished shards, beside them until all are finished."""

_KEY = Feature("bytes", description="name of the item in its dataset, unique, in UTF-8")
_SHUFFLE_SEED = 0
_REPORTED = 16  # examples between two reports of progress

DIGESTS = np.dtype([("record", "V16"), ("image", "<u8")])
"""What is kept of each example: XXH3 of its record (128 bits) and of its image's file (64 bits)."""


@dataclasses.dataclass(frozen=True)
class Work:
    """What all shards of a run have in common.

    Attributes:
        folder: where shards and notes are written.
        root: folder of the dataset.
        dataset: name of its adapter.
        unusual: see `trainer.data.images.check_image`.
        check: see there.
        seen: split -> image digests of its examples, sorted; what is in one of these splits must
            not be in the shards to be written.
    """

    folder: str
    root: str
    dataset: str
    unusual: Unusual
    check: Check
    seen: Mapping[str, np.ndarray[Any, Any]]


@dataclasses.dataclass(frozen=True)
class Job:
    """One shard to be written: number `number` of the `shards` of a split."""

    split: str
    number: int
    shards: int

    @property
    def file(self) -> str:
        """Name of the shard's file."""
        return f"{self.split}-{self.number:05d}-of-{self.shards:05d}.tfrecord"


@dataclasses.dataclass(frozen=True)
class Refused:
    """An item that is not in the shard, by its place in the dataset, and why."""

    index: int
    key: str
    reason: str
    expected: str


@dataclasses.dataclass(frozen=True)
class Changed:
    """An item that is not stored as it came, by its place in the dataset, and what was done."""

    index: int
    key: str
    change: str


@dataclasses.dataclass(frozen=True)
class Note:
    """What is known of a finished shard.

    Attributes:
        shard: for the manifest.
        refused: what is not in it.
        changed: what is in it in another form.
        labels: number of times that each label occurs.
    """

    shard: Shard
    refused: tuple[Refused, ...]
    changed: tuple[Changed, ...]
    labels: Mapping[int, int]


def all_features(source: Dataset) -> dict[str, Feature]:
    """The features of the examples of a dataset, `key` among them."""
    return {"key": _KEY, **source.features}


class ShardWriter:
    """Writes shards of an open dataset.

    Args:
        source: the dataset.
        work: what all shards have in common.
        threaded: see `trainer.data.records.RecordWriter`.
    """

    def __init__(self, source: Dataset, work: Work, threaded: bool):
        self._source = source
        self._work = work
        self._threaded = threaded
        self._features = all_features(source)
        self._images = [n for n, f in source.features.items() if f.content == "image"]
        self._labels = [n for n, f in source.features.items() if f.content == "label"]

    def __call__(self, job: Job, advance: Callable[[int], None]) -> None:
        """Writes a shard and then its note, each under a temporary name that it loses at the end.

        Args:
            job: the shard.
            advance: is told now and then how many more items are done.

        Raises:
            UserError: the dataset cannot be read any further, or the disk is full.
        """
        try:
            self._write(job, advance)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise UserError(
                f"The disk of {self._work.folder!r} must have room for the examples; "
                f"{error.strerror}. Make room and run it again: it goes on where it stopped."
            ) from error

    def _write(self, job: Job, advance: Callable[[int], None]) -> None:
        folder = Path(self._work.folder)
        draft = folder / f".{job.file}.unfinished"
        refused: list[Refused] = []
        changed: list[Changed] = []
        labels: collections.Counter[int] = collections.Counter()
        indices = self._indices(job)
        digests = np.empty(len(indices), DIGESTS)
        waiting = 0
        with RecordWriter(draft, self._threaded) as writer:
            for index in map(int, indices):
                waiting += 1
                if waiting == _REPORTED:
                    advance(waiting)
                    waiting = 0
                key = self._source.key(job.split, index)
                try:
                    example, changes = self._example(job.split, index, key)
                    image = self._image_digest(example)
                except BadItem as error:
                    refused.append(Refused(index, key, error.reason, error.expected))
                    continue
                pieces = example_pieces(self._features, example)
                writer.write(pieces)
                digests[writer.records - 1] = (_digest(pieces), image)
                changed += [Changed(index, key, change) for change in changes]
                for name in self._labels:
                    value = example[name]
                    labels.update([value] if isinstance(value, int) else value.ravel().tolist())
        (folder / NOTES).mkdir(exist_ok=True)
        digests[: writer.records].tofile(_digests_file(folder, job))
        os.replace(draft, folder / job.file)
        note = Note(writer.shard(job.file), tuple(refused), tuple(changed), dict(labels))
        write_json(_note_file(folder, job), dataclasses.asdict(note))
        advance(waiting)

    def _indices(self, job: Job) -> np.ndarray[Any, Any]:
        """The items of a shard: folders are sorted by class, so items are dealt out at random."""
        order = _order(self._source.splits[job.split])
        begin, end = (len(order) * n // job.shards for n in (job.number, job.number + 1))
        return order[begin:end]

    def _example(self, split: str, index: int, key: str) -> tuple[dict[str, Any], list[str]]:
        try:
            example = self._source.read(split, index)
        except OSError as error:
            reason = f"it cannot be read ({error.strerror or error})"
            raise BadItem(reason, "a readable file") from error
        checked, changes = check_example(
            self._source.features,
            example,
            key,
            len(self._source.class_names),
            self._work.unusual,
            self._work.check,
        )
        return {"key": key.encode(), **checked}, changes

    def _image_digest(self, example: Mapping[str, Any]) -> int:
        """The digest of the example's image, which no earlier split may have; 0 without an image.

        Raises:
            BadItem: an earlier split has the same image.
        """
        for name in self._images:
            digest: int = xxhash.xxh3_64_intdigest(example[name])
            for split, seen in self._work.seen.items():
                place = np.searchsorted(seen, np.uint64(digest))
                if place < len(seen) and seen[place] == digest:
                    raise BadItem(
                        f"the same image is in the split {split}", "an image that is in one split"
                    )
            return digest
        return 0


def read_note(folder: Path, job: Job) -> Note | None:
    """What is known of a shard; None if it is not finished."""
    file = _note_file(folder, job)
    if not file.is_file():
        return None
    values = read_json(file)
    sizes = {
        folder / job.file: values["shard"]["bytes"],
        _digests_file(folder, job): values["shard"]["records"] * DIGESTS.itemsize,
    }
    # Notes are removed at the very end, and a run may be cut short there too.
    if any(not path.is_file() or path.stat().st_size != size for path, size in sizes.items()):
        return None
    return Note(
        shard=Shard(**values["shard"]),
        refused=tuple(Refused(**item) for item in values["refused"]),
        changed=tuple(Changed(**item) for item in values["changed"]),
        labels={int(label): count for label, count in values["labels"].items()},
    )


def read_digests(folder: Path, job: Job) -> np.ndarray[Any, Any]:
    """The digests of the examples of a finished shard, in order."""
    return np.fromfile(_digests_file(folder, job), DIGESTS)


def _digest(pieces: Iterable[bytes]) -> bytes:
    digest = xxhash.xxh3_128()
    for piece in pieces:
        digest.update(piece)
    value: bytes = digest.digest()
    return value


def _note_file(folder: Path, job: Job) -> Path:
    return folder / NOTES / f"{job.file}.json"


def _digests_file(folder: Path, job: Job) -> Path:
    return folder / NOTES / f"{job.file}.digests"


@functools.lru_cache(maxsize=1)
def _order(items: int) -> np.ndarray[Any, Any]:
    """The fixed random order in which a split of so many items is stored."""
    return np.random.Generator(np.random.PCG64(_SHUFFLE_SEED)).permutation(items)
