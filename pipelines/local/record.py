"""What is known of a run, kept in `run.json` from its first moment to its last."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from trainer.artifact import write_json

RUN_FILE = "run.json"

TaskStatus = Literal["waiting", "running", "succeeded", "failed", "cancelled"]
RunStatus = Literal["running", "succeeded", "failed", "interrupted"]


@dataclass(frozen=True)
class TaskRecord:
    """What is known of one task.

    Attributes:
        status: how it stands; cancelled is a task ended, or never started, because of another.
        log: its log file, below the run's folder.
        command: what was called, every placeholder filled in.
        started: when, in UTC (ISO 8601).
        ended: when, in UTC (ISO 8601).
        seconds: how long it took.
        exit_code: the command's own; 128 and the number of the signal that ended it.
        reason: why it failed, where the exit code does not tell.
        parameters: values of its output parameters.
        artifacts: what it gave: `name`, `type`, `uri`, `metadata`.
    """

    status: TaskStatus
    log: str
    command: tuple[str, ...] = ()
    started: str | None = None
    ended: str | None = None
    seconds: float | None = None
    exit_code: int | None = None
    reason: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    artifacts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class RunRecord:
    """What is known of a run.

    Attributes:
        run: its name, which is that of its folder.
        pipeline: name of the pipeline.
        folder: its folder, absolute.
        parameters: value of every pipeline parameter.
        tasks: by name, in an order in which they can run.
        status: how it stands.
        started: when, in UTC (ISO 8601).
        ended: when, in UTC (ISO 8601).
        exit_code: 0 succeeded; 2 and 75 as the failed task said; 1 any other failure; 128 and the
            number of the signal that interrupted it.
    """

    run: str
    pipeline: str
    folder: str
    parameters: Mapping[str, Any]
    tasks: Mapping[str, TaskRecord]
    status: RunStatus
    started: str
    ended: str | None = None
    exit_code: int | None = None

    def artifact(self, name: str) -> Path | None:
        """Where the artifact of this name is; None where no task gave it."""
        for task in self.tasks.values():
            if name in task.artifacts:
                return Path(task.artifacts[name]["uri"])
        return None

    def log(self, task: str) -> Path:
        """The log file of a task."""
        return Path(self.folder) / self.tasks[task].log

    def progress(self, task: str) -> Path:
        """The file that tells how far a running task is."""
        return Path(self.folder) / "tasks" / task / "progress.json"

    def write(self) -> None:
        """Writes `run.json`, which is whole at any moment."""
        write_json(Path(self.folder) / RUN_FILE, {"format": 1, **asdict(self)})


def now() -> str:
    """The time in UTC to the millisecond, such as 2026-11-20T18:00:00.000Z."""
    time = datetime.datetime.now(datetime.UTC)
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
