"""Dataflow: the REST API of jobs (v1b3), as far as Beam and the project talk to it.

https://cloud.google.com/dataflow/docs/reference/rest/v1b3/projects.locations.jobs
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from tests.cloud.answers import Answer, Refused, Request, page
from tests.cloud.clock import text_of

if TYPE_CHECKING:
    from tests.cloud.cloud import Cloud

_OVER = ("JOB_STATE_DONE", "JOB_STATE_FAILED", "JOB_STATE_CANCELLED")


class Dataflow:
    """The jobs of the cloud.

    Attributes:
        run: the graph of a job is run by Beam, in this process, and counted; without it, a job is
            done as soon as it was asked for once.
        jobs: ID -> the job as it was sent, with what the service adds.
    """

    def __init__(self, cloud: Cloud):
        self.run = False
        self.jobs: dict[str, dict[str, Any]] = {}
        self._cloud = cloud
        self._messages: dict[str, list[tuple[str, str, str]]] = {}
        self._counters: dict[str, Mapping[str, int]] = {}
        self._lock = threading.RLock()

    def answer(self, request: Request) -> Answer:
        """Answers a request.

        Raises:
            Refused: it cannot be done.
        """
        for method, pattern, function in _ROUTES:
            match = re.fullmatch(pattern, request.path)
            if match and method == request.method:
                with self._lock:
                    return function(self, request, *map(unquote, match.groups()))
        raise Refused(404, f"The stand-in does not know {request.method} {request.path}.")

    def _create(self, request: Request, project: str, location: str) -> Answer:
        job = request.json()
        name = job.get("name", "")
        if not re.fullmatch(r"[a-z]([-a-z0-9]{0,1022}[a-z0-9])?", name):
            raise Refused(400, f"(stand-in): The job name is invalid: {name!r}.")
        for other in self.jobs.values():
            if other["name"] == name and other["currentState"] not in _OVER:
                same = job.get("clientRequestId")
                if same and same == other.get("clientRequestId"):
                    return Answer(other)
                raise Refused(
                    409,
                    f"(stand-in): There is already an active job named {name}. If you want to "
                    "submit a second job, try again by setting a different name.",
                )
        stamp = self._cloud.clock.stamp()
        identity = f"{stamp:%Y-%m-%d_%H_%M_%S}-{len(self.jobs) + 1}"
        added = {
            "id": identity,
            "projectId": project,
            "location": location,
            "currentState": "JOB_STATE_PENDING",
            "createTime": text_of(stamp),
            "currentStateTime": text_of(stamp),
        }
        kept = self.jobs[identity] = {"type": "JOB_TYPE_BATCH", **job, **added}
        self._messages[identity] = [(text_of(stamp), "JOB_MESSAGE_BASIC", "Job was created.")]
        if self.run:
            kept["currentState"] = "JOB_STATE_RUNNING"
            threading.Thread(target=self._work, args=(identity,), daemon=True).start()
        return Answer(self._shown(kept))

    def _get(self, request: Request, project: str, location: str, identity: str) -> Answer:
        job = self._find(identity)
        shown = self._shown(job)
        if not self.run and self._cloud.execute != "hold" and job["currentState"] not in _OVER:
            states = ("JOB_STATE_PENDING", "JOB_STATE_RUNNING", "JOB_STATE_DONE")
            self._become(identity, states[states.index(job["currentState"]) + 1])
        return Answer(shown)

    def _list(self, request: Request, project: str, location: str) -> Answer:
        size = int(request.query.get("pageSize") or 0)
        jobs = list(self.jobs.values())[::-1]
        name = request.query.get("name")
        jobs = [job for job in jobs if not name or job["name"] == name]
        chosen, following = page(jobs, size, request.query.get("pageToken", ""))
        body: dict[str, Any] = {"jobs": [self._shown(job) for job in chosen]}
        return Answer({**body, **({"nextPageToken": following} if following else {})})

    def _update(self, request: Request, project: str, location: str, identity: str) -> Answer:
        job = self._find(identity)
        wanted = request.json().get("requestedState")
        names = {5: "JOB_STATE_CANCELLED", 8: "JOB_STATE_DRAINED"}  # Beam sends the number
        state = names.get(wanted, wanted) if isinstance(wanted, int) else wanted
        if state not in ("JOB_STATE_CANCELLED", "JOB_STATE_DRAINED"):
            raise Refused(400, f"(stand-in): A job cannot be asked to become {wanted}.")
        if job["currentState"] in _OVER:
            raise Refused(400, f"(stand-in): Job {identity} is over.", name="FAILED_PRECONDITION")
        self._become(identity, state)
        return Answer(self._shown(job))

    def _list_messages(
        self, request: Request, project: str, location: str, identity: str
    ) -> Answer:
        self._find(identity)
        messages = [
            {"id": str(n), "time": time, "messageImportance": importance, "messageText": text}
            for n, (time, importance, text) in enumerate(self._messages[identity])
        ]
        return Answer({"jobMessages": messages})

    def _metrics(self, request: Request, project: str, location: str, identity: str) -> Answer:
        self._find(identity)
        metrics = []
        for name, value in self._counters.get(identity, {}).items():
            namespace, _, counter = name.rpartition("/")
            for context in ({"tentative": "true"}, {}):
                about = {"namespace": namespace, "step": "s1", **context}
                origin = {"origin": "user", "name": counter, "context": about}
                metrics.append({"name": origin, "scalar": value})
        return Answer({"metrics": metrics, "metricTime": text_of(self._cloud.clock.stamp())})

    def _find(self, identity: str) -> dict[str, Any]:
        if identity not in self.jobs:
            raise Refused(404, f"(stand-in): Information about job {identity} could not be found.")
        return self.jobs[identity]

    def _become(self, identity: str, state: str) -> None:
        job, stamp = self.jobs[identity], text_of(self._cloud.clock.stamp())
        job["currentState"], job["currentStateTime"] = state, stamp
        self._messages[identity].append((stamp, "JOB_MESSAGE_BASIC", f"{state}."))

    def _shown(self, job: Mapping[str, Any]) -> dict[str, Any]:
        """A job as lists and answers show it, without its steps."""
        return {key: value for key, value in job.items() if key not in ("steps", "environment")}

    def _work(self, identity: str) -> None:
        """Runs the graph that Beam has put into a bucket, as the stand-in for Beam does."""
        from apache_beam.portability.api import beam_runner_api_pb2

        from tests.dataflow import stand_in

        options = self.jobs[identity]["environment"]["sdkPipelineOptions"]["options"]
        graph = self._cloud.storage.path(options["pipelineUrl"]).read_bytes()
        job = stand_in.Job(self.jobs[identity], beam_runner_api_pb2.Pipeline.FromString(graph))
        stand_in.Cloud._run(self, job)
        with self._lock:
            self._counters[identity] = job.counters
            stamp = text_of(self._cloud.clock.stamp())
            self._messages[identity] += [(stamp, kind, text) for kind, text in job.messages]
            self._become(identity, job.state)


_JOBS = r"/v1b3/projects/([^/]+)/locations/([^/]+)/jobs"
_ROUTES: list[tuple[str, str, Callable[..., Answer]]] = [
    ("POST", _JOBS, Dataflow._create),
    ("GET", _JOBS, Dataflow._list),
    ("GET", f"{_JOBS}/([^/]+)", Dataflow._get),
    ("PUT", f"{_JOBS}/([^/]+)", Dataflow._update),
    ("GET", f"{_JOBS}/([^/]+)/messages", Dataflow._list_messages),
    ("GET", f"{_JOBS}/([^/]+)/metrics", Dataflow._metrics),
]
