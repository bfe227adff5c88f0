"""Shows a run as it goes: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import collections
import datetime
import time
from types import TracebackType
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pipelines.local.progress import read_progress
from pipelines.local.record import RunRecord, TaskRecord
from trainer.progress import describe

_STYLES = {
    "waiting": "dim",
    "running": "cyan",
    "succeeded": "green",
    "failed": "bold red",
    "cancelled": "yellow",
}
_LINE_SECONDS = 5.0
_LOG_LINES = 20


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
        for name, task in run.tasks.items():
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
    """

    def __init__(self, console: Console):
        self._run: RunRecord | None = None
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
        table = Table(box=None, pad_edge=False, header_style="bold")
        # On a narrow terminal nothing but the progress is cut.
        needed = {
            "step": max(len(name) for name in self._run.tasks),
            "state": max(len(status) for status in _STYLES),
            "time": len("9999 s"),
        }
        for column, width in needed.items():
            table.add_column(column, no_wrap=True, min_width=width)
        table.add_column("", width=16, min_width=16)
        table.add_column("progress", overflow="ellipsis", no_wrap=True)
        for name, task in self._run.tasks.items():
            table.add_row(name, *_row(self._run, name, task))
        return Group(Text(self._run.run, style="bold"), table)


def display_for(console: Console) -> Lines | LiveTable:
    """A live table where the console is a terminal, plain lines elsewhere."""
    return LiveTable(console) if console.is_terminal else Lines(console)


def ending(task: TaskRecord) -> str:
    """How a task ended, such as `failed after 3.1 s with exit code 2`."""
    if task.seconds is None:
        return f"{task.status} before it started"
    if task.status == "succeeded":
        return f"succeeded in {task.seconds:.1f} s"
    return f"{task.status} after {task.seconds:.1f} s with exit code {task.exit_code}"


def print_failures(run: RunRecord, console: Console) -> None:
    """Prints why the failed tasks failed, with the last lines of their logs."""
    for name, task in run.tasks.items():
        if task.status != "failed":
            continue
        console.print(f"[bold red]{escape(name)}[/] {ending(task)}. {escape(task.reason)}".strip())
        log = run.log(name)
        if log.is_file():
            with open(log, encoding="utf-8", errors="replace") as file:
                for line in collections.deque(file, maxlen=_LOG_LINES):
                    text = f"  {line.rstrip()}"
                    console.print(text, markup=False, highlight=False, soft_wrap=True)
            console.print(f"Log: {log}", markup=False, highlight=False, soft_wrap=True)


def _row(
    run: RunRecord, name: str, task: TaskRecord
) -> tuple[RenderableType, RenderableType, RenderableType, RenderableType]:
    """State, time, bar and progress of one task."""
    state = Text(task.status, style=_STYLES[task.status])
    seconds = task.seconds
    if task.status == "running" and task.started:
        began = datetime.datetime.fromisoformat(task.started)
        seconds = (datetime.datetime.now(datetime.UTC) - began).total_seconds()
    elapsed = Text("" if seconds is None else f"{seconds:.0f} s", justify="right")
    progress = read_progress(run.progress(name)) if task.status == "running" else None
    if progress is None:
        return state, elapsed, "", ""
    bar = ProgressBar(total=progress["total"], completed=progress["done"], width=16)
    return state, elapsed, bar if progress["total"] else "", Text(describe(progress))
