"""What goes wrong in a cloud, on demand or by chance with a seed."""

from __future__ import annotations

import dataclasses
import itertools
import random
import re
import threading
from collections import Counter
from collections.abc import Mapping
from typing import Any

from tests.cloud.answers import Refused, Request

KINDS = ("403", "disabled", "429", "500", "503", "slow", "lost", "expired")
"""What can happen to a request.

403: a permission is missing; disabled: the API is not enabled; 429: a quota is used up; 500 and
503: the service has troubles; slow: the answer takes its time; lost: the request is carried out,
and the connection closes without an answer; expired: the token is no longer valid.
"""

NUMBER = "123456789012"
"""The number of the one project there is."""

_SERVICES = {
    "aiplatform": ("aiplatform.googleapis.com", "Vertex AI API"),
    "storage": ("storage.googleapis.com", "Cloud Storage API"),
    "dataflow": ("dataflow.googleapis.com", "Dataflow API"),
    "kubeflow": ("ml-pipeline", "Kubeflow Pipelines API"),
    "token": ("oauth2.googleapis.com", "OAuth API"),
}
_VERBS = {"GET": "get", "POST": "create", "PATCH": "update", "PUT": "update", "DELETE": "delete"}


@dataclasses.dataclass
class Fault:
    """Something that is to happen to requests.

    Attributes:
        kind: one of `KINDS`.
        path: pattern that the path has somewhere, its query included.
        method: only requests with this method; all where it is empty.
        times: to how many requests; None for all from now on.
        seconds: how long a slow answer takes.
        permission: the permission that is missing; the one that the call needs where it is empty.
        retry_after: seconds that a 429 or 503 asks to wait, in a header; None for no header.
    """

    kind: str
    path: str = ""
    method: str = ""
    times: int | None = 1
    seconds: float = 0.2
    permission: str = ""
    retry_after: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"A fault must be one of {', '.join(KINDS)}; got {self.kind!r}.")
        re.compile(self.path)


@dataclasses.dataclass
class Preemption:
    """A machine that is to be taken away from a running task.

    Attributes:
        task: pattern of the whole name of the task, the last part of its path.
        job: pattern that the name of the job has somewhere.
        times: how often.
        after: seconds after the task's start, or after `found` was found.
        found: pattern of a file below the task's folder, such as `outputs/checkpoint/*.json`, for
            which to wait first; empty to wait for none.
        grace: seconds between SIGTERM and SIGKILL.
    """

    task: str
    job: str = ""
    times: int = 1
    after: float = 0.0
    found: str = ""
    grace: float = 5.0


@dataclasses.dataclass(frozen=True)
class Injected:
    """A fault that has happened: its kind, and to which request or task."""

    kind: str
    what: str
    request: int = 0


class Faults:
    """The plan of what goes wrong, and the record of what has.

    Attributes:
        injected: all that has happened, in order.
    """

    def __init__(self) -> None:
        self.injected: list[Injected] = []
        self._queue: list[Fault] = []
        self._preemptions: list[Preemption] = []
        self._rates: dict[str, float] = {}
        self._paths = ""
        self._options: dict[str, Any] = {}
        self._seed: int | str = 0
        self._seen: Counter[str] = Counter()
        self._lock = threading.Lock()

    def next(self, kind: str, path: str = "", times: int | None = 1, **options: Any) -> None:
        """Has a fault happen to the next requests that match; see `Fault`."""
        with self._lock:
            self._queue.append(Fault(kind, path, times=times, **options))

    def random(
        self, seed: int | str, rates: Mapping[str, float], paths: str = "", **options: Any
    ) -> None:
        """Has faults happen by chance, the same for the same seed and requests.

        Args:
            seed: of the chance.
            rates: kind -> probability; `preempt` is that of a task's attempt.
            paths: pattern that paths have somewhere; those for tokens are never meant.
            options: see `Fault`; `within` are the seconds in which a task is preempted.
        """
        for kind in set(rates) - {"preempt"}:
            Fault(kind, paths)
        if sum(p for kind, p in rates.items() if kind != "preempt") > 1:
            raise ValueError(f"Probabilities must add up to 1 at most; got {dict(rates)}.")
        with self._lock:
            self._seed, self._rates, self._paths = seed, dict(rates), paths
            self._options = dict(options)
            self._seen.clear()

    def preempt(self, task: str = ".*", **options: Any) -> None:
        """Has machines taken away from the next attempts at a task; see `Preemption`."""
        with self._lock:
            self._preemptions.append(Preemption(task, **options))

    def clear(self) -> None:
        """Nothing goes wrong from now on; what has is still known."""
        with self._lock:
            self._queue.clear()
            self._preemptions.clear()
            self._rates = {}

    def count(self, kind: str) -> int:
        """How often a kind of fault has happened."""
        return sum(each.kind == kind for each in self.injected)

    def note(self, kind: str, what: str, request: int = 0) -> None:
        """Writes down that a fault has happened."""
        with self._lock:
            self.injected.append(Injected(kind, what, request))

    def of_request(self, request: Request) -> Fault | None:
        """What is to happen to a request, if anything."""
        if request.service == "control":
            return None
        place = request.path + "?" + "&".join(f"{k}={v}" for k, v in request.query.items())
        with self._lock:
            fault = self._planned(request, place) or self._by_chance(request, place)
        if fault is not None:
            self.note(fault.kind, f"{request.method} {request.path}", request.number)
        return fault

    def of_attempt(self, job: str, task: str) -> Preemption | None:
        """How the machine of a task's attempt is to be taken away, if so."""
        name = task.rpartition("/")[2]
        with self._lock:
            for each in self._preemptions:
                if each.times > 0 and re.fullmatch(each.task, name) and re.search(each.job, job):
                    each.times -= 1
                    return dataclasses.replace(each)
            chance = self._chance(f"{job} {task}") if self._rates.get("preempt") else None
            if chance is None or chance.random() >= self._rates["preempt"]:
                return None
            within = float(self._options.get("within", 1.0))
            return Preemption(task, after=chance.uniform(0, within))

    def _planned(self, request: Request, place: str) -> Fault | None:
        for fault in self._queue:
            if fault.times == 0 or fault.method not in ("", request.method):
                continue
            if re.search(fault.path, place):
                if fault.times is not None:
                    fault.times -= 1
                return dataclasses.replace(fault)
        return None

    def _by_chance(self, request: Request, place: str) -> Fault | None:
        rates = {kind: p for kind, p in self._rates.items() if kind != "preempt"}
        if not rates or request.service == "token" or not re.search(self._paths, place):
            return None
        drawn = self._chance(f"{request.method} {request.path}").random()
        bounds = itertools.accumulate(rates.values())
        kind = next((k for k, bound in zip(rates, bounds, strict=True) if drawn < bound), None)
        options = {k: v for k, v in self._options.items() if k != "within"}
        return None if kind is None else Fault(kind, **options)

    def _chance(self, what: str) -> random.Random:
        """Chance that depends on what is asked how often, and not on who is quicker."""
        self._seen[what] += 1
        return random.Random(f"{self._seed} {what} {self._seen[what]}")  # noqa: S311


def refusal(fault: Fault, request: Request) -> Refused | None:
    """What a faulty service says; None where the fault is no refusal."""
    service, title = _SERVICES.get(request.service, _SERVICES["aiplatform"])
    wait = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
    match fault.kind:
        case "403":
            return _permission_denied(fault.permission or _permission(request), service, request)
        case "disabled":
            return _disabled(service, title)
        case "429":
            return _exhausted(service, wait)
        case "500":
            return Refused(500, "Internal error encountered.")
        case "503":
            return Refused(503, "The service is currently unavailable.", headers=wait)
        case "expired":
            return unauthenticated("ACCESS_TOKEN_EXPIRED", service)
    return None


def unauthenticated(reason: str, service: str) -> Refused:
    """What Google's services say where there is no valid token."""
    info = _error_info(reason, "googleapis.com", {"service": service})
    return Refused(
        401,
        "Request had invalid authentication credentials. Expected OAuth 2 access token, login "
        "cookie or other valid authentication credential. See "
        "https://developers.google.com/identity/sign-in/web/devconsole-project.",
        [info],
        headers={"WWW-Authenticate": 'Bearer realm="https://accounts.google.com/"'},
    )


def _permission_denied(permission: str, service: str, request: Request) -> Refused:
    if request.service == "storage":
        return Refused(
            403,
            f"paper2hub@project.iam.gserviceaccount.com does not have {permission} access to the "
            f"Google Cloud Storage bucket. Permission '{permission}' denied on resource (or it may "
            "not exist).",
        )
    resource = f"//{service}{re.sub(r'^/v[^/]+', '', request.path).partition(':')[0]}"
    if resource.count("/") % 2:  # it ends with the name of a collection
        resource = resource.rpartition("/")[0]
    return Refused(
        403,
        f"Permission '{permission}' denied on resource '{resource}' (or it may not exist).",
        [
            _error_info(
                "IAM_PERMISSION_DENIED",
                service,
                {"permission": permission, "resource": resource.removeprefix(f"//{service}/")},
            )
        ],
    )


def _permission(request: Request) -> str:
    """The permission that a call needs."""
    if request.service == "storage":
        kind = "objects" if "/o" in request.path else "buckets"
        verb = _VERBS[request.method]
        listing = request.method == "GET" and request.path.endswith(("/o", "/b"))
        return f"storage.{kind}.{'list' if listing else verb}"
    path, _, action = request.path.partition(":")
    parts = [part for part in path.split("/") if part]
    names = parts[5::2]  # v1/projects/P/locations/L/<collection>/ID
    collection = names[-1] if names else "jobs"
    listing = request.method == "GET" and len(parts) % 2 == 0
    verb = action or ("list" if listing else _VERBS[request.method])
    return f"{request.service}.{collection}.{verb}"


def _disabled(service: str, title: str) -> Refused:
    address = f"https://console.developers.google.com/apis/api/{service}/overview?project={NUMBER}"
    metadata = {
        "service": service,
        "serviceTitle": title,
        "consumer": f"projects/{NUMBER}",
        "containerInfo": NUMBER,
        "activationUrl": address,
    }
    return Refused(
        403,
        f"{title} has not been used in project {NUMBER} before or it is disabled. Enable it by "
        f"visiting {address} then retry. If you enabled this API recently, wait a few minutes for "
        "the action to propagate to our systems and retry.",
        [
            _error_info("SERVICE_DISABLED", "googleapis.com", metadata),
            {
                "@type": "type.googleapis.com/google.rpc.LocalizedMessage",
                "locale": "en-US",
                "message": f"{title} is disabled.",
            },
            {
                "@type": "type.googleapis.com/google.rpc.Help",
                "links": [
                    {"description": "Google developers console API activation", "url": address}
                ],
            },
        ],
        reason="accessNotConfigured",
    )


def _exhausted(service: str, headers: Mapping[str, str]) -> Refused:
    subject = f"project_number:{NUMBER}"
    description = (
        "Quota exceeded for quota metric 'Resource management (CRUD) requests' and limit "
        "'Resource management (CRUD) requests per minute per region' of service "
        f"'{service}' for consumer '{subject}'."
    )
    violation = {"subject": subject, "description": description}
    metadata = {
        "service": service,
        "consumer": f"projects/{NUMBER}",
        "quota_metric": f"{service}/resource_management_requests",
        "quota_limit": "ResourceManagementRequestsPerMinutePerProjectPerRegion",
        "quota_location": "us-central1",
        "quota_limit_value": "600",
    }
    return Refused(
        429,
        description,
        [
            _error_info("RATE_LIMIT_EXCEEDED", "googleapis.com", metadata),
            {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [violation]},
        ],
        headers=headers,
    )


def _error_info(reason: str, domain: str, metadata: Mapping[str, str]) -> dict[str, Any]:
    kind = "type.googleapis.com/google.rpc.ErrorInfo"
    return {"@type": kind, "reason": reason, "domain": domain, "metadata": dict(metadata)}
