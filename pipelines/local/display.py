"""Shows a run as it goes: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import collections
import datetime
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pipelines.local.progress import read_progress
from pipelines.local.record import DONE, WORK, RunRecord, TaskRecord
from trainer.progress import describe, duration

_STYLES = {
    "waiting": "dim",
    "running": "cyan",
    "succeeded": "green",
    "cached": "blue",
    "skipped": "dim",
    "failed": "bold red",
    "cancelled": "yellow",
}
_TOLD_OF_GROUPS = ("skipped", "failed")
_LINE_SECONDS = 5.0
_LOG_LINES = 20
_FAILURES = 5
_MOST_ROWS = 40
"""Tasks that a table shows; of more, those at work and the last that ended (ours)."""


class Display(Protocol):
    """Whatever is told about a run."""

    def show(self, run: RunRecord) -> None:
        """Takes the newest record; called many times a second."""


class Lines:
    """Prints a line when a task starts and ends, and now and then how far it is.

    Args:
        console: where to print.
        every_seconds: how long a running task is silent at least.
    """

    def __init__(self, console: Console, every_seconds: float = _LINE_SECONDS):
        self._console = console
        self._every = every_seconds
        self._status: dict[str, str] = {}
        self._told: dict[str, tuple[float, str]] = {}

    def __enter__(self) -> Lines:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        return None

    def show(self, run: RunRecord) -> None:
        """Prints what has changed since the last call."""
        for name, task in list(run.tasks.items()):
            if task.kind not in WORK and task.status not in _TOLD_OF_GROUPS:
                continue
            if task.status != self._status.get(name, "waiting"):
                self._print(name, ending(task) if task.status != "running" else "started")
                self._told[name] = (time.monotonic(), "")
            self._status[name] = task.status
            if task.status == "running" and time.monotonic() - self._told[name][0] >= self._every:
                self._tell_progress(run, name)

    def _tell_progress(self, run: RunRecord, name: str) -> None:
        state = read_progress(run.progress(name))
        line = describe(state) if state else ""
        if line != self._told[name][1]:
            self._print(name, line)
        self._told[name] = (time.monotonic(), line)

    def _print(self, name: str, text: str) -> None:
        self._console.print(f"{name}: {text}", markup=False, highlight=False, soft_wrap=True)


class LiveTable:
    """Keeps a table of all tasks on a terminal up to date.

    Args:
        console: a terminal.
        usual_seconds: how long tasks took when they last ran, by path.
    """

    def __init__(self, console: Console, usual_seconds: Mapping[str, float] | None = None):
        self._run: RunRecord | None = None
        self._usual = usual_seconds or {}
        self._live = Live(console=console, get_renderable=self.render, refresh_per_second=4)

    def __enter__(self) -> LiveTable:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.stop()

    def show(self, run: RunRecord) -> None:
        """Takes the record that the next drawing shows."""
        self._run = run

    def render(self) -> RenderableType:
        """The table of the newest record."""
        if self._run is None:
            return Text("")
        tasks = _rows(self._run)
        table = Table(box=None, pad_edge=False, header_style="bold")
        # On a narrow terminal nothing but the progress is cut.
        needed = {
            "step": max((len(name) for name, _ in tasks), default=4),
            "state": max(len(status) for status in _STYLES),
            "time": len("100 min"),
            "left": len("100 min"),
        }
        for column, width in needed.items():
            table.add_column(column, no_wrap=True, min_width=width)
        table.add_column("", width=16, min_width=16)
        table.add_column("progress", overflow="ellipsis", no_wrap=True)
        for name, task in tasks:
            table.add_row(name, *_row(self._run, name, task, self._usual.get(name)))
        hidden = _counts(self._run) if len(self._run.tasks) > len(tasks) else ""
        return Group(Text(f"{self._run.run}  {hidden}", style="bold"), table)


def display_for(
    console: Console, usual_seconds: Mapping[str, float] | None = None
) -> Lines | LiveTable:
    """A live table where the console is a terminal, plain lines elsewhere."""
    return LiveTable(console, usual_seconds) if console.is_terminal else Lines(console)


def ending(task: TaskRecord) -> str:
    """How a task ended, such as `failed after 3.1 s with exit code 2`."""
    if task.status == "cached":
        return f"cached, {task.cache}" if task.cache else "cached"
    if task.status == "skipped" or task.seconds is None:
        return task.status if task.status == "skipped" else f"{task.status} before it started"
    if task.status == "succeeded":
        return f"succeeded in {task.seconds:.1f} s"
    code = "" if task.exit_code is None else f" with exit code {task.exit_code}"
    if task.status == "waiting":
        return f"failed after {task.seconds:.1f} s{code}, to be tried again"
    return f"{task.status} after {task.seconds:.1f} s{code}"


def print_failures(run: RunRecord, console: Console) -> None:
    """Prints why the failed tasks failed, with the last lines of their logs."""
    failed = run.failures()
    for name, task in failed[:_FAILURES]:
        line = f"[bold red]{escape(name)}[/] {ending(task)}. {escape(task.reason)}".strip()
        console.print(line, soft_wrap=True)
        log = run.log(name)
        if log.is_file():
            with open(log, encoding="utf-8", errors="replace") as file:
                for line in collections.deque(file, maxlen=_LOG_LINES):
                    text = f"  {line.rstrip()}"
                    console.print(text, markup=False, highlight=False, soft_wrap=True)
            console.print(f"Log: {log}", markup=False, highlight=False, soft_wrap=True)
    if len(failed) > _FAILURES:
        console.print(f"… and {len(failed) - _FAILURES} more failed; see run.json.")


def _rows(run: RunRecord) -> list[tuple[str, TaskRecord]]:
    """The tasks that a table has room for, in their order."""
    tasks = list(run.tasks.items())
    if len(tasks) <= _MOST_ROWS:
        return tasks
    at_work = [(name, task) for name, task in tasks if task.status == "running"]
    failed = [(name, task) for name, task in tasks if task.status == "failed"]
    ended = [(name, task) for name, task in tasks if task.status in DONE]
    chosen = {name for name, _ in (at_work + failed + ended[::-1])[:_MOST_ROWS]}
    return [(name, task) for name, task in tasks if name in chosen]


def _counts(run: RunRecord) -> str:
    """How many tasks stand how."""
    counts = collections.Counter(task.status for task in list(run.tasks.values()))
    return ", ".join(f"{count:,} {status}" for status, count in sorted(counts.items()))


def _row(
    run: RunRecord, name: str, task: TaskRecord, usual: float | None
) -> tuple[RenderableType, ...]:
    """State, time, time left, bar and progress of one task."""
    state = Text(task.status, style=_STYLES[task.status])
    seconds = task.seconds
    at_work = task.status == "running"
    if at_work and task.started:
        began = datetime.datetime.fromisoformat(task.started)
        seconds = (datetime.datetime.now(datetime.UTC) - began).total_seconds()
    elapsed = Text("" if seconds is None else duration(seconds), justify="right")
    progress = read_progress(run.progress(name)) if at_work and task.kind in WORK else None
    left = progress["seconds_left"] if progress else None
    if left is None and at_work and usual is not None and seconds is not None:
        left = max(usual - seconds, 0.0)
    remaining = Text("" if left is None else duration(left), justify="right")
    if progress is None:
        return state, elapsed, remaining, "", Text(task.cache if task.status == "cached" else "")
    bar = ProgressBar(total=progress["total"], completed=progress["done"], width=16)
    return state, elapsed, remaining, bar if progress["total"] else "", Text(describe(progress))
