"""Compiles a pipeline with the released KFP compiler and runs it with the local engine."""

from __future__ import annotations

import datetime
import functools
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kfp import compiler, dsl

from pipelines.local.record import DONE, RunRecord, TaskRecord
from pipelines.local.run import Options, run_pipeline


class Silent:
    """A display for nobody."""

    def show(self, run: RunRecord) -> None:
        """Takes the newest record."""


@functools.cache
def compile_text(function: Callable[..., Any]) -> str:
    """The YAML of a pipeline, given as a function or as what `dsl.pipeline` has made of one."""
    pipeline = function if hasattr(function, "pipeline_spec") else dsl.pipeline(function)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pipeline.yaml"
        compiler.Compiler().compile(pipeline, str(file))
        return file.read_text(encoding="utf-8")


def run_text(
    text: str, root: Path, parameters: Mapping[str, Any] | None = None, **options: Any
) -> RunRecord:
    """Runs a compiled pipeline as processes of this machine."""
    return run_pipeline(text, parameters or {}, root, Silent(), Options(**{"jobs": 4, **options}))


def run(
    function: Callable[..., Any],
    root: Path,
    parameters: Mapping[str, Any] | None = None,
    **options: Any,
) -> RunRecord:
    """Compiles and runs a pipeline."""
    return run_text(compile_text(function), root, parameters, **options)


def ended_well(record: RunRecord) -> set[str]:
    """The paths of all tasks, graphs and loops included, that have given what they give."""
    return {path for path, task in record.tasks.items() if task.status in DONE}


def said(record: RunRecord, prefix: str = "") -> list[str]:
    """What all steps `say` have said, by the paths of the tasks."""
    return [
        task.parameters["said"]
        for path, task in sorted(record.tasks.items())
        if path.startswith(prefix) and task.kind == "container" and "said" in task.parameters
    ]


def times(task: TaskRecord) -> tuple[datetime.datetime, datetime.datetime]:
    """When a task began and ended."""
    if task.started is None or task.ended is None:
        raise ValueError(f"A task must have run to have times; it is {task.status}.")
    return (
        datetime.datetime.fromisoformat(task.started),
        datetime.datetime.fromisoformat(task.ended),
    )


def most_at_once(tasks: list[TaskRecord]) -> int:
    """How many of the tasks ran at the same time, at most."""
    changes = sorted(
        (moment, change)
        for task in tasks
        for moment, change in zip(times(task), (1, -1), strict=True)
    )
    running = most = 0
    for _, change in changes:
        running += change
        most = max(most, running)
    return most
