"""Which machines Vertex AI has, as far as a wrong one is refused here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.cloud.aiplatform_v1 import types

from tests.cloud.answers import Refused

TOPOLOGIES: Mapping[str, tuple[str, ...]] = {
    "ct5lp-hightpu-1t": ("1x1",),
    "ct5lp-hightpu-4t": ("2x2", "4x4", "4x8", "8x8", "8x16", "16x16"),
    "ct5lp-hightpu-8t": ("2x4",),
    "ct6e-standard-1t": ("1x1",),
    "ct6e-standard-4t": ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"),
    "ct6e-standard-8t": ("2x4",),
}
"""Machine type -> the topologies of TPUs that it can be part of; see reference/pipelines.md 4.1."""

_PREFIXES = ("e2-", "n1-", "n2-", "n2d-", "c2-", "c2d-", "c3-", "m1-", "a2-", "a3-", "g2-", "g4-")
_NAMED = {kind.name for kind in types.AcceleratorType if kind}


def check_container(label: str, container: Mapping[str, Any]) -> None:
    """Holds a container of a pipeline to accelerators that there are.

    Raises:
        Refused: there is none of this kind.
    """
    accelerator = container.get("resources", {}).get("accelerator", {})
    kind = accelerator.get("resourceType") or accelerator.get("type") or ""
    if kind and "{{" not in kind and kind.upper().replace("-", "_") not in _NAMED:
        raise Refused(400, f"The accelerator type {kind!r} of {label} is not supported.")


def check_custom_job(job: types.CustomJob) -> None:
    """Holds a custom job to machines that there are.

    Raises:
        Refused: one is not.
    """
    pools = job.job_spec.worker_pool_specs
    if not pools:
        raise Refused(400, "CustomJobSpec.worker_pool_specs must not be empty.")
    for number, pool in enumerate(pools):
        place = f"job_spec.worker_pool_specs[{number}]"
        if "container_spec" not in pool and "python_package_spec" not in pool:
            raise Refused(400, f"{place} must have a container_spec or a python_package_spec.")
        if "container_spec" in pool and not pool.container_spec.image_uri:
            raise Refused(400, f"{place}.container_spec.image_uri must be set.")
        if pool.replica_count < 1:
            raise Refused(400, f"{place}.replica_count must be at least 1.")
        _check_machine(place, pool)
    strategy = types.Scheduling.Strategy
    tpu = pools[0].machine_spec.tpu_topology
    if job.job_spec.scheduling.strategy == strategy.SPOT and tpu.count("x") and tpu not in _SINGLE:
        raise Refused(400, f"Spot VMs are not supported with the TPU topology {tpu}.")


_SINGLE = ("1x1", "2x2", "2x4")


def _check_machine(place: str, pool: types.WorkerPoolSpec) -> None:
    machine = pool.machine_spec
    kind, topology = machine.machine_type, machine.tpu_topology
    accelerator = machine.accelerator_type
    if kind in TOPOLOGIES:
        if accelerator:
            raise Refused(400, f"{place}.machine_spec.accelerator_type must not be set for {kind}.")
        if topology not in TOPOLOGIES[kind]:
            raise Refused(
                400,
                f"{place}.machine_spec.tpu_topology must be one of {', '.join(TOPOLOGIES[kind])} "
                f"for {kind}; got {topology!r}.",
            )
        disk = pool.disk_spec.boot_disk_type
        if kind.startswith("ct6e") and disk != "hyperdisk-balanced":
            raise Refused(
                400,
                f"{place}.disk_spec.boot_disk_type must be hyperdisk-balanced for {kind}; "
                f"got {disk or 'pd-ssd'}.",
            )
        return
    if topology:
        raise Refused(400, f"{place}.machine_spec.tpu_topology is not supported for {kind}.")
    if kind == "cloud-tpu":
        if not accelerator.name.startswith("TPU_"):
            raise Refused(400, f"{place}.machine_spec.accelerator_type must be a TPU.")
    elif not kind.startswith(_PREFIXES):
        raise Refused(400, f"Machine type {kind!r} is not supported.")
    if bool(accelerator) != bool(machine.accelerator_count):
        raise Refused(
            400, f"{place}.machine_spec must have both an accelerator type and a count, or neither."
        )
