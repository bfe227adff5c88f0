"""Starts commands for the engine and sees to it that none of them outlives it.

A program of its own (standard library only; the engine calls it by its path). It is the parent of
all that the tasks start: orphans come to it (PR_SET_CHILD_SUBREAPER), and when the engine is gone,
however it went, the socket between the two closes and everything below it is killed. Should it be
killed itself, the kernel kills the commands that it started (PR_SET_PDEATHSIG).

With modules to import it is warm: a task that is `python -m module` is then a fork that has them
already. Nothing is forked unless the import has left no thread that a fork would break.

Messages are a length of 4 bytes and JSON. Here: {"start": id, "command" or "module" and
"arguments", "folder", "log", "environment"}, {"signal": id, "number"}. Back: {"warm": bool},
{"started": id, "pid"}, {"failed": id, "error"}, {"ended": id, "code"}.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import struct
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_TASK_VARIABLE = "PAPER2HUB_TASK"
_FORKED_VARIABLE = "PAPER2HUB_FORKED"  # components.train reads it; nothing is imported here
_HARMLESS_THREADS = ("jemalloc_bg_thd",)
"""Threads that start anew after a fork by themselves."""

_libc = ctypes.CDLL(None, use_errno=True)


class Spawner:
    """The commands that have been started, and the socket to the engine."""

    def __init__(self, engine: socket.socket):
        self.engine = engine
        self.identity_of: dict[int, str] = {}
        self.pid_of: dict[str, int] = {}
        self.unread = b""
        self.pid = os.getpid()

    def serve(self) -> None:
        """Does what the engine asks until it is gone."""
        read, write = os.pipe()
        os.set_blocking(write, False)
        os.set_blocking(read, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        with selectors.DefaultSelector() as selector:
            selector.register(self.engine, selectors.EVENT_READ)
            selector.register(read, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fileobj is self.engine:
                        if not self._receive():
                            return
                    else:
                        with contextlib.suppress(BlockingIOError):
                            os.read(read, 4096)
                        self.reap()

    def send(self, message: dict[str, Any]) -> None:
        """Tells the engine; an engine that is gone is noticed when reading."""
        with contextlib.suppress(OSError):
            self.engine.sendall(frame(message))

    def reap(self) -> None:
        """Takes the exit codes of what has ended, and ends what it has left behind."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            identity = self.identity_of.pop(pid, None)
            if identity is None:
                continue  # an orphan that was left here
            del self.pid_of[identity]
            _kill_group(pid)
            self._kill_strays(identity)
            code = os.waitstatus_to_exitcode(status)
            self.send({"ended": identity, "code": code if code >= 0 else 128 - code})

    def kill_everything(self) -> None:
        """Kills all that is below this process, and what it becomes the parent of meanwhile."""
        while True:
            for pid in self.pid_of.values():
                _kill_group(pid)
            for pid in _children():
                _kill_group(pid)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            self.pid_of.pop(self.identity_of.pop(pid, ""), None)
            if pid == 0:
                time.sleep(0.002)

    def _receive(self) -> bool:
        """Reads what there is; False once the engine is gone."""
        try:
            data = self.engine.recv(1 << 20)
        except ConnectionError:
            data = b""
        if not data:
            return False
        self.unread += data
        while len(self.unread) >= 4:
            (length,) = struct.unpack("!I", self.unread[:4])
            if len(self.unread) < 4 + length:
                break
            message = json.loads(self.unread[4 : 4 + length])
            self.unread = self.unread[4 + length :]
            self._do(message)
        return True

    def _do(self, message: dict[str, Any]) -> None:
        if "signal" in message:
            pid = self.pid_of.get(message["signal"])
            if pid is not None:
                _kill_group(pid, message["number"])
            return
        identity = message["start"]
        try:
            pid = self._start(message)
        except OSError as error:
            self.send({"failed": identity, "error": error.strerror or str(error)})
            return
        self.identity_of[pid], self.pid_of[identity] = identity, pid
        self.send({"started": identity, "pid": pid})

    def _start(self, message: dict[str, Any]) -> int:
        """Forks; a command that cannot be executed is an OSError here."""
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            self._become(message, write)
        os.close(write)
        with open(read, "rb") as pipe:
            error = pipe.read()
        if error:
            os.waitpid(pid, 0)
            raise OSError(int(error), os.strerror(int(error)))
        return pid

    def _become(self, message: dict[str, Any], errors: int) -> NoReturn:
        """In the child: becomes the task; the pipe for errors closes once it has."""
        try:
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != self.pid:
                os._exit(1)  # the parent died before the kernel was asked to tell
            os.setsid()
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            log = os.open(message["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            nothing = os.open(os.devnull, os.O_RDONLY)
            os.dup2(nothing, 0)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.chdir(message["folder"])
            os.environ.update(message["environment"])
            os.environ[_TASK_VARIABLE] = message["start"]
            if "module" not in message:
                # What Python ignores for itself, a shell and its like must not.
                for number in (signal.SIGPIPE, signal.SIGXFSZ):
                    signal.signal(number, signal.SIG_DFL)
                command = message["command"]
                os.execvp(command[0], command)  # noqa: S606  that is what it is for
            os.close(errors)
            os.close(self.engine.fileno())
        except OSError as error:
            with contextlib.suppress(OSError):
                os.write(errors, str(error.errno).encode())
            os._exit(127)
        _run_module(message["module"], message["arguments"])

    def _kill_strays(self, identity: str) -> None:
        """Kills what a task that has ended had put into groups of its own."""
        marks = f"{_TASK_VARIABLE}={identity}\0".encode()
        for pid in _children():
            if pid not in self.identity_of:
                with contextlib.suppress(OSError):
                    if marks in Path(f"/proc/{pid}/environ").read_bytes():
                        os.kill(pid, signal.SIGKILL)


def frame(message: dict[str, Any]) -> bytes:
    """A message as it is sent."""
    data = json.dumps(message).encode()
    return struct.pack("!I", len(data)) + data


def _run_module(module: str, arguments: list[str]) -> NoReturn:
    """Does what `python -m module` does, and leaves as it would."""
    import runpy
    import traceback

    os.environ[_FORKED_VARIABLE] = "1"
    sys.argv = [module, *arguments]
    sys.path.insert(0, str(Path.cwd()))
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()  # else all tasks would draw the same numbers
    code = 0
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as leaving:
        if isinstance(leaving.code, str):
            print(leaving.code, file=sys.stderr)
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    with contextlib.suppress(Exception):
        _leave_threads()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(code & 0xFF)


def _leave_threads() -> None:
    """What an interpreter does at its end: waits for threads, calls what asked to be called."""
    import atexit
    import threading

    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()


def _warm_up(modules: list[str]) -> bool:
    """Imports the modules; False where they are not here or have left threads behind."""
    # A pool of threads for linear algebra would not be there after a fork.
    held_back = [name for name in _THREAD_COUNTS if name not in os.environ]
    os.environ.update(dict.fromkeys(held_back, "1"))
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    gc.disable()
    try:
        for module in modules:
            importlib.import_module(module)
    except Exception:
        return False
    finally:
        for name in held_back:
            os.environ.pop(name, None)
        gc.freeze()
        gc.enable()
    names = [Path(t / "comm").read_text().strip() for t in Path("/proc/self/task").iterdir()]
    return len([name for name in names if name not in _HARMLESS_THREADS]) == 1


_THREAD_COUNTS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")


def _children() -> list[int]:
    """The processes whose parent this is."""
    try:
        text = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii")
        return [int(pid) for pid in text.split()]
    except OSError:
        return _children_by_search()


def _children_by_search() -> list[int]:
    """The same where the kernel keeps no list."""
    own, found = str(os.getpid()), []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                if (folder / "stat").read_text().rpartition(")")[2].split()[1] == own:
                    found.append(int(folder.name))
    return found


def _kill_group(pid: int, number: int = signal.SIGKILL) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def main() -> None:
    """Serves the engine; the arguments: the socket, the run's lock, and what to import."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the engine decides when to stop
    spawner = Spawner(socket.socket(fileno=int(sys.argv[1])))
    for held in sys.argv[1:3]:  # the socket, and the run's lock, which lasts as long as this does
        os.set_inheritable(int(held), False)
    modules = sys.argv[3:]
    if modules:
        warm = _warm_up(modules)
        spawner.send({"warm": warm})
        if not warm:
            return
    try:
        spawner.serve()
    finally:
        spawner.kill_everything()


if __name__ == "__main__":
    main()
