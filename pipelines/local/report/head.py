"""The head of the page: how the run stands, and why it failed."""

from __future__ import annotations

import collections
import os
import re
from pathlib import Path
from typing import Any

from pipelines.local.display import ending
from pipelines.local.record import WORK, RunRecord
from pipelines.local.report.artifacts import address_of
from pipelines.local.report.words import SYMBOLS, to_the_second

# What the head leaves out of a run with many failures, and of long logs (all ours).
_MOST_FAILURES = 3
_LOG_LINES, _LOG_BYTES, _LINE_LENGTH = 30, 65_536, 500

_TERMINAL_CODES = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?|[@-_])")


def facts(record: RunRecord) -> dict[str, Any]:
    """What the head of the page says beside the status."""
    work = [task for task in record.tasks.values() if task.kind in WORK]
    counts = collections.Counter(str(task.status) for task in work)
    jobs = record.options.get("jobs", 1)
    return {
        "started": f"{to_the_second(record.started)} UTC",
        "seconds": record.seconds,
        "launcher": record.launcher,
        "jobs": jobs,
        "sessions": record.resumed + 1,
        "counts": ", ".join(f"{counts[s]:,} {s}" for s in SYMBOLS if s in counts),
        "resume": f"paper2hub resume {record.run}" if record.status != "succeeded" else "",
    }


def failures(record: RunRecord) -> dict[str, Any]:
    """The tasks that failed of themselves, with the ends of their logs."""
    failed = record.failures()
    return {
        "shown": [
            {
                "path": path,
                "ending": ending(task),
                "reason": task.reason,
                "lines": _last_lines(record.log(path)),
                "log": address_of(record, record.log(path)),
                "command": f"paper2hub logs {record.run} {path}",
            }
            for path, task in failed[:_MOST_FAILURES]
        ],
        "more": [path for path, _ in failed[_MOST_FAILURES:]],
    }


def _last_lines(log: Path) -> list[str]:
    """The end of a log as a terminal would have shown it, without its colours."""
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
