"""What tasks ask of a machine, and what this one has."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.errors import UserError

_UNITS = {
    "": 1,
    "K": 1000,  # KFP's own, besides Kubernetes' k
    **{letter: 1000**power for power, letter in enumerate("kMGTPE", start=1)},
    **{f"{letter}i": 1024**power for power, letter in enumerate("KMGTPE", start=1)},
}
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)(m|k|[KMGTPE]i?|)")
_GIGABYTE = 1e9


@dataclass(frozen=True)
class Resources:
    """What a task asks for; all of it may hold placeholders until it runs.

    Attributes:
        cpu: number of processors at most, as Kubernetes writes it ("2", "500m"); empty for any.
        memory: bytes at most, as Kubernetes writes them ("4G", "512Mi"); empty for any.
        memory_request: bytes to set aside; the limit where it is empty.
        accelerator: kind of accelerator; empty for none.
        accelerators: how many.
    """

    cpu: str = ""
    memory: str = ""
    memory_request: str = ""
    accelerator: str = ""
    accelerators: str = ""


def read_resources(spec: Mapping[str, Any], task: str) -> Resources:
    """The resources of a compiled container, in its older and its newer form.

    Raises:
        UserError: a quantity that cannot be read.
    """
    accelerator = spec.get("accelerator", {})
    resources = Resources(
        cpu=str(spec.get("resourceCpuLimit") or spec.get("cpuLimit") or ""),
        memory=str(spec.get("resourceMemoryLimit") or _gigabytes(spec.get("memoryLimit"))),
        memory_request=str(
            spec.get("resourceMemoryRequest") or _gigabytes(spec.get("memoryRequest"))
        ),
        accelerator=str(accelerator.get("resourceType") or accelerator.get("type") or ""),
        accelerators=str(accelerator.get("resourceCount") or accelerator.get("count") or ""),
    )
    for text in (resources.memory, resources.memory_request):
        if text and "{{" not in text:
            bytes_of(text, f"the memory of {task}")
    return resources


def quantity(text: str, what: str) -> float:
    """A quantity of Kubernetes, such as "500m", "2", "4G" or "512Mi", as a number.

    Raises:
        UserError: it is none.
    """
    match = _QUANTITY.fullmatch(text.strip())
    if match is None:
        raise UserError(f"{what} must be a number with a unit such as 500M, 4G or 2Gi; got {text}.")
    number, unit = float(match[1]), match[2]
    return number / 1000 if unit == "m" else number * _UNITS[unit]


def bytes_of(text: str, what: str) -> int:
    """An amount of memory in bytes.

    Raises:
        UserError: it is none.
    """
    return int(quantity(text, what))


def machine_memory() -> int:
    """The memory of this machine in bytes, or less where a control group sets a limit."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            limits.append(int(Path(file).read_text(encoding="ascii")))
    return min(limits)


def in_words(size: int) -> str:
    """Bytes for a person, such as 23.5 GiB."""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def _gigabytes(number: Any) -> str:
    """The older form counts in gigabytes."""
    return str(int(float(number) * _GIGABYTE)) if number else ""
