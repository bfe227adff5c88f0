"""What is submitted to a cloud, what becomes of it, and what each cloud must be able to do."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Set
from typing import Any, Literal, Protocol

import yaml

from pipelines.local.graph import parse_graph
from pipelines.local.record import RunRecord, TaskRecord

State = Literal["waiting", "running", "succeeded", "failed", "cancelled"]

ENDED = ("succeeded", "failed", "cancelled")

OURS = "paper2hub"
"""Label of everything that we make, with the name of the model; what lacks it is not ours."""

_DIGITS = 12  # of a digest: of a million requests two are the same by chance once in 560 times


@dataclasses.dataclass(frozen=True)
class Request:
    """A pipeline with the values of its parameters: what is the same when asked for again.

    Attributes:
        model: name of the model, or of the pipeline.
        text: the compiled pipeline, images pinned.
        parameters: values of its parameters that are not the defaults.
        labels: put on the job, beside ours.
        cache: whether earlier results may be used; None as the pipeline says.
    """

    model: str
    text: str
    parameters: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    cache: bool | None = None

    def specification(self) -> dict[str, Any]:
        """The compiled pipeline's first document."""
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        found: dict[str, Any] = next(yaml.load_all(self.text, Loader=loader))
        return found

    def digest(self) -> str:
        """What tells it from all other requests."""
        content = [self.text, self.parameters, self.labels, self.cache]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def identifier(self, attempt: int = 1) -> str:
        """The name of its job; of a further one where an earlier has failed or is not to count."""
        base = f"{self.model.replace('_', '-').lower()}-{self.digest()[:_DIGITS]}"
        return base if attempt == 1 else f"{base}-{attempt}"

    def all_labels(self) -> dict[str, str]:
        """Its labels with ours."""
        return {**self.labels, OURS: self.model.replace("_", "-").lower()}

    def record(self, identifier: str) -> RunRecord:
        """How its job stands before anything is known of it: all steps wait."""
        graph = parse_graph(self.text)
        tasks = {name: TaskRecord("waiting") for name, _ in graph.containers()}
        return RunRecord(
            run=identifier,
            pipeline=self.model,
            folder="",
            parameters=dict(self.parameters),
            launcher="cloud",
            status="running",
            started="",
            tasks=tasks,
        )


@dataclasses.dataclass(frozen=True)
class Job:
    """A submitted pipeline as the cloud has it.

    Attributes:
        identifier: its name, as commands take it.
        state: how it stands.
        page: address of a page about it; empty where there is none.
        created: when, in UTC (ISO 8601).
        reason: why it failed.
        tasks: by name, in the order in which the cloud tells of them.
    """

    identifier: str
    state: State
    page: str = ""
    created: str = ""
    reason: str = ""
    tasks: Mapping[str, TaskRecord] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Earlier:
    """A job that has succeeded, with what it was made of, as the cloud has kept it.

    Attributes:
        job: the job with its tasks.
        specification: the compiled pipeline's first document.
        parameters: values of its parameters that were given.
        platform: its second document, where the cloud has kept it.
    """

    job: Job
    specification: Mapping[str, Any]
    parameters: Mapping[str, Any]
    platform: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Recurring:
    """A request that is repeated.

    Attributes:
        name: what `schedules.yaml` calls it, unique in an account.
        request: what is submitted each time.
        cron: five fields: minute, hour, day of the month, month, day of the week.
        time_zone: the zone in which they are meant, such as Europe/Paris.
        paused: whether it only waits to be resumed.
        most_at_once: how many of its jobs may run at the same time.
        most_runs: after so many it ends; 0 for no end.
        start: not before (ISO 8601); empty for at once.
        end: not after (ISO 8601); empty for never.
    """

    name: str
    request: Request
    cron: str
    time_zone: str = "UTC"
    paused: bool = False
    most_at_once: int = 1
    most_runs: int = 0
    start: str = ""
    end: str = ""


@dataclasses.dataclass(frozen=True)
class Scheduled:
    """A schedule as the cloud has it.

    Attributes:
        identifier: the cloud's own name of it.
        name: ours; empty for one that is not ours.
        title: what the cloud's pages show.
        digest: of the `Recurring` that it was made of, where the cloud keeps it.
        cron: as `Recurring.cron`.
        time_zone: as `Recurring.time_zone`.
        paused: whether it is paused.
        most_at_once: as in `Recurring`.
        most_runs: as in `Recurring`.
        start: as in `Recurring`.
        end: as in `Recurring`.
        next_run: when it runs next, in UTC (ISO 8601); empty for never.
        last_run: when it ran last, in UTC (ISO 8601); empty where it has not, or is not known.
    """

    identifier: str
    name: str
    title: str
    digest: str
    cron: str
    time_zone: str
    paused: bool
    most_at_once: int = 1
    most_runs: int = 0
    start: str = ""
    end: str = ""
    next_run: str = ""
    last_run: str = ""


class Schedules(Protocol):
    """What a target must be able to do with schedules; this machine can, too."""

    def schedules(self) -> list[Scheduled]:
        """All schedules of the target, those that are not ours too."""

    def create_schedule(self, recurring: Recurring) -> Scheduled:
        """Makes a schedule; it never makes up for runs before."""

    def update_schedule(self, found: Scheduled, recurring: Recurring) -> bool:
        """Changes what can be changed in place; False, and nothing done, where it cannot be."""

    def delete_schedule(self, found: Scheduled) -> None:
        """Deletes a schedule; what it has submitted stays."""

    def pause_schedule(self, found: Scheduled) -> None:
        """Lets it wait."""

    def resume_schedule(self, found: Scheduled) -> None:
        """Goes on from now; runs that it missed stay missed."""


class Cloud(Schedules, Protocol):
    """One account, as commands use it. Every call is tried again while the cloud is busy.

    What the cloud refuses is a UserError with the command that mends it; what it did not answer in
    the end is a TryAgain.
    """

    def create(self, request: Request, identifier: str) -> Job:
        """Submits; where a job of this identifier exists, it is that, and there is no second."""

    def find(self, identifier: str) -> Job | None:
        """The job of an identifier; None where there is none."""

    def cancel(self, identifier: str) -> None:
        """Asks the job to end; nothing where it has ended."""

    def jobs(self, most: int = 20) -> list[Job]:
        """Our newest jobs, the newest first, without their tasks."""

    def earlier(self, pipeline: str, most: int = 5) -> list[Earlier]:
        """The newest jobs of a pipeline that have succeeded, the newest first."""


def new_schedule(target: Schedules, name: str, before: Set[str]) -> Scheduled | None:
    """The schedule of a name of ours that was not there before, by its identifier."""
    found = (s for s in target.schedules() if s.name == name and s.identifier not in before)
    return next(found, None)


def schedule_digest(recurring: Recurring) -> str:
    """What tells whether a schedule still submits what it was made for."""
    return recurring.request.digest()[:_DIGITS]
