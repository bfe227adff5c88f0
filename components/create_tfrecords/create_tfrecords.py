"""The step create_tfrecords: a dataset as it lies on disk becomes shards of checked examples."""

from __future__ import annotations

import collections
import dataclasses
import functools
import hashlib
import itertools
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar, cast, get_args

import numpy as np

from trainer import catalog
from trainer.artifact import whole_folder, write_text
from trainer.data.examples import encode_example
from trainer.data.images import Unusual, check_image
from trainer.data.manifest import QUARANTINE, Manifest, Shard, Split, write_manifest
from trainer.data.records import RecordWriter
from trainer.dataset import Dataset, Feature
from trainer.errors import BadItem, UserError
from trainer.progress import Progress

_KEY = Feature("bytes", description="name of the item in its dataset, unique, in UTF-8")
_NAMED = 10  # bad items that an error names
_CHUNK = 16  # items that a thread takes at once, so that small ones are not all switching

T = TypeVar("T")
R = TypeVar("R")


def create_tfrecords(
    examples: str,
    data: str = "",
    dataset: str = "",
    shards: int = 4,
    max_bad_fraction: float = 0.01,
    unusual: str = "quarantine",
) -> dict[str, dict[str, Any]]:
    """Turns a dataset as it lies on disk into TFRecord shards, each item checked.

    Every image is decoded in full. What cannot be used is left out and listed with its reason in
    quarantine.jsonl. Every example gets a `key` that names its item. The same data give the same
    bytes. The examples of each split are stored in a fixed random order: folders are sorted by
    class, and the buffer that shuffles them in training is much smaller than a class.

    Args:
        examples: Folder to write; it appears when it is whole and replaces what stood there.
        data: Folder of the dataset; empty for a dataset that comes with an installed package.
        dataset: Name of the dataset; empty to tell it from the layout of the folder.
        shards: Number of files per split; never more than the split has items.
        max_bad_fraction: Largest part of all items that may be bad, from 0 to 1.
        unusual: What becomes of CMYK, 16-bit and animated images, of formats other than JPEG and
            PNG, and of names that end in the wrong format: "quarantine", or "convert" to PNG.

    Returns:
        What is worth knowing about the artifact: dataset, number of examples of each split, number
        of items quarantined, source_digest.

    Raises:
        UserError: an argument does not fit, the dataset cannot be opened, more items are bad than
            allowed, or a split is left without an example.
    """
    if shards < 1:
        raise UserError(f"shards must be at least 1; got {shards}.")
    if not 0 <= max_bad_fraction <= 1:
        raise UserError(f"max_bad_fraction must be between 0 and 1; got {max_bad_fraction}.")
    if unusual not in get_args(Unusual):
        raise UserError(f"unusual must be one of {', '.join(get_args(Unusual))}; got {unusual!r}.")
    name, source = _open(data, dataset)
    total = sum(source.splits.values())
    features = {"key": _KEY, **source.features}
    progress = Progress(total, "examples")
    digest = hashlib.sha256()
    splits: dict[str, Split] = {}
    refused: list[_Refused] = []
    with whole_folder(examples) as folder:
        for split, items in source.splits.items():
            order = np.random.Generator(np.random.PCG64(0)).permutation(items).tolist()
            encode = functools.partial(_encode, source, features, cast(Unusual, unusual), split)
            outcomes = _watch(_parallel(encode, order), digest, progress)
            written, bad = _write_split(folder, split, order, outcomes, shards)
            splits[split] = Split(tuple(written), len(bad))
            refused += bad
        _check_bad(refused, total, max_bad_fraction)
        for split, content in splits.items():
            if not content.records:
                raise UserError(
                    f"Every split must have an example that can be used; {split} has none of "
                    f"{source.splits[split]:,} items. {_name(refused, split)}"
                )
        lines = [json.dumps(dataclasses.asdict(item), ensure_ascii=False) for item in refused]
        write_text(folder / QUARANTINE, "".join(f"{line}\n" for line in lines))
        info = catalog.dataset_module(name).INFO
        manifest = Manifest(
            dataset=name,
            title=info.title,
            homepage=info.homepage,
            licence=info.licence,
            source_digest=digest.hexdigest(),
            class_names=tuple(source.class_names),
            evaluation_split=source.evaluation_split,
            features=features,
            splits=splits,
        )
        write_manifest(folder, manifest)
    return {
        "examples": {
            "dataset": name,
            **{split: content.records for split, content in splits.items()},
            "quarantined": len(refused),
            "source_digest": manifest.source_digest,
        }
    }


@dataclasses.dataclass(frozen=True)
class _Refused:
    """One line of quarantine.jsonl."""

    split: str
    key: str
    reason: str
    expected: str


def _open(data: str, dataset: str) -> tuple[str, Dataset]:
    if data:
        return catalog.open_dataset(data, dataset)
    if not dataset:
        raise UserError("data must be the dataset's folder; got none, and no dataset either.")
    default_root = getattr(catalog.dataset_module(dataset), "default_root", None)
    if default_root is None:
        raise UserError(
            f"data must be the folder of {dataset}, which does not come with a package; got none."
        )
    return catalog.open_dataset(default_root(), dataset)


def _encode(
    source: Dataset, features: Mapping[str, Feature], unusual: Unusual, split: str, index: int
) -> bytes | _Refused:
    """One item as a record, or why not."""
    key = source.key(split, index)
    try:
        example = dict(source.read(split, index))
        if "image" in features and features["image"].dtype == "bytes":
            example["image"] = check_image(example["image"], key, unusual)
    except BadItem as error:
        return _Refused(split, key, error.reason, error.expected)
    except OSError as error:
        reason = f"it cannot be read ({error.strerror or error})"
        return _Refused(split, key, reason, "a readable file")
    return encode_example(features, {"key": key.encode(), **example})


def _watch(
    outcomes: Iterator[bytes | _Refused], digest: hashlib._Hash, progress: Progress
) -> Iterator[bytes | _Refused]:
    """The same outcomes; each record goes into the digest and each item into the progress."""
    for outcome in outcomes:
        if isinstance(outcome, bytes):  # it holds the key and the content
            digest.update(hashlib.sha256(outcome).digest())
        progress.advance()
        yield outcome


def _write_split(
    folder: Path,
    split: str,
    order: list[int],
    outcomes: Iterator[bytes | _Refused],
    shards: int,
) -> tuple[list[Shard], list[_Refused]]:
    """Writes the shards of one split; the refused items come back in the order of the dataset."""
    files = min(shards, len(order))
    written = []
    refused: dict[int, _Refused] = {}
    for number in range(files):
        file_name = f"{split}-{number:05d}-of-{files:05d}.tfrecord"
        begin, end = (len(order) * n // files for n in (number, number + 1))
        with RecordWriter(folder / file_name) as writer:
            for index, outcome in zip(order[begin:end], outcomes, strict=False):
                if isinstance(outcome, bytes):
                    writer.write(outcome)
                else:
                    refused[index] = outcome
        written.append(writer.shard(file_name))
    return written, [refused[index] for index in sorted(refused)]


def _parallel(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """The results in order, computed on threads: image decoders free the interpreter's lock."""
    workers = os.cpu_count() or 1
    remaining = iter(items)
    chunks = iter(lambda: list(itertools.islice(remaining, _CHUNK)), [])
    with ThreadPoolExecutor(workers) as pool:
        waiting: collections.deque[Future[list[R]]] = collections.deque()
        for chunk in chunks:
            waiting.append(pool.submit(lambda part: [function(item) for item in part], chunk))
            if len(waiting) > 2 * workers:  # enough to keep them busy, little to hold in memory
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


def _check_bad(refused: list[_Refused], total: int, max_bad_fraction: float) -> None:
    if len(refused) > max_bad_fraction * total:
        enough = math.ceil(1000 * len(refused) / total) / 1000
        raise UserError(
            f"At most {max_bad_fraction:.1%} of the items may be bad; {len(refused):,} of "
            f"{total:,} are. {_name(refused)} Mend or remove them, or set "
            f"max_bad_fraction={enough:g}."
        )


def _name(refused: list[_Refused], split: str = "") -> str:
    """The first few bad items (of one split) in a sentence."""
    chosen = [item for item in refused if split in ("", item.split)][:_NAMED]
    if not chosen:
        return "It is empty."
    named = "; ".join(f"{item.key}: {item.reason}" for item in chosen)
    return f"The first {len(chosen)}: {named}."
