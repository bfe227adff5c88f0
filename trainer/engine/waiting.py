"""How much of its time a training loop waits for its input (standard library only)."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


@dataclasses.dataclass
class _Spent:
    """Seconds that a loop took in all, and those of them that it waited."""

    seconds: float = 0.0
    waited: float = 0.0

    @property
    def share(self) -> float:
        return self.waited / self.seconds if self.seconds > 0 else 0.0


class Waiting:
    """Measures the time that a loop waits for its next batch beside the time it takes in all.

    Only time within a loop over `batches` counts: what happens between two loops, such as an
    evaluation, does not. Where the device works on while the host waits, the share is an upper
    bound of the time that the device is idle.

    Args:
        clock: tells seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._total = _Spent()
        self._window = _Spent()
        self._told: float | None = None  # when the time since then was last added; None: no loop

    def batches(self, source: Iterable[Item]) -> Iterator[Item]:
        """Yields what the source does; the time that the source takes is waiting."""
        self._told = self._clock()
        try:
            iterator = iter(source)
            while True:
                self._add(waited=False)
                try:
                    item = next(iterator)
                except StopIteration:
                    return
                finally:
                    self._add(waited=True)
                yield item
        finally:
            self._add(waited=False)
            self._told = None

    @property
    def share(self) -> float:
        """The share of the loops' time, since the first one began, that was waiting: 0 to 1."""
        self._add(waited=False)
        return self._total.share

    def rates(self, examples: int) -> dict[str, float]:
        """What the loop achieved since the last call, and begins anew.

        Args:
            examples: how many were worked on since then.

        Returns:
            `examples_per_second` of the loop's time, and `input_share`, the share of it that was
            waiting, 0 to 1.
        """
        self._add(waited=False)
        window, self._window = self._window, _Spent()
        rate = examples / window.seconds if window.seconds > 0 else 0.0
        return {"examples_per_second": rate, "input_share": window.share}

    def _add(self, waited: bool) -> None:
        if self._told is None:
            return
        now = self._clock()
        for spent in (self._total, self._window):
            spent.seconds += now - self._told
            spent.waited += (now - self._told) * waited
        self._told = now
