"""Submits pipelines to a cloud, watches them and cancels them.

A request is identified by what is in it: the same one, asked for twice, is one job, whoever asks
and whatever answer was lost on the way.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

from pipelines.cloud.account import Account
from pipelines.cloud.job import ENDED, Cloud, Job, Request
from pipelines.local.display import Display
from pipelines.local.graph import parameter_values, parse_graph
from pipelines.local.record import RunRecord, RunStatus
from trainer.errors import TryAgain, UserError

POLL_SECONDS = 5.0
"""How often a job is asked how it stands (ours)."""

_MOST_ATTEMPTS = 1_000


def cloud_of(account: Account) -> Cloud:
    """What speaks with the account's cloud; imports its client."""
    if account.kind == "vertex":
        from pipelines.cloud.vertex import VertexAI

        return VertexAI(account)
    from pipelines.cloud.kubeflow import Kubeflow

    return Kubeflow(account)


def request_for(
    model: str,
    account: Account,
    parameters: Mapping[str, Any] | None = None,
    *,
    machines: Mapping[str, str] | None = None,
    pinned_by: str = "",
    labels: Mapping[str, str] | None = None,
    cache: bool | None = None,
) -> Request:
    """A model's pipeline for an account: compiled, images pinned, parameters checked.

    Args:
        model: name of the model.
        account: where it is to run.
        parameters: values of its parameters.
        machines: part of the work -> machine as text, where it is not the account's.
        pinned_by: registry, lock file or `local`, where it is not the account's.
        labels: put on the job.
        cache: whether earlier results may be used; None as the pipeline says.

    Raises:
        UserError: there is no such model, machine, image or parameter.
        TryAgain: the registry does not answer.
    """
    import tempfile
    from pathlib import Path

    from pipelines.compile import compile_model

    where = pinned_by or account.images
    if not where:
        raise UserError(
            f"Target {account.name} must say where its images are, as images: a registry's prefix, "
            "a lock file or local; or give --images."
        )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{model}.yaml"
        text = compile_model(model, file, account.placement(machines), where).read_text("utf-8")
    graph = parse_graph(text)
    data_image = dict(graph.containers())["create-tfrecords"].image
    request = Request(
        model=model,
        text=text,
        parameters={**account.parameters(data_image), **(parameters or {})},
        labels=dict(labels or {}),
        cache=cache,
    )
    parameter_values(graph, request.parameters)
    return request


def submit(request: Request, cloud: Cloud, again: bool = False) -> tuple[Job, bool]:
    """The job of a request, and whether it has just been made.

    One that is at work or has succeeded is not made again; after one that failed or was cancelled
    comes the next.

    Args:
        request: what is to run.
        cloud: where.
        again: make a further one in any case.

    Raises:
        UserError: the cloud refuses.
        TryAgain: the cloud did not answer; the same call goes on from there.
    """
    for attempt in range(1, _MOST_ATTEMPTS):
        identifier = request.identifier(attempt)
        found = cloud.find(identifier)
        if found is None:
            return cloud.create(request, identifier), True
        if found.state in ("failed", "cancelled") or again:
            continue
        return found, False
    raise UserError(f"{request.model} was submitted {_MOST_ATTEMPTS - 1} times; clear its jobs up.")


def watch(
    identifier: str,
    record: RunRecord,
    cloud: Cloud,
    display: Display,
    poll_seconds: float = POLL_SECONDS,
    wait: Callable[[float], None] = time.sleep,
) -> tuple[Job, RunRecord]:
    """Shows a job as a run on this machine is shown, until it has ended.

    A cloud that does not answer for a while is asked again.

    Args:
        identifier: name of the job.
        record: how it stands at first, with all of its tasks.
        cloud: where it is.
        display: what shows it.
        poll_seconds: how often the cloud is asked.
        wait: how time is passed.

    Returns:
        The job at its end, and its record.

    Raises:
        UserError: the job is gone.
    """
    while True:
        try:
            job = cloud.find(identifier)
        except TryAgain:
            wait(poll_seconds)
            continue
        if job is None:
            raise UserError(
                f"The job {identifier} must be there; the cloud knows none of this name."
            )
        record = as_record(job, record)
        display.show(record)
        if job.state in ENDED:
            return job, record
        wait(poll_seconds)


def as_record(job: Job, record: RunRecord) -> RunRecord:
    """The record of a job's tasks as a run on this machine would have it."""
    statuses: Mapping[str, RunStatus] = {
        "succeeded": "succeeded",
        "failed": "failed",
        "cancelled": "interrupted",
    }
    known = {name: task for name, task in job.tasks.items() if name in record.tasks}
    return dataclasses.replace(
        record,
        tasks={**record.tasks, **known} if record.tasks else dict(job.tasks),
        status=statuses.get(job.state, "running"),
        started=record.started or job.created,
    )


def unknown(identifier: str) -> RunRecord:
    """The record of a job of which nothing is known but its name."""
    return RunRecord(
        run=identifier,
        pipeline="",
        folder="",
        parameters={},
        launcher="cloud",
        status="running",
        started="",
    )


def exit_code(job: Job) -> int:
    """What a command that waited for the job leaves with: 0 only if it has succeeded."""
    return 0 if job.state == "succeeded" else 1
