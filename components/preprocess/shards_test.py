import threading
import time
from pathlib import Path

import numpy as np
import pytest

from components.preprocess.shards import (
    FAILURE,
    Tally,
    _in_order,
    named,
    raise_failure,
    read_examples,
    told,
)
from components.preprocess.storage import Folder
from trainer.data.examples import encode_example
from trainer.data.records import RecordWriter
from trainer.dataset import Feature
from trainer.errors import UserError


def test_results_keep_their_order_and_few_are_computed_ahead() -> None:
    begun: list[int] = []

    def slow(number: int) -> int:
        begun.append(number)
        time.sleep(0.02 if number % 2 == 0 else 0)
        return number**2

    results = _in_order(slow, range(20), threads=2)
    first = next(results)
    assert (first, max(begun)) == (0, 2)
    assert [first, *results] == [number**2 for number in range(20)]


def test_threads_work_side_by_side() -> None:
    meeting = threading.Barrier(3, timeout=10)
    assert len(list(_in_order(lambda _: meeting.wait(), range(3), threads=3))) == 3


def test_what_a_thread_raises_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        list(_in_order(lambda number: 1 // number, [1, 0, 1, 1, 1], threads=2))


def test_an_error_of_the_user_travels_by_file(tmp_path: Path) -> None:
    draft = Folder(str(tmp_path))
    with told(draft):
        raise UserError("Something must hold.")
    assert draft.files() == [FAILURE]
    with pytest.raises(UserError, match="Something must hold"):
        raise_failure(draft)
    raise_failure(draft)  # told once
    with pytest.raises(ZeroDivisionError), told(draft):
        raise ZeroDivisionError


def test_examples_are_read_as_they_are_stored(tmp_path: Path) -> None:
    features = {"key": Feature("bytes"), "box": Feature("float32", (None, 4))}
    rows = [{"key": b"%d" % n, "box": np.ones((n, 4), np.float32)} for n in range(3)]
    with RecordWriter(tmp_path / "a.tfrecord") as writer:
        for row in rows:
            writer.write(encode_example(features, row))
    found = list(read_examples(Folder(str(tmp_path)), "a.tfrecord", features))
    assert [example["box"].shape for example in found] == [(0, 4), (1, 4), (2, 4)]


def test_any_key_can_be_written_down() -> None:
    assert named({"key": "n02 épagneul 犬".encode()}) == "n02 épagneul 犬"
    assert named({"key": b"\xff\xfe"}) == "\\xff\\xfe"


def test_a_tally_tells_what_is_new() -> None:
    tally = Tally()
    tally.add(2)
    tally.add(3)
    assert (tally.take(), tally.take()) == (5, 0)
