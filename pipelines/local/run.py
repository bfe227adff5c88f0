"""Runs a pipeline: what can run starts, several at once, and what is known is kept on disk.

A run lives in one folder, `<root>/<pipeline>-<UTC time>-<short id>/`:
`pipeline.yaml` what is run · `run.json` how it stands · `tasks/<task>/` one folder per task with
its record, log and outputs · `report.html` all of it on one page.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import datetime
import heapq
import itertools
import queue
import secrets
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.local import placeholders, resources
from pipelines.local.cache import Cache, key_of
from pipelines.local.digest import of_value
from pipelines.local.display import Display
from pipelines.local.executor import Outputs, TaskFolder, read_outputs, scope_of
from pipelines.local.graph import Container, Graph, parameter_values, parse_graph
from pipelines.local.launcher import NOT_STARTED, Job, Launcher, Running
from pipelines.local.plan import Node, Plan
from pipelines.local.record import (
    DONE,
    PIPELINE_FILE,
    RunRecord,
    RunStatus,
    TaskRecord,
    hold,
    now,
    read_run,
)
from trainer.artifact import write_text
from trainer.errors import TryAgain, UserError
from trainer.progress import GOES_ON, PROGRESS_FILE

TIMED_OUT = 124
"""Exit code of a task that took too long, as that of timeout(1)."""

_TICK_SECONDS = 0.5
_GRACE_SECONDS = 3.0
"""How long a task may take to end when it is asked to: Ctrl-C has to be over within 5 s (ours)."""


@dataclass(frozen=True)
class Options:
    """How to run.

    Attributes:
        jobs: how many tasks may run at once.
        cache: whether earlier results may be used; None: where the pipeline says so.
        timeout: seconds that a task may take; None for any time.
        timeouts: the same for single tasks, by name.
        fail_fast: end everything at the first failure, instead of what depends on it alone.
        memory: bytes that all tasks together may ask for; None for what the machine has.
        grace_seconds: how long a task may take to end when it is asked to.
        variables: environment variables for all tasks; their values are never written down.
    """

    jobs: int = 1
    cache: bool | None = None
    timeout: float | None = None
    timeouts: Mapping[str, float] = field(default_factory=dict)
    fail_fast: bool = False
    memory: int | None = None
    grace_seconds: float = _GRACE_SECONDS
    variables: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.jobs < 1:
            raise UserError(f"At least 1 task must be allowed at once; got {self.jobs}.")


def run_pipeline(
    text: str,
    parameters: Mapping[str, Any],
    root: str | Path,
    display: Display,
    options: Options = Options(),
    launcher: Launcher | None = None,
) -> RunRecord:
    """Runs a compiled pipeline to its end, good or bad.

    Tasks start as soon as what they need is there. After a failure, what does not depend on it
    goes on. SIGINT, SIGTERM and SIGHUP end all tasks and leave a run that can be taken up again; a
    second signal does so at once.

    Args:
        text: the compiled pipeline.
        parameters: values of its parameters; addresses of its artifacts.
        root: folder for the run's folder.
        display: is shown the run as it goes.
        options: how to run.
        launcher: what runs the tasks; None for processes of this machine.

    Raises:
        UserError: the pipeline or its parameters are such that nothing was started.
    """
    launcher = launcher or _subprocesses()
    graph = parse_graph(text)
    values, artifacts = _inputs(graph, parameters)
    _check(graph, options)
    launcher.check(graph)
    record = RunRecord(
        run="",
        pipeline=graph.name,
        folder="",
        parameters={**values, **{name: a["uri"] for name, a in artifacts.items()}},
        launcher=launcher.name,
        status="running",
        started=now(),
        options=_as_json(options),
    )
    _make_folder(Path(root), record, text)
    folder = Path(record.folder)
    return _hold_and_run(graph, folder, record, values, artifacts, display, options, launcher)


def resume_run(
    folder: str | Path,
    display: Display,
    options: Options | None = None,
    launcher: Launcher | None = None,
) -> RunRecord:
    """Takes up a run that was interrupted, killed or failed; what it has done is not done again.

    Args:
        folder: the run's folder.
        display: is shown the run as it goes.
        options: how to run; None for how it ran before.
        launcher: what runs the tasks; None for processes of this machine.

    Raises:
        UserError: there is no run, or it has nothing left to do.
        TryAgain: it is being run.
    """
    launcher = launcher or _subprocesses()
    text = ""
    with contextlib.suppress(OSError):
        text = (Path(folder) / PIPELINE_FILE).read_text(encoding="utf-8")
    record = read_run(folder)
    graph = parse_graph(text)
    values, artifacts = _inputs(graph, record.parameters)
    options = options or Options(**{k: v for k, v in record.options.items() if k != "variables"})
    _check(graph, options)
    launcher.check(graph)
    if record.status == "succeeded":
        raise UserError(f"A run to resume must have something left to do; {record.run} succeeded.")
    folder = Path(record.folder)
    return _hold_and_run(graph, folder, None, values, artifacts, display, options, launcher)


def _hold_and_run(
    graph: Graph,
    folder: Path,
    record: RunRecord | None,
    values: Mapping[str, Any],
    artifacts: Mapping[str, Any],
    display: Display,
    options: Options,
    launcher: Launcher,
) -> RunRecord:
    """Runs a new run, or with no record the one in the folder, with nobody else at it."""
    with _signals() as received, hold(folder) as lock:
        previous: Mapping[str, TaskRecord] = {}
        if record is None:
            before = read_run(folder)  # again, now that no other engine writes
            previous = before.tasks
            record = dataclasses.replace(
                before,
                status="running",
                tasks={},
                ended=None,
                exit_code=None,
                launcher=launcher.name,
                options=_as_json(options),
                resumed=before.resumed + 1,
            )
        run = _Run(graph, record, display, options, launcher, received, previous)
        record = run.to_its_end(values, artifacts, lock)
        _attach_report(record)
        return record


def _prepare_report() -> None:
    """Gets ready what the report needs, while tasks are at work."""
    from pipelines.local.report import template

    template()


def _attach_report(record: RunRecord) -> None:
    """Writes the run's report and notes it as an artifact of the run."""
    from pipelines.local.report import write_report

    page = write_report(record)
    kind = {"schemaTitle": "system.HTML", "schemaVersion": "0.0.1"}
    artifact = {"name": "report", "type": kind, "uri": str(page), "metadata": {}}
    record.artifacts = {"report": artifact}
    record.write()


@dataclass
class _Outcome:
    """How one attempt at a task has ended."""

    status: str
    outputs: Outputs = field(default_factory=lambda: Outputs({}, {}))
    changes: dict[str, Any] = field(default_factory=dict)


class _Run:
    """A run in progress: one thread that decides, and one per task that waits for it."""

    def __init__(
        self,
        graph: Graph,
        record: RunRecord,
        display: Display,
        options: Options,
        launcher: Launcher,
        received: queue.SimpleQueue[Any],
        previous: Mapping[str, TaskRecord],
    ):
        self.graph = graph
        self.record = record
        self.display = display
        self.options = options
        self.launcher = launcher
        self.events = received
        self.previous = previous
        self.folder = Path(record.folder)
        self.lock = threading.RLock()
        self.cache = Cache(self.folder.parent)
        self.plan = Plan(graph.dag, self)
        self.queue: list[Node] = []
        self.later: list[tuple[float, int, Node]] = []
        self.sequence = itertools.count()
        self.active: dict[str, Node] = {}
        self.running: dict[str, Running] = {}
        self.signals = 0
        self.signal = 0
        self.failed_fast = False
        self.prepared = False
        self.began = time.monotonic()
        self.budget = options.memory or resources.machine_memory()
        self.expected = {path: c.command for path, c in graph.containers()}
        self.pool = concurrent.futures.ThreadPoolExecutor(options.jobs)

    def to_its_end(
        self, values: Mapping[str, Any], artifacts: Mapping[str, Any], lock: int
    ) -> RunRecord:
        """Runs all tasks that can be run."""
        before = self.record.seconds
        status: RunStatus = "failed"  # unless it comes to a verdict
        code = 1
        self.record.write()
        try:
            self.launcher.begin(self.folder.parent, self.record.run, lock)
            self.launcher.expect(list(self.expected.values()))
            self.plan.begin(values, {name: [a] for name, a in artifacts.items()})
            while not self.plan.ended:
                self._dispatch()
                self.display.show(self.record)
                self._take_event()
                with self.lock:
                    self.record.keep_up(before + time.monotonic() - self.began)
            status, code = self._verdict()
        finally:
            self._end_running(at_once=True)
            self.pool.shutdown()
            self.launcher.close()
            self.cache.close()
            self.record.ended = now()
            self.record.seconds = round(before + time.monotonic() - self.began, 3)
            self.record.status, self.record.exit_code = status, code
            with self.lock:
                self.record.write()
        self.display.show(self.record)
        return self.record

    # What the plan asks for.

    def appeared(self, node: Node) -> None:
        """A task has become known; it waits."""
        with self.lock:
            self.record.set_task(node.path, TaskRecord("waiting", kind=node.kind))

    def settled(self, node: Node, reason: str) -> None:
        """A task that is no container, or never started, has ended."""
        changes: dict[str, Any] = {"status": node.status, "reason": reason, "ended": now()}
        if node.status in DONE:
            changes |= {"parameters": node.parameters, "artifacts": node.artifacts}
        started = self.record.tasks[node.path].started
        if started:
            changes["seconds"] = _seconds_since(started)
        if node.status == "failed":
            changes["exit_code"] = node.code
        with self.lock:
            self.record.change(node.path, **changes)

    def began_group(self, node: Node) -> None:
        """A graph or a loop has begun."""
        with self.lock:
            self.record.change(node.path, status="running", started=now())

    def ready(self, node: Node) -> None:
        """A container has all it needs."""
        self.queue.append(node)

    def stopping(self, node: Node) -> str:
        """Why nothing new may start, if so."""
        if self.signals:
            return "the run was interrupted"
        if self.failed_fast and not node.exempt:
            return "another task failed"
        return ""

    def facts(self, node: Node) -> dict[str, str]:
        """What the placeholders about run and task stand for."""
        run, started = self.record.run, self.record.started
        return {
            "pipeline_job_name": run,
            "pipeline_job_uuid": run,
            "pipeline_job_resource_name": run,
            "pipeline_job_create_time_utc": started,
            "pipeline_job_schedule_time_utc": started,
            "pipeline_root": str(self.folder),
            "pipeline_task_name": node.task.name,
            "pipeline_task_uuid": f"{run}-{node.path.replace('/', '-')}",
            "workspace_path": str(self.folder / "workspace"),
        }

    # The thread that decides.

    def _take_event(self) -> None:
        """Waits for something to happen: a task that has ended, a signal, or time."""
        wait = _TICK_SECONDS
        if self.later:
            wait = max(0.0, min(wait, self.later[0][0] - time.monotonic()))
        try:
            event = self.events.get(timeout=wait)
        except queue.Empty:
            if not self.prepared:  # now, and not while the first tasks are starting
                self.prepared = True
                threading.Thread(target=_prepare_report, daemon=True).start()
        else:
            while event is not None:
                self._handle(event)
                try:
                    event = self.events.get_nowait()
                except queue.Empty:
                    event = None
        while self.later and self.later[0][0] <= time.monotonic():
            self.queue.append(heapq.heappop(self.later)[2])

    def _handle(self, event: Any) -> None:
        if isinstance(event, int):
            self._interrupt(event)
            return
        node, outcome = event
        self.active.pop(node.path, None)
        if self.expected.pop(node.path, None):
            self.launcher.expect(list(self.expected.values()))
        failures = outcome.changes.get("attempts", self.record.tasks[node.path].attempts)
        if (
            outcome.status == "failed"
            and failures <= node.task.retry.attempts
            and not _in_vain(node, outcome)
            and not self.stopping(node)
        ):
            with self.lock:
                self.record.change(node.path, **outcome.changes, status="waiting")
            at = time.monotonic() + node.task.retry.seconds(max(failures, 1))
            heapq.heappush(self.later, (at, next(self.sequence), node))
            return
        with self.lock:
            self.record.change(
                node.path,
                **outcome.changes,
                status=outcome.status,
                parameters=outcome.outputs.parameters,
                artifacts=outcome.outputs.artifacts,
            )
        if outcome.status == "failed" and self.options.fail_fast:
            self.failed_fast = True
            self._cancel_queue()
            self._end_running(at_once=False)
        self.plan.settle(
            node,
            outcome.status,
            outcome.outputs.parameters,
            outcome.outputs.artifacts,
            told=True,
            code=outcome.changes.get("exit_code"),
        )

    def _interrupt(self, number: int) -> None:
        self.signals += 1
        if self.signals > 1:
            self._end_running(at_once=True)
            return
        self.signal = number
        self._cancel_queue()
        self._end_running(at_once=False)
        timer = threading.Timer(self.options.grace_seconds, self._end_running, [True])
        timer.daemon = True
        timer.start()

    def _cancel_queue(self) -> None:
        """What waits for room or for another attempt is not started any more."""
        waiting = [*self.queue, *(node for _, _, node in self.later)]
        kept = [node for node in waiting if not self.stopping(node)]
        self.queue, self.later = kept, []
        for node in waiting:
            reason = self.stopping(node)
            if reason:
                self.plan.settle(node, "cancelled", {}, {}, reason=reason)

    def _end_running(self, at_once: bool) -> None:
        self.launcher.hurry()
        with self.lock:
            running = list(self.running.values())
        for each in running:
            each.end(at_once)

    def _dispatch(self) -> None:
        """Starts what has all it needs, as far as there is room."""
        queued, self.queue, waiting = self.queue, [], []
        used = sum(node.memory for node in self.active.values())
        for index, node in enumerate(queued):
            if len(self.active) >= self.options.jobs:
                waiting += queued[index:]
                break
            try:
                node.memory = self._memory(node)
            except UserError as error:
                self.plan.settle(node, "failed", {}, {}, reason=str(error), code=2)
                continue
            if used + node.memory > self.budget and self.active:
                waiting.append(node)
                continue
            used += node.memory
            self.active[node.path] = node
            self.pool.submit(self._work, node)
        self.queue = waiting + self.queue

    def _memory(self, node: Node) -> int:
        """The bytes that a container asks for."""
        work = node.task.work
        if not isinstance(work, Container):
            return 0
        wished = work.resources.memory_request or work.resources.memory
        if not wished:
            return 0
        if "{{" in wished:
            wished = "".join(placeholders.resolve_command([wished], self._scope(node)))
        size = resources.bytes_of(wished, f"The memory of {node.path}")
        _check_memory(node.path, size, self.budget)
        return size

    def _verdict(self) -> tuple[RunStatus, int]:
        if self.signals:
            return "interrupted", 128 + self.signal
        failed = [task for _, task in self.record.failures()]
        if failed:
            codes = (UserError.exit_code, TryAgain.exit_code)
            return "failed", next((c for c in codes if c == failed[0].exit_code), 1)
        self.record.outputs = {**self.plan.parameters, **self.plan.artifacts}
        return "succeeded", 0

    # The threads that wait, one per task.

    def _work(self, node: Node) -> None:
        try:
            outcome = self._attempt(node)
        except (UserError, TryAgain) as error:
            outcome = self._failure(node, error.exit_code, str(error))
        except OSError as error:
            outcome = self._failure(node, NOT_STARTED, f"It could not be started: {error}.")
        except BaseException as error:  # a fault of the engine must not hang the run
            outcome = self._failure(node, 1, f"The engine failed: {type(error).__name__}: {error}.")
        self.events.put((node, outcome))

    def _failure(self, node: Node, code: int, reason: str) -> _Outcome:
        with self.lock:
            record = self.record.tasks[node.path]
        changes: dict[str, Any] = {"exit_code": code, "reason": reason, "ended": now()}
        if record.status != "running":  # it did not come so far as to be counted
            changes["attempts"] = record.attempts + 1
        if record.started:
            changes["seconds"] = _seconds_since(record.started)
        return _Outcome("cancelled" if self.stopping(node) else "failed", changes=changes)

    def _attempt(self, node: Node) -> _Outcome:
        """Takes a result from where there is one, or has the work done."""
        kept = self._kept(node)
        if kept is not None:
            return kept
        container = node.task.work
        if not isinstance(container, Container):
            raise TypeError(f"Only containers are attempted; {node.path} is none.")
        folder = TaskFolder(self.record.task_folder(node.path))
        began = time.monotonic()
        scope = self._scope(node)
        command = tuple(placeholders.resolve_command(container.command, scope))
        image = "".join(placeholders.resolve_command([container.image], scope))
        inputs = scope.executor_input["inputs"]
        changes: dict[str, Any] = {
            "started": now(),
            "image": image,
            "command": command,
            "input_parameters": inputs["parameterValues"],
            "input_artifacts": {n: a["artifacts"] for n, a in inputs["artifacts"].items()},
        }
        texts = list(placeholders.texts(dict(inputs["parameterValues"])))
        identity = self.launcher.identity(image, container.command, texts)
        digests = {
            name: [self.cache.of_artifact(a) for a in artifact["artifacts"]]
            for name, artifact in inputs["artifacts"].items()
        }
        key = key_of(node.task, scope, identity, digests)
        use, keep, why = self._caching(node, key)
        name = of_value(key) if key is not None else ""
        folder.empty(keep_outputs=self._goes_on(node, container, key))
        if use:
            entry, problem = self.cache.find(name)
            if entry is not None:
                folder.empty()
                outputs = self.cache.take(entry, folder.outputs)
                changes |= _timed(began)
                changes |= {
                    "key": key or {},
                    "digests": dict(entry.digests),
                    "cached_from": entry.run,
                    "cache": f"taken from {entry.run}",
                    "exit_code": 0,
                    "reason": "",
                }
                return _Outcome("cached", outputs, changes)
            why = problem or "no earlier result has the same code, parameters and inputs"
        changes |= {"key": key or {}, "cache": why, "reason": "", "exit_code": None}
        with self.lock:
            attempts = self.record.tasks[node.path].attempts + 1
            self.record.change(node.path, **changes, status="running", attempts=attempts)
        code, reason = self._execute(node, container, command, scope, folder, attempts)
        ended = {**_timed(began), "exit_code": code, "reason": reason}
        if code:
            stopped = self.stopping(node)
            return _Outcome("cancelled" if stopped else "failed", changes=ended)
        outputs = read_outputs(node.task, scope)
        found = self.cache.digests_of(outputs)
        if keep:
            try:
                self.cache.store(name, self.record.run, outputs, found, folder.outputs)
            except OSError as error:
                ended["cache"] = f"{why}; it could not be kept: {error.strerror}"
        return _Outcome("succeeded", outputs, {**ended, "digests": found})

    def _kept(self, node: Node) -> _Outcome | None:
        """What this run has done before it was taken up again, if it is still as it was."""
        before = self.previous.get(node.path)
        if before is None or before.status not in DONE:
            return None
        outputs = Outputs(before.parameters, before.artifacts)
        try:
            if self.cache.digests_of(outputs) != dict(before.digests):
                return None
        except OSError:
            return None
        changes = {f.name: getattr(before, f.name) for f in dataclasses.fields(before)}
        for own in ("status", "parameters", "artifacts"):
            del changes[own]
        return _Outcome(before.status, outputs, changes)

    def _goes_on(self, node: Node, container: Container, key: Mapping[str, Any] | None) -> bool:
        """Whether an attempt may find what an earlier one of this run has left.

        Only where the step says that it can make use of it, and all that it depends on is the same.
        """
        with self.lock:
            earlier = self.record.tasks[node.path]
        if not earlier.attempts:
            earlier = self.previous.get(node.path, earlier)
        asked = container.environment.get(GOES_ON, "") == "1"
        return (
            asked
            and key is not None
            and bool(earlier.key)
            and of_value(earlier.key) == of_value(key)
        )

    def _caching(self, node: Node, key: Mapping[str, Any] | None) -> tuple[bool, bool, str]:
        """Whether a result may be used, whether it is to be kept, and why not."""
        if key is None:
            return False, False, "it reads folders of too many files to watch"
        asked = node.task.cached if self.options.cache is None else self.options.cache
        if not asked:
            why = "--no-cache" if self.options.cache is False else "the pipeline says so"
            return False, node.task.cached, f"not looked for: {why}"
        return True, True, ""

    def _execute(
        self,
        node: Node,
        container: Container,
        command: tuple[str, ...],
        scope: placeholders.Scope,
        folder: TaskFolder,
        attempt: int,
    ) -> tuple[int, str]:
        """Runs the command to its end; its exit code, and the reason where that does not tell."""
        log = self.record.log(node.path)
        if attempt > 1 or node.path in self.previous:
            with open(log, "a", encoding="utf-8") as file:
                file.write(f"--- attempt {attempt} ---\n")
        running = self.launcher.start(self._job(node, container, command, scope, folder))
        with self.lock:
            self.running[node.path] = running
            stopped = self.stopping(node)
        try:
            if stopped:
                running.end(at_once=True)
            limits = (self.options.timeouts.get(node.task.name), container.seconds)
            seconds = next((s for s in limits if s is not None), self.options.timeout)
            code = running.wait(seconds)
            if code is not None:
                return code, running.reason()
            running.end(at_once=False)
            if running.wait(self.options.grace_seconds) is None:
                running.end(at_once=True)
                running.wait(None)
            return TIMED_OUT, f"It took longer than {seconds:g} s."
        finally:
            with self.lock:
                self.running.pop(node.path, None)

    def _job(
        self,
        node: Node,
        container: Container,
        command: tuple[str, ...],
        scope: placeholders.Scope,
        folder: TaskFolder,
    ) -> Job:
        wishes = container.resources

        def said(text: str) -> str:
            return "".join(placeholders.resolve_command([text], scope)) if text else ""

        cpu, memory, count = said(wishes.cpu), said(wishes.memory), said(wishes.accelerators)
        inputs = scope.executor_input["inputs"]
        uris = [a["uri"] for each in inputs["artifacts"].values() for a in each["artifacts"]]
        named = [*placeholders.texts(dict(inputs["parameterValues"])), *uris, *command]
        shared = self.folder / "workspace"
        used = any(str(shared) in text for text in named)  # filled in here or in a graph above
        if used:
            shared.mkdir(exist_ok=True)
        return Job(
            identity=f"{self.record.run}/{node.path}/{next(self.sequence)}",
            task=node.path,
            image="".join(placeholders.resolve_command([container.image], scope)),
            command=command,
            folder=folder.work,
            log=self.record.log(node.path),
            environment={
                PROGRESS_FILE: str(self.record.progress(node.path)),
                **container.environment,
                **self.options.variables,
            },
            writable=folder.path,
            readable=tuple(_existing(named)),
            shared=(shared,) if used else (),
            cpu=resources.quantity(cpu, f"The CPU limit of {node.path}") if cpu else None,
            memory=resources.bytes_of(memory, f"The memory of {node.path}") if memory else None,
            accelerators=int(float(count)) if wishes.accelerator and count else 0,
            shared_memory=container.shared_memory,
        )

    def _scope(self, node: Node) -> placeholders.Scope:
        folder = TaskFolder(self.record.task_folder(node.path))
        return scope_of(node.task, node.values, node.given, folder, self.facts(node))


def _in_vain(node: Node, outcome: _Outcome) -> bool:
    """Whether another attempt would end the same: a step that goes on says so by its exit code.

    What it does not say, in another's steps 2 may mean anything, is tried again as KFP would.
    """
    container = node.task.work
    return (
        isinstance(container, Container)
        and container.environment.get(GOES_ON, "") == "1"
        and outcome.changes.get("exit_code") == UserError.exit_code
    )


def _check(graph: Graph, options: Options) -> None:
    """Refuses, before anything starts, what cannot be done with these options."""
    budget = options.memory or resources.machine_memory()
    names = {path.rpartition("/")[2] for path, _ in graph.containers()}
    for name in options.timeouts:
        if name not in names:
            raise UserError(f"--timeout must name a task; got {name!r}, which is none.")
    for path, container in graph.containers():
        wished = container.resources.memory_request or container.resources.memory
        if wished and "{{" not in wished:
            _check_memory(path, resources.bytes_of(wished, f"The memory of {path}"), budget)
        missing = [name for name in container.secrets if name not in options.variables]
        if missing:
            what = ", ".join(f"{name} ({container.secrets[name]})" for name in missing)
            raise UserError(f"{path} must be given {what}; put it into a file for --env-file.")


def _check_memory(path: str, size: int, budget: int) -> None:
    if size > budget:
        raise UserError(
            f"{path} asks for {resources.in_words(size)} of memory, and this machine offers "
            f"{resources.in_words(budget)}; --memory sets what may be asked for."
        )


def _inputs(graph: Graph, given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Values of the pipeline's parameters, and the artifacts that it takes."""
    values = parameter_values(graph, {k: v for k, v in given.items() if k not in graph.artifacts})
    artifacts = {}
    for name, kind in graph.artifacts.items():
        if name in given:
            uri = str(given[name])
            if "://" not in uri:
                uri = str(Path(uri).absolute())
                if not Path(uri).exists():
                    raise UserError(f"The artifact {name} must exist; {uri} does not.")
            artifacts[name] = {"name": name, "type": dict(kind.type), "uri": uri, "metadata": {}}
        elif not kind.optional:
            raise UserError(
                f"The artifact {name} of {graph.name} must be given: --param {name}=PATH."
            )
    return values, artifacts


def _existing(texts: list[str]) -> Iterator[Path]:
    """Files and folders that texts name."""
    for text in dict.fromkeys(texts):
        if text.startswith("/") and len(text) < 4096 and "\n" not in text:
            with contextlib.suppress(OSError, ValueError):
                path = Path(text)
                if path != Path("/") and path.exists() and not _of_the_system(path):
                    yield path


def _of_the_system(path: Path) -> bool:
    """Programs, libraries, devices and scratch: a container has its own."""
    folders = ("bin", "dev", "etc", "lib", "lib64", "proc", "sbin", "sys", "usr")
    return path == Path(tempfile.gettempdir()) or path.parts[1] in folders


def _make_folder(root: Path, record: RunRecord, text: str) -> None:
    """Makes the run's folder with all that it takes to resume the run, all at once."""
    root = root.absolute()
    root.mkdir(parents=True, exist_ok=True)
    moment = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
    record.run = f"{record.pipeline}-{moment}-{secrets.token_hex(3)}"
    draft = root / f".{record.run}"
    record.folder = str(draft)
    try:
        write_text(draft / PIPELINE_FILE, text)
        record.folder = str(root / record.run)
        written = dataclasses.replace(record, folder=str(draft))
        written.write()
        draft.rename(root / record.run)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _as_json(options: Options) -> dict[str, Any]:
    return {**dataclasses.asdict(options), "variables": sorted(options.variables)}


def _timed(began: float) -> dict[str, Any]:
    return {"seconds": round(time.monotonic() - began, 3), "ended": now()}


def _seconds_since(started: str) -> float:
    began = datetime.datetime.fromisoformat(started)
    return round((datetime.datetime.now(datetime.UTC) - began).total_seconds(), 3)


def _subprocesses() -> Launcher:
    from pipelines.local.subprocesses import Subprocesses

    return Subprocesses()


@contextlib.contextmanager
def _signals() -> Iterator[queue.SimpleQueue[Any]]:
    """A queue that takes the signals that ask the run to end, instead of being ended by them."""
    received: queue.SimpleQueue[Any] = queue.SimpleQueue()
    if threading.current_thread() is not threading.main_thread():
        yield received  # Python delivers signals to the main thread alone
        return

    def put(number: int, _: Any) -> None:
        received.put(number)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before: dict[int, Callable[..., Any] | int | None] = {n: signal.signal(n, put) for n in numbers}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
