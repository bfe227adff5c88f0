"""Processes that take turns at the same work: a machine whose speed drifts is fair to all."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

ROOT = Path(__file__).parents[2]


@dataclasses.dataclass
class Contestant:
    """A process that does its work once whenever it is asked to, and says how long it took.

    Attributes:
        title: what the table calls it.
        arguments: its command line. It prints a line about itself, then for each line that it
            reads, the seconds of one turn, and behind them those of its processor if it knows.
        cores: processors that it may use.
        processor_seconds: of each turn, where the process tells: what others take from it on a busy
            machine does not count.
    """

    title: str
    arguments: Sequence[str]
    cores: int = 2
    processor_seconds: list[float] = dataclasses.field(default_factory=list)

    def start(self, errors: IO[str]) -> None:
        """Starts the process and waits until it is ready, which is not measured.

        Args:
            errors: file that takes its standard error, to be shown if it fails.
        """
        self._errors = errors
        usable = sorted(os.sched_getaffinity(0))[-self.cores :]
        self._process = subprocess.Popen(
            ["taskset", "--cpu-list", ",".join(map(str, usable)), *self.arguments],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        self.version = self._read()

    def seconds(self) -> float:
        """Does the work once."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        seconds, *of_processor = map(float, self._read().split())
        self.processor_seconds += of_processor
        return seconds

    def stop(self) -> None:
        """Ends the process."""
        self._process.communicate()

    def _read(self) -> str:
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            self._errors.seek(0)
            text = self._errors.read()[-3000:]
            raise RuntimeError(f"{self.title} ended with exit code {code}.\n{text}")
        return line.strip()


def compete(entries: Sequence[Contestant], rounds: int) -> dict[str, list[float]]:
    """Lets all take turns; title -> seconds of each turn."""
    seconds: dict[str, list[float]] = {entry.title: [] for entry in entries}
    with contextlib.ExitStack() as running:
        for entry in entries:
            entry.start(running.enter_context(tempfile.TemporaryFile("w+")))
            running.callback(entry.stop)
            entry.seconds()  # imports, caches; everyone's first turn is slow
            entry.processor_seconds.clear()
        for number in range(rounds):
            # There and back: what one leaves in the caches is not always the same one's luck.
            for entry in entries if number % 2 == 0 else reversed(entries):
                seconds[entry.title].append(entry.seconds())
    return seconds


def speed(count: int, seconds: Sequence[float]) -> str:
    """Median and range of how many items were done in a second."""
    rates = sorted(count / s for s in seconds)
    return f"{statistics.median(rates):,.0f} images/s ({rates[0]:,.0f} to {rates[-1]:,.0f})"


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """Median and range, over the rounds, of our speed divided by theirs."""
    ratios = sorted(t / o for o, t in zip(ours, theirs, strict=True))
    return f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"


def tell(count: int, seconds: Mapping[str, Sequence[float]], against: Mapping[str, str]) -> None:
    """Prints a line for each contestant.

    Args:
        count: items of a turn.
        seconds: title -> seconds of each turn.
        against: title -> the title that it is compared with.
    """
    for title, turns in seconds.items():
        compared = against.get(title)
        told = f"; ours is {ratio(seconds[compared], turns)} of it" if compared else ""
        say(title, speed(count, turns) + told)


def tell_processor(count: int, entries: Sequence[Contestant], against: Mapping[str, str]) -> None:
    """Prints the same by the time of the processor, of those that use one core."""
    seconds = {e.title: e.processor_seconds for e in entries if e.cores == 1}
    say("by the time of the processor, of which a neighbour takes none:", "")
    tell(count, {title: turns for title, turns in seconds.items() if turns}, against)


def say(what: str, found: str) -> None:
    """Prints one finding."""
    sys.stdout.write(f"{what:68} {found}\n")
    sys.stdout.flush()
