"""What the collections of Vertex AI have in common: messages as JSON, lists, names and labels."""

from __future__ import annotations

import datetime
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from google.cloud.aiplatform_v1 import types
from google.protobuf import json_format

from tests.cloud.answers import Answer, Refused, Request, page
from tests.cloud.clock import text_of
from tests.cloud.filters import matching, ordered, snake

if TYPE_CHECKING:
    from tests.cloud.clock import Clock

_LABEL_KEY = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_LABEL_VALUE = re.compile(r"[a-z0-9_-]{0,63}")
_MOST_LABELS = 64


def parse(kind: Any, value: Mapping[str, Any]) -> Any:
    """A message from JSON.

    Raises:
        Refused: it has a field that there is not, or a value of another type.
    """
    try:
        return kind.from_json(json.dumps(value), ignore_unknown_fields=False)
    except json_format.ParseError as error:
        raise Refused(400, f"Invalid JSON payload received. {error}") from error


def shown(message: Any, request: Request) -> dict[str, Any]:
    """A message as JSON, in the way that the request asks for."""
    numbers = "enum-encoding=int" in request.query.get("$alt", "")
    result: dict[str, Any] = json_format.MessageToDict(
        type(message).pb(message), use_integers_for_enums=numbers
    )
    return result


def listing(
    key: str, items: list[Any], request: Request, look: Callable[[Any, str], Any]
) -> Answer:
    """One page of a list of messages."""
    query = {snake(name): value for name, value in request.query.items()}
    items = matching(items, query.get("filter", ""), look)
    items = ordered(items, query.get("order_by", ""), look)
    size = int(query.get("page_size") or 0)
    chosen, following = page(items, size, query.get("page_token", ""), at_most=100)
    mask = [unquote(p) for p in query.get("read_mask", "").split(",") if p and p != "*"]
    body: dict[str, Any] = {key: [_masked(shown(item, request), mask) for item in chosen]}
    if following:
        body["nextPageToken"] = following
    return Answer(body)


def operation(name: str, metadata: str, clock: Clock) -> Answer:
    """A long-running operation that is done at once."""
    parent = "/".join(name.split("/")[:4])
    kind = "type.googleapis.com/google.cloud.aiplatform.v1"
    return Answer(
        {
            "name": f"{parent}/operations/{number_of(name)}",
            "metadata": {
                "@type": f"{kind}.{metadata}",
                "genericMetadata": {"createTime": text_of(clock.stamp())},
            },
            "done": True,
            "response": {"@type": "type.googleapis.com/google.protobuf.Empty"},
        }
    )


def number_of(name: str) -> int:
    """A number for a resource, the same for the same name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")


def check_labels(labels: Mapping[str, str]) -> None:
    """Holds labels to what Google Cloud wants."""
    if len(labels) > _MOST_LABELS:
        raise Refused(400, f"Resources can have {_MOST_LABELS} labels at most; got {len(labels)}.")
    for key, value in labels.items():
        if not _LABEL_KEY.fullmatch(key) or not _LABEL_VALUE.fullmatch(value):
            raise Refused(
                400,
                f"Invalid label {key}: {value!r}. Label keys and values can contain only lowercase "
                "letters, digits, dashes and underscores, at most 63; keys begin with a letter.",
            )


def check_display_name(name: str) -> None:
    """Holds a name for people to what Vertex AI wants."""
    if not name or len(name.encode()) > 128:
        raise Refused(400, f"display_name must have 1 to 128 characters; got {name!r}.")


def field(item: Any, name: str) -> Any:
    """The value of a message's field, for filters; KeyError where there is no such field."""
    head, _, rest = name.partition(".")
    if head == "labels":
        return item.labels.get(rest)
    if head == "state":
        return item.state.name
    if head in ("pipeline_name", "pipeline_spec") and isinstance(item, types.PipelineJob):
        return item.pipeline_spec["pipelineInfo"]["name"]
    if head not in type(item).meta.fields or rest:
        raise KeyError(name)
    value = getattr(item, head)
    if isinstance(value, datetime.datetime):
        return datetime.datetime.fromisoformat(value.isoformat())
    return value


def _masked(value: dict[str, Any], mask: list[str]) -> dict[str, Any]:
    if not mask:
        return value
    result: dict[str, Any] = {}
    for path in mask:
        source, target = value, result
        *parents, last = [camel(part) for part in path.split(".")]
        for parent in parents:
            source = source.get(parent, {})
            if source:
                target = target.setdefault(parent, {})
        if last in source:
            target[last] = source[last]
    return {"name": value["name"], **result}


def camel(name: str) -> str:
    """A field's name in camel case."""
    return re.sub(r"_([a-z])", lambda match: match[1].upper(), name)
