"""What a server says to a request: an answer, or a refusal in the words of the service asked."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

_STATUS_OF = {
    400: ("INVALID_ARGUMENT", 3),
    401: ("UNAUTHENTICATED", 16),
    403: ("PERMISSION_DENIED", 7),
    404: ("NOT_FOUND", 5),
    409: ("ALREADY_EXISTS", 6),
    412: ("FAILED_PRECONDITION", 9),
    416: ("OUT_OF_RANGE", 11),
    429: ("RESOURCE_EXHAUSTED", 8),
    500: ("INTERNAL", 13),
    501: ("UNIMPLEMENTED", 12),
    503: ("UNAVAILABLE", 14),
}
_STORAGE_REASONS = {
    400: "invalid",
    401: "authError",
    403: "forbidden",
    404: "notFound",
    409: "conflict",
    412: "conditionNotMet",
    416: "requestedRangeNotSatisfiable",
    429: "rateLimitExceeded",
    500: "backendError",
    503: "backendError",
}


@dataclasses.dataclass(frozen=True)
class Request:
    """A request as it came.

    Attributes:
        number: 1 for the first, 2 for the second, …
        method: such as POST.
        path: of the address, as it was written.
        query: the last value of every name after the question mark.
        headers: by lower-case name.
        body: what was sent.
    """

    number: int
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    @property
    def service(self) -> str:
        """Whom it is for: aiplatform, storage, dataflow, kubeflow, token or control."""
        first, _, rest = self.path.lstrip("/").partition("/")
        if first in ("storage", "upload", "download", "batch", "resumable"):
            return "storage"
        if first == "apis" or rest.startswith("apis/"):
            return "kubeflow"
        names = {"v1b3": "dataflow", "token": "token", "_control": "control"}
        return names.get(first, "aiplatform")

    def json(self) -> dict[str, Any]:
        """The body as a JSON object.

        Raises:
            Refused: it is none.
        """
        try:
            value = json.loads(self.body or b"{}")
        except ValueError as error:
            raise Refused(400, f"Invalid JSON payload received. {error}") from error
        if not isinstance(value, dict):
            raise Refused(400, "Invalid JSON payload received. Expected an object.")
        return value


@dataclasses.dataclass(frozen=True)
class Answer:
    """What is sent back: JSON, or bytes as they are."""

    body: Any = dataclasses.field(default_factory=dict)
    status: int = 200
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def content(self) -> tuple[bytes, Mapping[str, str]]:
        """The body's bytes, and the headers that go with them."""
        if isinstance(self.body, bytes):
            return self.body, self.headers
        kind = {"Content-Type": "application/json; charset=UTF-8"}
        return json.dumps(self.body).encode(), {**kind, **self.headers}


class Refused(Exception):
    """A request that is refused.

    Args:
        status: of HTTP, such as 404.
        message: for a person.
        details: messages of google.rpc as JSON, each with its `@type`.
        reason: the short reason that Cloud Storage gives; the usual one where it is empty.
        name: of the gRPC code; that which belongs to the status where it is empty.
        headers: of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        details: Sequence[Mapping[str, Any]] = (),
        reason: str = "",
        name: str = "",
        headers: Mapping[str, str] | None = None,
    ):
        super().__init__(message)
        self.status = status
        self.message = message
        self.details = list(details)
        self.reason = reason
        self.name = name
        self.headers = dict(headers or {})

    def answer(self, service: str) -> Answer:
        """The refusal as a service words it."""
        name, code = _STATUS_OF.get(self.status, ("UNKNOWN", 2))
        if service == "kubeflow":
            body: dict[str, Any] = {
                "error": self.message,
                "code": code,
                "message": self.message,
                "details": self.details,
            }
        elif service == "token":
            body = {"error": self.reason or "invalid_grant", "error_description": self.message}
        elif service == "storage":
            reason = self.reason or _STORAGE_REASONS.get(self.status, "invalid")
            error = {"message": self.message, "domain": "global", "reason": reason}
            body = {"error": {"code": self.status, "message": self.message, "errors": [error]}}
            if self.details:
                body["error"]["details"] = self.details
        else:
            body = {
                "error": {
                    "code": self.status,
                    "message": self.message,
                    "status": self.name or name,
                    **({"details": self.details} if self.details else {}),
                }
            }
        return Answer(body, self.status, self.headers)


def page(
    items: Sequence[Any], size: int, token: str, at_most: int = 1000
) -> tuple[Sequence[Any], str]:
    """One page of a list, and the token for the next, empty at the end.

    Raises:
        Refused: the size or the token is none.
    """
    if size < 0:
        raise Refused(400, f"page_size must not be negative; got {size}.")
    if token and not token.startswith("page-"):
        raise Refused(400, f"The page token {token!r} is not valid.")
    begin = int(token.removeprefix("page-")) if token else 0
    end = begin + min(size or at_most, at_most)
    return items[begin:end], f"page-{end}" if end < len(items) else ""
