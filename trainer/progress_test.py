import json
from pathlib import Path

import pytest

from trainer.progress import PROGRESS_FILE, Progress, describe, duration


def test_the_file_always_holds_the_newest_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "progress.json"
    monkeypatch.setenv(PROGRESS_FILE, str(file))
    progress = Progress(4, "images")
    assert json.loads(file.read_text())["done"] == 0
    progress.advance(3)
    progress.advance(1, {"loss": 0.5})
    state = json.loads(file.read_text())
    assert (state["done"], state["total"], state["unit"]) == (4, 4, "images")
    assert state["seconds_left"] == 0
    assert state["figures"] == {"loss": 0.5}
    assert capsys.readouterr().err == ""


def test_without_the_file_the_end_is_told_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(PROGRESS_FILE, raising=False)
    progress = Progress(2, "images")
    progress.advance()
    progress.advance()
    assert capsys.readouterr().err.startswith("2/2 images, ")


def test_a_line_says_how_far_how_fast_and_how_long() -> None:
    state = {
        "done": 1200,
        "total": 4000,
        "unit": "images",
        "per_second": 850.4,
        "seconds_left": 3.3,
        "figures": {"loss": 0.09412},
    }
    assert describe(state) == "1,200/4,000 images, 850 images/s, 3 s left, loss 0.09412"
    unknown = {**state, "total": None, "seconds_left": None, "per_second": 0.5, "figures": {}}
    assert describe(unknown) == "1,200 images, 0.5 images/s"


def test_the_share_of_waiting_comes_first_and_in_percent() -> None:
    state = {
        "done": 64,
        "total": None,
        "unit": "examples",
        "per_second": 100.0,
        "seconds_left": None,
        "figures": {"generator_loss": 0.5, "waiting": 0.031},
    }
    assert describe(state) == "64 examples, 100 examples/s, waiting 3 %, generator loss 0.5"
    assert "waiting" in state["figures"]  # type: ignore[operator]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (99.4, "99 s"),
        (100, "2 min"),
        (5999, "100 min"),
        (6000, "1.7 h"),
        (360_000, "4.2 d"),
    ],
)
def test_a_long_time_is_told_in_larger_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text
