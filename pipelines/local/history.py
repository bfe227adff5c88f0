"""What earlier runs tell: which there are, why a task ran or did not, how long tasks take."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from pipelines.local.cache import differences
from pipelines.local.record import DONE, RunRecord, held, read_run, run_folders
from trainer.errors import UserError


@dataclasses.dataclass(frozen=True)
class RunSummary:
    """A run in a line.

    Attributes:
        run: its name.
        pipeline: name of the pipeline.
        status: how it stands; killed is a run that nobody runs and nobody ended.
        started: when, in UTC (ISO 8601).
        seconds: how long it took.
        launcher: subprocess or docker.
        tasks: status -> how many tasks have it.
    """

    run: str
    pipeline: str
    status: str
    started: str
    seconds: float
    launcher: str
    tasks: Mapping[str, int]


def summarise(root: str | Path) -> list[RunSummary]:
    """All runs of a root folder, the oldest first."""
    summaries = []
    for folder in run_folders(root):
        try:
            record = read_run(folder, with_tasks=False)
        except UserError:
            continue  # of another version
        status = status_of(record)
        if status == "killed":
            record = read_run(folder)  # its summary may be older than its tasks
        counts: dict[str, int] = {}
        for task in record.tasks.values():
            name = "cut off" if (status, task.status) == ("killed", "running") else task.status
            counts[name] = counts.get(name, 0) + 1
        summaries.append(
            RunSummary(
                run=record.run,
                pipeline=record.pipeline,
                status=status,
                started=record.started,
                seconds=record.seconds,
                launcher=record.launcher,
                tasks=counts,
            )
        )
    return summaries


def status_of(record: RunRecord) -> str:
    """How a run stands; killed where its record says running and no engine runs it."""
    if record.status == "running" and not held(record.folder):
        return "killed"
    return record.status


def usual_seconds(root: str | Path, pipeline: str) -> dict[str, float]:
    """How long each task took when it last did its work, by path."""
    found: dict[str, float] = {}
    for folder in run_folders(root)[-_RUNS_TO_LEARN_FROM:]:
        try:
            record = read_run(folder, with_tasks=False)
        except UserError:
            continue
        if record.pipeline == pipeline:
            found |= {
                path: task.seconds
                for path, task in record.tasks.items()
                if task.status == "succeeded" and task.seconds is not None
            }
    return found


_RUNS_TO_LEARN_FROM = 20


def why(folder: str | Path, task: str) -> list[str]:
    """Why a task ran, or did not, and what had changed since the run before; in lines.

    Args:
        folder: the run's folder.
        task: path of the task; its last part is enough where only one task has it.

    Raises:
        UserError: there is no such run or task.
    """
    record = read_run(folder)
    path = find_task(record, task)
    found = record.tasks[path]
    lines = [f"{path}: {found.status}" + (f". {found.reason}" if found.reason else "")]
    if found.status == "cached":
        lines.append(f"Taken from {found.cached_from}: nothing that it depends on had changed.")
        return lines
    if found.kind != "container" or not found.key:
        return lines
    if found.cache:
        lines.append(f"Cache: {found.cache}.")
    before = _before(record, path)
    if before is None:
        lines.append("No earlier run of this pipeline got as far as this task.")
        return lines
    run, earlier = before.run, before.tasks[path]
    changes = differences(earlier.key, found.key)
    if changes:
        lines.append(f"Since {run}:")
        lines += [f"- {change}" for change in changes]
    elif earlier.status in DONE:
        lines.append(f"Nothing had changed since {run}.")
    else:
        lines.append(f"Nothing had changed since {run}, where it {earlier.status}.")
    return lines


def find_task(record: RunRecord, task: str) -> str:
    """The path of a task that is named by its path, or by the end of it.

    Raises:
        UserError: there is none, or more than one.
    """
    if task in record.tasks:
        return task
    ending = [path for path in record.tasks if path.endswith(f"/{task}")]
    if len(ending) == 1:
        return ending[0]
    what = "several tasks end so" if ending else "it has none such"
    names = ", ".join((ending or list(record.tasks))[:10]) or "none yet"
    raise UserError(f"A task of {record.run} must be named; got {task!r}, and {what}: {names}.")


def _before(record: RunRecord, path: str) -> RunRecord | None:
    """The last run before this one that knows what the task depended on."""
    earlier = []
    for folder in run_folders(Path(record.folder).parent):
        try:
            summary = read_run(folder, with_tasks=False)
        except UserError:
            continue
        if summary.pipeline == record.pipeline and summary.started < record.started:
            earlier.append(folder)
    for folder in reversed(earlier):
        found = read_run(folder)
        if path in found.tasks and found.tasks[path].key:
            return found
    return None
