"""One task as a group of processes that starts, ends and is ended as one."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

NOT_STARTED = 127
"""Exit code of a command that could not be started, as in a shell."""


def start(
    command: Sequence[str], folder: Path, log: Path, environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Starts a command in a process group of its own, all it prints going to the log.

    `python` is this very interpreter, so that a step finds what is installed here.

    Args:
        command: the program and its arguments.
        folder: where it runs.
        log: file for its standard output and error; replaced.
        environment: variables to set beside those of this process.

    Raises:
        OSError: the program could not be started; the log says why.
    """
    if command[0] in ("python", "python3"):
        command = (sys.executable, *command[1:])
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "wb") as output:
        try:
            return subprocess.Popen(
                command,
                cwd=folder,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            output.write(f"{command[0]} could not be started: {error.strerror}\n".encode())
            raise


def poll(process: subprocess.Popen[bytes]) -> int | None:
    """The exit code once the command has ended, None before.

    What it left running in its group is ended with it. A command ended by a signal has the exit
    code 128 and the signal's number, as in a shell.
    """
    code = process.poll()
    if code is None:
        return None
    _signal(process, signal.SIGKILL)
    return code if code >= 0 else 128 - code


def end(
    processes: Iterable[subprocess.Popen[bytes]],
    grace_seconds: float,
    impatient: Callable[[], bool] = lambda: False,
) -> None:
    """Asks the groups to end and, once the grace is over or `impatient` says so, makes them."""
    ending = list(processes)
    for process in ending:
        _signal(process, signal.SIGTERM)
    deadline = time.monotonic() + grace_seconds
    while (
        any(process.poll() is None for process in ending)
        and time.monotonic() < deadline
        and not impatient()
    ):
        time.sleep(0.02)
    for process in ending:
        _signal(process, signal.SIGKILL)
        process.wait()


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Signals the whole group; its number is that of its first process."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
