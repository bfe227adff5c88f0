"""How a step tells how far it is: a line now and then, and a file for whoever watches."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping

PROGRESS_FILE = "PAPER2HUB_PROGRESS"

GOES_ON = "PAPER2HUB_GOES_ON"
"""A variable of steps that go on where an earlier attempt was cut short: what they had put into
their outputs is left there for the next attempt."""

"""Environment variable naming the file that always holds the newest progress as one JSON object."""


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
        """Adds finished work, with figures worth seeing beside it, such as the loss."""
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
    """One readable line, such as `1,200/4,000 images, 850 images/s, 3 s left, loss 0.094`."""
    done, total, unit = state["done"], state["total"], state["unit"]
    parts = [f"{done:,}/{total:,} {unit}" if total is not None else f"{done:,} {unit}"]
    rate, left, figures = state["per_second"], state["seconds_left"], state["figures"]
    if done:
        parts.append(f"{rate:,.0f} {unit}/s" if rate >= 10 else f"{rate:.2g} {unit}/s")  # type: ignore[operator]
    if left is not None:
        parts.append(f"{left:,.0f} s left")
    parts += [f"{name} {value:.4g}" for name, value in figures.items()]  # type: ignore[attr-defined]
    return ", ".join(parts)
