"""The time in the cloud, which passes for schedules only when it is told to."""

from __future__ import annotations

import datetime
import threading
import time
from collections.abc import Callable
from typing import Protocol


class Timetable(Protocol):
    """Something that has to be done at certain times."""

    def next_due(self) -> datetime.datetime | None:
        """When there is something to be done; None where nothing is planned."""

    def do_due(self, moment: datetime.datetime) -> None:
        """Does what is due at the moment."""


class Clock:
    """A clock that stands still until it is advanced.

    Args:
        start: the time at the beginning; the real one where it is None.
        settle: called before each moment at which something is due, so that what runs in real time
            can end before virtual hours pass.
    """

    def __init__(
        self,
        start: datetime.datetime | None = None,
        settle: Callable[[], None] = lambda: None,
    ):
        began = datetime.datetime.now(datetime.UTC)
        if start is not None and start.tzinfo is None:
            raise ValueError("The time at the beginning must have a time zone.")
        self._began = (start or began).astimezone(datetime.UTC)
        self._real = began
        self._monotonic = time.monotonic()
        self._advanced = datetime.timedelta()
        self._settle = settle
        self._timetables: list[Timetable] = []
        self._advancing = threading.Lock()

    def now(self) -> datetime.datetime:
        """The time that schedules see."""
        return self._began + self._advanced

    def stamp(self) -> datetime.datetime:
        """The time for records: that of schedules, and the real time since the beginning."""
        return self.now() + datetime.timedelta(seconds=time.monotonic() - self._monotonic)

    def of_real(self, moment: str | None) -> datetime.datetime | None:
        """A time of this machine, as ISO 8601 text, as a time for records."""
        if not moment:
            return None
        return self.now() + (datetime.datetime.fromisoformat(moment) - self._real)

    def add(self, timetable: Timetable) -> None:
        """Has a timetable observed."""
        self._timetables.append(timetable)

    def advance(self, by: datetime.timedelta, wait: bool = True) -> None:
        """Lets time pass, and does in order all that becomes due.

        Args:
            by: how much time.
            wait: let what runs end before the next thing that is due.
        """
        if by < datetime.timedelta():
            raise ValueError(f"Time cannot be turned back; got {by}.")
        with self._advancing:
            target = self._advanced + by
            while True:
                due = [d for t in self._timetables if (d := t.next_due()) is not None]
                first = min(due, default=None)
                if first is None or first > self._began + target:
                    break
                if wait:
                    self._settle()
                self._advanced = max(self._advanced, first - self._began)
                for timetable in self._timetables:
                    planned = timetable.next_due()
                    if planned is not None and planned <= first:
                        timetable.do_due(first)
            self._advanced = target


def text_of(moment: datetime.datetime) -> str:
    """A time as Google's APIs write it."""
    return moment.astimezone(datetime.UTC).isoformat(timespec="microseconds")[:-6] + "Z"
