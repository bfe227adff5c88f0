"""Whether a folder of examples is what its manifest says, to the last bit."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import os
import stat
import threading
import time
from array import array
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import xxhash

from trainer.data.examples import decode_example
from trainer.data.facts import FACTS, SETTINGS
from trainer.data.files import readable
from trainer.data.manifest import CHANGES, MANIFEST, QUARANTINE, Manifest, Shard, read_manifest
from trainer.data.notes import read_notes
from trainer.data.records import RecordScan, ScannedRecord, read_record
from trainer.dataset import Feature
from trainer.errors import UserError

LISTED = 100
"""Findings that are listed, unless asked otherwise; the others are counted (ours)."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that is not as it must be.

    Attributes:
        file: the file it is about, by its name in the folder.
        problem: what is wrong, as a sentence without its end.
        record: number of the record in the file, from 0; None where it is not about one.
        offset: the byte of the file at which that record begins.
        wrong_byte: the byte of the file that has the wrong bit, where it is one bit.
        key: the record's key, if it can be read; bytes that are no UTF-8 are written as \\xff.
    """

    file: str
    problem: str
    record: int | None = None
    offset: int | None = None
    wrong_byte: int | None = None
    key: str | None = None

    def __str__(self) -> str:
        """One line for a person."""
        parts = [self.file if self.file.isprintable() else repr(self.file)]
        if self.record is not None:
            parts.append(f"record {self.record}")
        if self.offset is not None:
            parts.append(f"at byte {self.offset:,}")
        if self.key is not None:
            parts.append(f"key {self.key!r}")
        return f"{', '.join(parts)}: {self.problem}"


@dataclasses.dataclass(frozen=True)
class Verification:
    """What came of verifying a folder of examples.

    Attributes:
        splits: split -> number of whole records found.
        bytes: bytes of shards that were read.
        seconds: how long it took.
        findings: what is wrong, as many as were asked for, in the order of the files.
        more: how many findings are not listed.
    """

    splits: Mapping[str, int]
    bytes: int
    seconds: float
    findings: tuple[Finding, ...]
    more: int

    @property
    def records(self) -> int:
        """Number of whole records in all splits."""
        return sum(self.splits.values())

    @property
    def problems(self) -> int:
        """Number of all findings, listed or not."""
        return len(self.findings) + self.more


class _Findings:
    """The first findings, and the number of those after them."""

    def __init__(self, most: int):
        self.listed: list[Finding] = []
        self.more = 0
        self._most = most

    @property
    def full(self) -> bool:
        return len(self.listed) >= self._most

    def add(self, finding: Finding) -> None:
        if not self.full:
            self.listed.append(finding)
        else:
            self.more += 1

    def take(self, others: _Findings) -> None:
        for finding in others.listed:
            self.add(finding)
        self.more += others.more


class _Stopped(Exception):
    """The verification was interrupted."""


def verify_examples(
    folder: str | Path,
    listed: int = LISTED,
    advance: Callable[[int], None] | None = None,
) -> Verification:
    """Compares a folder of examples, transformed or not, with its manifest; every byte is read.

    Of each shard: that it is there, its size, the number of its records, CRC-32C and SHA-256 of the
    file, both checksums of each record, that each record has the features declared. Of the folder:
    that no key comes twice, that quarantine and changes have as many entries as the manifest says,
    and that there is no file that it does not know. Bytes are read once, several shards at a time.

    Args:
        folder: folder of examples.
        listed: how many findings to list; the others are counted.
        advance: called with the number of bytes each time some have been read, from any thread, but
            never from two at once.

    Raises:
        UserError: there is no manifest, and so nothing to compare with.
    """
    began = time.monotonic()
    _keep_memory()
    root = Path(folder)
    findings = _Findings(listed)
    try:
        manifest = read_manifest(root)
    except UserError as error:
        if not (root / MANIFEST).is_file():
            raise
        finding = Finding(MANIFEST, str(error).rstrip("."))
        return Verification({}, 0, time.monotonic() - began, (finding,), 0)
    outcomes = _verify_shards(root, manifest, listed, advance)
    whole = collections.Counter(dict.fromkeys(manifest.splits, 0))
    for outcome in outcomes:
        whole[outcome.split] += outcome.whole
        findings.take(outcome.findings)
    _find_repeated_keys(root, manifest, outcomes, findings)
    for file, entry, numbers in (
        (QUARANTINE, "quarantined", {n: s.quarantined for n, s in manifest.splits.items()}),
        (CHANGES, "changed", {n: s.changed for n, s in manifest.splits.items()}),
    ):
        _verify_notes(root, file, entry, numbers, findings)
    _find_strangers(root, manifest, findings)
    size = sum(outcome.bytes for outcome in outcomes)
    seconds = time.monotonic() - began
    return Verification(dict(whole), size, seconds, tuple(findings.listed), findings.more)


def _keep_memory() -> None:
    """Lets glibc keep freed memory for the next record, which saves a quarter of the time.

    It gives what is free back to the system, to ask for it again page by page, until it has seen a
    large block come and go (mallopt(3), M_MMAP_THRESHOLD). Elsewhere it does nothing. The block is
    never touched, and so it takes no memory.
    """
    bytes(2**24)


@dataclasses.dataclass
class _Outcome:
    """What was found in one shard; `keys` and `offsets` have an entry for each record."""

    split: str
    file: str
    findings: _Findings
    whole: int = 0
    bytes: int = 0
    keys: array[int] = dataclasses.field(default_factory=lambda: array("Q"))
    offsets: array[int] = dataclasses.field(default_factory=lambda: array("Q"))


def _verify_shards(
    root: Path, manifest: Manifest, listed: int, advance: Callable[[int], None] | None
) -> list[_Outcome]:
    """What is in the shards, in the order of the manifest."""
    stopped, lock = threading.Event(), threading.Lock()

    def count(read: int) -> None:
        if stopped.is_set():
            raise _Stopped
        if advance:
            with lock:
                advance(read)

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        futures = [
            pool.submit(
                _verify_shard, root, split, shard, manifest.features_of(split), listed, count
            )
            for split, content in manifest.splits.items()
            for shard in content.shards
        ]
        try:
            return [future.result() for future in futures]
        except BaseException:
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _verify_shard(
    root: Path,
    split: str,
    shard: Shard,
    features: Mapping[str, Feature],
    listed: int,
    count: Callable[[int], None],
) -> _Outcome:
    outcome = _Outcome(split, shard.file, _Findings(listed))
    path = root / shard.file
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            outcome.findings.add(Finding(shard.file, "it is not a file but something else"))
            return outcome
        scan = RecordScan(path, count)
        uncountable = damaged = False
        for record in scan:
            uncountable = uncountable or record.data is None
            damaged = damaged or bool(record.damage)
            _verify_record(outcome, record, features)
    except FileNotFoundError:
        outcome.findings.add(Finding(shard.file, "it is missing"))
        return outcome
    except OSError as error:
        problem = f"it cannot be read ({error.strerror or error})"
        outcome.findings.add(Finding(shard.file, problem))
        return outcome
    outcome.bytes = scan.bytes
    problem = _compare_shard(shard, scan, None if uncountable else len(outcome.keys), damaged)
    if problem:
        outcome.findings.add(Finding(shard.file, problem))
    return outcome


def _verify_record(
    outcome: _Outcome, record: ScannedRecord, features: Mapping[str, Feature]
) -> None:
    """Notes one record: what is wrong with it, and the hash of its key, 0 if it is damaged."""
    key: bytes | None = None
    problem = record.damage
    if record.data is not None:
        try:
            key = decode_example(features, record.data)["key"]
        except ValueError as error:
            problem = problem or f"it is no example as the manifest declares it ({error})"
            key = _key_alone(features, record.data)
    outcome.keys.append(0 if key is None or record.damage else xxhash.xxh3_64_intdigest(key))
    outcome.offsets.append(record.offset)
    if not problem:
        outcome.whole += 1
        return
    shown = None if key is None else key.decode("utf-8", "backslashreplace")
    place = (record.number, record.offset, record.wrong_byte)
    outcome.findings.add(Finding(outcome.file, problem, *place, shown))


def _key_alone(features: Mapping[str, Feature], data: bytes) -> bytes | None:
    try:
        key: bytes = decode_example({"key": features["key"]}, data)["key"]
    except ValueError:
        return None
    return key


def _compare_shard(shard: Shard, scan: RecordScan, records: int | None, damaged: bool) -> str:
    """What a file as a whole has else than the manifest says, and damaged records do not explain.

    `records` is None where damage has made them uncountable.
    """
    has, says = [], []
    for count, expected, unit in (
        (scan.bytes, shard.bytes, "bytes"),
        (records, shard.records, "records"),
    ):
        if count not in (None, expected):
            has.append(f"{count:,} {unit}")
            says.append(f"{expected:,}")
    if not has and not damaged:
        for name, got, wanted in (
            ("CRC-32C", scan.crc32c, shard.crc32c),
            ("SHA-256", scan.sha256, shard.sha256),
        ):
            if got != wanted:
                has.append(f"the {name} {got}")
                says.append(wanted)
    return f"it has {' and '.join(has)}; the manifest says {' and '.join(says)}" if has else ""


def _find_repeated_keys(
    root: Path, manifest: Manifest, outcomes: list[_Outcome], findings: _Findings
) -> None:
    """Sorts the hashes of all keys; where two are the same, the keys themselves decide."""
    parts = [np.frombuffer(outcome.keys, np.uint64) for outcome in outcomes]
    hashes = np.concatenate([np.empty(0, np.uint64), *parts])
    ends = np.cumsum([len(outcome.keys) for outcome in outcomes])
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    again = np.flatnonzero((ordered[1:] == ordered[:-1]) & (ordered[1:] != 0))

    def place(position: int) -> tuple[_Outcome, int, bytes]:
        index = int(order[position])
        shard = int(np.searchsorted(ends, index, side="right"))
        outcome = outcomes[shard]
        number = index - (int(ends[shard]) - len(outcome.keys))
        data = read_record(root / outcome.file, outcome.offsets[number])
        features = {"key": manifest.features_of(outcome.split)["key"]}
        return outcome, number, decode_example(features, data)["key"]

    for position in again.tolist():
        if findings.full:
            findings.more += 1
            continue
        first, first_number, first_key = place(position)
        second, second_number, key = place(position + 1)
        if first_key == key:
            problem = f"record {first_number} of {first.file} has the same key"
            offset = second.offsets[second_number]
            shown = key.decode("utf-8", "backslashreplace")
            findings.add(Finding(second.file, problem, second_number, offset, None, shown))


def _verify_notes(
    root: Path, file: str, entry: str, numbers: Mapping[str, int], findings: _Findings
) -> None:
    """Compares the entries of a quarantine or of changes with their numbers in the manifest."""
    path = root / file
    if not path.exists():
        if any(numbers.values()):
            findings.add(Finding(file, "it is missing"))
        return
    try:
        # An item that was changed twice has two entries, one after the other.
        items = itertools.groupby(read_notes(path), lambda note: (note["split"], note["key"]))
        counted = collections.Counter(split for (split, _), _ in items)
    except UserError as error:
        findings.add(Finding(file, str(error).rstrip(".")))
        return
    for split in sorted(counted.keys() | numbers.keys()):
        if counted[split] != numbers.get(split, 0):
            problem = (
                f"it is about {counted[split]:,} items of {split}; the manifest says "
                f"{numbers.get(split, 0):,} were {entry}"
            )
            findings.add(Finding(file, problem))


def _find_strangers(root: Path, manifest: Manifest, findings: _Findings) -> None:
    """Looks for what is in the folder and not in the manifest, such as shards left over."""
    shards = {shard.file for split in manifest.splits.values() for shard in split.shards}
    known = shards | {MANIFEST, QUARANTINE, CHANGES, FACTS, SETTINGS}
    try:
        names = sorted(readable(path.name) for path in root.iterdir())
    except OSError as error:
        findings.add(Finding(".", f"the folder cannot be listed ({error.strerror})"))
        return
    for name in names:
        if name not in known:
            findings.add(Finding(name, "the manifest does not know it"))
