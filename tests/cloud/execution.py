"""Runs what was submitted, by the local engine, or lets it stand as a test wants it to."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import queue
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from pipelines.local import run
from pipelines.local.launcher import Job, Launcher, Running
from pipelines.local.record import RunRecord
from pipelines.local.subprocesses import Subprocesses
from tests.cloud.answers import Refused
from tests.cloud.faults import Faults, Preemption
from trainer.artifact import read_json
from trainer.errors import TryAgain, UserError

Mode = Literal["run", "instant", "hold"]
State = Literal["pending", "running", "succeeded", "failed", "cancelling", "cancelled"]

ENDED: tuple[State, ...] = ("succeeded", "failed", "cancelled")

_GRACE_SECONDS = 2.0
_LOOK_SECONDS = 0.05


class Observer:
    """What wants to know how a piece of work goes; by default nobody does."""

    def changed(self, work: Work) -> None:
        """The state, or something about a task, is another."""

    def attempt(self, work: Work, task: str, job: Job) -> Callable[[int], None]:
        """An attempt at a task begins; what is returned takes its exit code.

        Raises:
            Refused: the cloud would not take it on.
        """
        return lambda code: None


@dataclasses.dataclass
class Work:
    """Something to be run.

    Attributes:
        name: of the job.
        spec: the compiled pipeline, as the local engine can run it.
        parameters: values of its parameters.
        platform: settings for Kubernetes, the second document of a compiled file.
        fail_fast: nothing new starts after a failure.
        keeps: another attempt at a task finds what the last has written, as on Vertex AI.
        place: path of a task -> where its outputs go in a bucket; None for nowhere.
        mode: run, instant or hold.
        observer: is told of it.
        state: how it stands.
        reason: why it failed.
        record: what the local engine knows of it, once that has begun.
    """

    name: str
    spec: Mapping[str, Any]
    parameters: Mapping[str, Any]
    platform: Mapping[str, Any] | None = None
    fail_fast: bool = False
    keeps: bool = True
    place: Callable[[str], Path | None] = lambda task: None
    mode: Mode = "run"
    observer: Observer = dataclasses.field(default_factory=Observer)
    state: State = "pending"
    reason: str = ""
    record: RunRecord | None = None
    running: dict[str, Running] = dataclasses.field(default_factory=dict)
    published: dict[str, Path] = dataclasses.field(default_factory=dict)
    cancelled: threading.Event = dataclasses.field(default_factory=threading.Event)
    ended: threading.Event = dataclasses.field(default_factory=threading.Event)

    def become(self, state: State, reason: str = "") -> None:
        """Takes on a state and tells of it; what has ended stays so."""
        if self.ended.is_set():
            return
        self.state, self.reason = state, reason
        if state in ENDED:
            self.ended.set()
        self.observer.changed(self)


class Execution:
    """Workers that run what is submitted, so many at once.

    Attributes:
        launcher: subprocess or docker.
        tasks: how many tasks of one job may run at once.
        variables: environment variables for all tasks; they have those of this process as well,
            unless they run in containers.

    Args:
        folder: takes the runs.
        workers: how many jobs run at once.
        faults: says which machines are taken away.
        buckets: folder of the buckets.
    """

    def __init__(self, folder: Path, workers: int, faults: Faults, buckets: Path):
        self.launcher: Literal["subprocess", "docker"] = "subprocess"
        self.tasks = os.cpu_count() or 1
        self.variables: dict[str, str] = {}
        self._folder = folder
        self._faults = faults
        self._buckets = buckets
        self._workers = workers
        self._threads: list[threading.Thread] = []
        self._queue: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._active: list[Work] = []
        self._lock = threading.RLock()
        self._closed = False

    def submit(self, work: Work) -> None:
        """Takes on a piece of work."""
        if work.mode == "instant":
            work.become("running")
            work.become("succeeded")
            return
        if work.mode == "hold":
            work.become("running")
            return
        with self._lock:
            if self._closed:
                raise Refused(503, "The service is shutting down.")
            self._active = [w for w in self._active if not w.ended.is_set()]
            self._active.append(work)
            if len(self._threads) < min(self._workers, len(self._active)):
                number = len(self._threads)
                thread = threading.Thread(target=self._serve, name=f"worker {number}")
                self._threads.append(thread)
                thread.start()
        self._queue.put(work)

    def cancel(self, work: Work) -> None:
        """Ends a piece of work and all of its processes."""
        if work.ended.is_set():
            return
        work.cancelled.set()
        if work.mode != "run" or work.state == "pending":
            work.become("cancelled")
            return
        work.become("cancelling")
        with self._lock:
            running = list(work.running.values())
        for each in running:
            each.end(at_once=False)

    def preempt(self, work: Work, task: str, grace: float = 5.0) -> bool:
        """Takes the machine away from a task that runs now; False where it does not run."""
        with self._lock:
            running = work.running.get(task)
        if running is None:
            return False
        self._faults.note("preempt", f"{work.name} {task}")
        running.end(at_once=False)
        if running.wait(grace) is None:
            running.end(at_once=True)
        return True

    def settle(self, seconds: float = 600.0) -> None:
        """Waits until all that was taken on to be run has ended.

        Raises:
            TimeoutError: it takes longer.
        """
        until = time.monotonic() + seconds
        with self._lock:
            active = list(self._active)
        for work in active:
            if not work.ended.wait(max(0.0, until - time.monotonic())):
                raise TimeoutError(f"{work.name} still runs after {seconds:g} s.")

    def close(self) -> None:
        """Ends everything."""
        with self._lock:
            self._closed = True
            active, threads = list(self._active), list(self._threads)
        for work in active:
            self.cancel(work)
        for _ in threads:
            self._queue.put(None)
        for thread in threads:
            thread.join()

    def _serve(self) -> None:
        while (work := self._queue.get()) is not None:
            if work.cancelled.is_set():
                work.become("cancelled")
                continue
            work.become("running")
            try:
                self._run(work)
            except _Cancelled:
                work.become("cancelled")
            except (UserError, TryAgain, OSError) as error:
                work.become("cancelled" if work.cancelled.is_set() else "failed", str(error))
            except Exception as error:  # a fault of the engine must be seen by whoever waits
                work.become("failed", f"Internal error: {type(error).__name__}: {error}")

    def _run(self, work: Work) -> None:
        text = json.dumps(work.spec)
        if work.platform:
            text += "\n---\n" + json.dumps(work.platform)
        options = run.Options(
            jobs=self.tasks,
            fail_fast=work.fail_fast,
            memory=1 << 60,
            grace_seconds=_GRACE_SECONDS,
            variables=self.variables,
        )
        watcher = _Watcher(work, self._publish)
        launcher = _Attempts(self._inner(), work, self)
        record = run.run_pipeline(text, work.parameters, self._folder, watcher, options, launcher)
        watcher.show(record)
        if work.cancelled.is_set():
            work.become("cancelled")
        elif record.status == "succeeded":
            work.become("succeeded")
        else:
            names = ", ".join(path.rpartition("/")[2] for path, _ in record.failures())
            work.become(
                "failed",
                f"The DAG failed because some tasks failed. The failed tasks are: [{names}].",
            )

    def _inner(self) -> Launcher:
        if self.launcher == "subprocess":
            return Subprocesses()
        from pipelines.local import containers

        mounts = ((self._buckets, "/gcs"),)
        return containers.Containers(containers.Options(network="host", mounts=mounts))

    def _publish(self, work: Work, task: str, outputs: Path) -> None:
        """Gives what a task has written further names in a bucket."""
        place = work.place(task)
        if place is None or not outputs.is_dir():
            return
        work.published[task] = place
        _mirror(outputs, place)


class _Cancelled(Exception):
    """The work was cancelled, and nothing of it is at work any more."""


class _Watcher:
    """Is shown a run by the engine, and ends it when it is to be cancelled."""

    def __init__(self, work: Work, publish: Callable[[Work, str, Path], None]):
        self._work = work
        self._publish = publish
        self._since: float | None = None

    def show(self, record: RunRecord) -> None:
        work = self._work
        work.record = record
        for path, task in list(record.tasks.items()):
            if task.status == "cached" and path not in work.published:
                self._publish(work, path, record.task_folder(path) / "outputs")
        work.observer.changed(work)
        if work.cancelled.is_set():
            self._since = self._since or time.monotonic()
            if not work.running or time.monotonic() > self._since + _GRACE_SECONDS:
                raise _Cancelled


class _Attempts:
    """A launcher that sees to it that attempts go as they do in a cloud."""

    def __init__(self, inner: Launcher, work: Work, execution: Execution):
        self.name = inner.name
        self.check = inner.check
        self.begin = inner.begin
        self.expect = inner.expect
        self.identity = inner.identity
        self.hurry = inner.hurry
        self.close = inner.close
        self._inner = inner
        self._work = work
        self._execution = execution

    def start(self, job: Job) -> Running:
        work, execution = self._work, self._execution
        if work.cancelled.is_set():
            raise OSError("the job was cancelled")
        outputs = job.writable / "outputs"
        if not work.keeps:
            for entry in outputs.iterdir():
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        elif job.task in work.published and not any(outputs.iterdir()):
            _mirror(work.published[job.task], outputs)
        try:
            ended = work.observer.attempt(work, job.task, job)
        except Refused as refused:
            raise UserError(refused.message) from refused
        if execution.launcher == "docker":
            job = dataclasses.replace(job, shared=(*job.shared, execution._buckets))
        running = self._inner.start(job)
        attempt = _Attempt(running, work, job, ended, execution)
        with execution._lock:
            work.running[job.task] = attempt
        attempt.watch(execution._faults.of_attempt(work.name, job.task))
        if work.cancelled.is_set():
            attempt.end(at_once=False)
        return attempt


class _Attempt:
    """One attempt at a task, whose machine may be taken away."""

    def __init__(
        self,
        inner: Running,
        work: Work,
        job: Job,
        ended: Callable[[int], None],
        execution: Execution,
    ):
        self._inner = inner
        self._work = work
        self._job = job
        self._ended = ended
        self._execution = execution
        self._over = False
        self._lock = threading.Lock()
        self._preemption: threading.Thread | None = None
        self.end = inner.end
        self.reason = inner.reason

    def wait(self, seconds: float | None) -> int | None:
        code = self._inner.wait(seconds)
        if code is None:
            return None
        with self._lock:
            over, self._over = self._over, True
        if not over:
            with self._execution._lock:
                self._work.running.pop(self._job.task, None)
            if code == 0 or self._work.keeps:
                outputs = self._job.writable / "outputs"
                self._execution._publish(self._work, self._job.task, outputs)
            self._ended(code)
        return code

    def watch(self, preemption: Preemption | None) -> None:
        """Takes the machine away when the time has come."""
        if preemption is not None:
            target, given = self._take_away, (preemption,)
            self._preemption = threading.Thread(target=target, args=given, daemon=True)
            self._preemption.start()

    def _take_away(self, preemption: Preemption) -> None:
        while preemption.found and not any(self._job.writable.glob(preemption.found)):
            if self._inner.wait(_LOOK_SECONDS) is not None:
                return
        if self._inner.wait(preemption.after) is not None:
            return
        self._execution._faults.note("preempt", f"{self._work.name} {self._job.task}")
        self._inner.end(at_once=False)
        if self._inner.wait(preemption.grace) is None:
            self._inner.end(at_once=True)


def input_parameters(job: Job) -> dict[str, Any]:
    """The values that a task takes, as the engine has noted them down."""
    return dict(read_json(job.writable / "task.json").get("input_parameters", {}))


def _mirror(source: Path, target: Path) -> None:
    """Makes a folder have the files of another, as further names of the same content."""
    wanted = {p.relative_to(source) for p in source.rglob("*") if p.is_file()}
    for path in list(target.rglob("*")) if target.exists() else ():
        if path.is_file() and path.relative_to(target) not in wanted:
            path.unlink()
    for name in wanted:
        file, copy = source / name, target / name
        with contextlib.suppress(FileNotFoundError):  # it was renamed meanwhile
            if copy.exists() and copy.samefile(file):
                continue
            copy.parent.mkdir(parents=True, exist_ok=True)
            draft = copy.with_name(f".{copy.name}.draft")
            draft.unlink(missing_ok=True)
            os.link(file, draft)
            os.replace(draft, copy)
