"""Runs tasks as processes of this machine: the container's command in this environment."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from pipelines.local import code, spawner
from pipelines.local.cache import FOLDER
from pipelines.local.digest import of_value
from pipelines.local.graph import Graph
from pipelines.local.launcher import NOT_KNOWN, Job, Running
from trainer.artifact import write_text
from trainer.errors import UserError
from trainer.progress import GOES_ON, PROGRESS_FILE

WARM_MODULES = ("tensorflow",)
"""What takes seconds to import and can be forked afterwards; measured by `make bench-local`."""

_WARM_TASKS = 2
"""So many tasks must need such a module before it is imported on their behalf (ours)."""

_NO_MATTER = {"PATH", "PYTHONUNBUFFERED", PROGRESS_FILE, GOES_ON}
"""Variables that change nothing about what an import does."""

_BINARIES = str(Path(sys.executable).parent)
_INSTALL = re.compile(r"python3 -m pip install (?P<arguments>.*?)(?= && |\n|$)", re.DOTALL)


class Subprocesses:
    """Starts every task in a process group of its own, by way of a spawner.

    `python` is this very interpreter. Where a component of KFP's own kind would install packages
    before it starts, what is installed already is left alone, and the rest goes to an environment
    on top of this one, below the cache.
    """

    name = "subprocess"

    def __init__(self) -> None:
        self._cold: _Spawner | None = None
        self._warm: _Spawner | None = None
        self._lock = threading.Lock()
        self._root = Path()
        self._run_lock = -1
        self._expected: list[tuple[str, ...]] = []
        self._making = threading.Lock()
        self._installing: _Child | None = None

    def check(self, graph: Graph) -> tuple[str, ...]:
        """See `Launcher`."""
        wishes = set()
        for path, container in graph.containers():
            if not container.command:
                raise UserError(
                    f"A task must have a command to run as a process; {path} relies on that of its "
                    "image. Run it with --docker."
                )
            resources = container.resources
            wishes |= {"cpuLimit"} if resources.cpu else set()
            wishes |= {"accelerator"} if resources.accelerator else set()
            wishes |= {"memoryLimit"} if resources.memory else set()
        return tuple(sorted(wishes))

    def begin(self, root: Path, run: str, lock: int) -> None:
        """See `Launcher`."""
        self.close()
        self._root, self._run_lock = root, lock
        self._cold = _Spawner((), lock)  # it starts while the engine looks into the cache

    def expect(self, commands: Sequence[tuple[str, ...]]) -> None:
        """See `Launcher`."""
        self._expected = list(commands)

    def identity(self, image: str, command: Sequence[str], values: Sequence[str]) -> dict[str, Any]:
        """See `Launcher`."""
        return code.identity(command, values)

    def start(self, job: Job) -> Running:
        """See `Launcher`."""
        environment = {
            "PATH": os.pathsep.join([_BINARIES, os.environ.get("PATH", os.defpath)]),
            "PYTHONUNBUFFERED": "1",
            **job.environment,
        }
        command, packages = _without_installing(job.command)
        if packages:
            binaries = self._environment(packages, job.log)
            environment["PATH"] = f"{binaries}{os.pathsep}{environment['PATH']}"
        elif code.PYTHON.fullmatch(command[0]):
            command = (sys.executable, *command[1:])
        module = code.module_of(command)
        message = {
            "start": job.identity,
            "folder": str(job.folder),
            "log": str(job.log),
            "environment": environment,
        }
        if module and set(environment) <= _NO_MATTER and not packages:
            warm = self._warm_for(module)
            if warm is not None:
                return warm.start({**message, "module": module, "arguments": list(command[3:])})
        return self._spawner().start({**message, "command": list(command)})

    def hurry(self) -> None:
        """See `Launcher`."""
        warm, installing = self._warm, self._installing
        if warm is not None:
            warm.give_up()
        if installing is not None:
            installing.end(at_once=True)

    def close(self) -> None:
        """See `Launcher`."""
        with self._lock:
            for each in (self._warm, self._cold):
                if each is not None:
                    each.close()
            self._warm = self._cold = None

    def _spawner(self) -> _Spawner:
        with self._lock:
            if self._cold is None:
                raise OSError("the run has ended")
            self._warm_up()  # it imports while the first tasks, which do not need it, are at work
            return self._cold

    def _warm_up(self) -> None:
        """Starts the warm spawner where enough of what is expected would import what it has."""
        if self._warm is None and sum(map(_needs_warm, self._expected)) >= _WARM_TASKS:
            self._warm = _Spawner(WARM_MODULES, self._run_lock)

    def _warm_for(self, module: str) -> _Spawner | None:
        """The warm spawner, where the module profits from it and it can be had."""
        if not _needs_warm(("python", "-m", module)):
            return None
        with self._lock:
            self._warm_up()
            warm = self._warm
        return warm if warm is not None and warm.is_warm() else None

    def _environment(self, packages: Sequence[str], log: Path) -> Path:
        """Makes, or finds, an environment on top of this one with further packages.

        Returns:
            Its folder of programs.

        Raises:
            UserError: the packages could not be installed.
        """
        key = of_value([sorted(packages), code.environment()])[:16]
        folder = self._root / FOLDER / "environments" / key
        with self._making:
            if not (folder / "complete").is_file():
                self._make_environment(folder, packages, log)
        return folder / "bin"

    def _make_environment(self, folder: Path, packages: Sequence[str], log: Path) -> None:
        """A virtual environment that sees this one's packages and has others besides."""
        shutil.rmtree(folder, ignore_errors=True)
        python = str(folder / "bin" / "python")
        self._do([sys.executable, "-m", "venv", str(folder)], packages, log)
        own = [place for place in sys.path if place.endswith("site-packages")]
        below = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
        text = "".join(f"import site; site.addsitedir({place!r})\n" for place in own)
        write_text(folder / below / "beneath.pth", text)
        self._do([python, "-m", "pip", "install", "--quiet", *packages], packages, log)
        write_text(folder / "complete", "")

    def _do(self, command: list[str], packages: Sequence[str], log: Path) -> None:
        """Runs one command of an installation, as a task is run: it must not outlive the engine."""
        message = {
            "start": f"install {command[-1]} {time.monotonic_ns()}",
            "folder": str(log.parent),
            "log": str(log),
            "environment": {},
            "command": command,
        }
        self._installing = self._spawner().start(message)
        try:
            code_ = self._installing.wait(None)
        finally:
            self._installing = None
        if code_:
            raise UserError(
                f"The packages {', '.join(packages)} must be installable; pip could not, "
                "see the log. Install them here, or run with --docker."
            )


class _Spawner:
    """The engine's end of a spawner: one process that starts others."""

    def __init__(self, modules: Sequence[str], lock: int):
        ours, theirs = socket.socketpair()
        flags = ["-P"] if modules else ["-I", "-S"]
        numbers = [theirs.fileno(), *([lock] if lock >= 0 else [])]
        self._process = subprocess.Popen(
            [
                *(sys.executable, *flags, spawner.__file__),
                *(str(theirs.fileno()), str(lock if lock >= 0 else theirs.fileno())),
                *modules,
            ],
            pass_fds=numbers,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the engine
        )
        theirs.close()
        self._socket = ours
        self._sending = threading.Lock()
        self._children: dict[str, _Child] = {}
        self._gone = False
        self._warmth = threading.Event()
        self._is_warm = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def start(self, message: Mapping[str, Any]) -> _Child:
        identity = message["start"]
        child = _Child(self, identity)
        self._children[identity] = child
        if self._gone or not self.send(message):
            self._children.pop(identity, None)
            raise OSError("the process that starts tasks is gone")
        child.started.wait()
        if child.error:
            raise OSError(child.error)
        return child

    def give_up(self) -> None:
        """Ends a spawner that still imports."""
        if not self._warmth.is_set():
            self._process.kill()

    def is_warm(self) -> bool:
        """Waits for the imports; False where they failed or are not safe to fork."""
        self._warmth.wait()
        return self._is_warm and not self._gone

    def send(self, message: Mapping[str, Any]) -> bool:
        try:
            with self._sending:
                self._socket.sendall(spawner.frame(dict(message)))
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Closes the socket, at which the spawner kills what is left and ends."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._process.wait()
        self._reader.join()
        self._socket.close()

    def _read(self) -> None:
        with self._socket.makefile("rb") as messages:
            try:
                while header := messages.read(4):
                    self._take(json.loads(messages.read(struct.unpack("!I", header)[0])))
            except (OSError, ValueError, struct.error):
                pass
        self._gone = True
        self._warmth.set()
        for child in list(self._children.values()):
            child.finish(NOT_KNOWN, "the process that starts tasks is gone")

    def _take(self, message: Mapping[str, Any]) -> None:
        match message:
            case {"warm": warm}:
                self._is_warm = warm
                self._warmth.set()
            case {"started": identity}:
                self._children[identity].started.set()
            case {"failed": identity, "error": error}:
                self._children.pop(identity).finish(NOT_KNOWN, error)
            case {"ended": identity, "code": code_}:
                self._children.pop(identity).finish(code_)


class _Child:
    """A task that a spawner has started."""

    def __init__(self, parent: _Spawner, identity: str):
        self.parent = parent
        self.identity = identity
        self.started = threading.Event()
        self.ended = threading.Event()
        self.code = 0
        self.error = ""

    def finish(self, code_: int, error: str = "") -> None:
        self.code, self.error = code_, error
        self.ended.set()
        self.started.set()

    def wait(self, seconds: float | None) -> int | None:
        return self.code if self.ended.wait(seconds) else None

    def end(self, at_once: bool) -> None:
        number = signal.SIGKILL if at_once else signal.SIGTERM
        self.parent.send({"signal": self.identity, "number": int(number)})

    def reason(self) -> str:
        if self.error:
            return f"It was lost: {self.error}."
        if self.code == 128 + signal.SIGKILL:
            return "It was killed; most often by the system, for want of memory."
        if self.code > 128:
            with contextlib.suppress(ValueError):
                return f"It was ended by {signal.Signals(self.code - 128).name}."
        return ""


def _needs_warm(command: Sequence[str]) -> bool:
    module = code.module_of(command)
    return bool(module and code.third_party(module) & set(WARM_MODULES))


def _without_installing(command: tuple[str, ...]) -> tuple[tuple[str, ...], list[str]]:
    """The command without KFP's installing of packages, and the packages that are not here.

    KFP's components are `sh -c 'install … && "$0" "$@"' rest`; the rest is what they do.
    """
    is_kfp = (
        len(command) > 3
        and command[:2] == ("sh", "-c")
        and command[2].rstrip().endswith('"$0" "$@"')
        and "python3 -m pip install" in command[2]
    )
    if not is_kfp:
        return command, []
    asked = []
    for match in _INSTALL.finditer(command[2]):
        words = shlex.split(match["arguments"])
        asked += [word for word in words if not word.startswith("-")]
    return command[3:], [package for package in asked if not _installed(package)]


def _installed(requirement: str) -> bool:
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        wanted = Requirement(requirement)
    except InvalidRequirement:
        return False
    if wanted.marker is not None and not wanted.marker.evaluate():
        return True  # not wanted here
    try:
        version = metadata.version(wanted.name)
    except metadata.PackageNotFoundError:
        return False
    if wanted.name == "kfp":
        return True  # whatever version is here can run what any version of 2 has compiled
    return wanted.url is None and wanted.specifier.contains(version, prereleases=True)
