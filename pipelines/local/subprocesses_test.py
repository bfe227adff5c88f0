import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.local import subprocesses
from pipelines.local.launcher import Job
from pipelines.local.subprocesses import Subprocesses


@pytest.fixture
def launcher(tmp_path):
    found = Subprocesses()
    found.begin(tmp_path, "run", -1)
    yield found
    found.close()


def job(folder, *command, name="a", **environment):
    return Job(
        identity=name,
        task=name,
        image="",
        command=command,
        folder=folder,
        log=folder / f"{name}.log",
        environment=environment,
        writable=folder,
    )


def printed(folder, name="a"):
    return (folder / f"{name}.log").read_text()


def gone(pid):
    for _ in range(500):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.01)
    return False


def test_exit_codes_and_signals_are_told_as_in_a_shell(launcher, tmp_path):
    for script, code in (("exit 0", 0), ("exit 3", 3), ("kill -9 $$", 137), ("kill $$", 143)):
        assert launcher.start(job(tmp_path, "sh", "-c", script)).wait(None) == code


def test_a_program_that_is_missing_is_an_error(launcher, tmp_path):
    with pytest.raises(OSError, match="No such file"):
        launcher.start(job(tmp_path, "no-such-program"))


def test_a_broken_pipe_ends_a_command_as_in_a_shell(launcher, tmp_path):
    # With the signal ignored, as Python has it, `yes` would complain instead of being ended.
    script = "yes 2>&3 3>&1 | head -n 1"
    assert launcher.start(job(tmp_path, "sh", "-c", f"({script}) 3>&1")).wait(None) == 0
    assert printed(tmp_path) == "y\n"


def test_python_within_a_shell_is_this_one(launcher, tmp_path):
    script = "python -c 'import sys; print(sys.prefix)'; python3 -c 'import sys; print(sys.prefix)'"
    assert launcher.start(job(tmp_path, "sh", "-c", script)).wait(None) == 0
    assert printed(tmp_path).split() == [sys.prefix, sys.prefix]


DAEMON = (
    "import os, sys, time\n"
    "if os.fork() == 0:\n"
    "    os.setsid()\n"
    "    if os.fork() == 0:\n"
    "        open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(600)\n"
    "    os._exit(0)\n"
    "while not os.path.exists(sys.argv[1]) or not open(sys.argv[1]).read(): time.sleep(0.01)\n"
)


def test_a_daemon_that_a_task_leaves_in_a_session_of_its_own_is_ended(launcher, tmp_path):
    mark = tmp_path / "pid"
    assert launcher.start(job(tmp_path, sys.executable, "-c", DAEMON, str(mark))).wait(None) == 0
    assert gone(int(mark.read_text()))


@pytest.mark.parametrize("victim", ["engine", "spawner"])
def test_nothing_outlives_the_engine_or_its_spawner(tmp_path, victim):
    engine = (
        "import sys, time, pathlib\n"
        "from pipelines.local.subprocesses_test import job, DAEMON, Subprocesses\n"
        "folder = pathlib.Path(sys.argv[1]); launcher = Subprocesses()\n"
        "launcher.begin(folder, 'run', -1)\n"
        "script = DAEMON + 'time.sleep(600)'\n"
        "launcher.start(job(folder, sys.executable, '-c', script, str(folder / 'daemon')))\n"
        "running = launcher.start(job(folder, 'sleep', '600', name='b'))\n"
        "print(launcher._cold._process.pid, flush=True)\n"
        "code = running.wait(None); print(code, running.reason(), flush=True)\n"
    )
    command = [sys.executable, "-c", engine, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        spawner = int(process.stdout.readline())
        children = Path(f"/proc/{spawner}/task/{spawner}/children")
        for _ in range(500):
            mark = tmp_path / "daemon"
            if mark.is_file() and mark.read_text() and len(children.read_text().split()) >= 2:
                break
            time.sleep(0.01)
        below = [int(pid) for pid in children.read_text().split()]
        daemon = int(mark.read_text())
        os.kill(process.pid if victim == "engine" else spawner, signal.SIGKILL)
        if victim == "spawner":
            line = process.stdout.readline()
            assert "lost: the process that starts tasks is gone" in line
        process.wait(30)
    assert all(gone(pid) for pid in below if pid != daemon)
    if victim == "engine":
        assert gone(daemon) and gone(spawner)
    elif not gone(daemon):
        # The kernel tells children, not grandchildren, of the death of a killed spawner.
        os.kill(daemon, signal.SIGKILL)


def test_the_import_that_tasks_share_is_paid_once(launcher, tmp_path, monkeypatch):
    package = tmp_path / "shared" / "heavy_task"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text(
        "import os, sys\n"
        "already = 'tensorflow' in sys.modules\n"
        "import tensorflow as tf\n"
        "print(already, sys.argv[1:], os.getcwd(), __name__, float(tf.reduce_sum([1.0, 2.0])))\n"
        "sys.exit(int(sys.argv[1]))\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "shared"))
    monkeypatch.syspath_prepend(str(tmp_path / "shared"))
    launcher.begin(tmp_path, "run", -1)  # again, in that environment
    command = ("python", "-m", "heavy_task")
    launcher.expect([command, command])
    for name, code in (("a", 0), ("b", 3)):
        running = launcher.start(job(tmp_path, *command, str(code), name=name))
        assert running.wait(None) == code
        line = printed(tmp_path, name).splitlines()[-1]
        assert line == f"True ['{code}'] {tmp_path} __main__ 3.0"
    # A variable could change what an import does, so such a task begins with nothing imported.
    running = launcher.start(job(tmp_path, *command, "0", name="c", KERAS_BACKEND="jax"))
    assert running.wait(None) == 0
    assert printed(tmp_path, "c").splitlines()[-1].startswith("False")


def test_what_is_not_safe_to_fork_is_started_afresh(launcher, tmp_path, monkeypatch):
    package = tmp_path / "shared"
    package.mkdir()
    (package / "threaded.py").write_text(
        "import threading, time\n"
        "threading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
    )
    (package / "uses_threads.py").write_text(
        "import sys; print('threaded' in sys.modules); import threaded\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(package))
    monkeypatch.syspath_prepend(str(package))
    launcher.begin(tmp_path, "run", -1)  # again, in that environment
    monkeypatch.setattr(subprocesses, "WARM_MODULES", ("threaded",))
    monkeypatch.setattr(subprocesses, "_needs_warm", lambda command: True)
    command = ("python", "-m", "uses_threads")
    launcher.expect([command, command])
    assert launcher.start(job(tmp_path, *command)).wait(None) == 0
    assert printed(tmp_path) == "False\n"


def test_packages_that_are_here_are_not_installed_again():
    bootstrap = (
        '\nif ! [ -x "$(command -v pip)" ]; then\n    python3 -m ensurepip\nfi\n\n'
        "PIP_DISABLE_PIP_VERSION_CHECK=1 python3 -m pip install --quiet 'kfp==2.9.0' '--no-deps' "
        "'typing-extensions>=3.7.4,<5; python_version<\"3.9\"'  &&  python3 -m pip install "
        "--quiet 'pyyaml>=5' 'no-such-package==1' && \"$0\" \"$@\"\n"
    )
    command = ("sh", "-c", bootstrap, "sh", "-ec", "echo", "x")
    kept, missing = subprocesses._without_installing(command)
    assert kept == ("sh", "-ec", "echo", "x")
    assert missing == ["no-such-package==1"]
    other = ("sh", "-c", "pip install x")
    assert subprocesses._without_installing(other) == (other, [])
