"""Kubeflow Pipelines, by KFP's own client."""

from __future__ import annotations

import contextlib
import datetime
import functools
import io
import json
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import kfp
from kfp_server_api.exceptions import ApiException

from pipelines.cloud.account import Account
from pipelines.cloud.cron import in_utc
from pipelines.cloud.job import (
    ENDED,
    OURS,
    Earlier,
    Job,
    Recurring,
    Request,
    Scheduled,
    State,
    new_schedule,
    schedule_digest,
)
from pipelines.cloud.refusal import code_of, once, persistently
from pipelines.local.record import TaskRecord, TaskStatus
from trainer.errors import UserError

T = TypeVar("T")

_PAGE = 100
_PRINTING = threading.Lock()  # standard output is one for all threads
_STATES: Mapping[str, State] = {
    "PENDING": "waiting",
    "PAUSED": "waiting",
    "SUCCEEDED": "succeeded",
    "SKIPPED": "succeeded",
    "FAILED": "failed",
    "CANCELED": "cancelled",
}
_TASK_STATES: Mapping[str, TaskStatus] = {
    "PENDING": "waiting",
    "RUNNING": "running",
    "SUCCEEDED": "succeeded",
    "SKIPPED": "skipped",
    "FAILED": "failed",
    "CANCELING": "cancelled",
    "CANCELED": "cancelled",
}


class Kubeflow:
    """An account of Kubeflow Pipelines; see `pipelines.cloud.job.Cloud`.

    Its runs have no identifiers of the caller's: ours is their display name, and what was made
    twice because an answer was lost, or by two commands at once, is found by it and ended.

    Args:
        account: whose it is.
    """

    def __init__(self, account: Account):
        self._account = account

    def create(self, request: Request, identifier: str) -> Job:
        """Submits, unless a run of this identifier is there already."""
        experiment = self._experiment

        def submit() -> list[Any]:
            with _package(request) as package, _quietly():
                self._client.run_pipeline(
                    experiment_id=experiment,
                    job_name=identifier,
                    pipeline_package_path=package,
                    params=dict(request.parameters),
                    pipeline_root=self._account.root,
                    enable_caching=request.cache,
                    service_account=self._account.service_account or None,
                )
            return []

        def named() -> list[Any]:
            return self._named(identifier)

        if not self._persistently(named):
            once(submit, lambda: named() or None, self._account)
        first, *others = self._persistently(named)
        for run in others:
            self._end(run.run_id)
        return self._read(first)

    def find(self, identifier: str) -> Job | None:
        """The run of an identifier, with its tasks."""
        named = self._persistently(lambda: self._named(identifier))
        if not named:
            return None
        return self._read(self._persistently(lambda: self._client.get_run(named[0].run_id)))

    def cancel(self, identifier: str) -> None:
        """Asks the run to end."""
        for run in self._persistently(lambda: self._named(identifier)):
            if self._read(run).state not in ENDED:
                self._end(run.run_id)

    def jobs(self, most: int = 20) -> list[Job]:
        """Our newest runs: those of our experiment, but for what was made twice."""

        def pages() -> list[Any]:
            token, found = "", list[Any]()
            while len(found) < most:
                page = self._client.list_runs(
                    page_token=token,
                    page_size=min(most, _PAGE),
                    sort_by="created_at desc",
                    experiment_id=self._experiment,
                    namespace=self._account.namespace or None,
                )
                found += page.runs or ()
                token = page.next_page_token or ""
                if not token:
                    break
            return found

        # The first of each name, which comes last here, is the one that counts.
        first = {run.display_name: run for run in self._persistently(pages)}
        return [self._read(run) for run in first.values()][:most]

    def earlier(self, pipeline: str, most: int = 5) -> list[Earlier]:
        """The newest runs of a pipeline that have succeeded, among the last of our experiment."""
        namespace = self._account.namespace or None

        def newest() -> list[Any]:
            try:
                experiment = self._client.get_experiment(
                    experiment_name=self._account.experiment, namespace=namespace
                )
            except ValueError:
                return []  # there is none of this name yet, and asking makes none
            runs = self._client.list_runs(
                page_size=_PAGE,
                sort_by="created_at desc",
                experiment_id=experiment.experiment_id,
                namespace=namespace,
            ).runs
            return list(runs or ())

        found: list[Earlier] = []
        for listed in self._persistently(newest):
            if len(found) == most:
                break
            if str(listed.state) == "SUCCEEDED":
                run = self._persistently(functools.partial(self._client.get_run, listed.run_id))
                found += [e for e in (self._earlier(run),) if _pipeline_of(e) == pipeline]
        return found

    def schedules(self) -> list[Scheduled]:
        """All recurring runs, those of other experiments too."""

        def pages() -> list[Any]:
            token, found = "", list[Any]()
            while True:
                page = self._client.list_recurring_runs(
                    page_token=token,
                    page_size=_PAGE,
                    namespace=self._account.namespace or None,
                )
                found += page.recurring_runs or ()
                token = page.next_page_token or ""
                if not token:
                    return found

        return [_schedule(run) for run in self._persistently(pages)]

    def create_schedule(self, recurring: Recurring) -> Scheduled:
        """Makes a recurring run, once, whatever answer is lost."""
        now = datetime.datetime.now(datetime.UTC)
        cron = in_utc(recurring.cron, recurring.time_zone, now)
        experiment = self._experiment
        note = {
            OURS: recurring.name,
            "digest": schedule_digest(recurring),
            "time_zone": "UTC",
        }
        before = {found.identifier for found in self.schedules()}

        def create() -> Scheduled:
            with _package(recurring.request) as package, _quietly():
                made = self._client.create_recurring_run(
                    experiment_id=experiment,
                    job_name=f"{OURS} {recurring.name}",
                    description=json.dumps(note),
                    start_time=recurring.start or None,
                    end_time=recurring.end or None,
                    cron_expression=f"0 {cron}",  # it has a field for seconds
                    max_concurrency=recurring.most_at_once,
                    no_catchup=True,
                    params=dict(recurring.request.parameters),
                    pipeline_package_path=package,
                    enabled=not recurring.paused,
                    pipeline_root=self._account.root,
                    enable_caching=recurring.request.cache,
                    service_account=self._account.service_account or None,
                )
            return _schedule(made)

        if recurring.most_runs:
            raise UserError(
                f"Schedule {recurring.name}: Kubeflow knows no most_runs; give an end instead."
            )
        return once(create, lambda: new_schedule(self, recurring.name, before), self._account)

    def update_schedule(self, found: Scheduled, recurring: Recurring) -> bool:
        """Nothing of a recurring run can be changed."""
        return False

    def delete_schedule(self, found: Scheduled) -> None:
        """Deletes a recurring run."""

        def delete() -> None:
            try:
                self._client.delete_recurring_run(found.identifier)
            except ApiException as error:
                if code_of(error) != 404:  # by an attempt whose answer was lost
                    raise

        self._persistently(delete)

    def pause_schedule(self, found: Scheduled) -> None:
        """Lets a recurring run wait."""
        self._persistently(lambda: self._client.disable_recurring_run(found.identifier))

    def resume_schedule(self, found: Scheduled) -> None:
        """Goes on; it was made with no_catchup, so what it missed stays missed."""
        self._persistently(lambda: self._client.enable_recurring_run(found.identifier))

    @functools.cached_property
    def _client(self) -> Any:
        account = self._account
        with warnings.catch_warnings():
            # It tells everybody that a later version will want another Python.
            warnings.simplefilter("ignore", FutureWarning)
            return kfp.Client(host=account.host, namespace=account.namespace or "kubeflow")

    @functools.cached_property
    def _experiment(self) -> str:
        """The experiment that our runs are filed under, made where it is not there."""

        def create() -> Any:
            with _quietly():
                return self._client.create_experiment(
                    self._account.experiment, namespace=self._account.namespace or None
                )

        return str(self._persistently(create).experiment_id)

    def _persistently(self, call: Callable[[], T]) -> T:
        return persistently(call, self._account)

    def _named(self, identifier: str) -> list[Any]:
        """The runs of an identifier, the first one first; those that were ended for it left out."""
        predicate = {"operation": "EQUALS", "key": "name", "stringValue": identifier}
        found = self._client.list_runs(
            page_size=_PAGE,
            experiment_id=self._experiment,
            namespace=self._account.namespace or None,
            filter=json.dumps({"predicates": [predicate]}),
        )
        return sorted(found.runs or (), key=lambda run: (run.created_at, run.run_id))

    def _end(self, run: str) -> None:
        def end() -> None:
            try:
                self._client.terminate_run(run)
            except ApiException as error:
                if code_of(error) not in (400, 404, 409):  # it has ended
                    raise

        self._persistently(end)

    def _read(self, run: Any) -> Job:
        details = run.run_details.task_details if run.run_details else None
        # Beside each step Kubeflow tells of its driver, and of the graph itself.
        steps = (
            task
            for task in details or ()
            if task.display_name != "root" and not str(task.display_name).endswith("-driver")
        )
        tasks = {task.display_name: _task(task) for task in steps}
        return Job(
            identifier=run.display_name,
            state=_STATES.get(str(run.state), "running"),
            page=f"{self._account.host.rstrip('/')}/#/runs/details/{run.run_id}",
            created=_time(run.created_at),
            reason=run.error.message if run.error else "",
            tasks=tasks,
        )

    def _earlier(self, run: Any) -> Earlier:
        kept = run.pipeline_spec or {}
        runtime = run.runtime_config
        return Earlier(
            job=self._read(run),
            specification=kept.get("pipeline_spec", kept),
            parameters=dict(runtime.parameters or {}) if runtime else {},
            platform=kept.get("platform_spec", {}),
        )


@contextlib.contextmanager
def _package(request: Request) -> Iterator[str]:
    """A file with the compiled pipeline, while it is needed: KFP's client reads a file."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pipeline.yaml"
        file.write_text(request.text, encoding="utf-8")
        yield str(file)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keeps what KFP's client prints of its own accord from what a command prints."""
    with _PRINTING, contextlib.redirect_stdout(io.StringIO()):
        yield


def _pipeline_of(earlier: Earlier) -> str:
    """Name of the pipeline that a run is of; empty where the cloud has not kept it."""
    return str(earlier.specification.get("pipelineInfo", {}).get("name", ""))


def _schedule(run: Any) -> Scheduled:
    cron = run.trigger.cron_schedule if run.trigger else None
    try:
        note = json.loads(run.description or "")
    except ValueError:
        note = {}
    ours = note if isinstance(note, dict) and OURS in note else {}
    fields = (cron.cron if cron else "").split()
    return Scheduled(
        identifier=run.recurring_run_id,
        name=str(ours.get(OURS, "")),
        title=run.display_name,
        digest=str(ours.get("digest", "")),
        cron=" ".join(fields[1:] if len(fields) == 6 else fields),
        time_zone=str(ours.get("time_zone", "UTC")),
        paused=str(run.status) == "DISABLED" or str(run.mode) == "DISABLE",
        most_at_once=int(run.max_concurrency or 1),
        start=_time(cron.start_time) if cron else "",
        end=_time(cron.end_time) if cron else "",
    )


def _task(task: Any) -> TaskRecord:
    """What the table shows of a task."""
    started, ended = task.start_time, task.end_time
    over = ended if ended and ended.year > 1970 else None
    return TaskRecord(
        _TASK_STATES.get(str(task.state), "waiting"),
        started=_time(started) or None,
        ended=_time(over) or None,
        seconds=(over - started).total_seconds() if over and started else None,
        reason=task.error.message if task.error else "",
    )


def _time(moment: Any) -> str:
    """A moment in UTC (ISO 8601); empty for none."""
    if not moment or moment.year <= 1970:
        return ""
    return str(moment.astimezone(datetime.UTC).isoformat(timespec="seconds"))
