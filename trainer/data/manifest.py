"""`manifest.json`: what a folder of examples holds, shard by shard (standard library only)."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from trainer.artifact import read_json, write_json
from trainer.dataset import Feature
from trainer.errors import UserError

MANIFEST = "manifest.json"
QUARANTINE = "quarantine.jsonl"
"""Each refused item and why: split, key, reason, expected."""

CHANGES = "changes.jsonl"
"""Each item that is not stored as it came, and what was done to it: split, key, change."""

FORMAT = 2

Check = Literal["header", "decode"]


@dataclasses.dataclass(frozen=True)
class Shard:
    """One TFRecord file.

    Attributes:
        file: its name, `<split>-00000-of-00008.tfrecord`.
        records: number of examples in it.
        bytes: its size.
        crc32c: CRC-32C of the whole file, eight hexadecimal digits.
        sha256: SHA-256 of the whole file, hexadecimal.
    """

    file: str
    records: int
    bytes: int
    crc32c: str
    sha256: str


@dataclasses.dataclass(frozen=True)
class Split:
    """One split.

    Attributes:
        shards: its files, in order.
        quarantined: number of items that were refused.
        changed: number of items that are not stored as they came.
    """

    shards: tuple[Shard, ...]
    quarantined: int = 0
    changed: int = 0

    @property
    def records(self) -> int:
        """Number of examples in all shards."""
        return sum(shard.records for shard in self.shards)


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a folder of examples holds.

    Attributes:
        dataset: name of the adapter that made it.
        title: the dataset's name as people know it.
        homepage: where the dataset comes from.
        licence: its terms.
        source_digest: SHA-256 over the keys and contents of all examples, in order.
        class_names: name of each label; empty where there are none.
        evaluation_split: the split that published numbers are measured on.
        features: name -> feature, `key` among them. A split that stores something else than the
            others says so in `split_features`.
        split_features: split -> its features, where they differ from `features`.
        splits: name -> shards.
        check: how pictures were checked: by their headers alone, or decoded in full.
        notes: what whoever uses the examples should know, a sentence each, such as classes that
            have no example.
    """

    dataset: str
    title: str
    homepage: str
    licence: str
    source_digest: str
    class_names: tuple[str, ...]
    evaluation_split: str
    features: Mapping[str, Feature]
    splits: Mapping[str, Split]
    split_features: Mapping[str, Mapping[str, Feature]] = dataclasses.field(default_factory=dict)
    check: Check = "decode"
    notes: tuple[str, ...] = ()

    def features_of(self, split: str) -> Mapping[str, Feature]:
        """The features that the records of one split have."""
        return self.split_features.get(split, self.features)

    def files(self, folder: str | Path, split: str) -> list[Path]:
        """The shard files of one split, in order.

        Raises:
            UserError: there is no such split.
        """
        if split not in self.splits:
            raise UserError(f"The split must be one of {', '.join(self.splits)}; got {split!r}.")
        return [Path(folder) / shard.file for shard in self.splits[split].shards]


def write_manifest(folder: str | Path, manifest: Manifest) -> None:
    """Writes `manifest.json`, the last file of a finished folder of examples."""
    write_json(Path(folder) / MANIFEST, {"format": FORMAT, **dataclasses.asdict(manifest)})


def read_manifest(folder: str | Path) -> Manifest:
    """Reads `manifest.json`.

    Raises:
        UserError: the folder holds no finished examples, or the file is damaged.
    """
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise UserError(
            f"Examples must be a folder with a {MANIFEST}, as create_tfrecords writes it; "
            f"{str(folder)!r} has none."
        )
    try:
        values = read_json(path)
        found = values.pop("format", None)
        if found != FORMAT:
            raise UserError(
                f"{path} must have format {FORMAT}; it has {found!r}. Create the examples again."
            )
        return _manifest(values)
    except (AttributeError, KeyError, OSError, RecursionError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} must be a manifest as create_tfrecords writes it; it is damaged "
            f"({type(error).__name__}: {error}). Create the examples again."
        ) from error


def _manifest(values: dict[str, Any]) -> Manifest:
    values["features"] = _features(values["features"])
    values["split_features"] = {k: _features(v) for k, v in values["split_features"].items()}
    values["splits"] = {name: _split(split) for name, split in values["splits"].items()}
    values["class_names"] = tuple(str(name) for name in values["class_names"])
    values["notes"] = tuple(str(note) for note in values["notes"])
    for field in ("dataset", "title", "homepage", "licence", "source_digest", "evaluation_split"):
        if not isinstance(values[field], str):
            raise TypeError(f"{field} is {values[field]!r}")
    if not values["splits"]:
        raise ValueError("there is no split")
    for features in (values["features"], *values["split_features"].values()):
        key = features.get("key")
        if key is None or (key.dtype, key.shape) != ("bytes", ()):
            raise ValueError("examples have no key, or one that is not a string")
    return Manifest(**values)


def _split(values: Mapping[str, Any]) -> Split:
    shards = tuple(Shard(**shard) for shard in values["shards"])
    counts = [values["quarantined"], values["changed"]]
    for shard in shards:
        counts += [shard.records, shard.bytes]
        # Names are joined to the folder's path: none may lead out of it.
        if not re.fullmatch(r"[A-Za-z0-9_.-]+\.tfrecord", shard.file):
            raise ValueError(f"a shard has the name {shard.file!r}")
        for digest, digits in ((shard.crc32c, 8), (shard.sha256, 64)):
            if not re.fullmatch(f"[0-9a-f]{{{digits}}}", digest):
                raise ValueError(f"{shard.file} has a checksum of other than {digits} digits")
    if not all(type(count) is int and count >= 0 for count in counts):
        raise ValueError("a number of records, bytes or items is not one")
    return Split(**{**values, "shards": shards})


def _features(values: Mapping[str, Any]) -> dict[str, Feature]:
    return {n: Feature(**{**f, "shape": tuple(f["shape"])}) for n, f in values.items()}
