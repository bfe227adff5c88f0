"""Runs the tasks of a pipeline, several at once, and keeps account of them.

A run lives in one folder, `<root>/<pipeline>-<UTC time>-<short id>/`:
`pipeline.yaml` what is run · `run.json` how it stands · `logs/<task>.log` what each task printed ·
`<task>/<artifact>` what it gave · `tasks/<task>/` its working folder.
"""

from __future__ import annotations

import contextlib
import datetime
import secrets
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipelines.local import process
from pipelines.local.display import Display
from pipelines.local.executor import Artifact, TaskFolders, prepare, read_outputs
from pipelines.local.graph import Graph, PipelineInput, TaskOutput, parameter_values, parse_graph
from pipelines.local.placeholders import Scope, resolve_command
from pipelines.local.record import RunRecord, RunStatus, TaskRecord, TaskStatus, now
from trainer.artifact import write_text
from trainer.errors import TryAgain, UserError
from trainer.progress import PROGRESS_FILE

PIPELINE_FILE = "pipeline.yaml"
_OWN_FOLDERS = ("logs", "tasks")
_TICK_SECONDS = 0.2
_GRACE_SECONDS = 30.0  # what Kubernetes grants


def run_pipeline(
    text: str,
    parameters: Mapping[str, Any],
    root: str | Path,
    display: Display,
    jobs: int = 1,
    grace_seconds: float = _GRACE_SECONDS,
) -> RunRecord:
    """Runs a compiled pipeline to its end, good or bad.

    Tasks start as soon as what they need is there. After a failure no task starts any more and
    running ones are ended. SIGINT, SIGTERM and SIGHUP end all tasks and then the run; a second
    signal does so at once.

    Args:
        text: the compiled pipeline.
        parameters: values of its parameters.
        root: folder for the run's folder.
        display: is shown the run as it goes.
        jobs: how many tasks may run at once.
        grace_seconds: how long a task may take to end when it is asked to.

    Raises:
        UserError: the pipeline or its parameters are such that nothing was started.
    """
    graph = parse_graph(text)
    values = parameter_values(graph, parameters)
    if jobs < 1:
        raise UserError(f"At least 1 task must be allowed at once; got {jobs}.")
    for name in _OWN_FOLDERS:
        if name in graph.tasks:
            raise UserError(f"A task must not be named {' or '.join(_OWN_FOLDERS)}; one is {name}.")
    folder = _new_folder(Path(root), graph.name)
    write_text(folder / PIPELINE_FILE, text)
    record = RunRecord(
        run=folder.name,
        pipeline=graph.name,
        folder=str(folder),
        parameters=values,
        tasks={name: TaskRecord("waiting", f"logs/{name}.log") for name in graph.tasks},
        status="running",
        started=now(),
    )
    with _signals() as received:
        return _Run(graph, record, display, jobs, grace_seconds, received).to_its_end()


@dataclass(frozen=True)
class _Running:
    """A task that has been started."""

    process: subprocess.Popen[bytes]
    scope: Scope
    began: float


class _Run:
    """The state of a run in progress: a record that is replaced, and the processes."""

    def __init__(
        self,
        graph: Graph,
        record: RunRecord,
        display: Display,
        jobs: int,
        grace_seconds: float,
        received: list[int],
    ):
        self.graph = graph
        self.record = record
        self.display = display
        self.jobs = jobs
        self.grace_seconds = grace_seconds
        self.received = received
        self.running: dict[str, _Running] = {}

    def to_its_end(self) -> RunRecord:
        """Runs all tasks that can be run."""
        self._save(self.record)
        while not self.received:
            self._collect()
            failed = [t for t in self.record.tasks.values() if t.status == "failed"]
            if failed:
                return self._stop("failed", _exit_code(failed[0]))
            self._start_ready()
            if all(t.status == "succeeded" for t in self.record.tasks.values()):
                return self._stop("succeeded", 0)
            self.display.show(self.record)
            time.sleep(_TICK_SECONDS)
        return self._stop("interrupted", 128 + self.received[0])

    def _start_ready(self) -> None:
        """Starts what has all it needs, as far as there is room."""
        for name, task in self.graph.tasks.items():
            if len(self.running) >= self.jobs:
                return
            needed = (self.record.tasks[other].status for other in task.after)
            if self.record.tasks[name].status == "waiting" and all(
                status == "succeeded" for status in needed
            ):
                self._start(name)

    def _start(self, name: str) -> None:
        task, folder = self.graph.tasks[name], Path(self.record.folder)
        folders = TaskFolders(artifacts=folder / name, work=folder / "tasks" / name)
        environment = {PROGRESS_FILE: str(self.record.progress(name)), **task.environment}
        started, began = now(), time.monotonic()
        try:
            scope = prepare(
                task, self._values(name), self._artifacts(name), folders, self._facts(name)
            )
            command = resolve_command(task.command, scope)
            self._update(name, status="running", started=started, command=tuple(command))
            child = process.start(command, folders.work, self.record.log(name), environment)
        except UserError as error:
            self._end(name, began, "failed", UserError.exit_code, reason=str(error))
        except OSError as error:
            reason = f"It could not be started: {error}."
            self._end(name, began, "failed", process.NOT_STARTED, reason=reason)
        else:
            self.running[name] = _Running(child, scope, began)

    def _values(self, name: str) -> dict[str, Any]:
        """What the task's parameters get from the pipeline and from other tasks."""
        values = {}
        for key, source in self.graph.tasks[name].sources.items():
            if isinstance(source, PipelineInput):
                values[key] = self.record.parameters[source.parameter]
            elif isinstance(source, TaskOutput):
                values[key] = self.record.tasks[source.task].parameters[source.output]
        return values

    def _artifacts(self, name: str) -> dict[str, Artifact]:
        return {
            key: self.record.tasks[source.task].artifacts[source.output]
            for key, source in self.graph.tasks[name].artifacts.items()
        }

    def _facts(self, name: str) -> dict[str, str]:
        run, started = self.record.run, self.record.started
        return {
            "pipeline_job_name": run,
            "pipeline_job_uuid": run,
            "pipeline_job_resource_name": run,
            "pipeline_job_create_time_utc": started,
            "pipeline_job_schedule_time_utc": started,
            "pipeline_root": self.record.folder,
            "pipeline_task_name": name,
            "pipeline_task_uuid": f"{run}-{name}",
        }

    def _collect(self) -> None:
        """Takes account of the tasks that have ended."""
        for name, running in list(self.running.items()):
            code = process.poll(running.process)
            if code is not None:
                self._take(name, code)

    def _take(self, name: str, code: int) -> None:
        """Records a task that has ended by itself."""
        running = self.running.pop(name)
        if code:
            self._end(name, running.began, "failed", code, reason=_signal_reason(code))
            return
        try:
            outputs = read_outputs(self.graph.tasks[name], running.scope)
        except UserError as error:
            self._end(name, running.began, "failed", code, reason=str(error))
        else:
            given = {"parameters": outputs.parameters, "artifacts": outputs.artifacts}
            self._end(name, running.began, "succeeded", code, **given)

    def _stop(self, status: RunStatus, exit_code: int) -> RunRecord:
        """Ends what still runs and closes the record."""
        self.received.clear()  # one more signal from here on means: at once
        children = [running.process for running in self.running.values()]
        process.end(children, self.grace_seconds, impatient=lambda: bool(self.received))
        for name, running in list(self.running.items()):
            code = process.poll(running.process)
            if code == 0:
                self._take(name, code)
            else:
                del self.running[name]
                self._end(name, running.began, "cancelled", code)
        for name, task in self.record.tasks.items():
            if task.status == "waiting":
                self._update(name, status="cancelled")
        self._save(replace(self.record, status=status, ended=now(), exit_code=exit_code))
        return self.record

    def _end(
        self, name: str, began: float, status: TaskStatus, code: int | None, **more: Any
    ) -> None:
        """Records the end of a task."""
        seconds = round(time.monotonic() - began, 3)
        self._update(name, status=status, ended=now(), seconds=seconds, exit_code=code, **more)

    def _update(self, name: str, **changes: Any) -> None:
        task = replace(self.record.tasks[name], **changes)
        self._save(replace(self.record, tasks={**self.record.tasks, name: task}))

    def _save(self, record: RunRecord) -> None:
        self.record = record
        record.write()
        self.display.show(record)


def _exit_code(task: TaskRecord) -> int:
    """The exit code of a run that failed by this task."""
    known = (UserError.exit_code, TryAgain.exit_code)
    return next((code for code in known if code == task.exit_code), 1)


def _signal_reason(code: int) -> str:
    """What ended a command that did not end by itself."""
    if code == 128 + signal.SIGKILL:
        return "It was killed; most often by the system, for want of memory."
    if code > 128:
        with contextlib.suppress(ValueError):
            return f"It was ended by {signal.Signals(code - 128).name}."
    return ""


def _new_folder(root: Path, pipeline: str) -> Path:
    time_text = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
    folder = root.absolute() / f"{pipeline}-{time_text}-{secrets.token_hex(3)}"
    folder.mkdir(parents=True)
    return folder


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """Collects the signals that ask the run to end, instead of being ended by them."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received  # Python delivers signals to the main thread alone
        return
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {n: signal.signal(n, lambda number, _: received.append(number)) for n in numbers}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
