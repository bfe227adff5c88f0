import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pipelines.local.run import run_pipeline
from trainer.errors import UserError


class Watcher:
    """Keeps the status of all tasks at each moment."""

    def __init__(self):
        self.seen = []

    def show(self, run):
        self.seen.append({name: task.status for name, task in run.tasks.items()})


@pytest.fixture
def run(tmp_path):
    def start(text, parameters=None, jobs=4, **options):
        return run_pipeline(text, parameters or {}, tmp_path, Watcher(), jobs, **options)

    return start


def test_values_and_artifacts_reach_the_tasks_that_take_them(run, compiled, container):
    write = (
        "import pathlib, sys; pathlib.Path(sys.argv[1]).write_text('42 ');"
        "pathlib.Path(sys.argv[2]).write_text(sys.argv[3])"
    )
    read = (
        "import pathlib, sys;"
        "print(sys.argv[1], pathlib.Path(sys.argv[2]).read_text(), sys.argv[3:])"
    )
    record = run(
        compiled(
            {"data": "", "word": "default"},
            write=container(
                write,
                "{{$.outputs.parameters['number'].output_file}}",
                "{{$.outputs.artifacts['page'].path}}",
                "{{$.inputs.parameters['word']}}",
                inputs={"word": "pipeline:word"},
                outputs=["number"],
                artifacts=["page"],
            ),
            read=container(
                read,
                "{{$.inputs.parameters['number']}}",
                "{{$.inputs.artifacts['page'].path}}",
                "{{$.inputs.parameters['data']}}",
                "{{$.inputs.parameters['fixed']}}",
                inputs={
                    "number": "write.number",
                    "page": "write/page",
                    "data": "pipeline:data",
                    "fixed": "=<{{$.inputs.parameters['number']}}>",
                },
            ),
        ),
        {"word": "{{$}} héllo"},
    )
    assert (record.status, record.exit_code) == ("succeeded", 0)
    folder = Path(record.folder)
    # The empty text arrives as an argument of its own.
    assert record.log("read").read_text() == "42  {{$}} héllo ['', '<42 >']\n"
    assert record.artifact("page") == folder / "write" / "page"
    assert record.artifact("nothing") is None
    saved = json.loads((folder / "run.json").read_text())
    assert saved["status"] == "succeeded"
    assert saved["parameters"] == {"data": "", "word": "{{$}} héllo"}
    assert saved["tasks"]["write"]["parameters"] == {"number": "42 "}
    assert saved["tasks"]["write"]["exit_code"] == 0
    assert saved["tasks"]["read"]["started"] >= saved["tasks"]["write"]["ended"]


def test_metadata_that_a_task_notes_go_with_its_artifact(run, compiled, container):
    note = (
        "import json, sys; e = json.loads(sys.argv[1])['outputs'];"
        "a = e['artifacts']['metrics']['artifacts'][0]; a['metadata'] = {'loss': 0.5};"
        "open(e['outputFile'], 'w').write(json.dumps("
        "{'artifacts': {'metrics': {'artifacts': [a]}}, 'parameterValues': {'best': 'x'}}))"
    )
    show = "import sys; print(*sys.argv[1:])"
    record = run(
        compiled(
            note=container(note, "{{$}}", artifacts=["metrics"], outputs=["best"]),
            show=container(
                show,
                "{{$.inputs.artifacts['metrics'].metadata['loss']}}",
                "{{$.inputs.parameters['best']}}",
                inputs={"metrics": "note/metrics", "best": "note.best"},
            ),
        )
    )
    assert record.log("show").read_text() == "0.5 x\n"
    assert record.tasks["note"].artifacts["metrics"]["metadata"] == {"loss": 0.5}


def test_independent_tasks_run_at_the_same_time(run, compiled, container):
    # Each waits for the other's file: one after the other they would never end.
    meet = (
        "import pathlib, sys, time; pathlib.Path(sys.argv[1]).touch()\n"
        "while not pathlib.Path(sys.argv[2]).exists(): time.sleep(0.01)"
    )
    here, there = "{{$.pipeline_root}}/here", "{{$.pipeline_root}}/there"
    record = run(
        compiled(first=container(meet, here, there), second=container(meet, there, here)), jobs=2
    )
    assert record.status == "succeeded"


def test_no_more_tasks_run_at_once_than_allowed(tmp_path, compiled, container):
    watcher = Watcher()
    text = compiled(**{f"t{i}": container("") for i in range(6)})
    record = run_pipeline(text, {}, tmp_path, watcher, jobs=2)
    assert record.status == "succeeded"
    assert max(list(moment.values()).count("running") for moment in watcher.seen) == 2


def test_a_task_waits_for_those_it_must_come_after(tmp_path, compiled, container):
    watcher = Watcher()
    run_pipeline(
        compiled(b=container("", after=["a"]), a=container("")), {}, tmp_path, watcher, jobs=4
    )
    for moment in watcher.seen:
        if moment["b"] != "waiting":
            assert moment["a"] == "succeeded"


@pytest.mark.parametrize(("code", "expected"), [(1, 1), (2, 2), (3, 1), (75, 75)])
def test_the_exit_code_of_a_failing_task_decides_that_of_the_run(
    run, compiled, container, code, expected
):
    record = run(
        compiled(fail=container(f"exit({code})"), later=container("", after=["fail"])), jobs=1
    )
    assert (record.status, record.exit_code) == ("failed", expected)
    assert (record.tasks["fail"].status, record.tasks["fail"].exit_code) == ("failed", code)
    assert (record.tasks["later"].status, record.tasks["later"].started) == ("cancelled", None)


def test_every_failure_is_reported_as_one(tmp_path, compiled, container):
    # Containers that fail at once are what another runner has taken for successes.
    text = compiled(fail={**container(""), "command": ["sh", "-c", "exit 3"]})
    codes = [
        run_pipeline(text, {}, tmp_path, Watcher()).tasks["fail"].exit_code for _ in range(200)
    ]
    assert codes == [3] * 200


def test_a_failure_ends_what_runs(run, compiled, container):
    record = run(
        compiled(
            slow=container("import time; print('on', flush=True); time.sleep(60)"),
            fail=container("import time; time.sleep(0.3); exit(2)"),
        )
    )
    assert record.tasks["slow"].status == "cancelled"
    assert record.tasks["slow"].exit_code == 128 + signal.SIGTERM
    assert record.exit_code == 2


def test_a_task_that_will_not_end_is_made_to(run, compiled, container):
    stubborn = (
        "import signal, pathlib, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "pathlib.Path(sys.argv[1]).touch(); time.sleep(60)"
    )
    fail = (
        "import pathlib, sys, time\n"
        "while not pathlib.Path(sys.argv[1]).exists(): time.sleep(0.01)\n"
        "exit(1)"
    )
    mark = "{{$.pipeline_root}}/mark"
    record = run(
        compiled(stubborn=container(stubborn, mark), fail=container(fail, mark)), grace_seconds=0.2
    )
    assert record.tasks["stubborn"].exit_code == 128 + signal.SIGKILL


def test_what_a_task_leaves_running_is_ended_with_it(run, compiled, container):
    leave = (
        "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', "
        "'import time; time.sleep(60)']); print(p.pid)"
    )
    record = run(compiled(leave=container(leave)))
    assert record.status == "succeeded"
    assert _gone(int(record.log("leave").read_text()))


def test_a_program_that_is_not_there_is_a_failure_with_a_reason(run, compiled, container):
    record = run(compiled(a={**container(""), "command": ["no-such-program-here"]}))
    assert (record.status, record.tasks["a"].exit_code) == ("failed", 127)
    assert "No such file" in record.tasks["a"].reason
    assert "no-such-program-here" in record.log("a").read_text()


def test_a_missing_output_parameter_is_a_failure(run, compiled, container):
    record = run(compiled(a=container("", outputs=["number"])))
    assert (record.status, record.exit_code) == ("failed", 1)
    assert "number" in record.tasks["a"].reason


def test_a_killed_task_is_a_failure(run, compiled, container):
    record = run(compiled(a=container("import os; os.kill(os.getpid(), 9)")))
    assert (record.exit_code, record.tasks["a"].exit_code) == (1, 137)
    assert "memory" in record.tasks["a"].reason


def test_tasks_run_by_this_interpreter_in_a_folder_of_their_own(run, compiled, container):
    script = "import os, sys; print(sys.executable, os.getcwd(), os.environ['PAPER2HUB_PROGRESS'])"
    task = container("")
    record = run(compiled(a={**task, "command": ["python", "-c", script]}))
    work = f"{record.folder}/tasks/a"
    assert record.log("a").read_text().split() == [sys.executable, work, f"{work}/progress.json"]


def test_nothing_starts_where_something_is_wrong(tmp_path, compiled, container):
    with pytest.raises(UserError, match=r"got 'dta'\. Did you mean 'data'"):
        run_pipeline(compiled({"data": ""}), {"dta": "x"}, tmp_path, Watcher())
    with pytest.raises(UserError, match="logs"):
        run_pipeline(compiled(logs=container("")), {}, tmp_path, Watcher())
    with pytest.raises(UserError, match="At least 1 task"):
        run_pipeline(compiled(), {}, tmp_path, Watcher(), jobs=0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_all_tasks_and_then_the_run(tmp_path, compiled, container, number, code):
    task = container(
        "import os, pathlib, sys, time; pathlib.Path(sys.argv[1]).write_text(str(os.getpid()));"
        "os.rename(sys.argv[1], sys.argv[1] + '.pid'); time.sleep(60)",
        "{{$.pipeline_root}}/mark",
    )
    file = tmp_path / "pipeline.yaml"
    file.write_text(compiled(a=task, b=container("", after=["a"])))
    command = [sys.executable, "-c", _RUNNER, str(file), str(tmp_path / "runs")]
    with subprocess.Popen(command) as runner:
        try:
            mark = _wait_for(tmp_path / "runs", "*/mark.pid")
            runner.send_signal(number)
            assert runner.wait(timeout=_PATIENCE_SECONDS) == code
        finally:
            runner.kill()
    assert _gone(int(mark.read_text()))
    saved = json.loads((mark.parent / "run.json").read_text())
    assert (saved["status"], saved["exit_code"]) == ("interrupted", code)
    assert {n: t["status"] for n, t in saved["tasks"].items()} == {
        "a": "cancelled",
        "b": "cancelled",
    }


def test_it_runs_in_a_thread_too(tmp_path, compiled, container):
    records = []
    text = compiled(a=container(""))
    thread = threading.Thread(
        target=lambda: records.append(run_pipeline(text, {}, tmp_path, Watcher()))
    )
    thread.start()
    thread.join()
    assert records[0].status == "succeeded"


_PATIENCE_SECONDS = 300  # a busy machine takes its time; a quiet one never waits for it
_RUNNER = """
import sys
from rich.console import Console
from pipelines.local.display import Lines
from pipelines.local.run import run_pipeline
text = open(sys.argv[1]).read()
sys.exit(run_pipeline(text, {}, sys.argv[2], Lines(Console())).exit_code)
"""


def _wait_for(folder, pattern):
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline:
        for path in folder.glob(pattern):
            return path
        time.sleep(0.02)
    raise TimeoutError(pattern)


def _gone(pid):
    """Whether a process has ended, given a moment for the system to take it away."""
    for _ in range(100):
        try:
            os.kill(pid, 0)
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            if state == "Z":
                return True
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.02)
    return False
