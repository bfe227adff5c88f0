"""The step create_tfrecords: a dataset as it lies on disk becomes shards of checked examples."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import math
import os
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import xxhash

import components.create_tfrecords
import trainer.data
from components.create_tfrecords.shard import (
    NOTES,
    Duplicates,
    Job,
    Note,
    Work,
    all_features,
    read_digests,
    read_note,
)
from components.create_tfrecords.workers import Crew, usable_processors
from trainer import catalog
from trainer.artifact import resumable_folder, write_text
from trainer.data.images import Unusual
from trainer.data.manifest import CHANGES, QUARANTINE, Check, Manifest, Split, write_manifest
from trainer.data.notes import note_line
from trainer.dataset import Dataset
from trainer.errors import UserError
from trainer.progress import Progress

SHARD_BYTES = 2**27
"""Size that shards have about, 128 MiB: TensorFlow's guide to input pipelines advises files of
100 MB and more."""

FEWEST_SHARDS = 4
"""Shards of a split of a small dataset (ours): enough for four workers or readers at once."""

MOST_SHARDS = 4096
"""Shards of a split of a huge dataset (ours): more files only slow down listing them."""

FEW_ITEMS = 2_000
"""Up to so many items, starting workers takes longer than they save (ours)."""

_NAMED = 10  # bad items, or classes, that a message names


def create_tfrecords(
    examples: str,
    data: str = "",
    dataset: str = "",
    shards: int = 0,
    max_bad_fraction: float = 0.01,
    unusual: str = "quarantine",
    check: str = "decode",
    duplicates: str = "quarantine",
    workers: int = 0,
) -> dict[str, dict[str, Any]]:
    """Turns a dataset as it lies on disk into TFRecord shards, each item checked.

    Images are stored as they came, unless their EXIF orientation asks viewers to turn them. What
    cannot be used is left out and listed with its reason in quarantine.jsonl; what is not stored as
    it came is listed in changes.jsonl. Every example gets a `key` that names its item. The same
    data give the same bytes, whatever the number of workers. The examples of each split are stored
    in a fixed random order: folders are sorted by class, and the buffer that shuffles them in
    training is much smaller than a class.

    Cut short and run again, the step goes on from the shards that are finished, if the data and the
    other arguments are as they were (`max_bad_fraction` and `workers` may change).

    Args:
        examples: Folder to write; it appears when it is whole and replaces what stood there.
        data: Folder of the dataset; empty for a dataset that comes with an installed package.
        dataset: Name of the dataset; empty to tell it from the layout of the folder.
        shards: Number of files per split, never more than the split has items; 0 for files of about
            128 MiB, four at least.
        max_bad_fraction: Largest part of all items that may be bad, from 0 to 1.
        unusual: What becomes of CMYK, 16-bit and animated images, of formats other than JPEG and
            PNG, and of names that end in the wrong format: "quarantine", or "convert" to PNG.
        check: How images are checked: "decode" for every pixel, or "header", many times as fast,
            for headers, sizes and ends alone.
        duplicates: What becomes of an image that is in two splits: "quarantine" keeps it where
            numbers are measured and takes it out of the other split; "keep" leaves both.
        workers: Number of processes; 0 for as many as there are processors, or one where there is
            little to do.

    Returns:
        What is worth knowing about the artifact: dataset, number of examples of each split, number
        of items quarantined and changed, source_digest.

    Raises:
        UserError: an argument does not fit, the dataset cannot be opened, more items are bad than
            allowed, or a split is left without an example.
        TryAgain: workers keep dying.
    """
    _check_arguments(shards, max_bad_fraction, unusual, check, duplicates, workers)
    name, root, source = _open(data, dataset)
    total = sum(source.splits.values())
    listing = _Listing(root, Path(examples))
    jobs = {split: _jobs(source, split, shards, listing.bytes) for split in source.splits}
    plan = {
        "data": {"dataset": name, "root": str(root), "listing": listing.digest},
        "arguments": {"unusual": unusual, "check": check, "duplicates": duplicates},
        "shards": {split: len(of_split) for split, of_split in jobs.items()},
        "code": _code(),
    }
    progress = Progress(total, "examples")
    count = workers or (usable_processors() if total > FEW_ITEMS else 1)
    with resumable_folder(examples, plan) as folder, Crew(source, count) as crew:
        seen: dict[str, np.ndarray[Any, Any]] = {}
        for split in _order_of_splits(source):
            work = Work(
                str(folder), str(root), name, cast(Unusual, unusual), cast(Check, check), seen
            )
            remaining = []
            for job in jobs[split]:
                note = read_note(folder, job)
                if note is None:
                    remaining.append(job)
                else:
                    progress.advance(note.shard.records + len(note.refused))
            crew.write(work, remaining, progress.advance)
            if duplicates == "quarantine":
                seen = {**seen, split: _image_digests(folder, jobs[split])}
        notes = {split: [_finished(folder, job) for job in jobs[split]] for split in source.splits}
        _check_bad(notes, source, total, max_bad_fraction)
        digest = hashlib.sha256()
        for split in source.splits:
            for job in jobs[split]:
                digest.update(read_digests(folder, job)["record"].tobytes())
        _write_lines(folder / QUARANTINE, notes, "refused")
        _write_lines(folder / CHANGES, notes, "changed")
        info = catalog.dataset_module(name).INFO
        manifest = Manifest(
            dataset=name,
            title=info.title,
            homepage=info.homepage,
            licence=info.licence,
            source_digest=digest.hexdigest(),
            class_names=tuple(source.class_names),
            evaluation_split=source.evaluation_split,
            features=all_features(source),
            splits={split: _summed(of_split) for split, of_split in notes.items()},
            check=cast(Check, check),
            notes=tuple(_absent_classes(source, notes)),
        )
        write_manifest(folder, manifest)
        shutil.rmtree(folder / NOTES, ignore_errors=True)
    splits = manifest.splits
    return {
        "examples": {
            "dataset": name,
            **{split: content.records for split, content in splits.items()},
            "quarantined": sum(content.quarantined for content in splits.values()),
            "changed": sum(content.changed for content in splits.values()),
            "source_digest": manifest.source_digest,
        }
    }


def _check_arguments(
    shards: int, max_bad_fraction: float, unusual: str, check: str, duplicates: str, workers: int
) -> None:
    if shards < 0:
        raise UserError(f"shards must be at least 1, or 0 to choose; got {shards}.")
    if workers < 0:
        raise UserError(f"workers must be at least 1, or 0 to choose; got {workers}.")
    if not 0 <= max_bad_fraction <= 1:
        raise UserError(f"max_bad_fraction must be between 0 and 1; got {max_bad_fraction}.")
    for name, value, kind in (
        ("unusual", unusual, Unusual),
        ("check", check, Check),
        ("duplicates", duplicates, Duplicates),
    ):
        if value not in get_args(kind):
            raise UserError(f"{name} must be one of {', '.join(get_args(kind))}; got {value!r}.")


def _open(data: str, dataset: str) -> tuple[str, Path, Dataset]:
    """Name of the adapter, folder of the data, and the open dataset."""
    root: str | Path = data
    if not data:
        if not dataset:
            raise UserError("data must be the dataset's folder; got none, and no dataset either.")
        default_root = getattr(catalog.dataset_module(dataset), "default_root", None)
        if default_root is None:
            raise UserError(
                f"data must be the folder of {dataset}, which does not come with a package; got "
                "none."
            )
        root = default_root()
    name, source = catalog.open_dataset(root, dataset)
    return name, Path(root).resolve(), source


class _Listing:
    """The files below a folder: how large they are together, and whether they have changed.

    Nothing is kept of a file, so that millions of them take no memory.

    Attributes:
        bytes: size of all files.
        digest: of names, sizes and times of change, in hexadecimal; no matter in which order.
    """

    def __init__(self, root: Path, target: Path):
        # What this run writes may lie within the data's folder, and is no data.
        place = target.resolve()
        self._own = {str(place), str(place.with_name(f".{place.name}.unfinished"))}
        self._total = 0
        self.bytes = 0
        waiting = [str(root)]
        while waiting:
            # A folder that may not be read is the adapter's to complain of, if it wants it.
            with contextlib.suppress(PermissionError):
                waiting += self._add(waiting.pop())
        self.digest = f"{self._total:032x}"

    def _add(self, folder: str) -> list[str]:
        """Takes in the files of a folder; returns the folders in it."""
        folders = []
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.path in self._own:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                    continue
                with contextlib.suppress(OSError):  # a link to nowhere; reading the item will tell
                    status = entry.stat()
                    size = status.st_size if stat.S_ISREG(status.st_mode) else 0
                    self.bytes += size
                    line = f"{entry.path}\0{size}\0{status.st_mtime_ns}"
                    digest = xxhash.xxh3_128_intdigest(line.encode("utf-8", "surrogateescape"))
                    self._total = (self._total + digest) % 2**128
        return folders


def _jobs(source: Dataset, split: str, shards: int, data_bytes: int) -> list[Job]:
    items = source.splits[split]
    if not shards:
        part = data_bytes * items // max(sum(source.splits.values()), 1)
        shards = min(max(-(-part // SHARD_BYTES), FEWEST_SHARDS), MOST_SHARDS)
    count = min(shards, items)
    return [Job(split, number, count) for number in range(count)]


def _code() -> str:
    """SHA-256 of what decides the bytes: our own sources, and versions of what they build on."""
    total = hashlib.sha256()
    for package in (components.create_tfrecords, trainer.data):
        for file in sorted(Path(package.__path__[0]).rglob("*.py")):
            total.update(file.read_bytes())
    for distribution in ("numpy", "pillow", "simplejpeg", "xxhash"):
        total.update(importlib.metadata.version(distribution).encode())
    return total.hexdigest()


def _order_of_splits(source: Dataset) -> list[str]:
    """The splits, those first whose images must not be in the others: evaluation, ..., train."""
    first = source.evaluation_split
    others = [split for split in source.splits if split not in (first, "train")]
    return [first, *others, *(["train"] if "train" in source.splits else [])]


def _image_digests(folder: Path, jobs: Sequence[Job]) -> np.ndarray[Any, Any]:
    """The digests of all images of a split, sorted; empty where examples have none."""
    found = [read_digests(folder, job)["image"] for job in jobs]
    digests = np.unique(np.concatenate(found)) if found else np.zeros(0, np.uint64)
    there: np.ndarray[Any, Any] = digests[digests != 0]
    return there


def _finished(folder: Path, job: Job) -> Note:
    note = read_note(folder, job)
    if note is None:
        raise RuntimeError(f"{job.file} must have been written; there is no note of it.")
    return note


def _summed(notes: Sequence[Note]) -> Split:
    return Split(
        shards=tuple(note.shard for note in notes),
        quarantined=sum(len(note.refused) for note in notes),
        changed=sum(len({item.index for item in note.changed}) for note in notes),
    )


def _in_order(notes: Mapping[str, Sequence[Note]], kind: str) -> Iterator[dict[str, Any]]:
    """What the notes say of items of one kind, in the order of the dataset."""
    for split, of_split in notes.items():
        items = [item for note in of_split for item in getattr(note, kind)]
        for item in sorted(items, key=lambda item: item.index):
            values = dataclasses.asdict(item)
            del values["index"]
            yield {"split": split, **values}


def _write_lines(path: Path, notes: Mapping[str, Sequence[Note]], kind: str) -> None:
    write_text(path, "".join(note_line(item) for item in _in_order(notes, kind)))


def _check_bad(
    notes: Mapping[str, Sequence[Note]], source: Dataset, total: int, max_bad_fraction: float
) -> None:
    refused = list(_in_order(notes, "refused"))
    if len(refused) > max_bad_fraction * total:
        enough = math.ceil(1000 * len(refused) / total) / 1000
        raise UserError(
            f"At most {max_bad_fraction:.1%} of the items may be bad; {len(refused):,} of "
            f"{total:,} are. {_name(refused)} Mend or remove them, or set "
            f"max_bad_fraction={enough:g}."
        )
    for split, of_split in notes.items():
        if not any(note.shard.records for note in of_split):
            of_this = [item for item in refused if item["split"] == split]
            raise UserError(
                f"Every split must have an example that can be used; {split} has none of "
                f"{source.splits[split]:,} items. {_name(of_this)}"
            )


def _name(refused: Sequence[Mapping[str, Any]]) -> str:
    """The first few bad items in a sentence."""
    if not refused:
        return "It is empty."
    chosen = refused[:_NAMED]
    named = "; ".join(f"{item['key']}: {item['reason']}" for item in chosen)
    return f"The first {len(chosen)}: {named}."


def _absent_classes(source: Dataset, notes: Mapping[str, Sequence[Note]]) -> Iterator[str]:
    """A sentence for each split that lacks some classes."""
    if not any(feature.content == "label" for feature in source.features.values()):
        return
    for split, of_split in notes.items():
        present = {label for note in of_split for label in note.labels}
        absent = [n for label, n in enumerate(source.class_names) if label not in present]
        if absent:
            more = len(absent) - _NAMED
            named = ", ".join(absent[:_NAMED]) + (f" and {more} more" if more > 0 else "")
            yield f"{len(absent)} of {len(source.class_names)} classes are not in {split}: {named}."
