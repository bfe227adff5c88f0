"""A pipeline that was submitted, as the local engine can run it.

Buckets become folders, machines and waiting times are left out, and what Google's own launcher
would submit as a CustomJob becomes the container that the job would run.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.cloud.answers import Refused

_LAUNCHER = re.compile(r".*/google-cloud-pipeline-components[:@].*")
_BUCKET_ADDRESS = re.compile(r"(?<![\w/])(gs://|/gcs/)")
_WHOLE_ADDRESS = re.compile(r"(--[\w-]+=)?(gs://|/gcs/)\S*")
_INPUT = re.compile(r"\{\{\$\.inputs\.parameters\['([^']+)'\]\}\}")
_ESCAPED = re.compile(r"\{\{\$\.json_escape\[1\]\}\}")
_POOLS = "worker_pool_specs"


@dataclasses.dataclass(frozen=True)
class Translated:
    """A pipeline for the local engine.

    Attributes:
        spec: the compiled pipeline.
        custom_jobs: path of a task, without the numbers of loops -> the worker pools of the
            CustomJob that it is on Vertex AI, placeholders included.
    """

    spec: dict[str, Any]
    custom_jobs: Mapping[str, list[dict[str, Any]]]


def translate(
    spec: Mapping[str, Any],
    parameters: Mapping[str, Any],
    facts: Mapping[str, str],
    buckets: Path | None,
    images: Mapping[str, str],
) -> Translated:
    """The pipeline as the local engine can run it.

    Args:
        spec: the compiled pipeline.
        parameters: what the run sets.
        facts: name of a placeholder about the run, such as `pipeline_job_name` -> what it
            stands for; others are left to the engine.
        buckets: the folder that has the buckets; None to leave addresses as they are.
        images: image -> the one to run in its place.
    """
    result = _filled(copy.deepcopy(dict(spec)), facts)
    custom_jobs = _unwrap(result, parameters)
    for executor in result.get("deploymentSpec", {}).get("executors", {}).values():
        _relieve(executor.get("container", {}), images)
    for component in [*result.get("components", {}).values(), result.get("root", {})]:
        for task in component.get("dag", {}).get("tasks", {}).values():
            if "retryPolicy" in task:
                task["retryPolicy"]["backoffDuration"] = "0s"
    if buckets is not None:
        _localise(result, buckets)
    return Translated(result, custom_jobs)


def local_value(value: Any, buckets: Path | None) -> Any:
    """A value with addresses in buckets as paths, and 2.0 as 2 within lists and objects."""
    if buckets is not None:
        value = _mapped(value, lambda text: _BUCKET_ADDRESS.sub(f"{buckets}/", text))
    return _whole(value) if isinstance(value, list | dict) else value


def filled_value(value: Any, facts: Mapping[str, str]) -> Any:
    """A value with the placeholders about the run filled in."""
    return _filled(value, facts)


def resolved_pools(pools: list[dict[str, Any]], parameters: Mapping[str, Any]) -> Any:
    """Worker pools with the placeholders of input parameters filled in."""

    def fill(text: str) -> str:
        def value(match: re.Match[str]) -> str:
            given = parameters.get(match[1])
            return given if isinstance(given, str) else json.dumps(given)

        return _INPUT.sub(value, text)

    return _whole(_mapped(pools, fill))


def _filled(value: Any, facts: Mapping[str, str]) -> Any:
    pattern = re.compile(r"\{\{\$\.(" + "|".join(map(re.escape, facts)) + r")\}\}")
    return _mapped(value, lambda text: pattern.sub(lambda match: facts[match[1]], text))


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    """The value with a change made to all texts in it, keys left as they are."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_mapped(item, change) for item in value]
    if isinstance(value, dict):
        return {key: _mapped(item, change) for key, item in value.items()}
    return value


def _whole(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_whole(item) for item in value]
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in value.items()}
    return value


def _relieve(container: dict[str, Any], images: Mapping[str, str]) -> None:
    """Asks for no machine: this one is what there is."""
    container.pop("resources", None)
    image = container.get("image", "")
    container["image"] = images.get(image, image)


def _localise(spec: dict[str, Any], buckets: Path) -> None:
    """Makes paths of addresses where values are, and leaves programs as they are."""

    def path(text: str) -> str:
        return _BUCKET_ADDRESS.sub(f"{buckets}/", text)

    def argument(text: str) -> str:
        return path(text) if _WHOLE_ADDRESS.fullmatch(text) else text

    for executor in spec.get("deploymentSpec", {}).get("executors", {}).values():
        container = executor.get("container", {})
        for key in ("command", "args"):
            if key in container:
                container[key] = _mapped(container[key], argument)
        if "env" in container:
            container["env"] = _mapped(container["env"], path)
        if "importer" in executor:
            executor["importer"] = _mapped(executor["importer"], path)
    for component in [*spec.get("components", {}).values(), spec.get("root", {})]:
        for parameter in component.get("inputDefinitions", {}).get("parameters", {}).values():
            if "defaultValue" in parameter:
                parameter["defaultValue"] = _mapped(parameter["defaultValue"], path)
        for task in component.get("dag", {}).get("tasks", {}).values():
            for key in ("inputs", "parameterIterator"):
                if key in task:
                    task[key] = _mapped(task[key], path)


def _unwrap(spec: dict[str, Any], parameters: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Puts the containers of CustomJobs in place of the launcher that would submit them."""
    executors = spec.get("deploymentSpec", {}).get("executors", {})
    wrapped = {label for label, e in executors.items() if _is_launcher(e.get("container", {}))}
    found: dict[str, list[dict[str, Any]]] = {}
    if wrapped:
        known = {**_defaults(spec["root"]), **parameters}
        _unwrap_graph(spec, spec["root"], known, "", wrapped, found)
    return found


def _is_launcher(container: Mapping[str, Any]) -> bool:
    arguments = [*container.get("command", ()), *container.get("args", ())]
    return bool(_LAUNCHER.fullmatch(container.get("image", ""))) and "CustomJob" in arguments


def _unwrap_graph(
    spec: dict[str, Any],
    graph: dict[str, Any],
    known: Mapping[str, Any],
    path: str,
    wrapped: set[str],
    found: dict[str, list[dict[str, Any]]],
) -> None:
    for name, task in graph["dag"]["tasks"].items():
        label = task["componentRef"]["name"]
        component = spec["components"][label]
        if "dag" not in component and component.get("executorLabel") not in wrapped:
            continue
        given = _given(task, known)
        place = f"{path}{name}"
        own = copy.deepcopy(component)  # another task may give it other worker pools
        task["componentRef"] = {"name": f"{label}--{place.replace('/', '--')}"}
        spec["components"][task["componentRef"]["name"]] = own
        values = {**_defaults(component), **given}
        if "dag" in component:
            _unwrap_graph(spec, own, values, f"{place}/", wrapped, found)
            continue
        pools = values.get(_POOLS)
        if not isinstance(pools, list) or not pools:
            raise Refused(400, f"The task {place} must be given {_POOLS} that are known at once.")
        found[place] = pools
        for holder in (own["inputDefinitions"], task.get("inputs", {})):
            holder.get("parameters", {}).pop(_POOLS, None)
        executor = f"{component['executorLabel']}--{place.replace('/', '--')}"
        own["executorLabel"] = executor
        spec["deploymentSpec"]["executors"][executor] = {"container": _container(pools[0], place)}
    executors = spec["deploymentSpec"]["executors"]
    used = {c.get("executorLabel") for c in _reachable(spec)} if not path else set(executors)
    for label in set(executors) - used:
        del executors[label]


def _reachable(spec: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The components that tasks are made of."""
    found, graphs = [], [spec["root"]]
    while graphs:
        for task in graphs.pop().get("dag", {}).get("tasks", {}).values():
            component = spec["components"][task["componentRef"]["name"]]
            found.append(component)
            graphs.append(component)
    return found


def _container(pool: Mapping[str, Any], place: str) -> dict[str, Any]:
    """The container of a worker pool, which KFP writes with either kind of names."""
    container = pool.get("container_spec") or pool.get("containerSpec")
    if not container:
        raise Refused(
            501, f"The stand-in runs CustomJobs with a containerSpec only; {place} has none."
        )
    parts = {
        key: [_ESCAPED.sub("{{$}}", str(text)) for text in container.get(key) or ()]
        for key in ("command", "args")
    }
    image = container.get("image_uri") or container.get("imageUri") or ""
    return {"image": image, **parts, "env": list(container.get("env") or ())}


def _defaults(component: Mapping[str, Any]) -> dict[str, Any]:
    definitions = component.get("inputDefinitions", {}).get("parameters", {})
    return {n: d["defaultValue"] for n, d in definitions.items() if "defaultValue" in d}


def _given(task: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """The values that a task is given, as far as they are known before anything runs."""
    values = {}
    for name, source in task.get("inputs", {}).get("parameters", {}).items():
        match source:
            case {"runtimeValue": {"constant": value}}:
                values[name] = value
            case {"componentInputParameter": other} if other in known:
                values[name] = known[other]
    return values
