"""Vertex AI Pipelines, by Google's own client."""

from __future__ import annotations

import dataclasses
import datetime
import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

import google.auth
from google.api_core import exceptions
from google.api_core.client_options import ClientOptions
from google.cloud.aiplatform_v1.services.pipeline_service import PipelineServiceClient
from google.cloud.aiplatform_v1.services.schedule_service import ScheduleServiceClient
from google.cloud.aiplatform_v1.types import (
    CreatePipelineJobRequest,
    PipelineJob,
    PipelineState,
    PipelineTaskDetail,
    Schedule,
)
from google.protobuf import field_mask_pb2, json_format, struct_pb2

from pipelines.cloud.account import Account
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
from pipelines.cloud.refusal import once, persistently, raise_as_ours
from pipelines.local.record import TaskRecord, TaskStatus

T = TypeVar("T")

_SECONDS = 60.0
_STATES: Mapping[str, State] = {
    "PIPELINE_STATE_QUEUED": "waiting",
    "PIPELINE_STATE_PENDING": "waiting",
    "PIPELINE_STATE_PAUSED": "waiting",
    "PIPELINE_STATE_SUCCEEDED": "succeeded",
    "PIPELINE_STATE_FAILED": "failed",
    "PIPELINE_STATE_CANCELLED": "cancelled",
}
_TASK_STATES: Mapping[str, TaskStatus] = {
    "PENDING": "waiting",
    "RUNNING": "running",
    "SUCCEEDED": "succeeded",
    "SKIPPED": "cached",  # what Vertex AI calls a task whose result it has already
    "NOT_TRIGGERED": "skipped",
    "FAILED": "failed",
    "CANCEL_PENDING": "cancelled",
    "CANCELLING": "cancelled",
    "CANCELLED": "cancelled",
}
_SCHEDULE = "paper2hub-schedule"
_DIGEST = "paper2hub-digest"


class VertexAI:
    """An account of Vertex AI; see `pipelines.cloud.job.Cloud`.

    Args:
        account: whose it is.
    """

    def __init__(self, account: Account):
        self._account = account
        self._parent = f"projects/{account.project}/locations/{account.region}"

    def create(self, request: Request, identifier: str) -> Job:
        """Submits; a job of this identifier that is there already is the one that was asked for."""
        job = self._job(request, identifier)

        def submit() -> PipelineJob:
            try:
                return self._pipelines.create_pipeline_job(
                    parent=self._parent,
                    pipeline_job=job,
                    pipeline_job_id=identifier,
                    timeout=_SECONDS,
                    retry=None,
                )
            except exceptions.Conflict:
                # By an attempt whose answer was lost, or by somebody who asks for the same.
                return self._get(identifier)

        return self._read(self._persistently(submit))

    def find(self, identifier: str) -> Job | None:
        """The job of an identifier, with its tasks."""

        def get() -> PipelineJob | None:
            try:
                return self._get(identifier)
            except exceptions.NotFound:
                return None

        found = self._persistently(get)
        return None if found is None else self._read(found)

    def cancel(self, identifier: str) -> None:
        """Asks the job to end."""

        def cancel() -> None:
            try:
                name = f"{self._parent}/pipelineJobs/{identifier}"
                self._pipelines.cancel_pipeline_job(name=name, timeout=_SECONDS, retry=None)
            except exceptions.BadRequest:
                # By REST there is no telling a failed precondition: it may have ended.
                if self._read(self._get(identifier)).state not in ENDED:
                    raise

        self._persistently(cancel)

    def jobs(self, most: int = 20) -> list[Job]:
        """Our newest jobs."""

        def pages() -> list[PipelineJob]:
            found = self._pipelines.list_pipeline_jobs(
                request={
                    "parent": self._parent,
                    "filter": f"labels.{OURS}:*",
                    "order_by": "create_time desc",
                    "page_size": most,
                },
                timeout=_SECONDS,
                retry=None,
            )
            return [job for job, _ in zip(found, range(most), strict=False)]

        return [self._read(job) for job in self._persistently(pages)]

    def earlier(self, pipeline: str, most: int = 5) -> list[Earlier]:
        """The newest jobs of a pipeline that have succeeded; a list of jobs has not all of them."""

        def newest() -> list[PipelineJob]:
            label = pipeline.replace("_", "-").lower()
            found = self._pipelines.list_pipeline_jobs(
                request={
                    "parent": self._parent,
                    "filter": f'labels.{OURS}="{label}" AND state="PIPELINE_STATE_SUCCEEDED"',
                    "order_by": "create_time desc",
                    "page_size": most,
                },
                timeout=_SECONDS,
                retry=None,
            )
            names = [
                job.name.rpartition("/")[2] for job, _ in zip(found, range(most), strict=False)
            ]
            return [self._get(name) for name in names]

        return [
            Earlier(
                job=self._read(job),
                specification=json_format.MessageToDict(PipelineJob.pb(job).pipeline_spec),
                parameters={
                    name: json_format.MessageToDict(value)
                    for name, value in PipelineJob.pb(job).runtime_config.parameter_values.items()
                },
            )
            for job in self._persistently(newest)
        ]

    def schedules(self) -> list[Scheduled]:
        """All schedules of the project in this region."""

        def pages() -> list[Schedule]:
            request = {"parent": self._parent, "page_size": 100}
            return list(
                self._schedules.list_schedules(request=request, timeout=_SECONDS, retry=None)
            )

        return [self._read_schedule(schedule) for schedule in self._persistently(pages)]

    def create_schedule(self, recurring: Recurring) -> Scheduled:
        """Makes a schedule, once, whatever answer is lost."""
        schedule = self._schedule(recurring)

        def create() -> Scheduled:
            return self._read_schedule(
                self._schedules.create_schedule(
                    parent=self._parent, schedule=schedule, timeout=_SECONDS, retry=None
                )
            )

        # Schedules have no identifiers of ours: one that is new is the one.
        before = {found.identifier for found in self.schedules()}
        made = once(create, lambda: new_schedule(self, recurring.name, before), self._account)
        if recurring.paused:
            self.pause_schedule(made)
        return made

    def update_schedule(self, found: Scheduled, recurring: Recurring) -> bool:
        """Changes time and limits; what is submitted cannot be changed."""
        if found.digest != schedule_digest(recurring):
            return False
        schedule = self._schedule(recurring)
        schedule.name = found.identifier
        paths = ["display_name", "cron", "max_concurrent_run_count", "max_run_count"]
        if recurring.start and recurring.start != found.start:
            return False  # a start cannot be changed once there is one
        if recurring.end != found.end:
            paths.append("end_time")
        mask = field_mask_pb2.FieldMask(paths=paths)
        self._persistently(
            lambda: self._schedules.update_schedule(
                schedule=schedule, update_mask=mask, timeout=_SECONDS, retry=None
            )
        )
        return True

    def delete_schedule(self, found: Scheduled) -> None:
        """Deletes a schedule."""

        def delete() -> None:
            try:
                self._schedules.delete_schedule(name=found.identifier, timeout=_SECONDS, retry=None)
            except exceptions.NotFound:
                return  # by an attempt whose answer was lost

        self._persistently(delete)

    def pause_schedule(self, found: Scheduled) -> None:
        """Lets a schedule wait."""
        name = found.identifier
        self._persistently(
            lambda: self._schedules.pause_schedule(name=name, timeout=_SECONDS, retry=None)
        )

    def resume_schedule(self, found: Scheduled) -> None:
        """Goes on from now: Google's own SDK would have all made up for that was missed."""
        request = {"name": found.identifier, "catch_up": False}
        self._persistently(
            lambda: self._schedules.resume_schedule(request=request, timeout=_SECONDS, retry=None)
        )

    @functools.cached_property
    def _pipelines(self) -> PipelineServiceClient:
        return self._client(PipelineServiceClient)

    @functools.cached_property
    def _schedules(self) -> ScheduleServiceClient:
        return self._client(ScheduleServiceClient)

    def _client(self, kind: Callable[..., T]) -> T:
        """A client that speaks REST, so that proxies and stand-ins understand it."""
        address = self._account.endpoint or f"{self._account.region}-aiplatform.googleapis.com"
        try:
            credentials, _ = google.auth.default(["https://www.googleapis.com/auth/cloud-platform"])
        except google.auth.exceptions.GoogleAuthError as error:
            raise_as_ours(error, self._account)
        options = ClientOptions(api_endpoint=address)
        return kind(transport="rest", client_options=options, credentials=credentials)

    def _persistently(self, call: Callable[[], T]) -> T:
        return persistently(call, self._account)

    def _get(self, identifier: str) -> PipelineJob:
        name = f"{self._parent}/pipelineJobs/{identifier}"
        return self._pipelines.get_pipeline_job(name=name, timeout=_SECONDS, retry=None)

    def _job(self, request: Request, identifier: str) -> PipelineJob:
        specification = request.specification()
        if request.cache is not None:
            for task in specification["root"]["dag"]["tasks"].values():
                task["cachingOptions"] = {"enableCache": request.cache}
        pipeline = struct_pb2.Struct()
        json_format.ParseDict(specification, pipeline)
        runtime = PipelineJob.RuntimeConfig(
            gcs_output_directory=self._account.root,
            parameter_values={
                name: json_format.ParseDict(value, struct_pb2.Value())
                for name, value in request.parameters.items()
            },
        )
        return PipelineJob(
            display_name=identifier,
            pipeline_spec=pipeline,
            runtime_config=runtime,
            labels={**self._account.labels, **request.all_labels()},
            service_account=self._account.service_account,
            network=self._account.network,
        )

    def _read(self, job: PipelineJob) -> Job:
        identifier = job.name.rpartition("/")[2]
        own = [task for task in job.job_detail.task_details if task.parent_task_id]
        region, project = self._account.region, self._account.project
        return Job(
            identifier=identifier,
            state=_STATES.get(PipelineState(job.state).name, "running"),
            page="https://console.cloud.google.com/vertex-ai/pipelines/locations/"
            f"{region}/runs/{identifier}?project={project}",
            created=_time(job.create_time),
            reason=job.error.message,
            tasks={task.task_name: _task(task) for task in own},
        )

    def _schedule(self, recurring: Recurring) -> Schedule:
        request = recurring.request
        job = self._job(request, recurring.name)
        job.labels[_SCHEDULE] = recurring.name
        job.labels[_DIGEST] = schedule_digest(recurring)
        schedule = Schedule(
            display_name=f"{OURS} {recurring.name}",
            cron=f"TZ={recurring.time_zone} {recurring.cron}",
            max_concurrent_run_count=recurring.most_at_once,
            allow_queueing=False,
            create_pipeline_job_request=CreatePipelineJobRequest(
                parent=self._parent, pipeline_job=job
            ),
        )
        if recurring.most_runs:
            schedule.max_run_count = recurring.most_runs
        for name in ("start", "end"):
            text = getattr(recurring, name)
            if text:
                moment = datetime.datetime.fromisoformat(text)
                if moment.tzinfo is None:
                    moment = moment.replace(tzinfo=ZoneInfo(recurring.time_zone))
                setattr(schedule, f"{name}_time", moment)
        return schedule

    def _read_schedule(self, schedule: Schedule) -> Scheduled:
        zone, cron = "UTC", schedule.cron
        if cron.startswith(("TZ=", "CRON_TZ=")):
            first, _, cron = cron.partition(" ")
            zone = first.partition("=")[2]
        labels = schedule.create_pipeline_job_request.pipeline_job.labels
        response = schedule.last_scheduled_run_response
        return Scheduled(
            identifier=schedule.name,
            name=labels.get(_SCHEDULE, "") if OURS in labels else "",
            title=schedule.display_name,
            digest=labels.get(_DIGEST, ""),
            cron=cron.strip(),
            time_zone=zone,
            paused=schedule.state == Schedule.State.PAUSED,
            most_at_once=int(schedule.max_concurrent_run_count),
            most_runs=int(schedule.max_run_count),
            start=_time(schedule.start_time),
            end=_time(schedule.end_time),
            next_run=_time(schedule.next_run_time),
            last_run=_time(response.scheduled_run_time) if response else "",
        )


def _time(moment: Any) -> str:
    """A moment in UTC (ISO 8601); empty for none."""
    if not moment or moment.timestamp() <= 0:
        return ""
    return str(moment.astimezone(datetime.UTC).isoformat(timespec="seconds"))


def _task(task: PipelineTaskDetail) -> TaskRecord:
    """What the table shows of a task."""
    started, ended = _time(task.start_time), _time(task.end_time)
    seconds = None
    if started and ended:
        span = datetime.datetime.fromisoformat(ended) - datetime.datetime.fromisoformat(started)
        seconds = span.total_seconds()
    status = _TASK_STATES.get(PipelineTaskDetail.State(task.state).name, "waiting")
    record = TaskRecord(
        status,
        started=started or None,
        ended=ended or None,
        seconds=seconds,
        attempts=1 + len(task.pipeline_task_status),
        reason=task.error.message,
    )
    if status == "cached":
        record = dataclasses.replace(record, cache="Vertex AI has the result")
    return record
