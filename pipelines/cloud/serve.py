"""Runs the entries of this machine's schedules where there is no cron.

It waits for the next moment, starts what is due then and waits again. It reads the entries anew all
the while, so a sync, a pause or a change by hand holds at once. What came round while it was not
there, or while the machine slept, was missed: nothing makes up for it. A run goes on if the server
is killed, and is counted among those at work by the next one; asked to end, the server ends its
runs first, which `paper2hub resume` can take up again.
"""

from __future__ import annotations

import contextlib
import datetime
import queue
import signal
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

from pipelines.cloud.crontab import LATEST, STATE, Crontab
from pipelines.local.record import hold
from trainer.errors import TryAgain, UserError

LONGEST_WAIT = 30.0
"""Seconds after which the entries are read again (ours)."""

GRACE_SECONDS = 20.0
"""How long a run may take to end when the server is asked to (ours)."""


class Clock(Protocol):
    """The time, and how it passes."""

    def now(self) -> datetime.datetime:
        """The time, with a zone."""

    def wait(self, seconds: float) -> bool:
        """Lets time pass; True, and at once, where the server is to end."""


class RealClock:
    """The machine's clock, until SIGTERM or SIGINT comes."""

    def __init__(self) -> None:
        self._received: queue.SimpleQueue[int] = queue.SimpleQueue()

    def now(self) -> datetime.datetime:
        """The time."""
        return datetime.datetime.now(datetime.UTC)

    def wait(self, seconds: float) -> bool:
        """Lets time pass, or a signal end it."""
        try:
            self._received.get(timeout=max(seconds, 0.0))
        except queue.Empty:
            return False
        return True

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Takes the signals that ask a process to end, instead of being ended by them."""
        if threading.current_thread() is not threading.main_thread():
            yield  # Python delivers signals to the main thread alone
            return

        def put(number: int, _: Any) -> None:
            self._received.put(number)

        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.signal(number, put) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def serve(crontab: Crontab, clock: Clock, tell: Callable[[str], None]) -> None:
    """Runs what is due, until the clock says that it is to end; then ends what it has started.

    Args:
        crontab: the schedules of a project on this machine.
        clock: the time.
        tell: is told what is started, what ended and what was missed, a line each.

    Raises:
        TryAgain: another server has the project's schedules.
    """
    state = crontab.folder / STATE / "server"
    state.mkdir(parents=True, exist_ok=True)
    with _only_one(state):
        running: dict[str, list[subprocess.Popen[bytes]]] = {}
        seen = clock.now()
        try:
            while True:
                seconds = _seconds_to_wait(crontab, seen, clock.now())
                stop = clock.wait(seconds)
                for name, code in _ended(running):
                    tell(f"{name}: ended with {code}; {crontab.log(name)}")
                if stop:
                    return
                now = clock.now()
                if now < seen:
                    tell(f"The clock was turned back, to {_shown(now)}.")
                else:
                    _start_due(crontab, seen, now, running, tell)
                seen = now
        finally:
            end([process for those in running.values() for process in those])


def end(processes: Iterable[subprocess.Popen[bytes]], grace: float = GRACE_SECONDS) -> None:
    """Asks processes to end, and ends those that do not."""
    processes = list(processes)
    for process in processes:
        process.terminate()
    deadline = datetime.datetime.now() + datetime.timedelta(seconds=grace)
    for process in processes:
        left = (deadline - datetime.datetime.now()).total_seconds()
        try:
            process.wait(max(left, 0.0))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _start_due(
    crontab: Crontab,
    seen: datetime.datetime,
    now: datetime.datetime,
    running: dict[str, list[subprocess.Popen[bytes]]],
    tell: Callable[[str], None],
) -> None:
    """Starts what has come round since the entries were seen last."""
    for name in _active(crontab):
        try:
            missed = crontab.next_run(name, seen)
            if missed is not None and missed <= now - LATEST:
                tell(f"{name}: missed at {_shown(missed)}, and not made up for")
            planned = crontab.due(name, now, after=seen)
            if planned is None:
                continue
            process = crontab.start(name, planned)
        except (UserError, TryAgain) as error:
            tell(f"{name}: {error}")
            continue
        if isinstance(process, str):
            tell(f"{name}: not started at {_shown(planned)}: {process}")
        else:
            running.setdefault(name, []).append(process)
            tell(f"{name}: started for {_shown(planned)}; {crontab.log(name)}")


def _seconds_to_wait(crontab: Crontab, seen: datetime.datetime, now: datetime.datetime) -> float:
    """Until the next moment of any entry; not for long, for entries may change."""
    moments = (crontab.next_run(name, seen) for name in _active(crontab))
    waits = [(moment - now).total_seconds() for moment in moments if moment is not None]
    return max(0.0, min([*waits, LONGEST_WAIT]))


def _active(crontab: Crontab) -> list[str]:
    """Names of our entries that are not paused, each once."""
    return list(dict.fromkeys(s.name for s in crontab.schedules() if s.name and not s.paused))


def _ended(
    running: dict[str, list[subprocess.Popen[bytes]]],
) -> Iterator[tuple[str, int]]:
    """The runs that have ended since the last question, and their exit codes."""
    for name, processes in running.items():
        for process in list(processes):
            code = process.poll()
            if code is not None:
                processes.remove(process)
                yield name, code


@contextlib.contextmanager
def _only_one(state: Path) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(hold(state, seconds=0.2))
        except TryAgain as error:
            raise TryAgain(
                "One server is enough for the schedules of a project, and one is running."
            ) from error
        yield


def _shown(moment: datetime.datetime) -> str:
    return moment.astimezone(datetime.UTC).isoformat(timespec="seconds")
