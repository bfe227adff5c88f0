"""The tasks of a run as a tree: when each was at work, and what it waited for."""

from __future__ import annotations

import collections
import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.local.graph import Dag, Graph, Task, parse_graph
from pipelines.local.record import PIPELINE_FILE, WORK, RunRecord, TaskRecord
from trainer.errors import UserError

MOST_ROWS_UNFOLDED = 60
"""Of a run with more tasks than this, the iterations of a loop share a row of the chart (ours)."""


class Tasks:
    """The tasks of a run as a tree, with their times and what each waits for.

    Attributes:
        record: the run.
        graph: its pipeline; None where that cannot be read.
        all: the tasks by path, those that hold others among them.
        children: path -> the paths right below it.
        shapes: path -> the path with `*` for the number of each iteration.
        times: path -> when it began and ended; None where it never did.
        order: all paths, what is within a group after it, and otherwise by when they began.
        folded: whether there are so many that the iterations of a loop share a row of the chart.
    """

    def __init__(self, record: RunRecord):
        self.record = record
        self.graph = _graph(record)
        self.all: dict[str, TaskRecord] = {}
        for path, task in record.tasks.items():
            for parent in _parents(path):  # a damaged record may lack it
                self.all.setdefault(parent, TaskRecord("waiting", kind="dag"))
            self.all[path] = task
        self.children: dict[str, list[str]] = collections.defaultdict(list)
        for path in self.all:
            self.children[path.rpartition("/")[0]].append(path)
        self.shapes = {path: self._shape(path) for path in self.all}
        texts = [record.started, record.ended]
        texts += [text for task in self.all.values() for text in (task.started, task.ended)]
        moments = [moment for text in texts if (moment := _moment(text)) is not None]
        self._last = max(moments, default=0.0)
        self.times: dict[str, tuple[float, float] | None] = {}
        for path in sorted(self.all, key=lambda path: -path.count("/")):
            self.times[path] = self._time(path)
        self.order = list(self._walk(""))
        self.folded = len(self.all) > MOST_ROWS_UNFOLDED

    def is_iteration(self, path: str) -> bool:
        """Whether a path names an iteration of a loop."""
        parent, _, name = path.rpartition("/")
        return parent in self.all and self.all[parent].kind == "loop" and name.isdigit()

    def tasks_before(self, path: str) -> list[str]:
        """What a task waits for, within its own graph."""
        parent, _, _ = path.rpartition("/")
        task = self._task(path)
        if task is None or self.is_iteration(path):
            return []
        named = [f"{parent}/{name}" if parent else name for name in sorted(task.after)]
        return [name for name in named if name in self.all]

    def condition(self, path: str) -> str:
        """The condition under which a task runs; empty for none."""
        task = self._task(path)
        if task is None or task.condition is None or self.is_iteration(path):
            return ""
        return task.condition.text

    def critical(self) -> set[str]:
        """The chain of tasks that the end had to wait for; nothing where that is all of them."""
        ended = {
            path: time[1]
            for path, task in self.all.items()
            if task.kind in WORK and task.started and (time := self.times[path])
        }
        if self.graph is None or not ended:
            return set()
        chain: list[str] = []
        below: dict[str, list[str]] = collections.defaultdict(list)
        for path in ended:
            for each in (path, *_parents(path)):
                below[each].append(path)
        current: str | None = max(ended, key=lambda path: (ended[path], path))
        while current is not None:
            chain.append(current)
            groups = (current, *_parents(current))
            earlier = {leaf for g in groups for b in self.tasks_before(g) for leaf in below[b]}
            found = ((ended[path], path) for path in earlier.difference(chain))
            current = max(found, default=(0.0, None))[1]
        return set(chain) if len(chain) < len(ended) else set()

    def _task(self, path: str) -> Task | None:
        """A task as the pipeline has it."""
        dag: Any = self.graph.dag if self.graph else None
        task = None
        within = ""
        for name in path.split("/"):
            within = f"{within}/{name}" if within else name
            if self.is_iteration(within):
                continue
            if not isinstance(dag, Dag) or name not in dag.tasks:
                return None
            task = dag.tasks[name]
            dag = task.work
        return task

    def _shape(self, path: str) -> str:
        """The path with `*` for the number of an iteration."""
        parts = [
            "*" if self.is_iteration(each) else each.rpartition("/")[2]
            for each in (*_parents(path), path)
        ]
        return "/".join(parts)

    def _time(self, path: str) -> tuple[float, float] | None:
        """From when to when; a group from its first task to its last."""
        within = [t for child in self.children.get(path, ()) if (t := self.times[child])]
        if within:
            return min(began for began, _ in within), max(ended for _, ended in within)
        task = self.all[path]
        began, ended = _moment(task.started), _moment(task.ended)
        if began is None:
            return None if ended is None else (ended, ended)
        if ended is None or ended < began:
            ended = self._last if task.status == "running" else began
        return began, ended

    def _walk(self, parent: str) -> Iterator[str]:
        """All paths, what is within a group after it, and otherwise by when they began."""

        def rank(path: str) -> tuple[float, float]:
            time = self.times[path]
            number = float(path.rpartition("/")[2]) if self.is_iteration(path) else 0.0
            return number, time[0] if time else float("inf")

        for path in sorted(self.children.get(parent, ()), key=rank):
            yield path
            yield from self._walk(path)


def _graph(record: RunRecord) -> Graph | None:
    try:
        return parse_graph((Path(record.folder) / PIPELINE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, UserError):
        return None  # arrows and conditions are left out


def _parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:n]) for n in range(1, len(parts))]


def _moment(text: str | None) -> float | None:
    try:
        moment = datetime.datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return moment.replace(tzinfo=moment.tzinfo or datetime.UTC).timestamp()
