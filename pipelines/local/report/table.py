"""The table of tasks: how each ended, what it was called with and what it gave."""

from __future__ import annotations

import shlex
import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.local.record import DONE, REPORT_FILE, TASK_FILE, WORK, RunRecord
from pipelines.local.report.artifacts import address_of, artifacts_in, is_file, place_of, type_of
from pipelines.local.report.tasks import Tasks
from pipelines.local.report.words import shortened, to_the_second

# What the table of a very large run leaves out, and says that it does (all ours).
_MOST_TASKS, _MOST_DETAILS = 5_000, 200
_MOST_OUTPUTS = 20


def task_views(tasks: Tasks) -> dict[str, Any]:
    """What the table says of each task; of many, the details of those that failed and the first."""
    record = tasks.record
    # Of a large run, the iterations themselves are no news beside what they hold.
    order = [
        path
        for path in tasks.order
        if path in record.tasks
        and not (
            tasks.folded
            and tasks.is_iteration(path)
            and tasks.children.get(path)
            and record.tasks[path].status in DONE
        )
    ]
    failed = [path for path in order if record.tasks[path].status == "failed"]
    by_weight = list(dict.fromkeys([*failed, *order]))
    detailed, listed = set(by_weight[:_MOST_DETAILS]), set(by_weight[:_MOST_TASKS])
    siblings: dict[str, str] = {}
    views = []
    for index, path in enumerate(tasks.order):
        if path not in listed:
            continue
        task = record.tasks[path]
        if task.cached_from and task.cached_from not in siblings:
            other = Path(record.folder).parent / task.cached_from / REPORT_FILE
            address = f"../{urllib.parse.quote(task.cached_from)}/{REPORT_FILE}"
            siblings[task.cached_from] = address if is_file(other) else ""
        log = record.log(path)
        group = task.kind not in WORK
        views.append(
            {
                "anchor": f"task-{index}",
                "path": path,
                "kind": task.kind,
                "status": task.status,
                "seconds": task.seconds,
                "attempts": task.attempts or "",
                "exit_code": "" if task.exit_code is None else task.exit_code,
                "cache": "" if group else task.cache,
                "cached_from": task.cached_from,
                "cached_address": siblings.get(task.cached_from, ""),
                "reason": task.reason,
                "log": address_of(record, log) if not group and is_file(log) else "",
                "details": _details(tasks, path) if path in detailed else None,
            }
        )
    return {
        "shown": views,
        "without_details": len(listed) - len(detailed),
        "left_out": len(order) - len(listed),
    }


def cache_in_words(record: RunRecord) -> str:
    """How much of the work the cache had."""
    done = [t for t in record.tasks.values() if t.kind == "container" and t.status in DONE]
    cached = sum(task.status == "cached" for task in done)
    if not done:
        return ""
    if not cached:
        return "No result was taken from the cache; the column says why."
    return f"{cached:,} of {len(done):,} results were taken from the cache."


def value_view(name: str, value: Any) -> dict[str, Any]:
    """A value that is no artifact."""
    return {"name": name, "value": value, "artifact": None}


def output_views(
    record: RunRecord, name: str, value: Any, digest: str = ""
) -> list[dict[str, Any]]:
    """A value, an artifact, or each of a list of artifacts, as far as there is room."""
    artifacts = list(artifacts_in(value)) if isinstance(value, Sequence) else []
    if not artifacts or not all("uri" in artifact for artifact in artifacts):
        return [_output(record, name, value, digest)]
    left_out = len(artifacts) - _MOST_OUTPUTS
    shown = [_output(record, name, artifact) for artifact in artifacts[:_MOST_OUTPUTS]]
    if left_out > 0:
        shown.append(_output(record, name, f"{left_out:,} more"))
    return shown


def _details(tasks: Tasks, path: str) -> dict[str, Any]:
    """What a task was called with and what it gave."""
    record = tasks.record
    task = record.tasks[path]
    known = task.key.get("inputs", {})
    known = known if isinstance(known, Mapping) else {}
    inputs = [value_view(n, v) for n, v in task.input_parameters.items()]
    for name, artifacts in task.input_artifacts.items():
        digests = known.get(name) or []
        for index, artifact in enumerate(artifacts_in(artifacts)):
            seen = digests[index] if index < len(digests) else {}
            digest = str(seen.get("digest", "")) if isinstance(seen, Mapping) else ""
            inputs.append(_output(record, name, artifact, digest))
    outputs = [_output(record, n, v) for n, v in task.parameters.items()]
    for name, value in task.artifacts.items():
        outputs += output_views(record, name, value, task.digests.get(name, ""))
    return {
        "after": tasks.tasks_before(path),
        "condition": tasks.condition(path),
        "image": task.image,
        "started": to_the_second(task.started),
        "command": shortened(shlex.join(task.command)) if task.command else "",
        "inputs": inputs,
        "outputs": outputs,
        "record": address_of(record, record.task_folder(path) / TASK_FILE),
    }


def _output(record: RunRecord, name: str, value: Any, digest: str = "") -> dict[str, Any]:
    """A value, or an artifact with where it is."""
    if not (isinstance(value, Mapping) and "uri" in value and "type" in value):
        return value_view(name, value)
    place = place_of(value)
    address = address_of(record, place) if place else ""
    return {
        "name": name,
        "value": None,
        "artifact": {
            "type": type_of(value).removeprefix("system."),
            "address": address,
            "uri": urllib.parse.unquote(address) or str(value["uri"]),
            "digest": digest[:12],
        },
    }
