"""What is known of a run, on disk from its first moment to its last.

`run.json` says how the run stands; `tasks/<task>/task.json` is the truth about each task, written
whenever it changes, so that a run whose engine was killed can be taken up again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from trainer.artifact import read_json, write_text
from trainer.errors import TryAgain, UserError

RUN_FILE = "run.json"
TASK_FILE = "task.json"
PIPELINE_FILE = "pipeline.yaml"
REPORT_FILE = "report.html"
LOCK_FILE = "lock"
FORMAT = 2

TaskStatus = Literal["waiting", "running", "succeeded", "cached", "skipped", "failed", "cancelled"]
RunStatus = Literal["running", "succeeded", "failed", "interrupted"]

DONE = ("succeeded", "cached")
"""What a task is once what it gives is there."""

WORK = ("container", "importer")
"""The kinds of tasks that do something; graphs and loops only hold others."""

_SUMMARY_SECONDS = 1.0
_KEEP_UP_SECONDS = 5.0


@dataclass(frozen=True)
class TaskRecord:
    """What is known of one task.

    Attributes:
        status: how it stands; skipped is a task whose condition did not hold, cancelled one ended,
            or never started, because of another or of the caller.
        kind: container, importer, dag or loop.
        image: the image of a container.
        command: what was called, every placeholder filled in.
        started: when, in UTC (ISO 8601).
        ended: when, in UTC (ISO 8601).
        seconds: how long it took.
        attempts: how often it was started.
        exit_code: the command's own; 128 and the number of the signal that ended it.
        reason: why it failed, or was skipped or cancelled, where the exit code does not tell.
        input_parameters: values of what it took.
        input_artifacts: lists of the artifacts that it took.
        parameters: values of its output parameters.
        artifacts: what it gave: `name`, `type`, `uri`, `metadata`; or a list of such.
        key: what the result depends on, by kind; see `pipelines.local.cache`.
        digests: output artifact -> digest of its content.
        cached_from: the run that did the work, where the cache had the result.
        cache: what the cache did, in words.
    """

    status: TaskStatus
    kind: str = "container"
    image: str = ""
    command: tuple[str, ...] = ()
    started: str | None = None
    ended: str | None = None
    seconds: float | None = None
    attempts: int = 0
    exit_code: int | None = None
    reason: str = ""
    input_parameters: Mapping[str, Any] = field(default_factory=dict)
    input_artifacts: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    artifacts: Mapping[str, Any] = field(default_factory=dict)
    key: Mapping[str, Any] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)
    cached_from: str = ""
    cache: str = ""


@dataclass
class RunRecord:
    """What is known of a run.

    Attributes:
        run: its name, which is that of its folder.
        pipeline: name of the pipeline.
        folder: its folder, absolute.
        parameters: value of every pipeline parameter.
        launcher: subprocess or docker.
        status: how it stands.
        started: when it began first, in UTC (ISO 8601).
        options: how it was asked to run, so that it can be taken up in the same way.
        tasks: by path, such as `train` or `for-loop-1/0/train`, in the order of their appearance.
        outputs: what the pipeline itself gives.
        ended: when, in UTC (ISO 8601).
        seconds: how long it took, all sessions together.
        exit_code: 0 succeeded; 2 and 75 as the failed task said; 1 any other failure; 128 and the
            number of the signal that interrupted it.
        resumed: how often it was taken up again.
        artifacts: what the run itself has, such as its report.
    """

    run: str
    pipeline: str
    folder: str
    parameters: Mapping[str, Any]
    launcher: str
    status: RunStatus
    started: str
    options: Mapping[str, Any] = field(default_factory=dict)
    tasks: dict[str, TaskRecord] = field(default_factory=dict)
    outputs: Mapping[str, Any] = field(default_factory=dict)
    ended: str | None = None
    seconds: float = 0.0
    exit_code: int | None = None
    resumed: int = 0
    artifacts: Mapping[str, Any] = field(default_factory=dict)
    _summarised: float = 0.0

    def artifact(self, name: str) -> Path | None:
        """Where the artifact of this name is; None where no task gave it."""
        for task in self.tasks.values():
            found = task.artifacts.get(name)
            if isinstance(found, Mapping):
                return Path(found["uri"])
        return None

    def failures(self) -> list[tuple[str, TaskRecord]]:
        """The tasks that failed of themselves, and not because one within them did."""
        failed = {path: task for path, task in list(self.tasks.items()) if task.status == "failed"}
        return [
            (path, task)
            for path, task in failed.items()
            if task.kind in WORK or not any(other.startswith(f"{path}/") for other in failed)
        ]

    def task_folder(self, task: str) -> Path:
        """The folder of a task: its command, inputs, outputs, log, status and times."""
        return Path(self.folder) / "tasks" / task

    def log(self, task: str) -> Path:
        """The log file of a task."""
        return self.task_folder(task) / "log.txt"

    def progress(self, task: str) -> Path:
        """The file that tells how far a running task is."""
        return self.task_folder(task) / "progress.json"

    def set_task(self, path: str, record: TaskRecord) -> None:
        """Notes how a task stands, here and on disk."""
        self.tasks[path] = record
        if record.status != "waiting":
            content = {"task": path, **asdict(record)}
            write_text(self.task_folder(path) / TASK_FILE, _json(content))
        if time.monotonic() - self._summarised > _SUMMARY_SECONDS:
            self.write()

    def change(self, path: str, **changes: Any) -> None:
        """Notes what has changed of a task."""
        self.set_task(path, dataclasses.replace(self.tasks[path], **changes))

    def keep_up(self, seconds: float) -> None:
        """Notes how long it has been at work, now and then on disk too."""
        self.seconds = round(seconds, 3)
        if time.monotonic() - self._summarised > _KEEP_UP_SECONDS:
            self.write()

    def write(self) -> None:
        """Writes `run.json`, with the tasks in short; it is whole at any moment."""
        content = {
            "format": FORMAT,
            **{
                f.name: getattr(self, f.name)
                for f in dataclasses.fields(self)
                if f.name not in ("tasks", "_summarised")
            },
            "tasks": {
                path: {"status": t.status, "seconds": t.seconds} for path, t in self.tasks.items()
            },
        }
        write_text(Path(self.folder) / RUN_FILE, _json(content))
        self._summarised = time.monotonic()


def read_run(folder: str | Path, with_tasks: bool = True) -> RunRecord:
    """What is known of the run in a folder.

    Raises:
        UserError: there is none, or it is of another version of paper2hub.
    """
    folder = Path(folder).absolute()
    try:
        content = read_json(folder / RUN_FILE)
        if content.pop("format") != FORMAT:
            raise UserError(
                f"A run must be of format {FORMAT} to be read here; {folder.name} is of another."
            )
        summaries = content.pop("tasks")
        record = RunRecord(**{**content, "folder": str(folder), "run": folder.name})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"A run must be a folder with {RUN_FILE}, as paper2hub writes it; got {folder}."
        ) from error
    if not with_tasks:
        record.tasks = {
            p: TaskRecord(s["status"], seconds=s["seconds"]) for p, s in summaries.items()
        }
        return record
    found = {}
    for file in (folder / "tasks").rglob(TASK_FILE):
        if "outputs" in file.relative_to(folder / "tasks").parts[:-1]:
            continue  # an artifact may hold a file of that name
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            task = read_json(file)
            path = task.pop("task")
            if file == record.task_folder(path) / TASK_FILE:
                found[path] = TaskRecord(**{**task, "command": tuple(task["command"])})
    in_order = [path for path in summaries if path in found]
    later = sorted(set(found) - set(in_order), key=lambda path: found[path].started or "")
    record.tasks = {
        **{path: TaskRecord("waiting") for path in summaries},
        **{path: found[path] for path in (*in_order, *later)},
    }
    return record


def find_run(run: str, root: str | Path) -> Path:
    """The folder of a run that is named by its path, its name, the beginning of it, or `last`.

    Raises:
        UserError: there is no such run, or more than one.
    """
    if (Path(run) / RUN_FILE).is_file():
        return Path(run).absolute()
    folders = run_folders(root)
    if run == "last" and folders:
        return folders[-1]
    exact = [f for f in folders if f.name == run]
    matching = exact or [f for f in folders if f.name.startswith(run)]
    if len(matching) == 1:
        return matching[0]
    names = ", ".join(f.name for f in (matching or folders)[-5:]) or "none"
    what = "several begin so" if matching else "there is none such"
    raise UserError(f"A run must be one of {root}, or `last`; got {run!r}, and {what}: {names}.")


def run_folders(root: str | Path) -> list[Path]:
    """The folders of all runs, the oldest first."""
    found = []
    for file in Path(root).absolute().glob(f"*/{RUN_FILE}"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            found.append((str(read_json(file)["started"]), file.parent))
    return [folder for _, folder in sorted(found)]


@contextlib.contextmanager
def hold(folder: str | Path, seconds: float = 10.0) -> Iterator[int]:
    """Holds a run, so that it has one engine at a time; yields the lock's file descriptor.

    The lock lasts until the last process that has the descriptor is gone; what an engine started
    has it too, and so a run that was killed is free only once nothing of it is left.

    Raises:
        TryAgain: another engine holds it.
    """
    lock = os.open(Path(folder) / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        deadline = time.monotonic() + seconds
        while not _locked(lock):
            if time.monotonic() > deadline:
                raise TryAgain(
                    f"A run can have one engine at a time; {Path(folder).name} is being run."
                )
            time.sleep(0.05)
        yield lock
    finally:
        os.close(lock)


def held(folder: str | Path) -> bool:
    """Whether an engine is running the run right now."""
    try:
        lock = os.open(Path(folder) / LOCK_FILE, os.O_RDWR)
    except OSError:
        return False
    try:
        return not _locked(lock)
    finally:
        os.close(lock)


def now() -> str:
    """The time in UTC to the millisecond, such as 2026-11-20T18:00:00.000Z."""
    moment = datetime.datetime.now(datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False, default=str) + "\n"
