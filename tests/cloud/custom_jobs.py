"""Vertex AI: custom jobs (v1 REST), with the public API's own messages.

https://cloud.google.com/vertex-ai/docs/reference/rest/v1/projects.locations.customJobs
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from google.cloud.aiplatform_v1 import types
from google.protobuf import json_format

from pipelines.local.launcher import Job
from pipelines.local.record import TaskRecord
from tests.cloud import machines
from tests.cloud.answers import Answer, Refused, Request
from tests.cloud.execution import ENDED, Observer, Work
from tests.cloud.resources import (
    check_display_name,
    check_labels,
    field,
    listing,
    number_of,
    operation,
    parse,
    shown,
)
from tests.cloud.translation import resolved_pools, translate

if TYPE_CHECKING:
    from tests.cloud.cloud import Cloud

_FAILED_PRECONDITION = 9
_STATES = {
    "pending": types.JobState.JOB_STATE_PENDING,
    "running": types.JobState.JOB_STATE_RUNNING,
    "succeeded": types.JobState.JOB_STATE_SUCCEEDED,
    "failed": types.JobState.JOB_STATE_FAILED,
    "cancelling": types.JobState.JOB_STATE_CANCELLING,
    "cancelled": types.JobState.JOB_STATE_CANCELLED,
}


class CustomJobs(Observer):
    """The custom jobs of the cloud: those that were created, and those of pipelines."""

    def __init__(self, cloud: Cloud):
        self.works: dict[str, Work] = {}
        self._cloud = cloud
        self._jobs: dict[str, types.CustomJob] = {}
        self._of_work: dict[int, str] = {}
        self._lock = threading.RLock()

    def create(self, request: Request, parent: str) -> Answer:
        """`POST …/customJobs`."""
        job = parse(types.CustomJob, request.json())
        machines.check_custom_job(job)
        check_display_name(job.display_name)
        check_labels(job.labels)
        cloud = self._cloud
        with self._lock:
            kept = self._add(parent, job)
            pool = json_format.MessageToDict(job._pb.job_spec)["workerPoolSpecs"][0]
            buckets = cloud.storage.buckets if cloud.translate else None
            base = job.job_spec.base_output_directory.output_uri_prefix.rstrip("/")
            spec = _single_task(job.display_name, pool, base)
            translated = translate(spec, {}, {"none": ""}, buckets, cloud.images)
            identity = kept.name.rpartition("/")[2]
            work = Work(
                identity, translated.spec, {}, mode=cloud.execute, observer=self, keeps=True
            )
            self.works[kept.name], self._of_work[id(work)] = work, kept.name
            answer = types.CustomJob(kept)
        cloud.execution.submit(work)
        return Answer(shown(answer, request))

    def add_running(self, parent: str, payload: Mapping[str, Any]) -> types.CustomJob:
        """Creates the job that a task of a pipeline is, and which the pipeline's engine runs.

        Raises:
            Refused: it is not as the API wants it.
        """
        job = parse(types.CustomJob, payload)
        machines.check_custom_job(job)
        with self._lock:
            kept = self._add(parent, job)
            kept.state = types.JobState.JOB_STATE_RUNNING
            kept.start_time = self._cloud.clock.stamp()
            return types.CustomJob(kept)

    def finish(self, name: str, code: int, cancelled: bool) -> None:
        """A task of a pipeline that is a job has ended."""
        with self._lock:
            job = self._jobs[name]
            state = "cancelled" if cancelled and code else "failed" if code else "succeeded"
            job.state = _STATES[state]
            job.end_time = job.update_time = self._cloud.clock.stamp()
            if state == "failed":
                job.error = {"code": _FAILED_PRECONDITION, "message": _exit_text(code)}

    def get(self, request: Request, name: str) -> Answer:
        """`GET …/customJobs/ID`."""
        with self._lock:
            return Answer(shown(self._find(name), request))

    def list(self, request: Request, parent: str) -> Answer:
        """`GET …/customJobs`."""
        with self._lock:
            jobs = [j for n, j in self._jobs.items() if n.startswith(f"{parent}/customJobs/")]
            return listing("customJobs", jobs[::-1], request, field)

    def cancel(self, request: Request, name: str) -> Answer:
        """`POST …/customJobs/ID:cancel`."""
        with self._lock:
            self._find(name)
            work = self.works.get(name)
        if work is not None:
            self._cloud.execution.cancel(work)
        return Answer({})

    def delete(self, request: Request, name: str) -> Answer:
        """`DELETE …/customJobs/ID`."""
        with self._lock:
            self._find(name)
            del self._jobs[name]
        return operation(name, "DeleteOperationMetadata", self._cloud.clock)

    def resources(self) -> list[types.CustomJob]:
        """All jobs, the oldest first."""
        with self._lock:
            return [types.CustomJob(job) for job in self._jobs.values()]

    def changed(self, work: Work) -> None:
        with self._lock:
            name = self._of_work.get(id(work))
            if name is None or name not in self._jobs:
                return
            job = self._jobs[name]
            stamp = self._cloud.clock.stamp()
            job.state, job.update_time = _STATES[work.state], stamp
            if work.state != "pending" and not job.start_time:
                job.start_time = stamp
            if work.state in ENDED:
                job.end_time = stamp
            if work.state == "failed":
                failed = work.record.failures() if work.record else []
                text = task_failure(failed[0][1]) if failed else work.reason
                job.error = {"code": _FAILED_PRECONDITION, "message": text}

    def _add(self, parent: str, job: types.CustomJob) -> types.CustomJob:
        stamp = self._cloud.clock.stamp()
        kept = types.CustomJob(job)
        kept.name = f"{parent}/customJobs/{number_of(f'custom {len(self._jobs)} {parent}')}"
        kept.create_time = kept.update_time = stamp
        kept.state = types.JobState.JOB_STATE_PENDING
        self._jobs[kept.name] = kept
        return kept

    def _find(self, name: str) -> types.CustomJob:
        if name not in self._jobs:
            raise Refused(404, f'The CustomJob "{name}" does not exist.')
        return self._jobs[name]


def task_failure(task: TaskRecord) -> str:
    """What Vertex AI says of a task whose container failed."""
    code = task.exit_code if task.exit_code is not None else 1
    return f"{_exit_text(code)} {task.reason}".strip()


def _exit_text(code: int) -> str:
    return (
        f"The replica workerpool0-0 exited with a non-zero status of {code}. To find out more "
        "about why your job exited please check the logs."
    )


def payload_of(pools: Any, parameters: Mapping[str, Any], job: Job) -> dict[str, Any]:
    """The CustomJob that Google's launcher would create."""
    resolved = resolved_pools(pools, parameters)
    container = resolved[0].get("container_spec") or resolved[0].get("containerSpec")
    words = len(container.get("command") or ())
    for pool in resolved:
        held = pool.get("container_spec") or pool.get("containerSpec")
        if held:
            held["command"], held["args"] = list(job.command[:words]), list(job.command[words:])
    spec: dict[str, Any] = {"worker_pool_specs": resolved}
    scheduling = {
        key: parameters[key]
        for key in ("timeout", "restart_job_on_worker_restart", "strategy", "max_wait_duration")
        if parameters.get(key)
    }
    if scheduling:
        spec["scheduling"] = scheduling
    for key in ("service_account", "tensorboard", "enable_web_access", "network"):
        if parameters.get(key):
            spec[key] = parameters[key]
    if parameters.get("reserved_ip_ranges"):
        spec["reserved_ip_ranges"] = parameters["reserved_ip_ranges"]
    if parameters.get("persistent_resource_id"):
        spec["persistent_resource_id"] = parameters["persistent_resource_id"]
    if parameters.get("base_output_directory"):
        place = parameters["base_output_directory"]
        spec["base_output_directory"] = {"output_uri_prefix": place}
    payload = {"display_name": parameters.get("display_name") or job.task, "job_spec": spec}
    if parameters.get("labels"):
        payload["labels"] = parameters["labels"]
    return payload


def _single_task(name: str, pool: Mapping[str, Any], base: str) -> dict[str, Any]:
    """A pipeline with the container of a worker pool as its only task."""
    container = pool.get("containerSpec", {})
    environment = list(container.get("env", ()))
    if base:
        places = {
            "MODEL_DIR": "model",
            "CHECKPOINT_DIR": "checkpoints",
            "TENSORBOARD_LOG_DIR": "logs",
        }
        environment += [{"name": f"AIP_{n}", "value": f"{base}/{p}/"} for n, p in places.items()]
    executor = {
        "image": container.get("imageUri", ""),
        "command": list(container.get("command", ())),
        "args": list(container.get("args", ())),
        "env": environment,
    }
    label = re.sub(r"[^a-z0-9-]+", "-", name.lower()).strip("-") or "custom-job"
    return {
        "pipelineInfo": {"name": label},
        "schemaVersion": "2.1.0",
        "components": {"comp-job": {"executorLabel": "exec-job"}},
        "deploymentSpec": {"executors": {"exec-job": {"container": executor}}},
        "root": {
            "dag": {
                "tasks": {
                    "job": {"componentRef": {"name": "comp-job"}, "taskInfo": {"name": "job"}}
                }
            }
        },
    }
