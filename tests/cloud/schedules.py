"""Vertex AI: schedules of pipeline jobs (v1 REST), which fire by the cloud's own clock.

https://cloud.google.com/vertex-ai/docs/reference/rest/v1/projects.locations.schedules
"""

from __future__ import annotations

import dataclasses
import datetime
import re
import threading
import zoneinfo
from typing import TYPE_CHECKING

from cronsim import CronSim, CronSimError
from google.cloud.aiplatform_v1 import types
from google.protobuf import json_format

from tests.cloud.answers import Answer, Refused, Request
from tests.cloud.execution import ENDED
from tests.cloud.filters import snake
from tests.cloud.resources import (
    camel,
    check_display_name,
    field,
    listing,
    number_of,
    operation,
    parse,
    shown,
)

if TYPE_CHECKING:
    from tests.cloud.cloud import Cloud

State = types.Schedule.State

_ZONE = re.compile(r"(?:CRON_)?TZ=(\S+)\s+(.*)")
_CHANGEABLE = {
    *("display_name", "cron", "start_time", "end_time", "max_run_count", "allow_queueing"),
    *("max_concurrent_run_count", "max_concurrent_active_run_count"),
}


@dataclasses.dataclass
class _Plan:
    """A schedule, and what it still has to do."""

    schedule: types.Schedule
    next: datetime.datetime | None
    queued: list[datetime.datetime] = dataclasses.field(default_factory=list)
    jobs: list[str] = dataclasses.field(default_factory=list)
    paused_at: datetime.datetime | None = None


class Schedules:
    """The schedules of the cloud; a timetable for its clock."""

    def __init__(self, cloud: Cloud):
        self._cloud = cloud
        self._plans: dict[str, _Plan] = {}
        self._lock = threading.RLock()
        self._numbers = 0

    def create(self, request: Request, parent: str) -> Answer:
        """`POST …/schedules`."""
        schedule = parse(types.Schedule, request.json())
        check_display_name(schedule.display_name)
        asked = schedule.create_pipeline_job_request
        if "create_pipeline_job_request" not in schedule or not asked.pipeline_job:
            raise Refused(400, "Schedule.create_pipeline_job_request must be set.")
        if asked.parent != parent:
            raise Refused(400, f"create_pipeline_job_request.parent must be {parent}.")
        if asked.pipeline_job_id:
            raise Refused(400, "create_pipeline_job_request.pipeline_job_id must not be set.")
        if schedule.max_concurrent_run_count < 1:
            raise Refused(400, "Schedule.max_concurrent_run_count must be at least 1.")
        _check_times(schedule)
        job = types.PipelineJob(asked.pipeline_job)
        job.display_name = job.display_name or schedule.display_name
        spec = json_format.MessageToDict(job._pb.pipeline_spec)
        self._cloud.pipeline_jobs.check(job, spec)
        with self._lock:
            self._numbers += 1
            now, stamp = self._cloud.clock.now(), self._cloud.clock.stamp()
            kept = types.Schedule(schedule)
            kept.name = f"{parent}/schedules/{number_of(f'{parent} schedule {self._numbers}')}"
            kept.create_time = kept.update_time = stamp
            kept.start_time = schedule.start_time or now
            kept.state, kept.started_run_count = State.ACTIVE, 0
            plan = self._plans[kept.name] = _Plan(kept, None)
            self._plan_next(plan, now)
            return Answer(shown(kept, request))

    def get(self, request: Request, name: str) -> Answer:
        """`GET …/schedules/ID`."""
        with self._lock:
            return Answer(shown(self._find(name).schedule, request))

    def list(self, request: Request, parent: str) -> Answer:
        """`GET …/schedules`."""
        with self._lock:
            found = [
                p.schedule for n, p in self._plans.items() if n.startswith(f"{parent}/schedules/")
            ]
            return listing("schedules", found[::-1], request, field)

    def update(self, request: Request, name: str) -> Answer:
        """`PATCH …/schedules/ID?updateMask=`."""
        change = parse(types.Schedule, request.json())
        mask = request.query.get("updateMask") or request.query.get("update_mask", "")
        fields = [snake(path.strip()) for path in mask.split(",") if path.strip()]
        if not fields:
            raise Refused(400, "UpdateScheduleRequest.update_mask must be set.")
        for path in fields:
            if path not in _CHANGEABLE:
                raise Refused(
                    400,
                    f"The field {camel(path)} of a Schedule cannot be updated; these can: "
                    f"{', '.join(sorted(_CHANGEABLE))}.",
                )
        with self._lock:
            plan = self._find(name)
            draft = types.Schedule(plan.schedule)
            for path in fields:
                setattr(draft, path, getattr(change, path))
            check_display_name(draft.display_name)
            _check_times(draft)
            if draft.state == State.COMPLETED:
                raise Refused(400, f"The Schedule {name} is completed.", name="FAILED_PRECONDITION")
            now = self._cloud.clock.now()
            draft.update_time = self._cloud.clock.stamp()
            plan.schedule = draft
            if draft.state == State.ACTIVE:
                self._plan_next(plan, now)
            return Answer(shown(draft, request))

    def pause(self, request: Request, name: str) -> Answer:
        """`POST …/schedules/ID:pause`; what runs goes on."""
        with self._lock:
            plan = self._find(name)
            if plan.schedule.state != State.ACTIVE:
                raise Refused(
                    400, f"The Schedule {name} is not active.", name="FAILED_PRECONDITION"
                )
            plan.schedule.state = State.PAUSED
            plan.schedule.last_pause_time = self._cloud.clock.stamp()
            plan.paused_at, plan.next = self._cloud.clock.now(), None
            plan.schedule._pb.ClearField("next_run_time")
        return Answer({})

    def resume(self, request: Request, name: str) -> Answer:
        """`POST …/schedules/ID:resume`; with catchUp, the runs that were missed are started."""
        catch_up = parse(types.ResumeScheduleRequest, request.json()).catch_up
        with self._lock:
            plan = self._find(name)
            if plan.schedule.state != State.PAUSED:
                raise Refused(
                    400, f"The Schedule {name} is not paused.", name="FAILED_PRECONDITION"
                )
            now = self._cloud.clock.now()
            plan.schedule.state, plan.schedule.catch_up = State.ACTIVE, catch_up
            plan.schedule.last_resume_time = self._cloud.clock.stamp()
            since = plan.paused_at or now
            if catch_up:
                missed = _times(plan.schedule, since)
                while (moment := next(missed, None)) is not None and moment <= now:
                    if plan.schedule.state == State.ACTIVE:
                        self._fire(plan, moment)
            self._plan_next(plan, now)
        return Answer({})

    def delete(self, request: Request, name: str) -> Answer:
        """`DELETE …/schedules/ID`; what runs goes on."""
        with self._lock:
            self._find(name)
            del self._plans[name]
        return operation(name, "DeleteOperationMetadata", self._cloud.clock)

    def resources(self) -> list[types.Schedule]:
        """All schedules, the oldest first."""
        with self._lock:
            return [types.Schedule(plan.schedule) for plan in self._plans.values()]

    # A timetable

    def next_due(self) -> datetime.datetime | None:
        """See `Timetable`."""
        with self._lock:
            return min((p.next for p in self._plans.values() if p.next), default=None)

    def do_due(self, moment: datetime.datetime) -> None:
        """See `Timetable`."""
        with self._lock:
            for plan in list(self._plans.values()):
                if plan.next is not None and plan.next <= moment:
                    due = plan.next
                    self._start_queued(plan)
                    self._fire(plan, due)
                    self._plan_next(plan, due)

    def job_ended(self) -> None:
        """Starts runs that waited for another one to end."""
        with self._lock:
            for plan in list(self._plans.values()):
                self._start_queued(plan)

    def _start_queued(self, plan: _Plan) -> None:
        """Starts runs that waited, as far as there is room by now."""
        while plan.queued and self._has_room(plan):
            self._start(plan, plan.queued.pop(0))

    def _fire(self, plan: _Plan, moment: datetime.datetime) -> None:
        """Starts a run, or has it wait, or skips it."""
        schedule = plan.schedule
        if self._has_room(plan) and not plan.queued:
            self._start(plan, moment)
        elif schedule.allow_queueing:
            plan.queued.append(moment)
        else:
            schedule.last_scheduled_run_response = {
                "scheduled_run_time": moment,
                "run_response": "Skipped: max_concurrent_run_count limit of "
                f"{schedule.max_concurrent_run_count} is reached.",
            }

    def _start(self, plan: _Plan, moment: datetime.datetime) -> None:
        schedule = plan.schedule
        asked = schedule.create_pipeline_job_request
        job = types.PipelineJob(asked.pipeline_job)
        job.display_name = job.display_name or schedule.display_name
        number = schedule.name.rpartition("/")[2]
        name = re.sub(r"[^-a-z0-9]+", "-", job.pipeline_spec["pipelineInfo"]["name"].lower())
        identity = f"{name.strip('-')[:80]}-{number[-6:]}-{moment:%Y%m%d%H%M%S}"
        schedule.started_run_count += 1
        response = "OK"
        try:
            made = self._cloud.pipeline_jobs.add(asked.parent, job, identity, schedule.name, moment)
            plan.jobs.append(made.name)
        except Refused as refused:
            response = refused.message
        schedule.last_scheduled_run_response = {
            "scheduled_run_time": moment,
            "run_response": response,
        }
        if schedule.max_run_count and schedule.started_run_count >= schedule.max_run_count:
            plan.queued.clear()
            self._complete(plan)

    def _has_room(self, plan: _Plan) -> bool:
        works = self._cloud.pipeline_jobs.works
        active = sum(n in works and works[n].state not in ENDED for n in plan.jobs)
        limit = plan.schedule.max_concurrent_run_count
        if plan.schedule.max_concurrent_active_run_count:
            limit = min(limit, plan.schedule.max_concurrent_active_run_count)
        return active < limit and plan.schedule.state == State.ACTIVE

    def _plan_next(self, plan: _Plan, after: datetime.datetime) -> None:
        schedule = plan.schedule
        if schedule.state != State.ACTIVE:
            return
        plan.next = next(_times(schedule, after), None)
        if plan.next is None:
            self._complete(plan)
        else:
            schedule.next_run_time = plan.next

    def _complete(self, plan: _Plan) -> None:
        plan.next = None
        plan.schedule.state = State.COMPLETED
        plan.schedule._pb.ClearField("next_run_time")

    def _find(self, name: str) -> _Plan:
        if name not in self._plans:
            raise Refused(404, f'The Schedule "{name}" does not exist.')
        return self._plans[name]


def _check_times(schedule: types.Schedule) -> None:
    zone, expression = _zone_and_expression(schedule.cron)
    if len(expression.split()) != 5:
        raise Refused(400, f"The cron expression {schedule.cron!r} must have 5 fields.")
    try:
        CronSim(expression, datetime.datetime.now(zone))
    except CronSimError as error:
        raise Refused(400, f"Invalid cron expression {schedule.cron!r}: {error}.") from error
    if schedule.start_time and schedule.end_time and schedule.end_time <= schedule.start_time:
        raise Refused(400, "Schedule.end_time must be after start_time.")
    if schedule.max_run_count < 0:
        raise Refused(400, "Schedule.max_run_count must be positive.")


def _zone_and_expression(cron: str) -> tuple[datetime.tzinfo, str]:
    match = _ZONE.fullmatch(cron.strip())
    if match is None:
        return datetime.UTC, cron
    try:
        return zoneinfo.ZoneInfo(match[1]), match[2]
    except (zoneinfo.ZoneInfoNotFoundError, ValueError) as error:
        raise Refused(400, f"Invalid time zone {match[1]!r} in {cron!r}.") from error


def _times(schedule: types.Schedule, after: datetime.datetime):
    """The moments at which a schedule is due, after another one."""
    zone, expression = _zone_and_expression(schedule.cron)
    if schedule.start_time:
        start = datetime.datetime.fromisoformat(schedule.start_time.isoformat())
        after = max(after, start - datetime.timedelta(microseconds=1))
    end = schedule.end_time
    limit = datetime.datetime.fromisoformat(end.isoformat()) if end else None
    for moment in CronSim(expression, after.astimezone(zone)):
        due = moment.astimezone(datetime.UTC)
        if due <= after:
            continue
        if limit is not None and due > limit:
            return
        yield due
