"""The local runner beside kfp.local, and what it must hold, in one run: `make bench-local`.

    python -m tests.bench.local [parallel] [overhead] [model] [again] [codes] [kills] [interrupt]
        [parity]

Without a name: all of them. Those that need Docker say so where there is no daemon.
"""

from __future__ import annotations

import collections
import contextlib
import io
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pipelines.local.containers import Containers
from pipelines.local.launcher import Launcher
from pipelines.local.parity import compare
from pipelines.local.record import RunRecord, read_run, run_folders
from pipelines.local.run import Options, run_pipeline
from tests.bench import local_pipelines
from trainer.errors import UserError

PAPER2HUB = [sys.executable, "-m", "pipelines"]
FAN = 200
KILLS = 50
MODEL = "autoencoder"


class Silence:
    """A display that shows nothing."""

    def show(self, run: RunRecord) -> None:
        pass


def compiled(pipeline: Any, folder: Path) -> Path:
    """The compiled pipeline as a file."""
    from kfp import compiler

    file = folder / f"{pipeline.name}.yaml"
    compiler.Compiler().compile(pipeline, str(file))
    return file


def ours(
    pipeline: Any, folder: Path, jobs: int, launcher: Launcher | None = None, **parameters: Any
) -> tuple[RunRecord, float]:
    """A run by this runner and its seconds."""
    text = compiled(pipeline, folder).read_text(encoding="utf-8")
    began = time.monotonic()
    options = Options(jobs=jobs, cache=False)
    record = run_pipeline(text, parameters, folder / "runs", Silence(), options, launcher)
    return record, time.monotonic() - began


def theirs(pipeline: Any, folder: Path, **parameters: Any) -> float:
    """Seconds of the same pipeline by kfp.local."""
    from kfp import local

    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(folder / "kfp"))
    began = time.monotonic()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        pipeline(**parameters)
    return time.monotonic() - began


def parallel(folder: Path) -> None:
    """Two independent tasks of 3 s."""
    record, seconds = ours(local_pipelines.two_waits, folder, jobs=2)
    peer = theirs(local_pipelines.two_waits, folder)
    say("two 3 s tasks at -j2", f"{record.status} in {seconds:.2f} s (at most 3.4)")
    say("  kfp.local", f"{peer:.2f} s, {peer / seconds:.1f}x ours")


def overhead(folder: Path) -> None:
    """What the engine adds to a task's own process, in a fan-out, one task after another."""
    numbers = list(range(FAN))
    record, seconds = ours(local_pipelines.fan_out, folder, jobs=1, numbers=numbers)
    by_hand = again_by_hand(record)
    peer = theirs(local_pipelines.fan_out, folder, numbers=numbers)
    each = (seconds - by_hand) / FAN
    say(f"{FAN} tasks, one after another", f"{record.status} in {seconds:.1f} s")
    say("  the same commands by hand", f"{by_hand:.1f} s")
    say("  the engine's part of a task", f"{1000 * each:.1f} ms (at most 50)")
    theirs_each = (peer - by_hand) / FAN
    say("  kfp.local", f"{peer:.1f} s, {1000 * theirs_each:.0f} ms of a task are its own part")
    say("  ratio of the own parts", f"{theirs_each / max(each, 1e-4):.1f} (at least 3)")
    fast, seconds = ours(local_pipelines.fan_out, folder, os.cpu_count() or 1, numbers=numbers)
    say(
        f"  the same at -j{os.cpu_count()}",
        f"{fast.status} in {seconds:.1f} s, kfp.local takes {peer / seconds:.1f}x as long",
    )


def again_by_hand(record: RunRecord) -> float:
    """Seconds that the commands of a run take one after another without any engine."""
    commands = [t.command for t in record.tasks.values() if t.kind == "container"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    began = time.monotonic()
    for command in commands:
        # KFP's installing is left out, as the engine leaves it out.
        kept = (
            command[3:] if command[:2] == ("sh", "-c") and "pip install" in command[2] else command
        )
        subprocess.run(
            kept,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
        )
    return time.monotonic() - began


def model(folder: Path) -> None:
    """A whole model: against its own commands in one shell script."""
    root = folder / "runs"
    began = time.monotonic()
    subprocess.run(
        [*PAPER2HUB, "run", MODEL, "--root", str(root), "--no-cache"],
        stdout=subprocess.DEVNULL,
        check=True,
    )
    seconds = time.monotonic() - began
    record = read_run(run_folders(root)[-1])
    steps = [t for t in record.tasks.values() if t.kind == "container"]
    own = sum(task.seconds or 0.0 for task in steps)
    script = folder / "by_hand.sh"
    lines = ["#!/bin/sh", "set -e"]
    moved = str(folder / "by_hand")
    for task in steps:
        command = [sys.executable, *task.command[1:]]
        lines.append(shlex.join(part.replace(record.folder, moved) for part in command))
    script.write_text("\n".join(lines) + "\n", encoding="utf-8")
    began = time.monotonic()
    subprocess.run(
        ["sh", str(script)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True
    )
    by_hand = time.monotonic() - began
    say(f"the whole {MODEL} pipeline", f"{seconds:.1f} s from command to prompt, report and all")
    say("  of which not the steps' own", f"{seconds - own:.1f} s")
    say("  its commands in a shell script", f"{by_hand:.1f} s, {by_hand / seconds:.2f}x ours")
    for path, task in record.tasks.items():
        say(f"    {path}", f"{task.seconds:.1f} s")


def again(folder: Path) -> None:
    """A run of which nothing has changed."""
    root = folder / "runs"
    command = [*PAPER2HUB, "run", MODEL, "--root", str(root)]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    times = []
    for _ in range(3):
        began = time.monotonic()
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        times.append(time.monotonic() - began)
    record = read_run(run_folders(root)[-1])
    states = collections.Counter(task.status for task in record.tasks.values())
    say(
        f"{MODEL} unchanged",
        f"{dict(states)} in {min(times):.2f} to {max(times):.2f} s, "
        "command to prompt (at most 1.5)",
    )


def codes(folder: Path) -> None:
    """Tasks that end at once, well and badly: none may be taken for the other."""
    count_codes(folder, "processes", 2000, None)
    with docker() as launcher:
        if launcher:
            count_codes(folder, "containers", 300, launcher)


def count_codes(folder: Path, what: str, count: int, launcher: Launcher | None) -> None:
    wanted = [0, 1] * count
    random.Random(0).shuffle(wanted)  # noqa: S311
    record, seconds = ours(local_pipelines.exit_codes, folder, 8, launcher, codes=wanted)
    tasks = {path: t for path, t in record.tasks.items() if t.kind == "container"}
    told = [tasks[f"for-loop-1/{n}/leave"].status for n in range(len(wanted))]
    right = sum(s == ("failed" if c else "succeeded") for s, c in zip(told, wanted, strict=True))
    counts = collections.Counter(told)
    say(
        f"{2 * count} {what} that end at once",
        f"{right} told as they ended, {dict(counts)}, {seconds:.0f} s",
    )


def kills(folder: Path) -> None:
    """Runs of which the engine or a task is killed at some instant, taken up until they end."""
    file = compiled(local_pipelines.diamonds, folder)
    chance = random.Random(1)  # noqa: S311
    undisturbed, seconds = ours(local_pipelines.diamonds, folder, jobs=2)
    wanted = digests(undisturbed)
    finished = equal = resumed = left = 0
    victims: collections.Counter[str] = collections.Counter()
    for number in range(KILLS):
        root = folder / f"kills-{number}"
        process = start([*PAPER2HUB, "run", str(file), "--root", str(root), "-j2", "--no-cache"])
        victim = chance.choice(["engine", "task"])
        time.sleep(chance.uniform(0.0, seconds + 0.5))
        victims[kill(victim, process, root)] += 1
        process.wait()
        for _ in range(3):
            folders = run_folders(root)
            if not folders:  # it was killed before there was a run: there is nothing to resume
                start([*PAPER2HUB, "run", str(file), "--root", str(root), "--no-cache"]).wait()
                continue
            if read_run(folders[0]).status == "succeeded":
                break
            start([*PAPER2HUB, "resume", str(folders[0])]).wait()
            resumed += 1
        record = read_run(run_folders(root)[0])
        finished += record.status == "succeeded"
        equal += digests(record) == wanted
        left += len(processes_of(root))
        shutil.rmtree(root, ignore_errors=True)
    say(
        f"{KILLS} runs killed",
        f"{dict(victims)}; {resumed} resumed, {finished} finished, "
        f"{equal} byte-identical, {left} processes left",
    )


def interrupt(folder: Path) -> None:
    """Ctrl-C while tasks run that do not listen."""
    file = compiled(local_pipelines.stubborn, folder)
    for what in ("processes", "containers"):
        options = [] if what == "processes" else ["--docker"]
        root = folder / what
        engine = start([*PAPER2HUB, "run", str(file), "--root", str(root), *options])
        while engine.poll() is None and len(list(root.glob("*/tasks/*/log.txt"))) < 2:
            time.sleep(0.1)
        time.sleep(0.5)
        if engine.poll() is not None:
            say(what, "left out: they could not be started")
            continue
        began = time.monotonic()
        engine.send_signal(signal.SIGINT)
        code = engine.wait()
        seconds = time.monotonic() - began
        left = len(processes_of(root))
        say(
            f"Ctrl-C, two {what} that do not listen",
            f"exit code {code} after {seconds:.1f} s (at most 5), {left} processes left",
        )


def start(command: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def kill(victim: str, engine: subprocess.Popen[bytes], root: Path) -> str:
    """Kills the engine, or one of the processes below it; what it was in the end."""
    tasks = [pid for pid in processes_of(root) if pid != engine.pid]
    if victim == "task" and tasks:
        with contextlib.suppress(ProcessLookupError):
            os.kill(random.choice(tasks), signal.SIGKILL)  # noqa: S311
        return "task"
    if engine.poll() is None:
        engine.kill()
        return "engine"
    return "nothing any more"


def processes_of(root: Path) -> list[int]:
    """All processes that have to do with the runs of a folder."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            with contextlib.suppress(OSError):
                command = (process / "cmdline").read_bytes()
                place = (process / "cwd").readlink()
                if str(root).encode() in command or place.is_relative_to(root):
                    found.append(int(process.name))
    return found


def digests(record: RunRecord) -> dict[str, Any]:
    """What the tasks of a run gave."""
    return {
        path: (dict(task.digests), dict(task.parameters))
        for path, task in record.tasks.items()
        if task.kind == "container"
    }


def parity(folder: Path) -> None:
    """The same three pipelines as processes and in containers."""
    with docker() as launcher:
        if launcher is None:
            return
    for pipeline in (local_pipelines.diamonds, local_pipelines.branches):
        with docker() as launcher:
            one, _ = ours(pipeline, folder, 2)
            other, _ = ours(pipeline, folder, 2, launcher)
            tell_differences(pipeline.name, one, other)
    command = [*PAPER2HUB, "parity", MODEL, "--set", "epochs=1", "--root", str(folder / "parity")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    say(f"parity of {MODEL}", done.stdout.strip().splitlines()[-1] if done.stdout else done.stderr)


def tell_differences(name: str, one: RunRecord, other: RunRecord) -> None:
    differences = compare(one, other)
    say(f"parity of {name}", f"{one.status} and {other.status}, {len(differences)} differences")
    for difference in differences:
        say("", difference)


@contextlib.contextmanager
def docker() -> Iterator[Launcher | None]:
    """The Docker launcher; None, and a word about it, where there is no daemon."""
    try:
        yield Containers()
    except UserError as error:
        say("containers", f"left out: {error}")
        yield None


def say(what: str, found: str) -> None:
    # kfp.local leaves a `print` of its own behind, which indents.
    sys.stdout.write(f"{what:42} {found}\n")
    sys.stdout.flush()


def main() -> None:
    chapters: dict[str, Callable[[Path], None]] = {
        function.__name__: function
        for function in (parallel, overhead, model, again, codes, kills, interrupt, parity)
    }
    warnings.simplefilter("ignore")
    unknown = set(sys.argv[1:]) - set(chapters)
    if unknown:
        sys.exit(f"Name chapters among {', '.join(chapters)}; got {', '.join(sorted(unknown))}.")
    for name in sys.argv[1:] or chapters:
        with tempfile.TemporaryDirectory() as folder:
            chapters[name](Path(folder))
    say("machine", f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
