"""The quota that a machine needs, by the names that Google Cloud has for it.

Names of Vertex AI: https://cloud.google.com/vertex-ai/docs/quotas and the errors that it answers
with; of TPUs on GKE: https://cloud.google.com/kubernetes-engine/docs/concepts/plan-tpus. Where a
name could not be verified, words say what to look for.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

from pipelines.cloud import machines
from pipelines.cloud.account import Kind
from pipelines.cloud.machines import Machine

_VERTEX = "aiplatform.googleapis.com/custom_model_training_"
_COMPUTE = "compute.googleapis.com/"
_GPUS: Mapping[str, str] = {
    "NVIDIA_TESLA_T4": "nvidia_t4_gpus",
    "NVIDIA_TESLA_P100": "nvidia_p100_gpus",
    "NVIDIA_TESLA_V100": "nvidia_v100_gpus",
    "NVIDIA_L4": "nvidia_l4_gpus",
    "NVIDIA_TESLA_A100": "nvidia_a100_gpus",
    "NVIDIA_A100_80GB": "nvidia_a100_80gb_gpus",
    "NVIDIA_H100_80GB": "nvidia_h100_gpus",
}
_TPUS: Mapping[str, str] = {"TPU_V5E": "tpu_v5e", "TPU_V3": "tpu_v3"}
_CHIPS_ON_GKE: Mapping[str, str] = {
    "TPU_V5E": "TPU v5 Lite PodSlice chips",
    "TPU_V5P": "TPU v5p chips",
    "TPU_V6E": "TPUs per TPU family, CT6E",
}
_CPUS_EACH: Mapping[str, int] = {
    "a2-highgpu": 12,
    "a2-ultragpu": 12,
    "a2-megagpu": 6,
    "a3-highgpu": 26,
}


@dataclasses.dataclass(frozen=True)
class Quota:
    """What must be allowed for a step to start.

    Attributes:
        number: how much of it.
        name: as Google Cloud has it; empty where it is not known for certain.
        words: what it is.
    """

    number: int
    name: str
    words: str

    def __str__(self) -> str:
        return f"{self.number} of {self.name or self.words}"


def quotas(machine: Machine, machine_type: str, hosts: int, kind: Kind) -> tuple[Quota, ...]:
    """What a step's machines need.

    Args:
        machine: one that `machines.check` lets pass.
        machine_type: as Google Cloud names it; empty where the cluster has one.
        hosts: how many machines.
        kind: of the cloud.
    """
    # Flex-start draws on what can be taken away, too.
    taken = machine.strategy != "standard"
    if machine.is_tpu:
        return (_tpu(machine, kind, taken),)
    prefix = "preemptible_" if taken else ""
    found = []
    if machine.accelerator:
        name = _GPUS[machine.accelerator]
        words = f"{'preemptible ' if taken else ''}{machine.accelerator} GPUs"
        service = _VERTEX if kind == "vertex" else _COMPUTE
        # Compute Engine counts H100 under a quota for all families of GPUs.
        known = kind == "vertex" or machine.accelerator != "NVIDIA_H100_80GB"
        name = f"{service}{prefix}{name}" if known else ""
        found.append(Quota(machine.accelerators * hosts, name, words))
    processors = _processors(machine_type) * hosts
    if kind == "vertex" and processors:
        found.append(_cpus(machine_type, processors, taken))
    if kind == "kubeflow" and not machine.accelerator:
        number = -(-_thousandths(machine.cpu) // 1000)
        found.append(Quota(number, "", "virtual CPUs of the cluster's nodes"))
    return tuple(found)


def _tpu(machine: Machine, kind: Kind, taken: bool) -> Quota:
    before = "preemptible " if taken else ""
    if kind == "kubeflow":
        words = f"{before}{_CHIPS_ON_GKE[machine.accelerator]} (Compute Engine)"
        return Quota(machine.chips, "", words)
    unit = "cores" if machine.accelerator in machines.OLD_TPUS else "chips"
    words = f"{before}{machine.accelerator} {unit} for custom model training (Vertex AI)"
    known = machine.accelerator in _TPUS and not taken
    name = f"{_VERTEX}{_TPUS[machine.accelerator]}" if known else ""
    return Quota(machine.chips, name, words)


def _cpus(machine_type: str, number: int, taken: bool) -> Quota:
    """Virtual CPUs on Vertex AI, of which each series but n1 and e2 has a quota of its own."""
    series = machine_type.partition("-")[0]
    own = "" if series in ("n1", "e2") else f"{series}_"
    words = f"{'preemptible ' if taken else ''}{series} virtual CPUs for custom model training"
    if not taken:
        return Quota(number, f"{_VERTEX}{own}cpus", words)
    return Quota(number, "" if own else f"{_VERTEX}preemptible_cpus", words)


def _processors(machine_type: str) -> int:
    """The virtual CPUs that a machine type has; 0 where its name does not tell."""
    gpus = re.fullmatch(r"(a[23]-[a-z]+)-(\d+)g", machine_type)
    if gpus:
        return _CPUS_EACH.get(gpus[1], 0) * int(gpus[2])
    number = re.fullmatch(r"[a-z0-9]+-(?:standard|highmem|highcpu)-(\d+)", machine_type)
    return int(number[1]) if number else 0


def _thousandths(cpu: str) -> int:
    """A number of processors as Kubernetes writes it, in thousandths."""
    return int(cpu[:-1]) if cpu.endswith("m") else round(float(cpu) * 1000)
