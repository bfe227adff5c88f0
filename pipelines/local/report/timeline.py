"""The chart of a run: a row per task, with bars where it was at work and lines to what waited."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipelines.local.display import ending
from pipelines.local.record import WORK
from pipelines.local.report.tasks import Tasks
from pipelines.local.report.words import SYMBOLS, duration

# What the chart of a very large run leaves out, and says that it does (all ours).
_MOST_ROWS = 300
_MOST_BARS = 300

_STEPS = (
    *(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800),
    *(3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800),
)
_UNITS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"))


def chart(tasks: Tasks, anchors: Mapping[str, str]) -> dict[str, Any]:
    """What the chart shows."""
    folded = tasks.folded
    rows: dict[str, _Row] = {}
    for path in tasks.order:
        key = tasks.shapes[path] if folded else path
        iteration = tasks.is_iteration(path)
        if folded and iteration and tasks.all[path].kind not in WORK:
            continue  # its loop's row stands for it
        row = rows.get(key)
        if row is None:
            hidden = sum(part == "*" for part in key.split("/")[:-1]) if folded else 0
            name = key.rpartition("/")[2]
            name = ("each" if folded else f"#{name}") if iteration else name
            row = rows[key] = _Row(name, key, key.count("/") - hidden)
        row.members.append(path)
    chosen = _chosen_rows(tasks, list(rows.values()))
    leaves = [p for p, t in tasks.all.items() if not tasks.children.get(p)]
    axis = _Axis(time for path in leaves if (time := tasks.times[path]))
    critical = tasks.critical()
    for row in chosen:
        _fill(row, tasks, axis, critical, anchors)
    statuses = {tasks.all[path].status for row in chosen for path in row.members}
    return {
        "rows": chosen,
        "left_out": len(rows) - len(chosen),
        "folded": folded and any(len(row.members) > 1 for row in chosen),
        "tasks": sum(task.kind in WORK for task in tasks.all.values()),
        "arrows": _arrows(tasks, axis, chosen),
        "ticks": axis.ticks(),
        "breaks": axis.breaks(),
        "critical": any(row.critical for row in chosen),
        "statuses": [status for status in SYMBOLS if status in statuses and status != "waiting"],
    }


@dataclass
class _Row:
    """A row of the chart: one task, or all iterations of one."""

    name: str
    path: str
    depth: int
    members: list[str] = field(default_factory=list)
    bars: list[dict[str, Any]] = field(default_factory=list)
    kind: str = ""
    status: str = ""
    symbol: str = ""
    time: str = ""
    title: str = ""
    anchor: str = ""
    critical: bool = False
    iterations: int = 0


def _chosen_rows(tasks: Tasks, rows: list[_Row]) -> list[_Row]:
    """The rows that there is room for: what failed, and what took longest."""

    def weight(row: _Row) -> tuple[bool, float]:
        times = [t for path in row.members if (t := tasks.times[path])]
        failed = any(tasks.all[path].status == "failed" for path in row.members)
        return failed, sum(ended - began for began, ended in times)

    if len(rows) <= _MOST_ROWS:
        return rows
    kept = {id(row) for row in sorted(rows, key=weight, reverse=True)[:_MOST_ROWS]}
    return [row for row in rows if id(row) in kept]


def _fill(
    row: _Row, tasks: Tasks, axis: _Axis, critical: set[str], anchors: Mapping[str, str]
) -> None:
    """Adds what a row shows besides its name."""
    records = [tasks.all[path] for path in row.members]
    times = [(path, t) for path in row.members if (t := tasks.times[path])]
    row.kind = records[0].kind
    counts = collections.Counter(str(record.status) for record in records)
    row.status = next(s for s in ("failed", "cancelled", "running", *SYMBOLS) if s in counts)
    row.symbol = SYMBOLS[row.status]
    row.critical = not critical.isdisjoint(row.members)
    row.anchor = anchors.get(row.members[0], "")
    group = row.kind not in WORK
    if row.kind == "loop":
        row.iterations = sum(len(tasks.children.get(path, ())) for path in row.members)
    if len(records) == 1:
        seconds = records[0].seconds
        if group and times:
            # Long breaks are no part of the time that a group took.
            seconds = axis.seconds_between(*times[0][1])
        shown = records[0].status in ("succeeded", "running", "failed") and seconds is not None
        row.time = duration(seconds) if shown else records[0].status
        if row.kind == "importer" and row.status == "succeeded":
            row.time = "imported"
        row.title = f"{row.members[0]}: {ending(records[0])}. {records[0].reason}".strip()
    else:
        row.time = " ".join(f"{SYMBOLS[s]} {counts[s]:,}" for s in SYMBOLS if s in counts)
        row.symbol = ""
        words = ", ".join(f"{counts[s]:,} {s}" for s in SYMBOLS if s in counts)
        row.title = f"{row.path}: {words}"
    bars = [
        _bar(axis, began, ended, tasks.all[path].status, f"{path}: {ending(tasks.all[path])}")
        for path, (began, ended) in times
    ]
    row.bars = _merged(bars) if len(bars) > _MOST_BARS else bars


def _bar(axis: _Axis, began: float, ended: float, status: str, title: str) -> dict[str, Any]:
    left, right = axis.place(began), axis.place(ended)
    point = began == ended and status in ("skipped", "cancelled", "succeeded")
    width = 0.0 if point else round(max(right - left, 0.4), 3)
    return {
        "x": round(min(left, 100.0 - width), 3),
        "width": width,
        "status": status,
        "title": title,
        "point": point,
    }


def _merged(bars: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Bars of one status that touch, made one."""
    merged = []
    for status in SYMBOLS:
        current: dict[str, Any] | None = None
        count = 0
        for bar in sorted((b for b in bars if b["status"] == status), key=lambda b: b["x"]):
            right = bar["x"] + bar["width"]
            if current is not None and bar["x"] <= current["x"] + current["width"] + 0.1:
                count += 1
                current["width"] = round(max(current["width"], right - current["x"]), 3)
                current["title"] = f"{count:,} {status}"
            else:
                current, count = {**bar, "point": False, "width": max(bar["width"], 0.4)}, 1
                merged.append(current)
    return merged


def _arrows(tasks: Tasks, axis: _Axis, rows: list[_Row]) -> list[dict[str, Any]]:
    """Lines from where a task ended to where one that waited for it began."""
    if tasks.graph is None:
        return []
    places = {row.members[0]: index for index, row in enumerate(rows) if len(row.members) == 1}
    before = {path: set(tasks.tasks_before(path)) for path in places}
    arrows = []
    for path, direct in before.items():
        # What is waited for by way of another needs no line of its own.
        reached: set[str] = set()
        waiting = [b for d in direct for b in before.get(d, ())]
        while waiting:
            name = waiting.pop()
            if name not in reached:
                reached.add(name)
                waiting += before.get(name, ())
        for name in sorted(direct - reached):
            source, target = tasks.times[name], tasks.times[path]
            if name in places and source and target:
                arrows.append(
                    {
                        "x1": axis.place(source[1]),
                        "x2": axis.place(target[0]),
                        "from": places[name],
                        "to": places[path],
                    }
                )
    return arrows


class _Axis:
    """Where moments are, in percent of the chart's width; long breaks in the work are cut short."""

    def __init__(self, times: Iterable[tuple[float, float]]):
        merged: list[list[float]] = []
        for began, ended in sorted(times):
            if merged and began <= merged[-1][1]:
                merged[-1][1] = max(merged[-1][1], ended)
            else:
                merged.append([began, ended])
        longest_kept = max(0.1 * sum(ended - began for began, ended in merged), 1.0)
        sessions: list[list[float]] = []
        for began, ended in merged:
            if sessions and began - sessions[-1][1] <= longest_kept:
                sessions[-1][1] = ended
            else:
                sessions.append([began, ended])
        self.sessions = sessions
        self.seconds = sum(ended - began for began, ended in sessions)
        breaks = max(len(sessions) - 1, 0)
        self.break_width = min(4.0, 30.0 / breaks) if breaks else 0.0
        self.scale = (100.0 - breaks * self.break_width) / (self.seconds or 1.0)

    def place(self, moment: float) -> float:
        """Where a moment is."""
        place = 0.0
        for index, (began, ended) in enumerate(self.sessions):
            if index:
                before = self.sessions[index - 1][1]
                if moment < began:
                    share = max(moment - before, 0.0) / (began - before)
                    return round(place + share * self.break_width, 3)
                place += self.break_width
            if moment <= ended:
                return round(place + max(moment - began, 0.0) * self.scale, 3)
            place += (ended - began) * self.scale
        return round(place, 3)

    def seconds_between(self, began: float, ended: float) -> float:
        """The time at work between two moments."""
        return sum(max(min(ended, e) - max(began, b), 0.0) for b, e in self.sessions)

    def breaks(self) -> list[dict[str, Any]]:
        """The breaks that are cut short."""
        return [
            {
                "x": self.place(before[1]),
                "width": round(self.break_width, 3),
                "seconds": after[0] - before[1],
            }
            for before, after in itertools.pairwise(self.sessions)
        ]

    def ticks(self) -> list[dict[str, Any]]:
        """Marks at round times at work."""
        step = next((s for s in _STEPS if self.seconds / s <= 8), self.seconds / 8)
        unit, name = next((u for u in _UNITS if step >= u[0]), (1.0, "s"))
        ticks = []
        for count in range(int(self.seconds / step + 1e-9) + 1 if self.seconds else 1):
            passed, moment = count * step, self.sessions[0][0] if self.sessions else 0.0
            for began, ended in self.sessions:
                moment = began + passed
                if moment <= ended + 1e-9:
                    break
                passed -= ended - began
            label = f"{count * step / unit:g} {name}" if count else "0"
            ticks.append({"x": self.place(moment), "label": label, "minor": count % 2 == 1})
        return ticks
