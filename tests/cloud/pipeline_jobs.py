"""Vertex AI: pipeline jobs (v1 REST), with the public API's own messages.

https://cloud.google.com/vertex-ai/docs/reference/rest/v1/projects.locations.pipelineJobs
"""

from __future__ import annotations

import datetime
import json
import re
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from google.cloud.aiplatform_v1 import types
from google.protobuf import json_format

from pipelines.local.launcher import Job
from pipelines.local.record import RunRecord, TaskRecord
from tests.cloud import machines
from tests.cloud.answers import Answer, Refused, Request
from tests.cloud.clock import text_of
from tests.cloud.custom_jobs import payload_of, task_failure
from tests.cloud.execution import ENDED, Observer, Work, input_parameters
from tests.cloud.faults import NUMBER
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
from tests.cloud.translation import (
    Translated,
    filled_value,
    local_value,
    translate,
)

if TYPE_CHECKING:
    from tests.cloud.cloud import Cloud

JobState = types.PipelineState
TaskState = types.PipelineTaskDetail.State

_IDENTITY = re.compile(r"[a-z][-a-z0-9]{0,127}")
_FAILED_PRECONDITION = 9
_CANCELLED = 1

_JOB_STATES = {
    "pending": JobState.PIPELINE_STATE_PENDING,
    "running": JobState.PIPELINE_STATE_RUNNING,
    "succeeded": JobState.PIPELINE_STATE_SUCCEEDED,
    "failed": JobState.PIPELINE_STATE_FAILED,
    "cancelling": JobState.PIPELINE_STATE_CANCELLING,
    "cancelled": JobState.PIPELINE_STATE_CANCELLED,
}
_TYPES: Mapping[str, tuple[type, ...]] = {
    "STRING": (str,),
    "NUMBER_INTEGER": (int, float),
    "NUMBER_DOUBLE": (int, float),
    "BOOLEAN": (bool,),
    "LIST": (list,),
    "STRUCT": (dict,),
}


class PipelineJobs(Observer):
    """The pipeline jobs of the cloud.

    Attributes:
        works: resource name -> what is run for it.
    """

    def __init__(self, cloud: Cloud):
        self.works: dict[str, Work] = {}
        self._cloud = cloud
        self._jobs: dict[str, types.PipelineJob] = {}
        self._translated: dict[str, Translated] = {}
        self._custom: dict[str, dict[str, list[str]]] = {}
        self._of_work: dict[int, str] = {}
        self._lock = threading.RLock()
        self._numbers = 0

    def create(self, request: Request, parent: str) -> Answer:
        """`POST …/pipelineJobs?pipelineJobId=`."""
        job = parse(types.PipelineJob, request.json())
        identity = request.query.get("pipelineJobId") or request.query.get("pipeline_job_id", "")
        return Answer(shown(self.add(parent, job, identity), request))

    def add(
        self,
        parent: str,
        job: types.PipelineJob,
        identity: str = "",
        schedule: str = "",
        scheduled: datetime.datetime | None = None,
    ) -> types.PipelineJob:
        """Creates a job and has it run; returns it as it is at first.

        Raises:
            Refused: it is not as the API wants it, or there is one of this name.
        """
        spec = json_format.MessageToDict(job._pb.pipeline_spec)
        self.check(job, spec)
        with self._lock:
            self._numbers += 1
            stamp = self._cloud.clock.stamp()
            identity = identity or _generated(spec, stamp, self._numbers)
            if not _IDENTITY.fullmatch(identity):
                raise Refused(
                    400,
                    f"The pipeline_job_id {identity!r} is invalid: it must match "
                    f"[a-z][-a-z0-9]{{0,127}}.",
                )
            name = f"{parent}/pipelineJobs/{identity}"
            if name in self._jobs:
                raise Refused(409, f'The PipelineJob "{name}" already exists.')
            work, translated = self._work(name, job, spec, stamp, scheduled)
            kept = types.PipelineJob(job)
            kept.name, kept.create_time, kept.update_time = name, stamp, stamp
            kept.state, kept.schedule_name = JobState.PIPELINE_STATE_PENDING, schedule
            kept.labels["vertex-ai-pipelines-run-billing-id"] = str(number_of(name))
            self._jobs[name], self.works[name] = kept, work
            self._translated[name], self._custom[name] = translated, {}
            self._of_work[id(work)] = name
            answer = types.PipelineJob(kept)
        self._cloud.execution.submit(work)
        return answer

    def get(self, request: Request, name: str) -> Answer:
        """`GET …/pipelineJobs/ID`."""
        with self._lock:
            return Answer(shown(self._find(name), request))

    def list(self, request: Request, parent: str) -> Answer:
        """`GET …/pipelineJobs`: newest first, with filter, orderBy, pageSize and readMask."""
        with self._lock:
            jobs = [j for n, j in self._jobs.items() if n.startswith(f"{parent}/pipelineJobs/")]
            return listing("pipelineJobs", jobs[::-1], request, field)

    def delete(self, request: Request, name: str) -> Answer:
        """`DELETE …/pipelineJobs/ID`."""
        with self._lock:
            job = self._find(name)
            if self.works[name].state not in ENDED:
                raise Refused(
                    400,
                    f"The PipelineJob {name} is in state {job.state.name}; it must have ended.",
                    name="FAILED_PRECONDITION",
                )
            self._of_work.pop(id(self.works.pop(name)))
            del self._jobs[name]
        return operation(name, "DeleteOperationMetadata", self._cloud.clock)

    def cancel(self, request: Request, name: str) -> Answer:
        """`POST …/pipelineJobs/ID:cancel`."""
        with self._lock:
            self._find(name)
            work = self.works[name]
        if work.state in ENDED:
            raise Refused(
                400,
                f"The PipelineJob {name} cannot be cancelled: it has ended.",
                name="FAILED_PRECONDITION",
            )
        self._cloud.execution.cancel(work)
        return Answer({})

    def resource(self, name: str) -> types.PipelineJob:
        """A job as it stands; found by its whole name or by its ID."""
        with self._lock:
            return types.PipelineJob(self._find(name))

    def work(self, name: str) -> Work:
        """What is run for a job, found likewise."""
        with self._lock:
            return self.works[self._find(name).name]

    # What runs says how it goes.

    def changed(self, work: Work) -> None:
        with self._lock:
            name = self._of_work.get(id(work))
            if name is None:
                return
            job = self._jobs[name]
            stamp = self._cloud.clock.stamp()
            if job.state != _JOB_STATES[work.state]:
                job.state, job.update_time = _JOB_STATES[work.state], stamp
            if work.state != "pending" and not job.start_time:
                job.start_time = stamp
            job.job_detail = self._detail(name, job, work)
            if work.state in ENDED:
                job.end_time = stamp
                if work.state == "failed":
                    job.error = {"code": _FAILED_PRECONDITION, "message": _failure(work, name)}
                elif work.state == "cancelled":
                    text = "The PipelineJob was cancelled."
                    job.error = {"code": _CANCELLED, "message": text}
        if work.state in ENDED and job.schedule_name:
            self._cloud.schedules.job_ended()

    def attempt(self, work: Work, task: str, job: Job) -> Callable[[int], None]:
        with self._lock:
            name = self._of_work[id(work)]
            pools = self._translated[name].custom_jobs.get(_without_numbers(task))
        if pools is None:
            return lambda code: None
        parameters = input_parameters(job)
        payload = payload_of(pools, parameters, job)
        parent = name.partition("/pipelineJobs/")[0]
        custom = self._cloud.custom_jobs.add_running(parent, payload)
        with self._lock:
            self._custom[name].setdefault(task, []).append(custom.name)
        address = f"{self._cloud.url}/v1/{custom.name}"
        resources = {"resources": [{"resourceType": "CustomJob", "resourceUri": address}]}
        file = job.writable / "parameters" / "gcp_resources"

        def ended(code: int) -> None:
            if code == 0:
                file.write_text(json.dumps(resources), encoding="utf-8")
            self._cloud.custom_jobs.finish(custom.name, code, work.cancelled.is_set())

        return ended

    def _work(
        self,
        name: str,
        job: types.PipelineJob,
        spec: dict[str, Any],
        stamp: datetime.datetime,
        scheduled: datetime.datetime | None,
    ) -> tuple[Work, Translated]:
        cloud = self._cloud
        runtime = json_format.MessageToDict(job.runtime_config._pb)
        root = runtime.get("gcsOutputDirectory", "").rstrip("/")
        identity = name.rpartition("/")[2]
        project, location = name.split("/")[1], name.split("/")[3]
        facts = {
            "pipeline_job_name": identity,
            "pipeline_job_resource_name": name,
            "pipeline_job_uuid": str(number_of(name)),
            "pipeline_job_create_time_utc": text_of(stamp),
            "pipeline_job_schedule_time_utc": text_of(scheduled or stamp),
            "pipeline_root": root,
            "pipeline_google_cloud_project_id": project,
            "pipeline_google_cloud_location": location,
            "pipeline_service_account": job.service_account,
            "pipeline_persistent_resource_id": "",
        }
        given = filled_value(runtime.get("parameterValues", {}), facts)
        buckets = cloud.storage.buckets if cloud.translate else None
        translated = translate(spec, given, facts, buckets, cloud.images)
        parameters = {key: local_value(value, buckets) for key, value in given.items()}
        folder = cloud.storage.path(f"{root}/{NUMBER}/{identity}")

        def place(task: str) -> Any:
            there = cloud.storage.path(root).is_dir() or _bucket_of(cloud, root).is_dir()
            label = task.replace("/", "-")
            return folder / f"{label}_{number_of(f'{name}/{task}')}" if there else None

        work = Work(
            name=identity,
            spec=translated.spec,
            parameters=parameters,
            fail_fast=runtime.get("failurePolicy") == "PIPELINE_FAILURE_POLICY_FAIL_FAST",
            keeps=True,
            place=place,
            mode=cloud.execute,
            observer=self,
        )
        return work, translated

    def check(self, job: types.PipelineJob, spec: dict[str, Any]) -> None:
        """Holds a new job to what the API wants.

        Raises:
            Refused: it is not so.
        """
        check_display_name(job.display_name)
        check_labels(job.labels)
        if not spec and not job.template_uri:
            raise Refused(400, "PipelineJob.pipeline_spec must be set.")
        for key in ("pipelineInfo", "deploymentSpec", "root", "schemaVersion"):
            if key not in spec:
                raise Refused(400, f"PipelineSpec.{key} must be set.")
        if not str(spec["schemaVersion"]).startswith("2."):
            raise Refused(400, f"PipelineSpec has schema {spec['schemaVersion']}; it must be 2.x.")
        root = job.runtime_config.gcs_output_directory
        if not root.startswith("gs://"):
            raise Refused(
                400, f"RuntimeConfig.gcs_output_directory must begin with gs://; got {root!r}."
            )
        given = json_format.MessageToDict(job.runtime_config._pb).get("parameterValues", {})
        check_parameters(spec, given)
        for label, executor in spec["deploymentSpec"].get("executors", {}).items():
            machines.check_container(label, executor.get("container", {}))

    def _detail(self, name: str, job: types.PipelineJob, work: Work) -> types.PipelineJobDetail:
        identity = name.rpartition("/")[2]
        parent = f"{name.partition('/locations/')[0]}/locations/{name.split('/')[3]}"
        contexts = f"{parent}/metadataStores/default/contexts"
        detail = types.PipelineJobDetail(
            pipeline_context={"name": f"{contexts}/{job.pipeline_spec['pipelineInfo']['name']}"},
            pipeline_run_context={"name": f"{contexts}/{identity}"},
        )
        record = work.record
        root = types.PipelineTaskDetail(
            task_id=number_of(name),
            task_name=identity,
            create_time=job.create_time,
            start_time=job.start_time,
            state=_root_state(work),
        )
        if work.state in ENDED:
            root.end_time = self._cloud.clock.stamp()
        tasks = [root]
        if record is None:
            tasks += self._undone(name, job, work)
        else:
            items = list(record.tasks.items())
            tasks += [self._task(name, job, work, path, task) for path, task in items]
        detail.task_details = tasks
        return detail

    def _undone(
        self, name: str, job: types.PipelineJob, work: Work
    ) -> list[types.PipelineTaskDetail]:
        """The tasks of a job that the engine does not run, or not yet."""
        state = {
            "succeeded": TaskState.SUCCEEDED,
            "failed": TaskState.FAILED,
            "cancelled": TaskState.CANCELLED,
            "running": TaskState.RUNNING if work.mode == "hold" else TaskState.PENDING,
        }.get(work.state, TaskState.PENDING)
        stamp = self._cloud.clock.stamp()
        return [
            types.PipelineTaskDetail(
                task_id=number_of(f"{name}/{task}"),
                parent_task_id=number_of(name),
                task_name=task,
                create_time=job.create_time,
                start_time=None if state == TaskState.PENDING else job.start_time,
                end_time=stamp if work.state in ENDED else None,
                state=state,
            )
            for task in work.spec["root"]["dag"]["tasks"]
        ]

    def _task(
        self, name: str, job: types.PipelineJob, work: Work, path: str, task: TaskRecord
    ) -> types.PipelineTaskDetail:
        of_real = self._cloud.clock.of_real
        parent = path.rpartition("/")[0]
        detail = types.PipelineTaskDetail(
            task_id=number_of(f"{name}/{path}"),
            parent_task_id=number_of(f"{name}/{parent}" if parent else name),
            task_name=path.rpartition("/")[2],
            create_time=job.create_time,
            start_time=of_real(task.started),
            end_time=of_real(task.ended),
            state=_task_state(work, task),
        )
        if task.status == "failed" and work.state != "cancelled":
            detail.error = {"code": _FAILED_PRECONDITION, "message": task_failure(task)}
        customs = self._custom[name].get(path, [])
        if customs:
            *failed, last = customs
            executor = {"job": last, "failed_jobs": failed}
            detail.executor_detail = {"custom_job_detail": executor}
        elif task.kind == "container" and task.started:
            place = f"{name.partition('/pipelineJobs/')[0]}/customJobs"
            numbers = [number_of(f"{name}/{path}/{n}") for n in range(max(task.attempts, 1))]
            *failed, last = [f"{place}/{number}" for number in numbers]
            container = {"main_job": last, "failed_main_jobs": failed}
            detail.executor_detail = {"container_detail": container}
        folder = f"{work.record.folder}/tasks/{path}/outputs" if work.record else ""
        published = work.published.get(path)
        for key, found in task.artifacts.items():
            for artifact in found if isinstance(found, list) else [found]:
                shown_ = self._artifact(name, path, key, artifact, folder, published)
                detail.outputs.setdefault(key, types.PipelineTaskDetail.ArtifactList())
                detail.outputs[key].artifacts.append(shown_)
        if task.parameters and task.status in ("succeeded", "cached"):
            metadata = {f"output:{k}": v for k, v in task.parameters.items()}
            store = f"{name.partition('/pipelineJobs/')[0]}/metadataStores/default"
            detail.execution = types.Execution(
                name=f"{store}/executions/{detail.task_id}",
                display_name=detail.task_name,
                schema_title="system.ContainerExecution",
                metadata=self._addressed(metadata, folder, published),
            )
        return detail

    def _artifact(
        self,
        name: str,
        path: str,
        key: str,
        artifact: Mapping[str, Any],
        folder: str,
        published: Any,
    ) -> types.Artifact:
        store = f"{name.partition('/pipelineJobs/')[0]}/metadataStores/default"
        kind = artifact.get("type", {})
        return types.Artifact(
            name=f"{store}/artifacts/{number_of(f'{name}/{path}/{key}')}",
            display_name=artifact.get("name", key),
            uri=self._addressed(str(artifact["uri"]), folder, published),
            schema_title=kind.get("schemaTitle", ""),
            schema_version=kind.get("schemaVersion", ""),
            state=types.Artifact.State.LIVE,
            metadata=self._addressed(dict(artifact.get("metadata", {})), folder, published),
        )

    def _addressed(self, value: Any, folder: str, published: Any) -> Any:
        """A value with paths in buckets, and of what has a further name there, as addresses."""
        if isinstance(value, str):
            if published is not None and value.startswith(f"{folder}/"):
                value = f"{published}/{value.removeprefix(f'{folder}/')}"
            buckets = f"{self._cloud.storage.buckets}/"
            return f"gs://{value.removeprefix(buckets)}" if value.startswith(buckets) else value
        if isinstance(value, list):
            return [self._addressed(item, folder, published) for item in value]
        if isinstance(value, dict):
            return {k: self._addressed(v, folder, published) for k, v in value.items()}
        return value

    def _find(self, name: str) -> types.PipelineJob:
        if "/" not in name:
            name = next((n for n in self._jobs if n.endswith(f"/{name}")), name)
        if name not in self._jobs:
            raise Refused(404, f'The PipelineJob "{name}" does not exist.')
        return self._jobs[name]


def check_parameters(spec: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Holds a run's values to the parameters that the pipeline declares."""
    inputs = spec["root"].get("inputDefinitions", {})
    declared = inputs.get("parameters", {})
    for name, value in given.items():
        if name not in declared:
            raise Refused(
                400,
                f"The input parameter {name} is not found in the pipeline spec; it has "
                f"{', '.join(declared) or 'none'}.",
            )
        kind = declared[name].get("parameterType", "")
        right = isinstance(value, _TYPES.get(kind, object)) and not (
            isinstance(value, bool) and kind.startswith("NUMBER")
        )
        if not right or (kind == "NUMBER_INTEGER" and value != int(value)):
            raise Refused(400, f"The input parameter {name} must be {kind}; got {value!r}.")
    for name, definition in declared.items():
        optional = definition.get("isOptional") or "defaultValue" in definition
        if name not in given and not optional:
            raise Refused(400, f"The required input parameter {name} is not given.")
    for name, definition in inputs.get("artifacts", {}).items():
        if not definition.get("isOptional"):
            raise Refused(501, f"The stand-in takes no input artifacts; the pipeline wants {name}.")


def _generated(spec: Mapping[str, Any], stamp: datetime.datetime, number: int) -> str:
    name = re.sub(r"[^-a-z0-9]+", "-", spec["pipelineInfo"]["name"].lower()).strip("-")
    return f"{name[:90]}-{stamp:%Y%m%d%H%M%S}-{number}"


def _bucket_of(cloud: Cloud, uri: str) -> Any:
    return cloud.storage.buckets / uri.removeprefix("gs://").split("/")[0]


def _without_numbers(task: str) -> str:
    return "/".join(part for part in task.split("/") if not part.isdigit())


def _root_state(work: Work) -> Any:
    return {
        "pending": TaskState.PENDING,
        "running": TaskState.RUNNING,
        "succeeded": TaskState.SUCCEEDED,
        "failed": TaskState.FAILED,
        "cancelling": TaskState.CANCEL_PENDING,
        "cancelled": TaskState.CANCELLED,
    }[work.state]


def _task_state(work: Work, task: TaskRecord) -> Any:
    if work.state == "cancelled" and task.status in ("waiting", "running", "failed", "cancelled"):
        return TaskState.CANCELLED if task.started else TaskState.NOT_TRIGGERED
    if task.status == "running" and work.state == "cancelling":
        return TaskState.CANCEL_PENDING
    if task.status == "waiting" and work.state in ENDED:
        return TaskState.NOT_TRIGGERED
    return {
        "waiting": TaskState.PENDING,
        "running": TaskState.RUNNING,
        "succeeded": TaskState.SUCCEEDED,
        "cached": TaskState.SKIPPED,
        "skipped": TaskState.NOT_TRIGGERED,
        "failed": TaskState.FAILED,
        "cancelled": TaskState.CANCELLED if task.started else TaskState.NOT_TRIGGERED,
    }[task.status]


def _failure(work: Work, name: str) -> str:
    record: RunRecord | None = work.record
    told = [task_failure(task) for _, task in record.failures()] if record else []
    job = f"Job (project_id = {name.split('/')[1]}, job_id = {number_of(name)}) is failed"
    return " ".join([work.reason, *told, f"{job} due to the above error."])
