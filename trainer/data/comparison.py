"""What is different between two folders of examples."""

from __future__ import annotations

import dataclasses
import struct
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from trainer.data.examples import decode_example
from trainer.data.manifest import CHANGES, QUARANTINE, Manifest, Shard, read_manifest
from trainer.data.notes import read_notes
from trainer.data.records import read_record, read_shard
from trainer.dataset import Feature
from trainer.errors import UserError

NAMED = 10
"""Examples of each kind of difference that are named, unless asked otherwise (ours)."""

_FACTS = ("dataset", "title", "homepage", "licence", "evaluation_split", "check")
_FRAME_BYTES = 16  # of a record around its data: length, checksum of it, checksum of the data
_SHOWN = 80  # characters of a label
_TOLD = 2**20  # bytes after which progress is told


@dataclasses.dataclass(frozen=True)
class Fact:
    """Something that the manifests say differently; empty where one says nothing."""

    name: str
    first: str
    second: str


@dataclasses.dataclass(frozen=True)
class Difference:
    """One example, or one refused item, that is different.

    Attributes:
        key: its key; bytes that are no UTF-8 are written as \\xff.
        first: what the first folder has: a split, a label, a reason; empty for nothing.
        second: what the second folder has.
        features: the features that differ, where the example itself does.
    """

    key: str
    first: str = ""
    second: str = ""
    features: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Differences:
    """Differences of one kind: how many, and the first of them, sorted by key."""

    count: int = 0
    named: tuple[Difference, ...] = ()


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What is different between two folders of examples.

    Attributes:
        facts: what the manifests say differently of dataset, classes, features and splits.
        records: split -> number of examples in the first and in the second folder.
        examples: kind -> differences: "removed" and "added" by key, "moved" to another split,
            "changed" in content, and "relabelled", which are among those changed.
        changed_features: feature -> number of examples in which it differs.
        quarantine: "removed", "added", and "changed" (refused for another reason).
        changes: the same of the items that are not stored as they came.
    """

    facts: tuple[Fact, ...]
    records: Mapping[str, tuple[int, int]]
    examples: Mapping[str, Differences]
    changed_features: Mapping[str, int]
    quarantine: Mapping[str, Differences]
    changes: Mapping[str, Differences]

    @property
    def equal(self) -> bool:
        """Whether nothing is different."""
        kinds = (*self.examples.values(), *self.quarantine.values(), *self.changes.values())
        counts_differ = any(first != second for first, second in self.records.values())
        return not (self.facts or counts_differ or any(kind.count for kind in kinds))


def compare_examples(
    first: str | Path,
    second: str | Path,
    named: int = NAMED,
    advance: Callable[[int], None] | None = None,
) -> Comparison:
    """Compares two folders of examples by content: neither shards nor the order of records matter.

    Examples are matched by key. Of each, hashes of its key and of each feature are kept, about 100
    bytes, and not its content. Shards of which both manifests have the same SHA-256 are the same,
    and are not read; whether files are as their manifests say is for `verify_examples`.

    Args:
        first: a folder of examples, transformed or not.
        second: another one.
        named: how many examples of each kind of difference to name.
        advance: called with the number of bytes each time some have been read.

    Raises:
        UserError: a folder holds no examples, a record is damaged, or a key comes twice.
    """
    roots = Path(first), Path(second)
    manifests = read_manifest(first), read_manifest(second)
    features = _common_features(*manifests)
    unread = _same_shards(*manifests)
    sides = [
        _Side(root, manifest, features, unread, advance or (lambda _: None))
        for root, manifest in zip(roots, manifests, strict=True)
    ]
    examples, changed_features = _compare_sides(sides[0], sides[1], features, named)
    splits = dict.fromkeys((*manifests[0].splits, *manifests[1].splits))
    return Comparison(
        facts=tuple(_facts(*manifests)),
        records={
            split: (_records(manifests[0], split), _records(manifests[1], split))
            for split in splits
        },
        examples=examples,
        changed_features=changed_features,
        quarantine=_compare_notes(roots, QUARANTINE, "reason", named),
        changes=_compare_notes(roots, CHANGES, "change", named),
    )


def bytes_to_read(first: str | Path, second: str | Path) -> int:
    """How many bytes of shards `compare_examples` will read.

    Raises:
        UserError: a folder holds no examples.
    """
    manifests = read_manifest(first), read_manifest(second)
    unread = _same_shards(*manifests)
    return sum(
        shard.bytes
        for manifest in manifests
        for split, content in manifest.splits.items()
        for shard in content.shards
        if _identity(split, shard) not in unread
    )


def _records(manifest: Manifest, split: str) -> int:
    return manifest.splits[split].records if split in manifest.splits else 0


def _identity(split: str, shard: Shard) -> tuple[str, int, str]:
    return split, shard.bytes, shard.sha256


def _same_shards(first: Manifest, second: Manifest) -> set[tuple[str, int, str]]:
    """The shards that both have, in splits whose features are declared alike."""
    both = [
        {_identity(split, shard) for split, c in manifest.splits.items() for shard in c.shards}
        for manifest in (first, second)
    ]
    return {i for i in both[0] & both[1] if first.features_of(i[0]) == second.features_of(i[0])}


def _common_features(first: Manifest, second: Manifest) -> tuple[str, ...]:
    """Names of the features, but for the key, that examples of both may have."""
    names = [
        {name for split in manifest.splits for name in manifest.features_of(split)}
        for manifest in (first, second)
    ]
    return tuple(sorted((names[0] & names[1]) - {"key"}))


class _Side:
    """What is kept of one folder: arrays with an entry for each record that was read.

    Attributes:
        keys: hashes of the keys, uint64 [n, 2].
        values: hashes of the features, uint64 [n, features]; 0 for one that a split does not have.
        offsets: the byte of its file at which a record begins, uint64 [n].
        files: number of the shard in `shards`, uint32 [n].
        shards: split and shard, in the order in which they were read.
    """

    def __init__(
        self,
        root: Path,
        manifest: Manifest,
        features: tuple[str, ...],
        unread: set[tuple[str, int, str]],
        advance: Callable[[int], None],
    ):
        self.root = root
        self.manifest = manifest
        self.shards = [
            (split, shard)
            for split, content in manifest.splits.items()
            for shard in content.shards
            if _identity(split, shard) not in unread
        ]
        keys, values, offsets, files = array("Q"), array("Q"), array("Q"), array("I")
        for number, (split, shard) in enumerate(self.shards):
            declared = manifest.features_of(split)
            place = told = 0
            for record in read_shard(root / shard.file):
                example = _decode(root / shard.file, declared, record)
                digest = xxhash.xxh3_128_intdigest(example["key"])
                keys.extend((digest >> 64, digest & 0xFFFFFFFFFFFFFFFF))
                values.extend(_hash(example[n]) if n in declared else 0 for n in features)
                offsets.append(place)
                files.append(number)
                place += len(record) + _FRAME_BYTES
                if place - told >= _TOLD:
                    advance(place - told)
                    told = place
            advance(place - told)
        self.keys = np.frombuffer(keys, np.uint64).reshape(-1, 2)
        self.values = np.frombuffer(values, np.uint64).reshape(len(offsets), len(features))
        self.offsets = np.frombuffer(offsets, np.uint64)
        self.files = np.frombuffer(files, np.uint32)

    def splits(self, names: list[str]) -> np.ndarray[Any, Any]:
        """The split of each record, as a number in the names given, int64 [n]."""
        numbers = [names.index(split) for split, _ in self.shards]
        return np.array(numbers, np.int64)[self.files]

    def split(self, index: int) -> str:
        """The split of one record."""
        split, _ = self.shards[int(self.files[index])]
        return split

    def is_label(self, name: str) -> bool:
        """Whether a feature holds labels."""
        declared = (self.manifest.features_of(s).get(name) for s in self.manifest.splits)
        return name == "label" or any(f is not None and f.content == "label" for f in declared)

    def example(self, index: int) -> dict[str, Any]:
        """One record, read again."""
        split, shard = self.shards[int(self.files[index])]
        path = self.root / shard.file
        record = read_record(path, int(self.offsets[index]))
        return _decode(path, self.manifest.features_of(split), record)

    def key(self, index: int) -> str:
        """The key of one record, read again."""
        return _text(self.example(index)["key"])


def _compare_sides(
    first: _Side, second: _Side, features: tuple[str, ...], named: int
) -> tuple[dict[str, Differences], dict[str, int]]:
    """Matches the records of two folders by key: kind -> differences, feature -> how often."""
    of_first = len(first.keys)
    keys = np.concatenate([first.keys, second.keys])
    # Sorting keeps the order of equals: of each pair, the first folder's record comes first.
    order = np.lexsort((keys[:, 1], keys[:, 0]))
    same = np.flatnonzero((keys[order[1:]] == keys[order[:-1]]).all(axis=1))
    pairs = np.stack([order[same], order[same + 1] - of_first], axis=1)
    for index in np.flatnonzero(pairs[:, 0] >= of_first)[:1]:
        raise _repeated(second, int(pairs[index, 1]))
    for index in np.flatnonzero(pairs[:, 1] < 0)[:1]:
        raise _repeated(first, int(pairs[index, 0]))
    alone = np.ones(len(order), bool)
    alone[same] = alone[same + 1] = False
    removed = order[alone & (order < of_first)]
    added = order[alone & (order >= of_first)] - of_first
    names = list(dict.fromkeys((*first.manifest.splits, *second.manifest.splits)))
    moved = pairs[first.splits(names)[pairs[:, 0]] != second.splits(names)[pairs[:, 1]]]
    wrong = first.values[pairs[:, 0]] != second.values[pairs[:, 1]]
    changed = np.flatnonzero(wrong.any(axis=1))
    labels = [number for number, name in enumerate(features) if first.is_label(name)]
    relabelled = np.flatnonzero(wrong[:, labels].any(axis=1))

    def differing(row: int) -> tuple[str, ...]:
        return tuple(name for name, is_wrong in zip(features, wrong[row], strict=True) if is_wrong)

    def relabelling(row: int) -> Difference:
        before, after = first.example(pairs[row, 0]), second.example(pairs[row, 1])
        found = tuple(name for name in differing(row) if first.is_label(name))
        return Difference(
            _text(before["key"]),
            ", ".join(_labels(before[n], first.manifest.class_names) for n in found),
            ", ".join(_labels(after[n], second.manifest.class_names) for n in found),
            found,
        )

    examples = {
        "removed": _name(removed, named, lambda i: Difference(first.key(i), first.split(i))),
        "added": _name(added, named, lambda i: Difference(second.key(i), "", second.split(i))),
        "moved": _name(
            moved,
            named,
            lambda pair: Difference(
                first.key(pair[0]), first.split(pair[0]), second.split(pair[1])
            ),
        ),
        "changed": _name(
            changed,
            named,
            lambda row: Difference(first.key(pairs[row, 0]), features=differing(row)),
        ),
        "relabelled": _name(relabelled, named, relabelling),
    }
    often = {name: int(n) for name, n in zip(features, wrong.sum(axis=0), strict=True) if n}
    return examples, often


def _name(
    found: np.ndarray[Any, Any], named: int, describe: Callable[[Any], Difference]
) -> Differences:
    """How many were found, and a description of the first of them."""
    described = [describe(each) for each in found[:named].tolist()]
    return Differences(len(found), tuple(sorted(described, key=lambda each: each.key)))


def _repeated(side: _Side, index: int) -> UserError:
    return UserError(
        f"The keys of examples must be unique; {side.key(index)!r} comes twice in "
        f"{str(side.root)!r}. `paper2hub examples verify` names all that do."
    )


def _labels(value: Any, class_names: Sequence[str]) -> str:
    """A label, or an array of labels, by the names of the classes; shortened where it is long."""
    labels = [int(label) for label in np.atleast_1d(value).ravel()[:_SHOWN]]
    known = range(len(class_names))
    words = ", ".join(class_names[n] if n in known else str(n) for n in labels)
    return words if len(words) <= _SHOWN else f"{words[: _SHOWN - 1]}…"


def _decode(path: Path, features: Mapping[str, Feature], record: bytes) -> dict[str, Any]:
    try:
        return decode_example(features, record)
    except ValueError as error:
        raise UserError(
            f"The records of {str(path)!r} must be as its manifest declares them; {error}"
        ) from error


def _hash(value: Any) -> int:
    """A hash of a feature's value, 64 bits; the type of numbers and the shape matter."""
    if isinstance(value, bytes):
        return xxhash.xxh3_64_intdigest(value)
    array_value = np.asarray(value)
    digest = xxhash.xxh3_64(f"{array_value.dtype} {array_value.shape}".encode())
    if array_value.dtype == object:
        for element in array_value.flat:
            digest.update(struct.pack("<Q", len(element)))
            digest.update(element)
    else:
        digest.update(array_value.tobytes())
    number: int = digest.intdigest()
    return number


def _text(key: bytes) -> str:
    return key.decode("utf-8", "backslashreplace")


def _compare_notes(
    roots: tuple[Path, Path], file: str, content: str, named: int
) -> dict[str, Differences]:
    """The entries of quarantines, or of changes, that only one folder has or that say else."""
    first, second = (
        {(note["split"], note["key"]): note.get(content, "") for note in read_notes(root / file)}
        for root in roots
    )
    found = {
        "removed": sorted(first.keys() - second.keys()),
        "added": sorted(second.keys() - first.keys()),
        "changed": sorted(i for i in first.keys() & second.keys() if first[i] != second[i]),
    }
    return {
        kind: Differences(
            len(items),
            tuple(Difference(i[1], first.get(i, ""), second.get(i, "")) for i in items[:named]),
        )
        for kind, items in found.items()
    }


def _facts(first: Manifest, second: Manifest) -> Iterator[Fact]:
    """What the manifests say differently, but for the records."""
    for name in _FACTS:
        yield from _fact(name.replace("_", " "), getattr(first, name), getattr(second, name))
    if set(first.class_names) != set(second.class_names):
        yield Fact(
            "class names",
            _only(first.class_names, second.class_names),
            _only(second.class_names, first.class_names),
        )
    elif first.class_names != second.class_names:
        pairs = zip_longest(first.class_names, second.class_names, fillvalue="nothing")
        number, (one, other) = next((n, pair) for n, pair in enumerate(pairs) if len(set(pair)) > 1)
        yield Fact("class names", f"number {number} is {one}", f"number {number} is {other}")
    for split in dict.fromkeys((*first.splits, *second.splits)):
        sides = [m.features_of(split) if split in m.splits else {} for m in (first, second)]
        if sides[0] and sides[1]:
            for name in dict.fromkeys((*sides[0], *sides[1])):
                described = [_describe(side.get(name)) for side in sides]
                yield from _fact(f"feature {name} of {split}", described[0], described[1])
        else:
            yield Fact(f"split {split}", *("there" if side else "" for side in sides))
    for note in first.notes:
        if note not in second.notes:
            yield Fact("note", note, "")
    for note in second.notes:
        if note not in first.notes:
            yield Fact("note", "", note)


def _fact(name: str, first: str, second: str) -> Iterator[Fact]:
    if first != second:
        yield Fact(name, first, second)


def _only(names: Sequence[str], others: Sequence[str]) -> str:
    """The number of names, and the first of those that the others do not have."""
    missing = sorted(set(names) - set(others))
    text = f"{len(names):,} classes"
    if missing:
        more = f" and {len(missing) - NAMED:,} more" if len(missing) > NAMED else ""
        text = f"{text}, alone with {', '.join(missing[:NAMED])}{more}"
    return text


def _describe(feature: Feature | None) -> str:
    if feature is None:
        return ""
    sizes = ", ".join("any" if size is None else str(size) for size in feature.shape)
    kept = " as raw bytes" if feature.encoding == "raw" else ""
    shape = f" [{sizes}]" if feature.shape else ""
    content = f", {feature.content}" if feature.content else ""
    return f"{feature.dtype}{shape}{kept}{content}"
