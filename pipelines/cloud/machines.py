"""The machines that clouds lend, and which requests for them can be met.

Facts of TPUs: https://cloud.google.com/vertex-ai/docs/training/training-with-tpu-vm and
https://cloud.google.com/kubernetes-engine/docs/concepts/plan-tpus; of GPUs:
https://cloud.google.com/vertex-ai/docs/training/configure-compute and
https://cloud.google.com/compute/docs/gpus. Vertex AI finds a wrong combination only when the job
has waited for its machine; here it is found when the pipeline is compiled.
"""

from __future__ import annotations

import dataclasses
import math
import re
import typing
from collections.abc import Mapping
from typing import Any, Literal

from trainer.errors import UserError

Strategy = Literal["standard", "spot", "flex-start"]
"""How a machine is had: at once at the full price, cheaply and taken away at any time, or cheaply
after a wait."""

Cloud = Literal["kubeflow", "vertex"]
"""Where machines are asked for: Kubeflow Pipelines on GKE, or Vertex AI."""

Backend = Literal["tensorflow", "jax"]

STANDARD_DISK = "pd-ssd"
HYPERDISK = "hyperdisk-balanced"
BOOT_DISKS = ("pd-ssd", "pd-standard", HYPERDISK)

LONGEST_WAIT = 7 * 24 * 3600
"""Seconds that a flex-start request can wait at most, as a custom job's own time limit."""


@dataclasses.dataclass(frozen=True)
class Tpu:
    """A generation of TPUs.

    Attributes:
        slices: topology -> machine type -> how many hosts it then takes.
        node: what GKE calls its nodes.
        on_vertex: whether a custom job can have it.
        boot_disks: kinds of boot disk that its machines take.
        backends: what Vertex AI says to run on it.
    """

    slices: Mapping[str, Mapping[str, int]]
    node: str
    on_vertex: bool = True
    boot_disks: tuple[str, ...] = (STANDARD_DISK, "pd-standard")
    backends: tuple[Backend, ...] = ("tensorflow", "jax")


_V5E, _V6E, _V5P = "ct5lp-hightpu", "ct6e-standard", "ct5p-hightpu"

TPUS: Mapping[str, Tpu] = {
    "TPU_V5E": Tpu(
        {
            "1x1": {f"{_V5E}-1t": 1},
            "2x2": {f"{_V5E}-4t": 1},
            "2x4": {f"{_V5E}-8t": 1},
            "4x4": {f"{_V5E}-4t": 4},
            "4x8": {f"{_V5E}-4t": 8},
            "8x8": {f"{_V5E}-4t": 16},
            "8x16": {f"{_V5E}-4t": 32},
            "16x16": {f"{_V5E}-4t": 64},
        },
        "tpu-v5-lite-podslice",
    ),
    "TPU_V6E": Tpu(
        {
            "1x1": {f"{_V6E}-1t": 1},
            "2x2": {f"{_V6E}-4t": 1},
            "2x4": {f"{_V6E}-8t": 1, f"{_V6E}-4t": 2},
            "4x4": {f"{_V6E}-4t": 4},
        },
        "tpu-v6e-slice",
        boot_disks=(HYPERDISK,),
        backends=("jax",),
    ),
    "TPU_V5P": Tpu(
        {
            "2x2x2": {f"{_V5P}-4t": 2},
            "2x2x4": {f"{_V5P}-4t": 4},
            "2x4x4": {f"{_V5P}-4t": 8},
        },
        "tpu-v5p-slice",
        on_vertex=False,
        backends=("jax",),
    ),
}
"""Generations that have a topology."""

OLD_TPUS = ("TPU_V2", "TPU_V3")
"""Generations that are counted in cores and have a machine type of their own on Vertex AI."""

_N1 = tuple(f"n1-standard-{n}" for n in (4, 8, 16, 32, 64, 96))

GPUS: Mapping[str, Mapping[int, tuple[str, ...]]] = {
    "NVIDIA_TESLA_T4": {1: _N1[:4], 2: _N1[:4], 4: _N1},
    "NVIDIA_TESLA_P100": {1: _N1[:3], 2: _N1[:4], 4: _N1},
    "NVIDIA_TESLA_V100": {1: _N1[:2], 2: _N1[:3], 4: _N1[:4], 8: _N1},
    "NVIDIA_L4": {
        1: tuple(f"g2-standard-{n}" for n in (4, 8, 12, 16, 32)),
        2: ("g2-standard-24",),
        4: ("g2-standard-48",),
        8: ("g2-standard-96",),
    },
    "NVIDIA_TESLA_A100": {n: (f"a2-highgpu-{n}g",) for n in (1, 2, 4, 8)}
    | {16: ("a2-megagpu-16g",)},
    "NVIDIA_A100_80GB": {n: (f"a2-ultragpu-{n}g",) for n in (1, 2, 4, 8)},
    "NVIDIA_H100_80GB": {n: (f"a3-highgpu-{n}g",) for n in (1, 2, 4, 8)},
}
"""Kind as Vertex AI names it -> number -> machine types, those with fewer processors first."""

_NEVER_STANDARD = ("a3-highgpu-1g", "a3-highgpu-2g", "a3-highgpu-4g")
_CPUS = (2, 4, 8, 16, 32, 48, 64, 80, 96, 128)


@dataclasses.dataclass(frozen=True)
class Machine:
    """What a step asks of the machine it runs on, away from this one.

    Attributes:
        cpu: number of virtual CPUs; with an accelerator, what its machine has at least.
        memory: bytes with a unit, such as "16G".
        accelerator: kind of accelerator as Vertex AI names it, such as "NVIDIA_L4"; or a
            generation of TPUs, such as "TPU_V5E"; empty for none.
        accelerators: how many of them; of TPUs with a topology, 0: the topology tells.
        topology: of TPUs, such as "2x2".
        machine_type: as Google Cloud names it; empty for the usual one.
        boot_disk: kind of boot disk; empty for the usual one.
        boot_disk_gigabytes: its size.
        strategy: how the machine is had.
        wait: with flex-start, seconds that the job may wait for its machine.
    """

    cpu: str = "8"
    memory: str = "32G"
    accelerator: str = ""
    accelerators: int = 0
    topology: str = ""
    machine_type: str = ""
    boot_disk: str = ""
    boot_disk_gigabytes: int = 100
    strategy: Strategy = "standard"
    wait: int = 24 * 3600

    def __post_init__(self) -> None:
        if self.accelerator in TPUS:
            if not self.topology:
                raise ValueError(f"{self.accelerator} must have a topology, such as 2x2.")
            if self.accelerators:
                raise ValueError(
                    f"{self.accelerator} must have a topology and no number: "
                    f"{self.topology} tells how many chips there are; got {self.accelerators}."
                )
            return
        if self.topology:
            raise ValueError(
                f"Only {', '.join(TPUS)} have a topology; got {self.topology!r} for "
                f"{self.accelerator or 'no accelerator'}."
            )
        if bool(self.accelerator) != (self.accelerators > 0):
            raise ValueError(
                "A machine must have both a kind and a number of accelerators, or neither; "
                f"got {self.accelerator!r} and {self.accelerators}."
            )

    @property
    def is_tpu(self) -> bool:
        """Whether its accelerators are TPUs."""
        return self.accelerator in TPUS or self.accelerator in OLD_TPUS

    @property
    def chips(self) -> int:
        """How many accelerators it has, on all of its hosts together."""
        if self.topology:
            return math.prod(int(side) for side in self.topology.split("x"))
        return self.accelerators

    def __str__(self) -> str:
        kind = self.accelerator or f"{self.cpu} CPUs"
        of_it = self.topology or (f"{self.accelerators}" if self.accelerators else "")
        text = f"{kind} {of_it}".strip()
        return text if self.strategy == "standard" else f"{text}, {self.strategy}"


def parse_machine(text: str, default: Machine | None = None) -> Machine:
    """A machine from text: `KIND[:NUMBER or TOPOLOGY][,FIELD=VALUE…]`.

    KIND is an accelerator or `cpu`, as in `NVIDIA_L4:1`, `TPU_V5E:2x2,strategy=spot` or
    `cpu:16,memory=64G`.

    Args:
        text: what the user gave.
        default: where CPUs and memory come from if they are not given.

    Raises:
        UserError: it is none.
    """
    first, *rest = (part.strip() for part in text.split(","))
    kind, _, many = first.partition(":")
    kind = kind.upper().replace("-", "_")
    known = {*GPUS, *TPUS, *OLD_TPUS, "CPU"}
    if kind not in known:
        raise UserError(
            f"A machine must begin with {', '.join(sorted(known - {'CPU'}))} or cpu, as in "
            f"TPU_V5E:2x2 or cpu:16,memory=64G; got {text!r}."
        )
    changes: dict[str, Any] = {}
    if kind == "CPU":
        changes = {"cpu": many} if many else {}
    elif kind in TPUS:
        changes = {"accelerator": kind, "topology": many}
    else:
        changes = {"accelerator": kind, "accelerators": _number(many or "1", "accelerators")}
    fields = {field.name for field in dataclasses.fields(Machine)}
    for pair in rest:
        name, equals, value = pair.partition("=")
        if not equals or name not in fields or name in changes:
            raise UserError(
                f"What follows the kind of a machine must be FIELD=VALUE, with a field of "
                f"{', '.join(sorted(fields - {'accelerator', 'accelerators', 'topology'}))}; got "
                f"{pair!r}."
            )
        changes[name] = (
            _number(value, name)
            if name in ("boot_disk_gigabytes", "wait", "accelerators")
            else value
        )
    if changes.get("strategy", "standard") not in typing.get_args(Strategy):
        raise UserError(
            f"strategy must be one of {', '.join(typing.get_args(Strategy))}; got "
            f"{changes['strategy']!r}."
        )
    base = default or Machine()
    try:
        return Machine(**({"cpu": base.cpu, "memory": base.memory} | changes))
    except ValueError as error:
        raise UserError(f"{error} It is in {text!r}.") from error


def check(machine: Machine, cloud: Cloud, backend: Backend | Literal[""] = "") -> None:
    """Refuses what the cloud could not lend, before anything is spent.

    Args:
        machine: what is asked for.
        cloud: where.
        backend: what the step computes with; empty where it may choose.

    Raises:
        UserError: no such machine is lent there, with the reason and what would work.
    """
    if machine.accelerator in TPUS:
        _check_tpu(machine, cloud, backend)
    elif machine.accelerator in OLD_TPUS:
        _check_old_tpu(machine, cloud)
    elif machine.accelerator:
        _check_gpu(machine)
    else:
        _check_processors(machine, cloud)
    if machine.boot_disk and machine.boot_disk not in BOOT_DISKS:
        _refuse(machine, f"boot_disk must be one of {', '.join(BOOT_DISKS)}")
    if machine.boot_disk_gigabytes < 100:
        _refuse(
            machine, f"its boot disk must have 100 GB or more; got {machine.boot_disk_gigabytes}"
        )
    if machine.strategy == "flex-start":
        if not machine.accelerator or machine.accelerator in OLD_TPUS:
            _refuse(machine, "flex-start lends GPUs and TPUs of v5e or newer only; use spot")
        if not 0 < machine.wait <= LONGEST_WAIT:
            _refuse(machine, f"wait must be from 1 to {LONGEST_WAIT} seconds; got {machine.wait}")


def machine_type(machine: Machine) -> str:
    """The machine type, chosen where none was asked for; of one that has passed `check`."""
    if machine.machine_type:
        return machine.machine_type
    if machine.accelerator in TPUS:
        return next(iter(TPUS[machine.accelerator].slices[machine.topology]))
    if machine.accelerator in OLD_TPUS:
        return "cloud-tpu"
    if machine.accelerator:
        types = GPUS[machine.accelerator][machine.accelerators]
        return next((t for t in types if _processors(t) >= float(machine.cpu)), types[-1])
    cpus = int(machine.cpu)
    gigabytes = _gigabytes(machine.memory)
    kinds = (("highcpu", 1), ("standard", 4), ("highmem", 8))
    kind = next(kind for kind, each in kinds if gigabytes <= each * cpus)
    return f"n2-{kind}-{cpus}"


def hosts(machine: Machine) -> int:
    """How many machines a step takes at once; of a machine that has passed `check`."""
    if machine.accelerator in TPUS:
        return TPUS[machine.accelerator].slices[machine.topology][machine_type(machine)]
    if machine.accelerator in OLD_TPUS:
        return max(machine.accelerators // 8, 1)
    return 1


def boot_disk(machine: Machine) -> str:
    """The kind of boot disk, chosen where none was asked for."""
    usual = (
        TPUS[machine.accelerator].boot_disks[0] if machine.accelerator in TPUS else STANDARD_DISK
    )
    return machine.boot_disk or usual


def _check_tpu(machine: Machine, cloud: Cloud, backend: str) -> None:
    tpu = TPUS[machine.accelerator]
    if machine.topology not in tpu.slices:
        sides = 3 if machine.accelerator == "TPU_V5P" else 2
        other = f", of {sides} numbers" if machine.topology.count("x") != sides - 1 else ""
        _refuse(machine, f"its topology must be one of {', '.join(tpu.slices)}{other}")
    if cloud == "vertex" and not tpu.on_vertex:
        _refuse(
            machine, "Vertex AI's custom jobs are not known to lend it; compile for kubeflow (GKE)"
        )
    types = tpu.slices[machine.topology]
    if machine.machine_type and machine.machine_type not in types:
        _refuse(
            machine,
            f"topology {machine.topology} needs machine_type {' or '.join(types)}; got "
            f"{machine.machine_type}",
        )
    if machine.boot_disk and machine.boot_disk not in tpu.boot_disks:
        _refuse(
            machine, f"its boot disk must be {' or '.join(tpu.boot_disks)}; got {machine.boot_disk}"
        )
    if backend and backend not in tpu.backends:
        _refuse(machine, f"it runs {' and '.join(tpu.backends)}, {backend} is not proven on it")
    number = hosts(machine)
    if number > 1 and machine.strategy == "spot":
        _refuse(
            machine,
            f"spot is for one host, and {machine.topology} with {machine_type(machine)} takes "
            f"{number}; use standard or flex-start",
        )
    if number > 1 and cloud == "kubeflow":
        _refuse(
            machine,
            f"{machine.topology} with {machine_type(machine)} takes {number} hosts, and a step on "
            "Kubeflow is one pod; use a topology of one host",
        )


def _check_old_tpu(machine: Machine, cloud: Cloud) -> None:
    if cloud == "kubeflow":
        _refuse(machine, f"GKE lends {', '.join(TPUS)} only")
    if machine.machine_type not in ("", "cloud-tpu"):
        _refuse(machine, f"its machine_type must be cloud-tpu; got {machine.machine_type}")
    number = machine.accelerators
    if number != 8 and (number < 32 or number & (number - 1)):
        _refuse(machine, f"it must have 8 cores, or a power of two from 32 on; got {number}")
    if number > 8 and machine.strategy == "spot":
        _refuse(machine, f"spot is for one host, {number} cores take {number // 8}; use standard")


def _check_gpu(machine: Machine) -> None:
    numbers = GPUS.get(machine.accelerator)
    if numbers is None:
        _refuse(machine, f"accelerator must be one of {', '.join([*GPUS, *TPUS, *OLD_TPUS])}")
    if machine.accelerators not in numbers:
        _refuse(machine, f"there must be {_listed(numbers)} of them; got {machine.accelerators}")
    types = numbers[machine.accelerators]
    if machine.machine_type and machine.machine_type not in types:
        _refuse(
            machine,
            f"{machine.accelerators} of them need machine_type {' or '.join(types)}; got "
            f"{machine.machine_type}",
        )
    if machine_type(machine) in _NEVER_STANDARD and machine.strategy == "standard":
        _refuse(machine, "fewer than 8 are lent with strategy=spot or strategy=flex-start only")


def _check_processors(machine: Machine, cloud: Cloud) -> None:
    if re.match("ct[0-9]|cloud-tpu|a[23]-|g2-", machine.machine_type):
        _refuse(
            machine,
            f"machine_type {machine.machine_type} is one for accelerators: name them, as in "
            "TPU_V5E:2x2 or NVIDIA_L4:1",
        )
    if cloud == "kubeflow" or machine.machine_type:
        return
    if not machine.cpu.isdecimal() or int(machine.cpu) not in _CPUS:
        _refuse(
            machine, f"cpu must be {_listed(_CPUS)}, or machine_type be given; got {machine.cpu}"
        )
    if _gigabytes(machine.memory) > 8 * int(machine.cpu):
        _refuse(
            machine,
            f"{machine.cpu} CPUs come with {8 * int(machine.cpu)}G of memory at most; got "
            f"{machine.memory}",
        )


def _processors(machine_type: str) -> float:
    """The virtual CPUs that a machine type has by its name; infinitely many where it says none."""
    number = re.search("-(?:standard|highmem|highcpu)-([0-9]+)$", machine_type)
    return float(number[1]) if number else math.inf


def _refuse(machine: Machine, why: str) -> typing.NoReturn:
    raise UserError(f"There is no such machine, {machine}: {why}.")


def _listed(numbers: typing.Iterable[int]) -> str:
    *most, last = map(str, numbers)
    return f"{', '.join(most)} or {last}" if most else last


def _number(text: str, name: str) -> int:
    if not text.isdecimal():
        raise UserError(f"{name} of a machine must be a whole number; got {text!r}.")
    return int(text)


def _gigabytes(text: str) -> float:
    from pipelines.local.resources import bytes_of

    return bytes_of(text, "memory") / 1e9
