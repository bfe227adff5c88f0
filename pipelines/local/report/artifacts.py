"""What the tasks of a run gave, even where the record of it is damaged."""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.local.record import WORK, RunRecord


class Artifacts:
    """The artifacts that the tasks of a run gave.

    Attributes:
        all: each with the path of its task and its name there.
    """

    def __init__(self, record: RunRecord):
        self._record = record
        self.all: list[tuple[str, str, dict[str, Any]]] = []
        seen = set()
        for path, task in record.tasks.items():
            if task.kind not in WORK:
                continue  # what a graph gives is what one of its tasks gave
            for name, value in task.artifacts.items():
                for artifact in artifacts_in(value):
                    mark = (str(artifact.get("uri")), name)
                    if mark not in seen:
                        seen.add(mark)
                        self.all.append((path, name, dict(artifact)))

    def of_type(self, title: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Those of one of KFP's types, such as `system.HTML`."""
        return (each for each in self.all if type_of(each[2]) == title)

    def source(self, path: str, name: str, artifact: Mapping[str, Any]) -> dict[str, Any]:
        """Where an artifact comes from, for its heading."""
        place = place_of(artifact)
        address = address_of(self._record, place) if place else ""
        return {"task": path, "name": name, "address": address}


def artifacts_in(value: Any) -> Iterator[Mapping[str, Any]]:
    """The artifacts of a value: itself, or those of a list, however deep."""
    if isinstance(value, Mapping):
        yield value
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for item in value:
            yield from artifacts_in(item)


def type_of(artifact: Mapping[str, Any]) -> str:
    """The type, such as `system.HTML`; empty where it has no name."""
    kind = artifact.get("type")
    return str(kind.get("schemaTitle", "")) if isinstance(kind, Mapping) else ""


def metadata_of(artifact: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the artifact says of itself."""
    metadata = artifact.get("metadata")
    return metadata if isinstance(metadata, Mapping) else {}


def place_of(artifact: Mapping[str, Any]) -> Path | None:
    """Where an artifact is on this machine; None where it is elsewhere."""
    uri = str(artifact.get("uri", "")).removeprefix("file://")
    return Path(uri) if uri.startswith("/") else None


def is_file(path: Path) -> bool:
    """Whether a file is there, as far as may be known."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def address_of(record: RunRecord, path: Path) -> str:
    """The address of a file of the run, as seen from the page; empty where it is no such file."""
    if not path.is_relative_to(record.folder):
        return ""
    return urllib.parse.quote(str(path.relative_to(record.folder)))
