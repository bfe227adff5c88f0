import dataclasses
import io
import json

import pytest
from rich.console import Console

from pipelines.local.display import Lines, LiveTable, display_for, print_failures
from pipelines.local.progress import read_progress
from pipelines.local.record import RunRecord, TaskRecord, now

STATE = {
    "done": 1200,
    "total": 4000,
    "unit": "images",
    "per_second": 850.0,
    "seconds_left": 3.0,
    "figures": {"loss": 0.094},
}
LINE = "1,200/4,000 images, 850 images/s, 3 s left, loss 0.094"


@pytest.fixture
def run(tmp_path):
    record = RunRecord(
        run="test-1",
        pipeline="test",
        folder=str(tmp_path),
        parameters={},
        launcher="subprocess",
        tasks={name: TaskRecord("waiting") for name in ("train", "report")},
        status="running",
        started=now(),
    )
    file = record.progress("train")
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(STATE))
    return record


def having(run, name, **changes):
    return dataclasses.replace(
        run, tasks={**run.tasks, name: dataclasses.replace(run.tasks[name], **changes)}
    )


def console(width=120, **options):
    return Console(file=io.StringIO(), width=width, **options)


def test_lines_tell_starts_ends_and_progress_once_each(run):
    screen = console()
    with Lines(screen, every_seconds=0) as lines:
        lines.show(run)
        running = having(run, "train", status="running", started=now())
        lines.show(running)
        lines.show(running)  # nothing new to tell
        done = having(running, "train", status="succeeded", seconds=3.14, exit_code=0)
        lines.show(having(done, "report", status="failed", seconds=0.5, exit_code=2))
    assert screen.file.getvalue().splitlines() == [
        "train: started",
        f"train: {LINE}",
        "train: succeeded in 3.1 s",
        "report: failed after 0.5 s with exit code 2",
    ]


def test_lines_are_silent_for_a_while(run):
    screen = console()
    lines = Lines(screen, every_seconds=60)
    for _ in range(3):
        lines.show(having(run, "train", status="running", started=now()))
    assert screen.file.getvalue() == "train: started\n"


def test_the_table_has_every_task_and_how_far_it_is(run):
    screen = console()
    table = LiveTable(screen)
    table.show(having(run, "train", status="running", started=now()))
    screen.print(table.render())
    shown = screen.file.getvalue()
    assert LINE in shown
    assert "test-1" in shown
    assert "waiting" in shown


def test_a_long_training_tells_hours_left_and_how_long_it_waits_for_input(run):
    figures = {"waiting": 0.042, "loss": 0.094}
    state = {**STATE, "seconds_left": 12_345.0, "figures": figures}
    run.progress("train").write_text(json.dumps(state))
    line = "1,200/4,000 images, 850 images/s, 3.4 h left, waiting 4 %, loss 0.094"
    running = having(run, "train", status="running", started="2026-01-01T00:00:00+00:00")
    screen = console(width=160)
    table = LiveTable(screen)
    table.show(running)
    screen.print(table.render())
    row = next(text for text in screen.file.getvalue().splitlines() if text.startswith("train"))
    assert row.split()[1] == "running" and row.split()[3] == "d"
    assert row.split()[4:6] == ["3.4", "h"] and line in row
    screen = console(width=160)
    lines = Lines(screen, every_seconds=0)
    lines.show(running)
    lines.show(running)
    assert screen.file.getvalue().splitlines()[1] == f"train: {line}"


def test_a_narrow_terminal_cuts_nothing_but_the_progress(run):
    screen = console(width=72)
    table = LiveTable(screen)
    table.show(having(run, "train", status="running", started=now()))
    screen.print(table.render())
    shown = screen.file.getvalue()
    assert all(name in shown for name in run.tasks)
    assert "running" in shown and "0 s" in shown and "loss" not in shown


def test_the_table_tells_the_time_left_from_the_step_or_from_the_last_run(run):
    for name, left in (("train", "3 s"), ("report", "60 s")):
        screen = console()
        table = LiveTable(screen, {"train": 100.0, "report": 60.4})
        table.show(having(run, name, status="running", started=now()))
        screen.print(table.render())
        row = next(line for line in screen.file.getvalue().splitlines() if line.startswith(name))
        assert row.split()[1:6] == ["running", "0", "s", *left.split()]


def test_a_long_table_shows_what_is_at_work_and_counts_the_rest(run):
    tasks = {f"t{i}": TaskRecord("succeeded", seconds=1.0) for i in range(500)}
    tasks["t7"] = TaskRecord("running", started=now())
    tasks["t8"] = TaskRecord("failed", seconds=1.0, exit_code=1)
    screen = console()
    table = LiveTable(screen)
    table.show(dataclasses.replace(run, tasks=tasks))
    screen.print(table.render())
    lines = screen.file.getvalue().splitlines()
    assert len(lines) < 50
    assert "1 failed, 1 running, 498 succeeded" in lines[0]
    assert {"t7", "t8", "t499"} <= {line.split()[0] for line in lines}


def test_lines_tell_what_was_cached_and_what_was_skipped(run):
    screen = console()
    lines = Lines(screen)
    cached = having(run, "train", status="cached", cache="taken from run-1", seconds=0.1)
    lines.show(cached)
    lines.show(having(cached, "report", status="skipped", kind="dag"))
    assert screen.file.getvalue() == "train: cached, taken from run-1\nreport: skipped\n"


def test_lines_tell_of_another_attempt(run):
    screen = console()
    lines = Lines(screen)
    lines.show(having(run, "train", status="running", started=now()))
    lines.show(having(run, "train", status="waiting", seconds=1.0, exit_code=75))
    assert screen.file.getvalue().splitlines()[1] == (
        "train: failed after 1.0 s with exit code 75, to be tried again"
    )


def test_the_table_is_for_terminals():
    assert isinstance(display_for(console(force_terminal=True)), LiveTable)
    assert isinstance(display_for(console(force_terminal=False)), Lines)


def test_the_table_leaves_a_terminal_as_it_was(run):
    screen = console(force_terminal=True)
    with display_for(screen) as display:
        display.show(having(run, "report", status="failed", seconds=0.5, exit_code=1))
    assert "failed" in screen.file.getvalue()


def test_failures_show_the_end_of_their_log(run):
    run.log("train").write_text("".join(f"line [{i}]\n" for i in range(30)))
    failed = having(run, "train", status="failed", seconds=1.0, exit_code=137, reason="Killed [x].")
    screen = console()
    print_failures(failed, screen)
    shown = screen.file.getvalue()
    assert "train failed after 1.0 s with exit code 137. Killed [x]." in shown
    assert "line [29]" in shown
    assert "line [10]" in shown
    assert "line [9]" not in shown
    assert str(run.log("train")) in shown


@pytest.mark.parametrize("text", ["", "{", "[]", '{"done": 1}'])
def test_progress_that_is_not_whole_is_none(text, tmp_path):
    file = tmp_path / "progress.json"
    assert read_progress(file) is None
    file.write_text(text)
    assert read_progress(file) is None
