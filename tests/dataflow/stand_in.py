"""Dataflow and Cloud Storage on this machine, as far as Beam's own clients talk to them.

A job that is submitted runs: its graph is taken from the bucket where Beam has put it, and done by
FnApiRunner with the buckets as its only files. Or it goes as a test wants it to go: it fails, or is
cancelled.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import itertools
import json
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

import google_crc32c
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability import python_urns
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from google.cloud.dataflow import JobState

Fate = Literal["done", "failed", "cancelled", "endless"]


@dataclasses.dataclass
class Job:
    """A job that was submitted.

    Attributes:
        description: what was sent, as JSON.
        graph: the pipeline that was put into the bucket for it.
        state: as Dataflow names it, such as JOB_STATE_RUNNING.
        messages: what the job has to say, oldest first.
        counters: name -> value of the user's counters.
        asked: how often its state was asked for.
    """

    description: dict[str, Any]
    graph: beam_runner_api_pb2.Pipeline
    state: str = "JOB_STATE_PENDING"
    messages: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    counters: dict[str, int] = dataclasses.field(default_factory=dict)
    asked: int = 0

    @property
    def options(self) -> dict[str, Any]:
        """The options of the pipeline, as Dataflow gets them."""
        options: dict[str, Any] = self.description["environment"]["sdkPipelineOptions"]["options"]
        return options

    @property
    def images(self) -> set[str]:
        """The container images that the job's workers are to run."""
        environments = self.graph.components.environments.values()
        return {
            beam_runner_api_pb2.DockerPayload.FromString(e.payload).container_image
            for e in environments
        }

    @property
    def steps(self) -> list[str]:
        """The names that the user has given to steps."""
        return [t.unique_name for t in self.graph.components.transforms.values()]


class Cloud:
    """Buckets and jobs; a context manager that serves them.

    Attributes:
        buckets: bucket -> name of an object -> its content.
        jobs: id -> job.
        fate: what becomes of the next jobs.
        reason: what a job says that fails.
        forbidden: what the names of objects have that nobody may write.
        requests: method and path of all requests.
        url: where it is served.
        result, progress: what a test notes of a run.
    """

    def __init__(self) -> None:
        self.buckets: dict[str, dict[str, bytes]] = {"bucket": {}}
        self.jobs: dict[str, Job] = {}
        self.fate: Fate = "done"
        self.reason = ""
        self.forbidden = ""
        self.result: Any = None
        self.progress: Any = None
        self.requests: list[str] = []
        self._uploads: dict[str, tuple[str, str, bytearray]] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.RLock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        # Beam's client speaks HTTP instead of gRPC to what has "localhost" in its name.
        self.url = f"http://localhost:{self.port}"

    def __enter__(self) -> Cloud:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def fill(self, bucket: str, prefix: str, folder: Path) -> None:
        """Copies a folder into a bucket."""
        objects = self.buckets.setdefault(bucket, {})
        for path in folder.rglob("*"):
            if path.is_file():
                objects[f"{prefix}/{path.relative_to(folder)}"] = path.read_bytes()

    def files(self, bucket: str, prefix: str) -> dict[str, bytes]:
        """The objects below a prefix, by the rest of their names."""
        there = self.buckets[bucket].items()
        return {n.removeprefix(f"{prefix}/"): d for n, d in there if n.startswith(f"{prefix}/")}

    # Dataflow

    def create_job(self, description: dict[str, Any]) -> dict[str, Any]:
        """Takes a job on and begins with it."""
        options = description["environment"]["sdkPipelineOptions"]["options"]
        bucket, _, name = options["pipelineUrl"].removeprefix("gs://").partition("/")
        graph = beam_runner_api_pb2.Pipeline.FromString(self.buckets[bucket][name])
        with self._lock:
            identity = f"2026-01-01_00_00_00-{next(self._numbers)}"
            active = [
                (i, j)
                for i, j in self.jobs.items()
                if j.description["name"] == description["name"] and "RUNNING" in j.state
            ]
            if active:  # as Dataflow answers: with the job that is there
                return self.show_job(active[0][0])
            self.jobs[identity] = Job(description, graph)
        threading.Thread(target=self._work, args=(identity,), daemon=True).start()
        return self.show_job(identity)

    def show_job(self, identity: str) -> dict[str, Any]:
        """A job as Dataflow shows it."""
        job = self.jobs[identity]
        kept = ("name", "type", "clientRequestId", "labels")
        return {
            "id": identity,
            "projectId": "project",
            "currentState": job.state,
            **{name: job.description[name] for name in kept if name in job.description},
        }

    def _work(self, identity: str) -> None:
        job = self.jobs[identity]
        fate, reason = self.fate, self.reason
        job.state = "JOB_STATE_RUNNING"
        if fate == "endless":
            return
        while job.asked < 2:  # so that somebody waits for it
            threading.Event().wait(0.01)
        if fate == "failed":
            job.messages.append(("JOB_MESSAGE_ERROR", reason))
            job.state = "JOB_STATE_FAILED"
        elif fate == "cancelled":
            job.state = "JOB_STATE_CANCELLED"
        else:
            self._run(job)

    def _run(self, job: Job) -> None:
        graph = beam_runner_api_pb2.Pipeline()
        graph.CopyFrom(job.graph)
        for environment in graph.components.environments.values():
            environment.urn = python_urns.EMBEDDED_PYTHON
            environment.payload = b""
        try:
            result = FnApiRunner().run_via_runner_api(graph, PipelineOptions([]))
        except Exception as error:
            job.messages.append(("JOB_MESSAGE_ERROR", str(error)))
            job.state = "JOB_STATE_FAILED"
            return
        for metric in result.metrics().query()["counters"]:
            job.counters[f"{metric.key.metric.namespace}/{metric.key.metric.name}"] = (
                metric.attempted
            )
        job.state = "JOB_STATE_DONE"

    # HTTP

    def _handler(cloud) -> type[BaseHTTPRequestHandler]:  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def _serve(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length)
                if self.headers.get("Transfer-Encoding") == "chunked":
                    while size := int(self.rfile.readline(), 16):
                        body += self.rfile.read(size)
                        self.rfile.readline()
                    self.rfile.readline()
                status, headers, answer = cloud._answer(
                    self.command, self.path, dict(self.headers), body
                )
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = _serve  # noqa: N815

        return Handler

    def _answer(
        self, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and content of the answer to a request."""
        parts = urlsplit(path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        self.requests.append(f"{method} {parts.path}")
        for pattern, function in _ROUTES:
            match = re.fullmatch(pattern, f"{method} {parts.path}")
            if match:
                groups = [unquote(group) for group in match.groups()]
                with self._lock:
                    found = function(self, groups, query, headers, body)
                if isinstance(found, tuple):
                    return found
                if found is None:
                    return _json(404, {"error": {"code": 404, "message": f"no {groups}"}})
                return _json(200, found)
        return _json(501, {"error": {"code": 501, "message": f"the stand-in knows no {path}"}})

    def _bucket(self, groups: list[str], *_: Any) -> Any:
        if groups[0] not in self.buckets:
            return None
        return {"kind": "storage#bucket", "name": groups[0], "projectNumber": "1"}

    def _list(self, groups: list[str], query: dict[str, str], *_: Any) -> Any:
        names = sorted(self.buckets.get(groups[0], {}))
        prefix = query.get("prefix", "")
        return {"items": [self._object(groups[0], n) for n in names if n.startswith(prefix)]}

    def _object(self, bucket: str, name: str) -> dict[str, Any]:
        data = self.buckets[bucket][name]
        return {
            "kind": "storage#object",
            "id": f"{bucket}/{name}/1",
            "bucket": bucket,
            "name": name,
            "generation": "1",
            "size": str(len(data)),
            "crc32c": base64.b64encode(google_crc32c.Checksum(data).digest()).decode(),
            "md5Hash": base64.b64encode(hashlib.md5(data).digest()).decode(),  # noqa: S324
            "updated": "2026-01-01T00:00:00.000Z",
        }

    def _get(
        self, groups: list[str], query: dict[str, str], headers: dict[str, str], _: Any
    ) -> Any:
        bucket, name = groups
        if name not in self.buckets.get(bucket, {}):
            return None
        if query.get("alt") != "media":
            return self._object(bucket, name)
        data = self.buckets[bucket][name]
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", headers.get("Range", headers.get("range", "")))
        if not asked:
            return 200, {"Content-Type": "application/octet-stream"}, data
        begin, end = int(asked[1]), min(int(asked[2] or len(data)), len(data) - 1)
        if begin >= len(data):
            return 416, {"Content-Range": f"bytes */{len(data)}"}, b""
        return 206, {"Content-Range": f"bytes {begin}-{end}/{len(data)}"}, data[begin : end + 1]

    def _begin_upload(
        self, groups: list[str], query: dict[str, str], headers: dict[str, str], body: bytes
    ) -> Any:
        kind = headers.get("Content-Type", headers.get("content-type", ""))
        multipart = query["uploadType"] == "multipart"
        about = _parts(kind, body) if multipart else [body]
        name = query.get("name") or json.loads(about[0])["name"]
        if self.forbidden and self.forbidden in name:
            return _json(403, {"error": {"code": 403, "message": f"{name} is forbidden"}})
        if multipart:
            self.buckets[groups[0]][name] = about[1]
            return self._object(groups[0], name)
        identity = str(next(self._numbers))
        self._uploads[identity] = (groups[0], name, bytearray())
        return 200, {"Location": f"{self.url}/upload/{identity}"}, b""

    def _upload(self, groups: list[str], _: Any, headers: dict[str, str], body: bytes) -> Any:
        bucket, name, data = self._uploads[groups[0]]
        data += body
        asked = headers.get("Content-Range", headers.get("content-range", ""))
        if asked.endswith("/*"):
            return 308, {"Range": f"bytes=0-{len(data) - 1}"} if data else {}, b""
        self.buckets[bucket][name] = bytes(data)
        return self._object(bucket, name)

    def _delete(self, groups: list[str], *_: Any) -> Any:
        bucket, name = groups
        if self.buckets.get(bucket, {}).pop(name, None) is None:
            return None
        return 204, {}, b""

    def _copy(self, groups: list[str], *_: Any) -> Any:
        bucket, name, other, target = groups
        if name not in self.buckets.get(bucket, {}):
            return None
        self.buckets[other][target] = self.buckets[bucket][name]
        found = self._object(other, target)
        size = found["size"]
        rewritten = {"done": True, "objectSize": size, "totalBytesRewritten": size}
        return {"kind": "storage#rewriteResponse", **rewritten, "resource": found} | found

    def _batch(self, _: Any, __: Any, headers: dict[str, str], body: bytes) -> Any:
        answers = []
        kind = headers.get("Content-Type", headers.get("content-type", ""))
        for part in _parts(kind, body):
            head, content = _headed(part)
            method, path, *_ = head.split()
            status, _, content = self._answer(method.decode(), path.decode(), {}, content)
            answers += [
                b"--answer\r\nContent-Type: application/http\r\n\r\n",
                b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\n" % status,
                b"Content-Length: %d\r\n\r\n%s\r\n" % (len(content), content),
            ]
        whole = b"".join(answers) + b"--answer--\r\n"
        return 200, {"Content-Type": "multipart/mixed; boundary=answer"}, whole

    def _create_job(self, _: Any, __: Any, ___: Any, body: bytes) -> Any:
        return self.create_job(json.loads(body))

    def _get_job(self, groups: list[str], *_: Any) -> Any:
        if groups[0] not in self.jobs:
            return None
        self.jobs[groups[0]].asked += 1
        return self.show_job(groups[0])

    def _update_job(self, groups: list[str], _: Any, __: Any, body: bytes) -> Any:
        asked = json.loads(body)["requestedState"]
        self.jobs[groups[0]].state = JobState(asked).name if isinstance(asked, int) else asked
        return self.show_job(groups[0])

    def _messages(self, groups: list[str], *_: Any) -> Any:
        return {
            "jobMessages": [
                {
                    "id": str(number),
                    "time": f"2026-01-01T00:00:{number:02d}Z",
                    "messageText": text,
                    "messageImportance": importance,
                }
                for number, (importance, text) in enumerate(self.jobs[groups[0]].messages)
            ]
        }

    def _metrics(self, groups: list[str], *_: Any) -> Any:
        metrics = []
        for name, value in self.jobs[groups[0]].counters.items():
            namespace, _, counter = name.rpartition("/")
            for context in ({"tentative": "true"}, {}):
                origin = {"namespace": namespace, "step": "s1", **context}
                metrics.append(
                    {
                        "name": {"origin": "user", "name": counter, "context": origin},
                        "scalar": value,
                    }
                )
        return {"metrics": metrics, "metricTime": "2026-01-01T00:00:00Z"}


_JOBS = "/v1b3/projects/project/locations/region/jobs"
_OBJECT = "/storage/v1/b/([^/]+)/o/([^/]+)"

_ROUTES: list[tuple[str, Callable[..., Any]]] = [
    (r"GET /storage/v1/b/([^/]+)", Cloud._bucket),
    (r"GET /storage/v1/b/([^/]+)/o", Cloud._list),
    (rf"GET (?:/download)?{_OBJECT}", Cloud._get),
    (rf"DELETE {_OBJECT}", Cloud._delete),
    (rf"POST {_OBJECT}/(?:copyTo|rewriteTo)/b/([^/]+)/o/([^/]+)", Cloud._copy),
    (r"POST /upload/storage/v1/b/([^/]+)/o", Cloud._begin_upload),
    (r"PUT /upload/(\d+)", Cloud._upload),
    (r"POST /batch/storage/v1", Cloud._batch),
    (rf"POST {_JOBS}", Cloud._create_job),
    (rf"GET {_JOBS}/([^/]+)", Cloud._get_job),
    (rf"PUT {_JOBS}/([^/]+)", Cloud._update_job),
    (rf"GET {_JOBS}/([^/]+)/messages", Cloud._messages),
    (rf"GET {_JOBS}/([^/]+)/metrics", Cloud._metrics),
]


def _json(status: int, value: Any) -> tuple[int, dict[str, str], bytes]:
    return status, {"Content-Type": "application/json; charset=UTF-8"}, json.dumps(value).encode()


def _parts(kind: str, body: bytes) -> list[bytes]:
    """The contents of the parts of a multipart message, without their headers."""
    boundary = kind.partition("boundary=")[2].split(";")[0].strip("\"'").encode()
    parts = body.split(b"--" + boundary)[1:-1]
    return [
        _headed(part.lstrip(b"\r\n"))[1].removesuffix(b"\n").removesuffix(b"\r") for part in parts
    ]


def _headed(message: bytes) -> tuple[bytes, bytes]:
    """The headers of a message and what follows the empty line after them."""
    headers, _, rest = re.sub(rb"\r?\n\r?\n", b"\0\0", message, count=1).partition(b"\0\0")
    return headers, rest
