"""A step as a custom job of Vertex AI, which can have TPUs, spot machines and another disk."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml
from google.protobuf import json_format
from google_cloud_pipeline_components.v1.custom_job import utils
from kfp import components

from pipelines.cloud import machines
from pipelines.cloud.machines import Machine

_STRATEGIES = {"standard": "STANDARD", "spot": "SPOT", "flex-start": "FLEX_START"}


def as_custom_job(
    component: Any,
    machine: Machine,
    image: str,
    environment: Mapping[str, str],
    service_account: str = "",
    network: str = "",
) -> Any:
    """A component with the same inputs and outputs that runs as a custom job.

    Google's wrapper makes it; ours is what that lacks: a topology, another image, and mappings.
    Those would be put into the job's JSON unquoted, so their flags are left out: the step takes
    them from the executor input.

    Args:
        component: a KFP container component.
        machine: one that `machines.check` lets pass.
        image: what the job runs.
        environment: variables of the job.
        service_account: what the job runs as; empty for the project's default.
        network: full name of a network; empty for none.
    """
    gpu = machine.accelerator in machines.GPUS or machine.accelerator in machines.OLD_TPUS
    wrapped = utils.create_custom_training_job_from_component(
        component,
        display_name=component.name,
        machine_type=machines.machine_type(machine),
        accelerator_type=machine.accelerator if gpu else "",
        accelerator_count=machine.accelerators if gpu else 0,
        boot_disk_type=machines.boot_disk(machine),
        boot_disk_size_gb=machine.boot_disk_gigabytes,
        # A worker that was taken away comes back within the same job.
        restart_job_on_worker_restart=machine.strategy == "spot",
        strategy=_STRATEGIES[machine.strategy],
        max_wait_duration=f"{machine.wait}s",
        service_account=service_account,
        network=network,
        env=[{"name": name, "value": value} for name, value in sorted(environment.items())],
    )
    spec = json_format.MessageToDict(wrapped.pipeline_spec)
    inner = [c["inputDefinitions"]["parameters"] for c in spec["components"].values()]
    for parameters in (*inner, spec["root"]["inputDefinitions"]["parameters"]):
        for pool in parameters["worker_pool_specs"]["defaultValue"]:
            # Through JSON all numbers became fractions.
            pool["replica_count"] = int(pool["replica_count"])
            pool["disk_spec"]["boot_disk_size_gb"] = machine.boot_disk_gigabytes
            asked = pool["machine_spec"]
            if gpu:
                asked["accelerator_count"] = machine.accelerators
            else:
                asked.pop("accelerator_count", None)
                asked.pop("accelerator_type", None)
            if machine.topology:
                asked["tpu_topology"] = machine.topology
            container = pool["container_spec"]
            container["image_uri"] = image
            container["args"] = [a for a in container["args"] if not _is_mapping(a, parameters)]
    return components.load_component_from_text(yaml.safe_dump(spec))


def _is_mapping(argument: str, parameters: Mapping[str, Any]) -> bool:
    """Whether a flag's value is a parameter that is a mapping."""
    name = re.fullmatch(r"--\w+=\{\{\$\.inputs\.parameters\['(\w+)'\]\}\}", argument)
    return name is not None and parameters[name[1]]["parameterType"] == "STRUCT"
