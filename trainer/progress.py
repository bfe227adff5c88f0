"""How a step tells how far it is: a line now and then, and a file for whoever watches."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping

PROGRESS_FILE = "PAPER2HUB_PROGRESS"
"""Environment variable naming the file that always holds the newest progress as one JSON object."""

GOES_ON = "PAPER2HUB_GOES_ON"
"""A variable of steps that go on where an earlier attempt was cut short: what they had put into
their outputs is left there for the next attempt."""

WAITING = "waiting"
"""The figure that is a share, 0 to 1, of the time: that in which a step waited for its input."""


class Progress:
    """Counts work towards a total and shows it at most `per_second` times a second.

    With the environment variable `PAPER2HUB_PROGRESS` set, the newest state is kept in that file
    as `{"done", "total", "unit", "per_second", "seconds_left", "figures"}` (whole or absent) and
    nothing is printed; otherwise a plain line goes to standard error every few seconds.

    Args:
        total: how much there is to do; None where it is not known beforehand.
        unit: what is counted, in the plural, such as "images".
    """

    def __init__(self, total: int | None, unit: str):
        self.total = total
        self.unit = unit
        self.done = 0
        self._file = os.environ.get(PROGRESS_FILE)
        self._interval = 0.25 if self._file else 2.0
        self._began = time.monotonic()
        self._shown = self._began
        self._write({})

    def advance(self, count: int = 1, figures: Mapping[str, float] | None = None) -> None:
        """Adds finished work, with figures worth seeing beside it, such as the loss.

        The figure `waiting` is a share of the time, 0 to 1.
        """
        self.done += count
        now = time.monotonic()
        if now - self._shown >= self._interval or self.done == self.total:
            self._shown = now
            self._write(figures or {})

    def _write(self, figures: Mapping[str, float]) -> None:
        rate = self.done / max(time.monotonic() - self._began, 1e-9)
        left = (self.total - self.done) / rate if self.total is not None and self.done else None
        state = {
            "done": self.done,
            "total": self.total,
            "unit": self.unit,
            "per_second": rate,
            "seconds_left": left,
            "figures": {k: float(v) for k, v in figures.items()},
        }
        if self._file:
            draft = f"{self._file}.unfinished"
            with open(draft, "w", encoding="utf-8") as file:
                json.dump(state, file)
            os.replace(draft, self._file)
        elif self.done:
            print(describe(state), file=sys.stderr, flush=True)


def describe(state: Mapping[str, object]) -> str:
    """One readable line: `1,200/4,000 images, 850 images/s, 3 s left, waiting 3 %, loss 0.094`."""
    done, total, unit = state["done"], state["total"], state["unit"]
    parts = [f"{done:,}/{total:,} {unit}" if total is not None else f"{done:,} {unit}"]
    rate, left = state["per_second"], state["seconds_left"]
    figures = dict(state["figures"])  # type: ignore[call-overload]
    if done:
        parts.append(f"{rate:,.0f} {unit}/s" if rate >= 10 else f"{rate:.2g} {unit}/s")  # type: ignore[operator]
    if left is not None:
        parts.append(f"{duration(left)} left")  # type: ignore[arg-type]
    # Before the others, which a narrow terminal may cut: whoever waits has something to mend.
    waiting = figures.pop(WAITING, None)
    if waiting is not None:
        parts.append(f"waiting {waiting:.0%}".replace("%", " %"))
    parts += [f"{name.replace('_', ' ')} {value:.4g}" for name, value in figures.items()]
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """A time in at most seven letters: `95 s`, `12 min`, `3.4 h`, `2.5 d`."""
    for length, unit, digits in ((1, "s", 0), (60, "min", 0), (3600, "h", 1)):
        if seconds < 100 * length:
            return f"{seconds / length:.{digits}f} {unit}"
    return f"{seconds / 86400:.1f} d"
