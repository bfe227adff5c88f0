"""The stand-in's own requests, below `/_control`: what a test in another process may ask of it."""

from __future__ import annotations

import dataclasses
import datetime
from typing import TYPE_CHECKING, Any

from tests.cloud.answers import Answer, Refused, Request
from tests.cloud.clock import text_of

if TYPE_CHECKING:
    from tests.cloud.cloud import Cloud


def answer(cloud: Cloud, request: Request) -> Answer:
    """Answers a request to control the stand-in.

    Raises:
        Refused: it cannot be done.
    """
    asked = request.json()
    action = request.path.removeprefix("/_control/")
    try:
        return Answer(_done(cloud, request.method, action, asked))
    except (TypeError, ValueError, KeyError) as error:
        raise Refused(400, f"{action} cannot be done: {error}") from error


def _done(cloud: Cloud, method: str, action: str, asked: dict[str, Any]) -> dict[str, Any]:
    match method, action:
        case "GET", "environment":
            return cloud.environment()
        case "GET", "requests":
            return {"requests": [f"{r.method} {r.path}" for r in list(cloud.requests)]}
        case "GET", "faults":
            return {"injected": [dataclasses.asdict(f) for f in list(cloud.faults.injected)]}
        case "POST", "advance":
            wait = asked.pop("wait", True)
            cloud.clock.advance(datetime.timedelta(**asked), wait)
            return {"now": text_of(cloud.clock.now())}
        case "POST", "execute":
            if asked["mode"] not in ("run", "instant", "hold"):
                raise ValueError(f"there is no mode {asked['mode']!r}")
            cloud.execute = asked["mode"]
            return {}
        case "POST", "wait":
            cloud.wait(**asked)
            return {}
        case "POST", "finish":
            cloud.finish(**asked)
            return {}
        case "POST", "preempt":
            return {"preempted": cloud.preempt(**asked)}
        case "POST", "expire":
            cloud.credentials.expire_all()
            return {}
        case "POST", "faults/next":
            cloud.faults.next(**asked)
            return {}
        case "POST", "faults/random":
            cloud.faults.random(**asked)
            return {}
        case "POST", "faults/preempt":
            cloud.faults.preempt(**asked)
            return {}
        case "POST", "faults/clear":
            cloud.faults.clear()
            return {}
    raise Refused(404, f"There is nothing to control at {method} /_control/{action}.")
