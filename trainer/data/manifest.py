"""`manifest.json`: what a folder of examples holds, shard by shard (standard library only)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainer.artifact import read_json, write_json
from trainer.dataset import Feature
from trainer.errors import UserError

MANIFEST = "manifest.json"
QUARANTINE = "quarantine.jsonl"


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
    """One split: its shards in order, and how many items were refused."""

    shards: tuple[Shard, ...]
    quarantined: int = 0

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
    write_json(Path(folder) / MANIFEST, {"format": 1, **dataclasses.asdict(manifest)})


def read_manifest(folder: str | Path) -> Manifest:
    """Reads `manifest.json`.

    Raises:
        UserError: the folder holds no finished examples.
    """
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise UserError(
            f"Examples must be a folder with a {MANIFEST}, as create_tfrecords writes it; "
            f"{str(folder)!r} has none."
        )
    values = read_json(path)
    if values.pop("format", None) != 1:
        raise UserError(f"{path} must have format 1; create the examples again.")
    values["features"] = _features(values["features"])
    values["split_features"] = {k: _features(v) for k, v in values["split_features"].items()}
    values["splits"] = {
        name: Split(tuple(Shard(**shard) for shard in split["shards"]), split["quarantined"])
        for name, split in values["splits"].items()
    }
    values["class_names"] = tuple(values["class_names"])
    return Manifest(**values)


def _features(values: Mapping[str, Any]) -> dict[str, Feature]:
    return {n: Feature(**{**f, "shape": tuple(f["shape"])}) for n, f in values.items()}
