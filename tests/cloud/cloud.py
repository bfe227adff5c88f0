"""The whole cloud: its services, its clock, its faults, and who may talk to it."""

from __future__ import annotations

import datetime
import re
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.cloud import control
from tests.cloud.answers import Answer, Request
from tests.cloud.clock import Clock
from tests.cloud.credentials import Credentials
from tests.cloud.dataflow import Dataflow
from tests.cloud.execution import Execution, Mode
from tests.cloud.faults import Faults, refusal
from tests.cloud.kubeflow import Kubeflow
from tests.cloud.server import Server
from tests.cloud.storage import Storage
from tests.cloud.vertex import Vertex


class Cloud:
    """Vertex AI, Cloud Storage, Dataflow and Kubeflow Pipelines, at one address.

    A context manager: at its end everything that runs is ended.

    Attributes:
        project, location: of all resources that its environment leads to.
        url: the address.
        execute: what becomes of jobs created from now on: run, instant or hold.
        translate: steps see folders in place of `gs://` addresses.
        images: image of a step -> the one to run in its place, with Docker.
        clock: the time that schedules see.
        faults: what goes wrong.
        credentials: service account, user and tokens.
        storage, vertex, kubeflow, dataflow: the services.
        pipeline_jobs, custom_jobs, schedules: the collections of Vertex AI.
        execution: what runs the jobs; has `launcher`, `tasks` and `variables`.
        requests: all requests but those to control the stand-in, in order.

    Args:
        folder: takes buckets, runs and keys; a temporary one where it is None.
        port: 0 for any.
        workers: how many jobs run at once.
        execute: see above.
        start: the time at the beginning; the real one where it is None.
        project: name of the project.
        location: name of the region.
    """

    def __init__(
        self,
        folder: str | Path | None = None,
        *,
        port: int = 0,
        workers: int = 2,
        execute: Mode = "run",
        start: datetime.datetime | None = None,
        project: str = "project",
        location: str = "us-central1",
    ):
        self._temporary = tempfile.TemporaryDirectory() if folder is None else None
        self.folder = Path(folder or self._temporary.name).absolute()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.project, self.location = project, location
        self.execute: Mode = execute
        self.translate = True
        self.images: dict[str, str] = {}
        self.requests: list[Request] = []
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._server = Server(self._serve, port)
        self.url = self._server.url
        self.clock = Clock(start, self._settle)
        self.faults = Faults()
        self.credentials = Credentials(self.folder / "credentials", self.url, project)
        self.storage = Storage(self.folder, self.url)
        self.storage.create_bucket("bucket")
        runs = self.folder / "runs"
        self.execution = Execution(runs, workers, self.faults, self.storage.buckets)
        self.vertex = Vertex(self)
        self.pipeline_jobs = self.vertex.pipeline_jobs
        self.custom_jobs = self.vertex.custom_jobs
        self.schedules = self.vertex.schedules
        self.kubeflow = Kubeflow(self)
        self.dataflow = Dataflow(self)
        self.clock.add(self.schedules)
        self.clock.add(self.kubeflow)
        self._server.start()

    def __enter__(self) -> Cloud:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends everything that runs, and closes the address."""
        self._closing.set()
        self.execution.close()
        self._server.close()
        if self._temporary is not None:
            self._temporary.cleanup()

    @property
    def parent(self) -> str:
        """The location's resource name, above those of jobs and schedules."""
        return f"projects/{self.project}/locations/{self.location}"

    def environment(self) -> dict[str, str]:
        """The variables with which a process has this cloud as its own."""
        configuration = self.folder / "credentials" / "gcloud"
        return {
            "GOOGLE_APPLICATION_CREDENTIALS": str(self.credentials.key_file),
            "GOOGLE_CLOUD_PROJECT": self.project,
            "GOOGLE_CLOUD_REGION": self.location,
            "CLOUD_ML_REGION": self.location,
            "CLOUDSDK_CONFIG": str(configuration),
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_AIPLATFORM": f"{self.url}/",
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_DATAFLOW": f"{self.url}/",
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_STORAGE": f"{self.url}/",
            "STORAGE_EMULATOR_HOST": self.url,
            "KF_PIPELINES_ENDPOINT": self.url,
            "NO_GCE_CHECK": "true",
        }

    def path(self, uri: str) -> Path:
        """Where what has an address `gs://…` lies on this machine."""
        return self.storage.path(uri)

    def count(self, method: str, path: str) -> int:
        """How many requests came with the method, to paths that have the pattern somewhere."""
        with self._lock:
            requests = list(self.requests)
        return sum(r.method == method and bool(re.search(path, r.path)) for r in requests)

    def wait(self, seconds: float = 600.0) -> None:
        """Waits until all that runs has ended.

        Raises:
            TimeoutError: it takes longer.
        """
        self.execution.settle(seconds)

    def finish(self, job: str, succeeded: bool = True, reason: str = "") -> None:
        """Ends a job or run that is held.

        Args:
            job: its resource name or ID.
            succeeded: how it ends.
            reason: why it failed.
        """
        self._work(job).become("succeeded" if succeeded else "failed", reason)

    def preempt(self, job: str, task: str, grace: float = 5.0) -> bool:
        """Takes the machine away from a task that runs now; False where it does not run.

        Args:
            job: resource name or ID of the job or run.
            task: path of the task, such as `train` or `for-loop-1/0/train`.
            grace: seconds between SIGTERM and SIGKILL.
        """
        return self.execution.preempt(self._work(job), task, grace)

    def _work(self, job: str) -> Any:
        if job in self.kubeflow.works:
            return self.kubeflow.works[job]
        if job in self.custom_jobs.works:
            return self.custom_jobs.works[job]
        return self.pipeline_jobs.work(job)

    def _settle(self) -> None:
        self.execution.settle()

    def _serve(self, request: Request) -> Answer | None:
        if request.service == "control":
            return control.answer(self, request)
        with self._lock:
            self.requests.append(request)
        fault = self.faults.of_request(request)
        if fault is not None:
            if fault.kind == "slow":
                self._closing.wait(fault.seconds)
            if fault.kind == "expired":
                self.credentials.revoke(request)
            refused = refusal(fault, request)
            if refused is not None:
                raise refused
        answer = self._answer(request)
        return None if fault is not None and fault.kind == "lost" else answer

    def _answer(self, request: Request) -> Answer:
        service = request.service
        if service == "token":
            return self.credentials.grant(request)
        if service == "kubeflow":
            return self.kubeflow.answer(request)
        anonymous = "authorization" not in request.headers
        if not (service == "storage" and anonymous):
            self.credentials.check(request)
        if service == "storage":
            return self.storage.answer(request)
        if service == "dataflow":
            return self.dataflow.answer(request)
        return self.vertex.answer(request)
