from collections.abc import Iterator

import pytest

from trainer.engine.waiting import Waiting


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def slow(clock: Clock, batches: int, seconds: float) -> Iterator[int]:
    for number in range(batches):
        clock.now += seconds
        yield number


def test_the_share_is_waiting_over_all_time_in_the_loop() -> None:
    clock = Clock()
    waiting = Waiting(clock)
    assert waiting.share == 0.0
    seen = []
    for batch in waiting.batches(slow(clock, 4, 1.0)):
        seen.append(batch)
        clock.now += 3.0
    assert seen == [0, 1, 2, 3]
    assert waiting.share == 4 / 16
    assert waiting.rates(32) == {"examples_per_second": 2.0, "input_share": 0.25}


def test_a_window_holds_what_came_since_the_last_one() -> None:
    clock = Clock()
    waiting = Waiting(clock)
    windows = []
    for batch in waiting.batches(slow(clock, 2, 1.0)):
        clock.now += 1.0 if batch == 0 else 9.0
        windows.append(waiting.rates(10))
    assert windows == [
        {"examples_per_second": 5.0, "input_share": 0.5},
        {"examples_per_second": 1.0, "input_share": 0.1},
    ]
    assert waiting.rates(0) == {"examples_per_second": 0.0, "input_share": 0.0}
    assert waiting.share == 2 / 12


def test_time_between_two_loops_does_not_count() -> None:
    clock = Clock()
    waiting = Waiting(clock)
    for _ in range(2):
        for _ in waiting.batches(slow(clock, 1, 1.0)):
            clock.now += 1.0
        clock.now += 1000.0  # an evaluation
    assert waiting.share == 0.5
    assert waiting.rates(8) == {"examples_per_second": 2.0, "input_share": 0.5}


def test_a_loop_that_breaks_off_stops_counting() -> None:
    clock = Clock()
    waiting = Waiting(clock)
    batches = waiting.batches(slow(clock, 9, 1.0))
    next(batches)
    clock.now += 1.0
    batches.close()  # type: ignore[attr-defined]
    clock.now += 1000.0
    assert waiting.share == 0.5


def test_an_error_of_the_source_passes_and_its_time_was_waiting() -> None:
    clock = Clock()
    waiting = Waiting(clock)

    def failing() -> Iterator[int]:
        clock.now += 2.0
        raise OSError("gone")
        yield 0

    with pytest.raises(OSError, match="gone"):
        list(waiting.batches(failing()))
    assert waiting.share == 1.0
