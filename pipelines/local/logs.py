"""Reads the logs of a run's tasks, also while they are written."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from pipelines.local.history import find_task
from pipelines.local.record import RunRecord, held, read_run

_LOOK_SECONDS = 0.3


def read_logs(folder: str | Path, task: str | None, follow: bool) -> Iterator[tuple[str, str]]:
    """Pieces of text with the path of the task that printed them.

    Args:
        folder: the run's folder.
        task: path of a task, or the end of it; None for all, in the order of their start.
        follow: go on until the task, or the run, has ended.

    Raises:
        UserError: there is no such run or task.
    """
    read: dict[str, int] = {}
    while True:
        record = read_run(folder)
        chosen = [find_task(record, task)] if task else _in_order(record)
        # Asked before reading, so that what is printed last is read as well.
        ended = not held(folder) or (
            task is not None and record.tasks[chosen[0]].status not in ("waiting", "running")
        )
        for path in chosen:
            text, read[path] = _rest(record.log(path), read.get(path, 0))
            if text:
                yield path, text
        if ended or not follow:
            return
        time.sleep(_LOOK_SECONDS)


def _in_order(record: RunRecord) -> list[str]:
    started = [(t.started or "", path) for path, t in record.tasks.items() if t.kind == "container"]
    return [path for _, path in sorted(started)]


def _rest(log: Path, start: int) -> tuple[str, int]:
    """What a log holds from a position on, and its new end."""
    if not log.is_file():
        return "", start
    with open(log, "rb") as file:
        if file.seek(0, 2) < start:
            start = 0  # it was begun anew
        file.seek(start)
        data = file.read()
    return data.decode("utf-8", "replace"), start + len(data)
