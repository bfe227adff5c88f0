"""Custom jobs of Vertex AI, as pipelines compiled for it hold them: the step that each would run.

Google's launcher asks Vertex AI for a machine and has it run a container. On this machine that
container is the task; what it asks of the machine is not followed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LAUNCHER = "google_cloud_pipeline_components.container.v1.custom_job.launcher"
POOLS = "worker_pool_specs"

_OWN_INPUTS = {
    *(POOLS, "base_output_directory", "display_name", "enable_web_access"),
    *("encryption_spec_key_name", "labels", "location", "max_wait_duration", "network"),
    *("persistent_resource_id", "project", "psc_interface_config", "reserved_ip_ranges"),
    *("restart_job_on_worker_restart", "service_account", "strategy", "tensorboard", "timeout"),
}
"""Parameters of the launcher; all others are the step's (Google Cloud Pipeline Components 2.22)."""

_ESCAPED = "{{$.json_escape[1]}}"


def unwrapped(spec: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """A pipeline whose custom jobs are the containers that they would run.

    Args:
        spec: a compiled pipeline.

    Returns:
        The pipeline, and the labels of the executors that were custom jobs. One whose container is
        not written down, as a parameter decides it, stays as it is.
    """
    executors = dict(spec["deploymentSpec"].get("executors", {}))
    components = dict(spec.get("components", {}))
    found = []
    for name, component in components.items():
        label = component.get("executorLabel", "")
        launcher = executors.get(label, {}).get("container", {})
        if LAUNCHER not in (*launcher.get("command", ()), *launcher.get("args", ())):
            continue
        given = component["inputDefinitions"]["parameters"]
        pools = given.get(POOLS, {}).get("defaultValue") or []
        if len(pools) != 1 or "container_spec" not in pools[0]:
            continue
        job = pools[0]["container_spec"]
        executors[label] = {
            "container": {
                "image": job["image_uri"],
                "command": list(job.get("command", ())),
                "args": [text.replace(_ESCAPED, "{{$}}") for text in job.get("args", ())],
                "env": [*launcher.get("env", ()), *job.get("env", ())],
            }
        }
        components[name] = _without_the_launchers(component)
        found.append(label)
    deployment = {**spec["deploymentSpec"], "executors": executors}
    return {**spec, "deploymentSpec": deployment, "components": components}, found


def _without_the_launchers(component: Mapping[str, Any]) -> dict[str, Any]:
    """The interface of the step itself."""
    inputs = dict(component["inputDefinitions"])
    parameters = {n: p for n, p in inputs["parameters"].items() if n not in _OWN_INPUTS}
    outputs = dict(component.get("outputDefinitions", {}))
    outputs["parameters"] = {
        name: parameter
        for name, parameter in outputs.get("parameters", {}).items()
        if name != "gcp_resources"
    }
    return {
        **component,
        "inputDefinitions": {**inputs, "parameters": parameters},
        "outputDefinitions": outputs,
    }
