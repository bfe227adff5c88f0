import dataclasses
import json

import pytest

from pipelines.local.history import find_task, summarise, usual_seconds
from pipelines.local.logs import read_logs
from pipelines.local.parity import compare
from pipelines.local.record import RunRecord, TaskRecord, find_run, hold, read_run
from trainer.errors import UserError


@pytest.fixture
def make(tmp_path):
    """Makes runs with two tasks, the later the number the later the run."""

    def run(number, status="succeeded", **train):
        record = RunRecord(
            run=f"test-{number}",
            pipeline="test",
            folder=str(tmp_path / f"test-{number}"),
            parameters={},
            launcher="subprocess",
            status=status,
            started=f"2026-01-0{number}T00:00:00.000Z",
        )
        record.set_task("loop/0/train", TaskRecord("succeeded", seconds=3.0, **train))
        record.set_task("loop/1/train", TaskRecord("failed", started="2", seconds=1.0))
        record.set_task("report", TaskRecord("cached", seconds=0.1, started="1"))
        record.write()
        return record

    return run


def test_runs_are_listed_the_oldest_first(make, tmp_path):
    make(2)
    make(1, status="running")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "run.json").write_text('{"format": 1, "started": "0"}')
    first, second = summarise(tmp_path)
    assert (first.run, first.status, second.run) == ("test-1", "killed", "test-2")
    assert second.tasks == {"succeeded": 1, "failed": 1, "cached": 1}
    with hold(tmp_path / "test-1"):
        assert summarise(tmp_path)[0].status == "running"


def test_a_run_is_found_by_what_names_it_alone(make, tmp_path):
    make(1)
    make(2)
    (tmp_path / "test-2").rename(tmp_path / "test-12")
    assert find_run("last", tmp_path).name == "test-12"
    assert find_run("test-1", tmp_path).name == "test-1"  # exact, although another begins so
    assert find_run(str(tmp_path / "test-12"), "elsewhere").name == "test-12"
    with pytest.raises(UserError, match="several begin so"):
        find_run("test", tmp_path)
    with pytest.raises(UserError, match="there is none such: test-1, test-12"):
        find_run("x", tmp_path)


def test_a_task_is_found_by_the_end_of_its_path(make):
    record = make(1)
    assert find_task(record, "report") == "report"
    assert find_task(record, "1/train") == "loop/1/train"
    with pytest.raises(UserError, match="several tasks end so: loop/0/train, loop/1/train"):
        find_task(record, "train")


def test_only_work_that_was_done_tells_how_long_it_takes(make, tmp_path):
    make(1)
    assert usual_seconds(tmp_path, "test") == {"loop/0/train": 3.0}
    assert usual_seconds(tmp_path, "other") == {}


def test_a_record_is_read_as_it_was_written(make):
    record = make(1, command=("a", "b"), parameters={"x": [1]})
    again = read_run(record.folder)
    assert again.tasks == record.tasks
    # An artifact that happens to hold such a file is no task.
    outputs = record.task_folder("report") / "outputs" / "x"
    outputs.mkdir(parents=True)
    (outputs / "task.json").write_text(json.dumps({"task": "y", "status": "failed"}))
    assert read_run(record.folder).tasks == record.tasks


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": 1}', '{"format": 2}'])
def test_what_is_no_run_is_refused(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(UserError, match="A run must be"):
        read_run(tmp_path)


def test_logs_come_in_the_order_of_the_tasks_start(make):
    record = make(1)
    record.log("loop/1/train").write_text("later\n")
    record.log("report").write_text("sooner\n")
    pieces = list(read_logs(record.folder, None, follow=True))
    assert pieces == [("report", "sooner\n"), ("loop/1/train", "later\n")]
    assert list(read_logs(record.folder, "1/train", follow=False)) == [("loop/1/train", "later\n")]


def test_logs_are_followed_while_the_run_goes_on(make):
    record = make(1, status="running")
    log = record.log("report")
    with hold(record.folder):
        log.write_text("one\n")
        pieces = read_logs(record.folder, None, follow=True)
        assert next(pieces) == ("report", "one\n")
        with log.open("a") as file:
            file.write("two\n")
        assert next(pieces) == ("report", "two\n")
    assert list(pieces) == []


def test_parity_names_every_difference(make):
    artifact = {"name": "m", "uri": "/1/m", "metadata": {"loss": 0.5}}
    one = make(1, parameters={"n": 1}, digests={"m": "a" * 64}, artifacts={"m": artifact})
    moved = {"m": {**artifact, "uri": "/2/m"}}
    same = make(2, parameters={"n": 1}, digests={"m": "a" * 64}, artifacts=moved)
    same.launcher = "docker"
    assert compare(one, same) == []
    other = {"m": {**artifact, "metadata": {"loss": 0.4}}}
    train = TaskRecord("failed", parameters={"n": 2}, digests={"m": "b" * 64}, artifacts=other)
    tasks = {**same.tasks, "loop/0/train": train, "extra": TaskRecord("skipped")}
    found = compare(one, dataclasses.replace(same, tasks=tasks, status="failed"))
    assert [line.partition(": subprocess")[0] for line in found] == [
        "the run",
        "loop/0/train",
        "loop/0/train: parameter n",
        "loop/0/train: content of m",
        "loop/0/train: metadata of m",
        "extra: only with docker",
    ]


def test_parity_leaves_out_what_no_two_runs_have_in_common(make):
    artifact = {"name": "m", "uri": "/m", "metadata": {"reproducible": False}}
    one = make(1, digests={"m": "a" * 64}, artifacts={"m": artifact})
    other = make(2, digests={"m": "b" * 64}, artifacts={"m": artifact})
    assert compare(one, other) == []
    told = {"m": {**artifact, "metadata": {"reproducible": True}}}
    one = make(1, digests={"m": "a" * 64}, artifacts=told)
    other = make(2, digests={"m": "b" * 64}, artifacts=told)
    assert len(compare(one, other)) == 1
