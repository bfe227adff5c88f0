"""A run on one page that needs nothing else: what was done when, what came of it, and why not.

The page takes any pipeline and any end of a run. It loads nothing and lets nothing be loaded: its
security policy, which embedded pages inherit, allows no address but data.
"""

from __future__ import annotations

import base64
import collections
import datetime
import hashlib
import itertools
import json
import math
import os
import re
import shlex
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.local.display import ending
from pipelines.local.graph import Dag, Graph, Task, parse_graph
from pipelines.local.record import DONE, PIPELINE_FILE, REPORT_FILE, RunRecord, TaskRecord, held
from trainer.artifact import write_text
from trainer.errors import UserError

# What a page of a very large run leaves out, and says that it does (all ours).
MOST_ROWS_UNFOLDED = 60
"""Of a run with more tasks than this, the iterations of a loop share the rows of the chart."""
_MOST_ROWS = 300
_MOST_BARS = 300
_MOST_DETAILS = 200
_MOST_TASKS = 5_000
_MOST_FAILURES = 3
_MOST_PAGES, _PAGE_BYTES = 12, 16_000_000
_MOST_PICTURES, _PICTURE_BYTES = 12, 5_000_000
_MOST_CLASSES, _MOST_PAIRS = 30, 20
_MOST_METRICS, _MOST_OUTPUTS = 500, 20
_LOG_LINES, _LOG_BYTES, _LINE_LENGTH = 30, 65_536, 500
_TEXT_LENGTH, _TEXT_BYTES = 4_000, 500_000

_WORK = ("container", "importer")
_SYMBOLS = {
    "succeeded": "✓",
    "cached": "↺",
    "failed": "✕",
    "cancelled": "⊘",
    "skipped": "–",
    "running": "▸",
    "waiting": "·",
}
_STEPS = (
    *(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800),
    *(3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800),
)
_UNITS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"))
_PICTURES = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF8": "image/gif",
}
_TERMINAL_CODES = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?|[@-_])")
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)

_FIT = """
for (const frame of document.querySelectorAll("iframe")) {
  const fit = () => {
    const page = frame.contentDocument && frame.contentDocument.documentElement;
    if (page && page.offsetHeight) frame.style.height = Math.ceil(page.offsetHeight) + 2 + "px";
  };
  const begin = () => {
    fit();
    frame.contentDocument.addEventListener("toggle", fit, true);
  };
  if (frame.contentDocument && frame.contentDocument.readyState === "complete") begin();
  frame.addEventListener("load", begin);
  window.addEventListener("resize", fit);
}
"""
"""Gives an embedded page the height that it needs; without it, the page has a scroll bar."""


def write_report(record: RunRecord) -> Path:
    """Writes the page of a run into its folder, whole or not at all; returns the file."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"duration": duration, "value": _value, "number": _number}
    tasks = _Tasks(record)
    found = _Artifacts(record)
    table = _task_views(tasks)
    page = environment.get_template("report.html").render(
        run=record,
        symbols=_SYMBOLS,
        title=_status_in_words(record),
        facts=_facts(record),
        failures=_failures(record),
        timeline=_timeline(tasks, {view["path"]: view["anchor"] for view in table["shown"]}),
        outputs=[o for n, v in record.outputs.items() for o in _outputs(record, n, v)],
        metrics=_metrics(found, tasks),
        classifications=_classifications(found),
        pages=_pages(found),
        texts=_texts(found),
        pictures=_pictures(found),
        cards=_cards(found),
        tasks=table,
        cache=_cache_in_words(record),
        script=_FIT,
        script_digest=base64.b64encode(hashlib.sha256(_FIT.encode()).digest()).decode(),
    )
    target = Path(record.folder) / REPORT_FILE
    write_text(target, _CONTROLS.sub("�", page))
    return target


def duration(seconds: float | None) -> str:
    """A time in words, such as `0.06 s`, `42 s`, `4 min 05 s` or `2 d 4 h`."""
    if seconds is None:
        return ""
    if 0 < seconds < 0.005:
        return "< 0.01 s"
    for limit, text in ((0.995, "{:.2f} s"), (9.95, "{:.1f} s"), (59.5, "{:.0f} s")):
        if seconds < limit:
            return text.format(max(seconds, 0.0))
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


# The tasks and what they wait for.


class _Tasks:
    """The tasks of a run as a tree, with their times and what each waits for."""

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
        self.last = max(moments, default=0.0)
        self.times: dict[str, tuple[float, float] | None] = {}
        for path in sorted(self.all, key=lambda path: -path.count("/")):
            self.times[path] = self._time(path)
        self.order = list(self._walk(""))
        self.folded = len(self.all) > MOST_ROWS_UNFOLDED

    def tasks_before(self, path: str) -> list[str]:
        """What a task waits for, within its own graph."""
        parent, _, _ = path.rpartition("/")
        task = self._task(path)
        if task is None or _iteration(self.all, path):
            return []
        named = [f"{parent}/{name}" if parent else name for name in sorted(task.after)]
        return [name for name in named if name in self.all]

    def condition(self, path: str) -> str:
        """The condition under which a task runs; empty for none."""
        task = self._task(path)
        iterated = task is None or _iteration(self.all, path)
        return "" if iterated or task is None or not task.condition else task.condition.text

    def critical(self) -> set[str]:
        """The chain of tasks that the end had to wait for; nothing where that is all of them."""
        timed = [p for p, t in self.all.items() if t.kind in _WORK and t.started and self.times[p]]
        if self.graph is None or not timed:
            return set()
        chain: list[str] = []
        ended = {path: (self.times[path] or (0.0, 0.0))[1] for path in timed}
        below: dict[str, list[str]] = collections.defaultdict(list)
        for path in timed:
            for each in (path, *_parents(path)):
                below[each].append(path)
        current: str | None = max(timed, key=lambda path: (ended[path], path))
        while current is not None:
            chain.append(current)
            groups = (current, *_parents(current))
            earlier = {leaf for g in groups for b in self.tasks_before(g) for leaf in below[b]}
            found = ((ended[path], path) for path in earlier.difference(chain))
            current = max(found, default=(0.0, None))[1]
        return set(chain) if len(chain) < len(timed) else set()

    def _task(self, path: str) -> Task | None:
        """A task as the pipeline has it."""
        dag: Any = self.graph.dag if self.graph else None
        task = None
        within = ""
        for name in path.split("/"):
            within = f"{within}/{name}" if within else name
            if _iteration(self.all, within):
                continue
            if not isinstance(dag, Dag) or name not in dag.tasks:
                return None
            task = dag.tasks[name]
            dag = task.work
        return task

    def _shape(self, path: str) -> str:
        """The path with `*` for the number of an iteration."""
        parts = [
            "*" if _iteration(self.all, each) else each.rpartition("/")[2]
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
            ended = self.last if task.status == "running" else began
        return began, ended

    def _walk(self, parent: str) -> Iterator[str]:
        """All paths, what is within a group after it, and otherwise by when they began."""

        def rank(path: str) -> tuple[float, float]:
            time = self.times[path]
            number = float(path.rpartition("/")[2]) if _iteration(self.all, path) else 0.0
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


def _iteration(tasks: Mapping[str, TaskRecord], path: str) -> bool:
    """Whether a path names an iteration of a loop."""
    parent, _, name = path.rpartition("/")
    return parent in tasks and tasks[parent].kind == "loop" and name.isdigit()


def _moment(text: str | None) -> float | None:
    try:
        moment = datetime.datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return moment.replace(tzinfo=moment.tzinfo or datetime.UTC).timestamp()


# The chart.


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


def _timeline(tasks: _Tasks, anchors: Mapping[str, str]) -> dict[str, Any]:
    """What the chart shows."""
    folded = tasks.folded
    rows: dict[str, _Row] = {}
    for path in tasks.order:
        key = tasks.shapes[path] if folded else path
        iteration = _iteration(tasks.all, path)
        if folded and iteration and tasks.all[path].kind not in _WORK:
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
        "tasks": sum(task.kind in _WORK for task in tasks.all.values()),
        "arrows": _arrows(tasks, axis, chosen),
        "ticks": axis.ticks(),
        "breaks": axis.breaks(),
        "critical": any(row.critical for row in chosen),
        "statuses": [status for status in _SYMBOLS if status in statuses and status != "waiting"],
    }


def _chosen_rows(tasks: _Tasks, rows: list[_Row]) -> list[_Row]:
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
    row: _Row, tasks: _Tasks, axis: _Axis, critical: set[str], anchors: Mapping[str, str]
) -> None:
    """Adds what a row shows besides its name."""
    records = [tasks.all[path] for path in row.members]
    times = [(path, t) for path in row.members if (t := tasks.times[path])]
    row.kind = records[0].kind
    counts = collections.Counter(str(record.status) for record in records)
    row.status = next(s for s in ("failed", "cancelled", "running", *_SYMBOLS) if s in counts)
    row.symbol = _SYMBOLS[row.status]
    row.critical = not critical.isdisjoint(row.members)
    row.anchor = anchors.get(row.members[0], "")
    group = row.kind not in _WORK
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
        row.time = " ".join(f"{_SYMBOLS[s]} {counts[s]:,}" for s in _SYMBOLS if s in counts)
        row.symbol = ""
        words = ", ".join(f"{counts[s]:,} {s}" for s in _SYMBOLS if s in counts)
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
        "end": right,
        "status": status,
        "title": title,
        "point": point,
    }


def _merged(bars: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Bars of one status that touch, made one."""
    merged = []
    for status in _SYMBOLS:
        current: dict[str, Any] | None = None
        count = 0
        for bar in sorted((b for b in bars if b["status"] == status), key=lambda b: b["x"]):
            right = bar["x"] + bar["width"]
            if current is not None and bar["x"] <= current["x"] + current["width"] + 0.1:
                count += 1
                current["width"] = round(max(current["width"], right - current["x"]), 3)
                current["end"] = max(current["end"], bar["end"])
                current["title"] = f"{count:,} {status}"
            else:
                current, count = {**bar, "point": False, "width": max(bar["width"], 0.4)}, 1
                merged.append(current)
    return merged


def _arrows(tasks: _Tasks, axis: _Axis, rows: list[_Row]) -> list[dict[str, Any]]:
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


# The head of the page.


def _status_in_words(record: RunRecord) -> str:
    if record.status == "running" and not held(record.folder):
        return "stopped"  # its engine was killed
    return record.status


def _facts(record: RunRecord) -> dict[str, Any]:
    """What the head of the page says beside the status."""
    work = [task for task in record.tasks.values() if task.kind in _WORK]
    counts = collections.Counter(str(task.status) for task in work)
    jobs = record.options.get("jobs", 1)
    started = (record.started or "")[:19].replace("T", " ")
    return {
        "started": f"{started} UTC",
        "seconds": record.seconds,
        "launcher": record.launcher,
        "jobs": jobs,
        "sessions": record.resumed + 1,
        "counts": ", ".join(f"{counts[s]:,} {s}" for s in _SYMBOLS if s in counts),
        "resume": f"paper2hub resume {record.run}" if record.status != "succeeded" else "",
    }


def _failures(record: RunRecord) -> dict[str, Any]:
    """The tasks that failed of themselves, with the ends of their logs."""
    failed = [
        (path, task)
        for path, task in record.tasks.items()
        if task.status == "failed" and (task.kind in _WORK or not task.reason.endswith(" failed."))
    ]
    return {
        "shown": [
            {
                "path": path,
                "ending": ending(task),
                "reason": task.reason,
                "lines": _last_lines(record.log(path)),
                "log": _address(record, record.log(path)),
                "command": f"paper2hub logs {record.run} {path}",
            }
            for path, task in failed[:_MOST_FAILURES]
        ],
        "more": [path for path, _ in failed[_MOST_FAILURES:]],
    }


def _last_lines(log: Path) -> list[str]:
    try:
        with open(log, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - _LOG_BYTES, 0))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    lines = _TERMINAL_CODES.sub("", text).rstrip().split("\n")[-_LOG_LINES:]
    lines = [line.rstrip("\r").rpartition("\r")[2] for line in lines]  # progress overwrites itself
    return [ln if len(ln) <= _LINE_LENGTH else f"{ln[: _LINE_LENGTH - 1]}…" for ln in lines if ln]


def _cache_in_words(record: RunRecord) -> str:
    """How much of the work the cache had."""
    done = [t for t in record.tasks.values() if t.kind == "container" and t.status in DONE]
    cached = sum(task.status == "cached" for task in done)
    if not done:
        return ""
    if not cached:
        return "No result was taken from the cache; the column says why."
    return f"{cached:,} of {len(done):,} results were taken from the cache."


# Artifacts.


class _Artifacts:
    """The artifacts that the tasks of a run gave."""

    def __init__(self, record: RunRecord):
        self.record = record
        self.all: list[tuple[str, str, dict[str, Any]]] = []
        seen = set()
        for path, task in record.tasks.items():
            if task.kind not in _WORK:
                continue  # what a graph gives is what one of its tasks gave
            for name, value in task.artifacts.items():
                for artifact in _each(value):
                    mark = (str(artifact.get("uri")), name)
                    if mark not in seen:
                        seen.add(mark)
                        self.all.append((path, name, dict(artifact)))

    def of_type(self, title: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Those of one of KFP's types, such as `system.HTML`."""
        return (each for each in self.all if _type(each[2]) == title)

    def source(self, path: str, name: str, artifact: Mapping[str, Any]) -> dict[str, Any]:
        """Where an artifact comes from, for its heading."""
        place = _place(artifact)
        address = _address(self.record, place) if place else ""
        return {"task": path, "name": name, "address": address}


def _each(value: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, Mapping):
        yield value
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for item in value:
            yield from _each(item)


def _type(artifact: Mapping[str, Any]) -> str:
    kind = artifact.get("type")
    return str(kind.get("schemaTitle", "")) if isinstance(kind, Mapping) else ""


def _metadata(artifact: Mapping[str, Any]) -> Mapping[str, Any]:
    metadata = artifact.get("metadata")
    return metadata if isinstance(metadata, Mapping) else {}


def _place(artifact: Mapping[str, Any]) -> Path | None:
    """Where an artifact is on this machine; None where it is elsewhere."""
    uri = str(artifact.get("uri", "")).removeprefix("file://")
    return Path(uri) if uri.startswith("/") else None


def _is_file(path: Path) -> bool:
    """Whether a file is there, as far as may be known."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _address(record: RunRecord, path: Path) -> str:
    """The address of a file of the run, as seen from the page; empty where it is no such file."""
    if not path.is_relative_to(record.folder):
        return ""
    return urllib.parse.quote(str(path.relative_to(record.folder)))


def _metrics(found: _Artifacts, tasks: _Tasks) -> list[dict[str, Any]]:
    """Tables of metrics: one per task, or one for all iterations of a task."""
    groups: dict[tuple[str, str], list[tuple[str, Mapping[str, Any]]]] = {}
    for path, name, artifact in found.of_type("system.Metrics"):
        groups.setdefault((tasks.shapes[path], name), []).append((path, _metadata(artifact)))
    tables = []
    for (shape, name), members in groups.items():
        columns = list(dict.fromkeys(key for _, values in members for key in values))
        tables.append(
            {
                "task": shape,
                "name": name,
                "columns": columns,
                "rows": [
                    (path, [values.get(c) for c in columns])
                    for path, values in members[:_MOST_METRICS]
                ],
                "left_out": max(len(members) - _MOST_METRICS, 0),
            }
        )
    return tables


def _classifications(found: _Artifacts) -> list[dict[str, Any]]:
    """Confusion matrices, ROC curves and what else there is of a classification."""
    views = []
    for path, name, artifact in found.all:
        if _type(artifact) in (
            "system.ClassificationMetrics",
            "system.SlicedClassificationMetrics",
        ):
            rest = dict(_metadata(artifact))
            matrix = _confusion(rest.get("confusionMatrix"))
            curve = _curve(rest.get("confidenceMetrics"))
            for key, view in (("confusionMatrix", matrix), ("confidenceMetrics", curve)):
                if view:
                    del rest[key]
            if matrix or curve or rest:
                views.append(
                    {
                        **found.source(path, name, artifact),
                        "confusion": matrix,
                        "curve": curve,
                        "rest": _json(rest) if rest else "",
                    }
                )
    return views


def _confusion(matrix: Any) -> dict[str, Any] | None:
    """A small matrix as a table of counts with their shares of the row; the worst pairs of all."""
    try:
        matrix = matrix.get("struct", matrix)
        names = [str(spec["displayName"]) for spec in matrix["annotationSpecs"]]
        rows = [[float(count) for count in row["row"]] for row in matrix["rows"]]
        square = [len(row) for row in rows] == [len(names)] * len(names)
        if not names or not square or not all(math.isfinite(c) for row in rows for c in row):
            return None
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    pairs = [
        (count, names[i], names[j])
        for i, row in enumerate(rows)
        for j, count in enumerate(row)
        if i != j and count > 0
    ]
    table = []
    for name, row in zip(names, rows, strict=True) if len(names) <= _MOST_CLASSES else ():
        total = sum(row) or 1.0
        table.append((name, [(count, round(80 * max(count, 0) / total)) for count in row]))
    worst = sorted(pairs, key=lambda pair: -pair[0])[:_MOST_PAIRS]
    return {"names": names, "table": table, "pairs": worst}


def _curve(points: Any) -> dict[str, Any] | None:
    """A ROC curve: its points on a square of 200, and the area below."""
    try:
        points = points.get("list", points) if isinstance(points, Mapping) else points
        pairs = sorted((float(p["falsePositiveRate"]), float(p["recall"])) for p in points)
        if len(pairs) < 2 or not all(0 <= value <= 1 for pair in pairs for value in pair):
            return None
    except (KeyError, TypeError, ValueError):
        return None
    area = sum((x2 - x1) * (y1 + y2) / 2 for (x1, y1), (x2, y2) in itertools.pairwise(pairs))
    text = " ".join(f"{200 * x:.1f},{200 - 200 * y:.1f}" for x, y in pairs)
    return {"points": text, "area": area, "count": len(pairs)}


def _pages(found: _Artifacts) -> dict[str, Any]:
    """The pages that tasks made."""
    shown: list[dict[str, Any]] = []
    left_out = []
    room = _PAGE_BYTES
    for path, name, artifact in found.of_type("system.HTML"):
        source = found.source(path, name, artifact)
        place = _place(artifact)
        if place is not None and _is_file(place / "index.html"):
            place = place / "index.html"
        try:
            size = place.stat().st_size if place is not None and _is_file(place) else room + 1
            if place is None or size > room or len(shown) >= _MOST_PAGES:
                left_out.append(source)
                continue
            content = place.read_text(encoding="utf-8", errors="replace")
        except OSError:
            left_out.append(source)
            continue
        room -= size
        scripts = re.search(r"<script\b", content, re.IGNORECASE) is not None
        shown.append({**source, "content": _CONTROLS.sub("�", content), "scripts": scripts})
    return {"shown": shown, "left_out": left_out}


def _texts(found: _Artifacts) -> list[dict[str, Any]]:
    """The texts that tasks made, as HTML."""
    texts: list[dict[str, Any]] = []
    for path, name, artifact in found.of_type("system.Markdown"):
        text = _read_text(_place(artifact))
        if text and len(texts) < _MOST_PAGES:
            texts.append({**found.source(path, name, artifact), "content": _markdown(text)})
    return texts


def _cards(found: _Artifacts) -> list[dict[str, Any]]:
    """The model cards of exports."""
    cards: list[dict[str, Any]] = []
    for path, name, artifact in found.all:
        place = _place(artifact)
        if place is not None and _is_file(place / "export.json") and len(cards) < _MOST_PAGES:
            text = _read_text(place / "README.md")
            if text:
                content = _markdown(_FRONT_MATTER.sub("", text))
                cards.append({**found.source(path, name, artifact), "content": content})
    return cards


def _pictures(found: _Artifacts) -> dict[str, Any]:
    """The pictures that tasks made: single ones, and folders of a few."""
    shown: list[dict[str, Any]] = []
    left_out: list[dict[str, Any]] = []
    room = _PICTURE_BYTES
    for path, name, artifact in found.all:
        files = _picture_files(_place(artifact))
        missed = len(files)
        for file in files if len(files) <= _MOST_PICTURES else ():
            try:
                content = file.read_bytes() if file.stat().st_size <= room else b""
            except OSError:
                content = b""
            if content and len(shown) < _MOST_PICTURES:
                room -= len(content)
                missed -= 1
                address = f"data:{_picture_type(content)};base64,"
                caption = f"{path}: {name}" if len(files) == 1 else f"{path}: {name}/{file.name}"
                shown.append(
                    {"uri": address + base64.b64encode(content).decode(), "caption": caption}
                )
        if missed:
            left_out.append({**found.source(path, name, artifact), "count": missed})
    return {"shown": shown, "left_out": left_out}


def _picture_files(place: Path | None) -> list[Path]:
    """The pictures at a place, told by how they begin: KFP's files have no endings."""
    if place is None:
        return []
    found = []
    try:
        files = [place]
        if place.is_dir():
            endings = (".png", ".jpg", ".jpeg", ".gif")
            files = sorted(f for f in place.iterdir() if f.suffix.lower() in endings)
        for file in files:
            if file.is_file():
                with open(file, "rb") as content:
                    if _picture_type(content.read(16)):
                        found.append(file)
    except (OSError, ValueError):
        return []
    return found


def _picture_type(content: bytes) -> str:
    return next((kind for begin, kind in _PICTURES.items() if content.startswith(begin)), "")


def _read_text(place: Path | None) -> str:
    """A text that a person might read."""
    try:
        if place is None or not _is_file(place) or place.stat().st_size > _TEXT_BYTES:
            return ""
        return place.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _markdown(text: str) -> Any:
    """Markdown as HTML: what it holds of HTML is shown as text, and a picture becomes a link."""
    from markdown_it import MarkdownIt
    from markupsafe import Markup

    reader = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    tokens = reader.parse(text)
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(int(token.tag[1]) + 2, 6)}"  # below the headings of the page
    return Markup(reader.renderer.render(tokens, reader.options, {}))  # noqa: S704


# The table of tasks.


def _task_views(tasks: _Tasks) -> dict[str, Any]:
    """What the table says of each task; of many, the details of those that failed and the first."""
    record = tasks.record
    # Of a large run, the iterations themselves are no news beside what they hold.
    order = [
        path
        for path in tasks.order
        if path in record.tasks
        and not (
            tasks.folded
            and _iteration(tasks.all, path)
            and tasks.children.get(path)
            and record.tasks[path].status in DONE
        )
    ]
    failed = [path for path in order if record.tasks[path].status == "failed"]
    detailed = set(list(dict.fromkeys([*failed, *order]))[:_MOST_DETAILS])
    listed = set(list(dict.fromkeys([*failed, *order]))[:_MOST_TASKS])
    siblings: dict[str, str] = {}
    views = []
    for index, path in enumerate(tasks.order):
        if path not in listed:
            continue
        task = record.tasks[path]
        if task.cached_from and task.cached_from not in siblings:
            other = Path(record.folder).parent / task.cached_from / REPORT_FILE
            address = f"../{urllib.parse.quote(task.cached_from)}/{REPORT_FILE}"
            siblings[task.cached_from] = address if _is_file(other) else ""
        log = record.log(path)
        group = task.kind not in _WORK
        views.append(
            {
                "anchor": f"task-{index}",
                "path": path,
                "kind": task.kind,
                "status": task.status,
                "seconds": task.seconds,
                "attempts": task.attempts or "",
                "exit_code": "" if task.exit_code is None else task.exit_code,
                "cache": "" if group else task.cache,
                "cached_from": task.cached_from,
                "cached_address": siblings.get(task.cached_from, ""),
                "reason": task.reason,
                "log": _address(record, log) if not group and _is_file(log) else "",
                "details": _details(tasks, path) if path in detailed else None,
            }
        )
    return {
        "shown": views,
        "without_details": len(listed) - len(detailed),
        "left_out": len(order) - len(listed),
    }


def _details(tasks: _Tasks, path: str) -> dict[str, Any]:
    """What a task was called with and what it gave."""
    record = tasks.record
    task = record.tasks[path]
    known = task.key.get("inputs", {})
    known = known if isinstance(known, Mapping) else {}
    inputs = [{"name": n, "value": v, "artifact": None} for n, v in task.input_parameters.items()]
    for name, artifacts in task.input_artifacts.items():
        digests = known.get(name) or []
        for index, artifact in enumerate(_each(artifacts)):
            seen = digests[index] if index < len(digests) else {}
            digest = str(seen.get("digest", "")) if isinstance(seen, Mapping) else ""
            inputs.append(_output(record, name, artifact, digest))
    outputs = [_output(record, n, v) for n, v in task.parameters.items()]
    for name, value in task.artifacts.items():
        outputs += _outputs(record, name, value, task.digests.get(name, ""))
    return {
        "after": tasks.tasks_before(path),
        "condition": tasks.condition(path),
        "image": task.image,
        "started": (task.started or "")[:19].replace("T", " "),
        "command": _short(shlex.join(task.command)) if task.command else "",
        "inputs": inputs,
        "outputs": outputs,
        "record": _address(record, record.task_folder(path) / "task.json"),
    }


def _outputs(record: RunRecord, name: str, value: Any, digest: str = "") -> list[dict[str, Any]]:
    """A value, an artifact, or each of a list of artifacts, as far as there is room."""
    artifacts = list(_each(value)) if isinstance(value, Sequence) else []
    if not artifacts or not all("uri" in artifact for artifact in artifacts):
        return [_output(record, name, value, digest)]
    left_out = len(artifacts) - _MOST_OUTPUTS
    shown = [_output(record, name, artifact) for artifact in artifacts[:_MOST_OUTPUTS]]
    if left_out > 0:
        shown.append(_output(record, name, f"{left_out:,} more"))
    return shown


def _output(record: RunRecord, name: str, value: Any, digest: str = "") -> dict[str, Any]:
    """A value, or an artifact with where it is."""
    if not (isinstance(value, Mapping) and "uri" in value and "type" in value):
        return {"name": name, "value": value, "artifact": None}
    place = _place(value)
    address = _address(record, place) if place else ""
    return {
        "name": name,
        "value": None,
        "artifact": {
            "type": _type(value).removeprefix("system."),
            "address": address,
            "uri": urllib.parse.unquote(address) or str(value["uri"]),
            "digest": digest[:12],
        },
    }


# Values as text.


def _value(value: Any) -> str:
    """A value as a person would write it."""
    if isinstance(value, str):
        return _short(value)
    if isinstance(value, Mapping | list | tuple):
        return _short(_json(value))
    if value is None:
        return "none"
    return _number(value)


def _number(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value if isinstance(value, str) else _json(value)
    if 10_000 <= abs(value) < 1e15 and value == int(value):
        return f"{int(value):,}"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _json(value: Any) -> str:
    flat = json.dumps(value, ensure_ascii=False, default=str)
    return flat if len(flat) <= 72 else json.dumps(value, ensure_ascii=False, indent=2, default=str)


def _short(text: str) -> str:
    if len(text) <= _TEXT_LENGTH:
        return text
    return f"{text[:_TEXT_LENGTH]}… ({len(text) - _TEXT_LENGTH:,} more characters)"
