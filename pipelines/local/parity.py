"""Runs a pipeline as processes and in Docker, and compares what came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pipelines.local.record import RunRecord, TaskRecord
from trainer.artifact import REPRODUCIBLE

_RUN_SPECIFIC = ("uri",)


def compare(first: RunRecord, second: RunRecord) -> list[str]:
    """The differences between two runs of a pipeline, in words; none means parity.

    Compared are the branches taken, the tasks and how they ended, the values of output parameters,
    the content of artifacts by digest, and their metadata, metrics included. Of an artifact whose
    metadata say that it is not reproducible, the content is not compared.
    """
    names = (first.launcher, second.launcher)
    found = []
    if first.status != second.status:
        found.append(f"the run: {names[0]} {first.status}, {names[1]} {second.status}")
    for path in dict.fromkeys([*first.tasks, *second.tasks]):
        one, other = first.tasks.get(path), second.tasks.get(path)
        if one is None or other is None:
            found.append(f"{path}: only with {names[0] if one else names[1]}")
            continue
        states = tuple("succeeded" if s == "cached" else s for s in (one.status, other.status))
        if states[0] != states[1]:
            found.append(f"{path}: {names[0]} {states[0]}, {names[1]} {states[1]}")
        found += _unequal(path, "parameter", one.parameters, other.parameters, names, _as_it_is)
        contents = (_comparable(one), _comparable(other))
        found += _unequal(path, "content of", *contents, names, lambda d: d[:12])
        found += _unequal(path, "metadata of", one.artifacts, other.artifacts, names, _metadata)
    found += _unequal("the pipeline", "output", first.outputs, second.outputs, names, _metadata)
    return found


def _unequal(
    path: str,
    what: str,
    one: Mapping[str, Any],
    other: Mapping[str, Any],
    names: tuple[str, str],
    view: Callable[[Any], Any],
) -> list[str]:
    found = []
    for name in dict.fromkeys([*one, *other]):
        seen = [view(side[name]) if name in side else "nothing" for side in (one, other)]
        if seen[0] != seen[1]:
            found.append(f"{path}: {what} {name}: {names[0]} {seen[0]}, {names[1]} {seen[1]}")
    return found


def _comparable(task: TaskRecord) -> dict[str, str]:
    """The digests of a task's artifacts, but for those that differ from run to run."""
    return {
        name: digest
        for name, digest in task.digests.items()
        if not isinstance(task.artifacts.get(name), Mapping)
        or task.artifacts[name]["metadata"].get(REPRODUCIBLE, True)
    }


def _as_it_is(value: Any) -> Any:
    return value


def _metadata(artifact: Any) -> Any:
    """An artifact, or a list of them, without where it is."""
    if isinstance(artifact, Mapping):
        return {k: v for k, v in artifact.items() if k not in _RUN_SPECIFIC}
    if isinstance(artifact, list | tuple):
        return [_metadata(each) for each in artifact]
    return artifact
