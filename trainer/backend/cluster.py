"""The processes that train together, as the environment names them (standard library only)."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any

from trainer.errors import TryAgain, UserError

VARIABLE = "TF_CONFIG"
"""What Vertex AI and Kubeflow's training operator set in every process of a cluster."""

CHIEFS = ("chief", "master")
WORKERS = ("worker",)
ONLOOKERS = ("evaluator",)
"""Kinds of task: the chief, who also writes; others that train; and such as train nothing."""

STACK = ("Graph execution error", "Detected at node", "File ")
"""Lines of TensorFlow's errors that tell where, and not what."""

TOLD = 300
"""Characters of an error's own words that are passed on (ours)."""


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The processes of one training, each on a host and port of its own.

    Attributes:
        addresses: host:port of each process; the chief is the first.
        process: which of them is this one, counted from 0.
    """

    addresses: tuple[str, ...] = ("localhost:0",)
    process: int = 0

    @property
    def processes(self) -> int:
        """How many there are."""
        return len(self.addresses)


def read_cluster(environment: Mapping[str, str] | None = None) -> Cluster:
    """The cluster that TF_CONFIG describes; one process where it describes none.

    Args:
        environment: the process's own, by default.

    Raises:
        UserError: TF_CONFIG is no JSON object, or names tasks that do not train together.
    """
    text = (os.environ if environment is None else environment).get(VARIABLE, "").strip()
    if not text:
        return Cluster()
    try:
        described = json.loads(text)
        tasks = {kind: tuple(hosts) for kind, hosts in described.get("cluster", {}).items()}
        task = described.get("task", {})
        kind, index = task.get("type", CHIEFS[0]), int(task.get("index", 0))
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"{VARIABLE} must be a JSON object with a cluster and a task, such as "
            '{"cluster": {"worker": ["a:2222", "b:2222"]}, "task": {"type": "worker", "index": 0}}'
            f"; got {text!r}."
        ) from error
    if not tasks:
        return Cluster()
    order = [k for k in (*CHIEFS, *WORKERS) if k in tasks]
    strangers = sorted(set(tasks) - {*order, *ONLOOKERS})
    if strangers:
        raise UserError(
            f"The tasks of a cluster must be among {', '.join((*CHIEFS, *WORKERS))}, which train "
            f"together; {VARIABLE} also names {', '.join(strangers)}. Leave them out."
        )
    members = [(k, i) for k in order for i in range(len(tasks[k]))]
    if (kind, index) not in members:
        raise UserError(
            f"The task of {VARIABLE} must be one of its cluster's, "
            f"{', '.join(f'{k} {i}' for k, i in members)}; got {kind} {index}."
        )
    return Cluster(tuple(tasks[k][i] for k, i in members), members.index((kind, index)))


def out_of_reach(distribution: Any, error: Exception) -> TryAgain:
    """What to raise where a process learns from an error that it is left alone."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line for line in lines if line and not line.startswith(STACK)]
    return TryAgain(
        f"Process {distribution.process} of {distribution.processes} reaches the others no longer: "
        "one of them has ended, or its host has. When all are begun anew, they go on from the last "
        f"checkpoint. ({type(error).__name__}: {' '.join(told)[:TOLD]})"
    )


def choose_count(asked: int, accelerators: int, processors: int) -> int:
    """How many devices of this machine share each batch.

    Args:
        asked: `Training.devices`; 0 for all accelerators, or one processor.
        accelerators: how many there are.
        processors: how many devices the backend makes of the processor, as a rule one.

    Raises:
        UserError: more are asked for than there are.
    """
    there = accelerators or processors
    if asked > there:
        kind = "accelerator" if accelerators else "processor"
        raise UserError(
            f"devices must be at most {there}, the number of {kind}s that the backend finds on "
            f"this machine; got {asked}. With 0 it takes what there is."
        )
    return asked or (accelerators or 1)


def check_rows(rows: int, accumulation: int, devices: int) -> None:
    """Whether a process's part of a batch can be dealt out evenly.

    Raises:
        UserError: it cannot.
    """
    if rows % (accumulation * devices):
        raise UserError(
            f"The examples of a batch that one process gets, {rows}, must be a multiple of "
            f"accumulation times devices, {accumulation} × {devices}; change batch_size or those."
        )
