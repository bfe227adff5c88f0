import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

from pipelines.local.record import hold, read_run
from pipelines.local.run import Options, resume_run, run_pipeline
from trainer.errors import TryAgain, UserError


class Watcher:
    """Is shown the run and shows nothing."""

    def show(self, run):
        assert run.tasks is not None


def most_at_once(record):
    """How many tasks ran at the same time."""
    tasks = record.tasks.values()
    return max(sum(t.started <= other.started < t.ended for t in tasks) for other in tasks)


@pytest.fixture
def run(tmp_path):
    def start(text, parameters=None, jobs=4, **options):
        chosen = Options(jobs=jobs, **options)
        return run_pipeline(text, parameters or {}, tmp_path, Watcher(), chosen)

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
    assert record.artifact("page") == folder / "tasks" / "write" / "outputs" / "page"
    assert record.artifact("nothing") is None
    saved = json.loads((folder / "run.json").read_text())
    assert saved["status"] == "succeeded"
    assert saved["parameters"] == {"data": "", "word": "{{$}} héllo"}
    assert saved["tasks"]["read"]["status"] == "succeeded"
    write, read = (json.loads((folder / "tasks" / n / "task.json").read_text()) for n in _TWO)
    assert (write["parameters"], write["exit_code"]) == ({"number": "42 "}, 0)
    assert read["started"] >= write["ended"]
    assert read_run(folder).tasks == record.tasks


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
    text = compiled(**{f"t{i}": container("import time; time.sleep(0.3)") for i in range(6)})
    record = run_pipeline(text, {}, tmp_path, Watcher(), Options(jobs=2))
    assert record.status == "succeeded"
    assert most_at_once(record) == 2


def test_a_task_waits_for_those_it_must_come_after(tmp_path, compiled, container):
    text = compiled(b=container("", after=["a"]), a=container("import time; time.sleep(0.2)"))
    record = run_pipeline(text, {}, tmp_path, Watcher(), Options(jobs=4))
    assert record.tasks["b"].started >= record.tasks["a"].ended


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
    # Tasks that fail at once are what another runner has taken for successes.
    codes = [3 * (i % 2) for i in range(300)]
    tasks = {
        f"t{i}": {**container(""), "command": ["sh", "-c", f"exit {code}"]}
        for i, code in enumerate(codes)
    }
    record = run_pipeline(compiled(**tasks), {}, tmp_path, Watcher(), Options(jobs=8))
    assert [record.tasks[f"t{i}"].exit_code for i in range(300)] == codes


def test_what_does_not_depend_on_a_failure_goes_on(run, compiled, container):
    record = run(
        compiled(
            fail=container("exit(1)"),
            slow=container("import time; time.sleep(0.3)"),
            after_slow=container("", after=["slow"]),
            after_fail=container("", after=["fail"]),
        )
    )
    assert (record.status, record.exit_code) == ("failed", 1)
    assert record.tasks["after_slow"].status == "succeeded"
    assert record.tasks["after_fail"].status == "cancelled"
    assert record.tasks["after_fail"].reason == "fail failed."


def test_failing_fast_ends_what_runs(run, compiled, container):
    record = run(
        compiled(
            slow=container("import time; print('on', flush=True); time.sleep(60)"),
            fail=container("import time; time.sleep(0.5); exit(2)"),
        ),
        fail_fast=True,
    )
    assert record.tasks["slow"].status == "cancelled"
    assert record.tasks["slow"].exit_code == 128 + signal.SIGTERM
    assert record.exit_code == 2


def test_a_task_that_will_not_end_is_made_to(run, compiled, container):
    stubborn = (
        "import signal, pathlib, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "pathlib.Path(sys.argv[1]).touch(); time.sleep(60)"
    )
    mark = "{{$.pipeline_root}}/mark"
    record = run(compiled(stubborn=container(stubborn, mark)), timeout=1.5, grace_seconds=0.2)
    assert (record.status, record.tasks["stubborn"].exit_code) == ("failed", 124)
    assert record.tasks["stubborn"].reason == "It took longer than 1.5 s."
    assert record.tasks["stubborn"].seconds < 30


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


def test_a_missing_output_parameter_is_a_failure(run, compiled, container):
    record = run(compiled(a=container("", outputs=["number"])))
    assert record.status == "failed"
    assert "number" in record.tasks["a"].reason


def test_a_killed_task_is_a_failure(run, compiled, container):
    record = run(compiled(a=container("import os; os.kill(os.getpid(), 9)")))
    assert (record.exit_code, record.tasks["a"].exit_code) == (1, 137)
    assert "memory" in record.tasks["a"].reason


def test_tasks_run_by_this_interpreter_in_a_folder_of_their_own(run, compiled, container):
    script = "import os, sys; print(sys.executable, os.getcwd(), os.environ['PAPER2HUB_PROGRESS'])"
    task = container("")
    record = run(compiled(a={**task, "command": ["python", "-c", script]}))
    own = f"{record.folder}/tasks/a"
    printed = record.log("a").read_text().split()
    assert printed == [sys.executable, f"{own}/work", f"{own}/progress.json"]


def test_nothing_starts_where_something_is_wrong(tmp_path, compiled, container):
    with pytest.raises(UserError, match=r"got 'dta'\. Did you mean 'data'"):
        run_pipeline(compiled({"data": ""}), {"dta": "x"}, tmp_path, Watcher())
    with pytest.raises(UserError, match="At least 1 task"):
        run_pipeline(compiled(), {}, tmp_path, Watcher(), Options(jobs=0))
    with pytest.raises(UserError, match=r"got 'b', which is none"):
        run_pipeline(compiled(a=container("")), {}, tmp_path, Watcher(), Options(timeouts={"b": 1}))
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
    with runner(file, tmp_path) as process:
        mark = _wait_for(tmp_path / "runs", "*/mark.pid")
        process.send_signal(number)
        assert process.wait(timeout=_PATIENCE_SECONDS) == code
    assert _gone(int(mark.read_text()))
    saved = json.loads((mark.parent / "run.json").read_text())
    assert (saved["status"], saved["exit_code"]) == ("interrupted", code)
    assert {n: t["status"] for n, t in saved["tasks"].items()} == {
        "a": "cancelled",
        "b": "cancelled",
    }


@pytest.fixture
def stages(compiled, container):
    """The text of three tasks, one after another, of which the second waits for a file."""
    give = "import pathlib, sys; p = pathlib.Path(sys.argv[1]); p.write_text(sys.argv[2] + '!')"
    hold_on = (
        "import os, pathlib, sys, time\n"
        "pathlib.Path(sys.argv[3]).write_text(str(os.getpid()))\n"
        "while not pathlib.Path(sys.argv[4]).exists(): time.sleep(0.02)\n"
        "pathlib.Path(sys.argv[1]).write_text(pathlib.Path(sys.argv[2]).read_text() + '?')"
    )
    count = "open(sys.argv[3], 'a').write('x')"
    return compiled(
        {"go": ""},
        first=container(
            f"{give}; {count}",
            "{{$.outputs.artifacts['page'].path}}",
            "text",
            "{{$.pipeline_root}}/count",
            artifacts=["page"],
        ),
        second=container(
            hold_on,
            "{{$.outputs.artifacts['page'].path}}",
            "{{$.inputs.artifacts['page'].path}}",
            "{{$.pipeline_root}}/pid",
            "{{$.inputs.parameters['go']}}",
            inputs={"page": "first/page", "go": "pipeline:go"},
            artifacts=["page"],
        ),
        third=container(
            give,
            "{{$.outputs.artifacts['last'].path}}",
            "{{$.inputs.artifacts['page'].path}}",
            inputs={"page": "second/page"},
            artifacts=["last"],
        ),
    )


@pytest.mark.parametrize("victim", ["engine", "task", "both"])
def test_a_killed_run_goes_on_where_it_was(stages, tmp_path, victim):
    file, go = tmp_path / "pipeline.yaml", tmp_path / "go"
    file.write_text(stages)
    with runner(file, tmp_path, go) as process:
        mark = _wait_for(tmp_path / "runs", "*/pid")
        pid = _number_in(mark)
        if victim != "engine":
            os.kill(pid, signal.SIGKILL)
        if victim != "task":
            process.kill()
        process.wait(timeout=_PATIENCE_SECONDS)
    assert _gone(pid)
    go.touch()
    record = resume_run(mark.parent, Watcher())
    assert (record.status, record.resumed) == ("succeeded", 1)
    assert (
        record.artifact("last").read_text() == f"{record.tasks['second'].artifacts['page']['uri']}!"
    )
    assert Path(record.tasks["second"].artifacts["page"]["uri"]).read_text() == "text!?"
    assert (mark.parent / "count").read_text() == "x"  # the first was not run again
    with pytest.raises(UserError, match="something left to do"):
        resume_run(mark.parent, Watcher())


def test_what_was_damaged_since_is_made_again(stages, tmp_path):
    file, go = tmp_path / "pipeline.yaml", tmp_path / "go"
    file.write_text(stages)
    with runner(file, tmp_path, go) as process:
        mark = _wait_for(tmp_path / "runs", "*/pid")
        process.kill()
        process.wait(timeout=_PATIENCE_SECONDS)
    (mark.parent / "tasks" / "first" / "outputs" / "page").write_text("other")
    go.touch()
    record = resume_run(mark.parent, Watcher())
    assert Path(record.tasks["second"].artifacts["page"]["uri"]).read_text() == "text!?"
    assert (mark.parent / "count").read_text() == "xx"


def test_a_run_has_one_engine_at_a_time(run, compiled, container):
    record = run(compiled(a=container("exit(1)")))
    with hold(record.folder), pytest.raises(TryAgain, match="one engine at a time"):
        hold(record.folder, seconds=0.1).__enter__()


def test_a_failed_run_can_be_resumed_and_its_log_is_kept(run, compiled, container):
    script = (
        "import pathlib, sys; p = pathlib.Path(sys.argv[1]); print('here', p.exists())\n"
        "if not p.exists(): p.touch(); exit(1)"
    )
    record = run(compiled(a=container(script, "{{$.pipeline_root}}/mark")))
    assert record.status == "failed"
    again = resume_run(record.folder, Watcher())
    assert again.status == "succeeded"
    assert again.log("a").read_text() == "here False\n--- attempt 1 ---\nhere True\n"


@pytest.mark.parametrize("goes_on", ["1", ""])
def test_a_step_that_says_so_finds_what_its_last_attempt_left(run, compiled, container, goes_on):
    script = (
        "import pathlib, sys; p = pathlib.Path(sys.argv[1]); p.mkdir(exist_ok=True)\n"
        "(p / str(len(list(p.iterdir())))).touch(); exit(len(list(p.iterdir())) < 3)"
    )
    task = container(script, "{{$.outputs.artifacts['kept'].path}}", artifacts=["kept"])
    spec = yaml.safe_load(compiled(a=task))
    variable = {"name": "PAPER2HUB_GOES_ON", "value": goes_on}
    spec["deploymentSpec"]["executors"]["exec-a"]["container"]["env"] = [variable]
    spec["root"]["dag"]["tasks"]["a"]["retryPolicy"] = {"maxRetryCount": 1}
    record = run(yaml.safe_dump(spec))
    assert (record.status, record.tasks["a"].attempts) == ("failed", 2)
    if goes_on:
        assert resume_run(record.folder, Watcher()).status == "succeeded"
        assert len(list(record.task_folder("a").glob("outputs/kept/*"))) == 3
    else:
        assert resume_run(record.folder, Watcher()).status == "failed"


@pytest.mark.parametrize(("goes_on", "code", "attempts"), [("1", 2, 1), ("", 2, 3), ("1", 75, 3)])
def test_what_the_caller_has_to_mend_is_not_tried_again(
    run, compiled, container, goes_on, code, attempts
):
    spec = yaml.safe_load(compiled(a=container(f"exit({code})")))
    variable = {"name": "PAPER2HUB_GOES_ON", "value": goes_on}
    spec["deploymentSpec"]["executors"]["exec-a"]["container"]["env"] = [variable]
    spec["root"]["dag"]["tasks"]["a"]["retryPolicy"] = {"maxRetryCount": 2}
    record = run(yaml.safe_dump(spec))
    assert (record.exit_code, record.tasks["a"].attempts) == (code, attempts)


def test_what_fails_before_it_starts_is_not_tried_for_ever(run, compiled, container):
    task = container("", "{{$.inputs.parameters['n']}}", inputs={"n": "write.n"})
    write = "import sys; open(sys.argv[1], 'w').write('no number')"
    file = "{{$.outputs.parameters['n'].output_file}}"
    spec = yaml.safe_load(compiled(write=container(write, file, outputs=["n"]), a=task))
    spec["components"]["comp-a"]["inputDefinitions"]["parameters"]["n"] = {
        "parameterType": "NUMBER_INTEGER"
    }
    spec["root"]["dag"]["tasks"]["a"]["retryPolicy"] = {"maxRetryCount": 2}
    record = run(yaml.safe_dump(spec))
    assert (record.status, record.exit_code, record.tasks["a"].attempts) == ("failed", 2, 3)
    assert "n must be of type NUMBER_INTEGER" in record.tasks["a"].reason


def test_tasks_that_do_not_fit_together_run_one_after_another(tmp_path, compiled, container):
    spec = yaml.safe_load(compiled(**{f"t{i}": container("") for i in range(3)}))
    for executor in spec["deploymentSpec"]["executors"].values():
        executor["container"]["resources"] = {"resourceMemoryLimit": "600M"}
    text = yaml.safe_dump(spec)
    record = run_pipeline(text, {}, tmp_path, Watcher(), Options(jobs=3, memory=1_000_000_000))
    assert record.status == "succeeded"
    assert most_at_once(record) == 1
    with pytest.raises(UserError, match=r"t0 asks for 572\.2 MiB of memory.*--memory"):
        run_pipeline(text, {}, tmp_path, Watcher(), Options(memory=500_000_000))


def test_variables_reach_the_tasks_and_nothing_else(run, compiled, container):
    script = "import os; print(os.environ['TOKEN'][::-1])"
    record = run(compiled(a=container(script)), variables={"TOKEN": "very-secret"})
    assert record.log("a").read_text() == "terces-yrev\n"
    for file in Path(record.folder).rglob("*"):
        assert not file.is_file() or b"very-secret" not in file.read_bytes()


def test_it_runs_in_a_thread_too(tmp_path, compiled, container):
    records = []
    text = compiled(a=container(""))
    thread = threading.Thread(
        target=lambda: records.append(run_pipeline(text, {}, tmp_path, Watcher()))
    )
    thread.start()
    thread.join()
    assert records[0].status == "succeeded"


_TWO = ("write", "read")
_PATIENCE_SECONDS = 300  # a busy machine takes its time; a quiet one never waits for it
_RUNNER = """
import sys
from rich.console import Console
from pipelines.local.display import Lines
from pipelines.local.run import run_pipeline
text = open(sys.argv[1]).read()
values = {"go": sys.argv[3]} if sys.argv[3] else {}
sys.exit(run_pipeline(text, values, sys.argv[2], Lines(Console())).exit_code)
"""


@contextlib.contextmanager
def runner(file, folder, go=""):
    """The engine in a process of its own."""
    command = [sys.executable, "-c", _RUNNER, str(file), str(folder / "runs"), str(go)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


def _number_in(file):
    """The number in a file that may just be being written."""
    for _ in range(1000):
        with contextlib.suppress(ValueError):
            return int(file.read_text())
        time.sleep(0.01)
    raise TimeoutError(file)


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
