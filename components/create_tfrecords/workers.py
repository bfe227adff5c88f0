"""Processes that write shards side by side, and outlive neither their work nor their parent."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Self

from components.create_tfrecords.shard import Job, ShardWriter, Work
from trainer.dataset import Dataset
from trainer.errors import TryAgain, UserError

ATTEMPTS = 3
"""How often a shard is begun whose worker dies (ours): a machine short of memory kills workers, and
an item that kills its decoder must not be tried for ever."""

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def usable_processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0))


class Crew:
    """Writes shards in `workers` processes, or in this one if that is 1; a context manager.

    A worker that dies is replaced and its shard begun again.

    Args:
        source: the dataset, open; workers get a copy.
        workers: number of processes.
    """

    def __init__(self, source: Dataset, workers: int):
        self._source = source
        self._threaded = 2 * workers <= usable_processors()
        self._most = workers if workers > 1 else 0
        self._workers: list[_Worker] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for worker in self._workers:
            worker.end()

    def write(self, work: Work, jobs: Iterable[Job], advance: Callable[[int], None]) -> None:
        """Writes shards.

        Args:
            work: what they have in common.
            jobs: the shards.
            advance: is told now and then how many more items are done; of a shard that has to be
                begun again, its items count once.

        Raises:
            UserError: the dataset cannot be read any further, or the disk is full.
            TryAgain: workers keep dying.
        """
        waiting = deque((job, 1) for job in jobs)
        if not self._most:
            write = ShardWriter(self._source, work, self._threaded)
            for job, _ in waiting:
                write(job, advance)
            return
        # All are started before the first is spoken to, so that they wake up side by side.
        while len(self._workers) < min(self._most, len(waiting)):
            self._workers.append(_Worker(self._source, self._threaded))
        while waiting or any(worker.job for worker in self._workers):
            for worker in self._workers:
                if worker.job is None and waiting:
                    worker.begin(work, *waiting.popleft())
            busy = {worker.connection: worker for worker in self._workers if worker.job}
            for connection in wait(list(busy)):
                worker = busy[connection]  # type: ignore[index]
                again = worker.listen(advance)
                if again is not None:
                    waiting.append(again)
                    worker.end()
                    place = self._workers.index(worker)
                    self._workers[place] = _Worker(self._source, self._threaded)


@dataclasses.dataclass(frozen=True)
class _Progress:
    items: int


@dataclasses.dataclass(frozen=True)
class _Finished:
    pass


@dataclasses.dataclass(frozen=True)
class _Failed:
    error: Exception


class _Worker:
    """A process that writes one shard after another.

    It is a fresh interpreter: a fork would take the locks of this process's threads with it, and
    multiprocessing would run the caller's script again.
    """

    def __init__(self, source: Dataset, threaded: bool):
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):  # even where a library has set a timeout for all sockets
            end.setblocking(True)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno()), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
                },
            )
        self.connection = Connection(ours.detach())
        self.job: Job | None = None
        self._attempt = 0
        self._items = 0
        self._greeting: tuple[Dataset, bool] | None = (source, threaded)
        self._work: Work | None = None

    def begin(self, work: Work, job: Job, attempt: int) -> None:
        """Gives it a shard to write; should it have died meanwhile, `listen` tells."""
        self.job, self._attempt, self._items = job, attempt, 0
        with contextlib.suppress(OSError):
            if self._greeting is not None:
                self.connection.send(self._greeting)
                self._greeting = None
            if self._work is not work:
                self.connection.send(work)
                self._work = work
            self.connection.send(job)

    def listen(self, advance: Callable[[int], None]) -> tuple[Job, int] | None:
        """Takes one message; the job and the number of its next attempt if the process died."""
        job = self.job
        if job is None:
            raise RuntimeError("A worker without a shard must not say anything.")
        try:
            message = self.connection.recv()
        except (EOFError, OSError) as error:
            advance(-self._items)
            code = self.process.wait()
            if code >= 0:
                raise RuntimeError(
                    f"The process that writes {job.file} ended by itself, with exit code {code}."
                ) from error
            if self._attempt == ATTEMPTS:
                raise TryAgain(
                    f"The process that writes {job.file} was ended {ATTEMPTS} times, the last time "
                    f"by {signal.Signals(-code).name}. Where memory is short, use fewer workers."
                ) from error
            return job, self._attempt + 1
        if isinstance(message, _Progress):
            self._items += message.items
            advance(message.items)
        elif isinstance(message, _Failed):
            raise message.error
        else:
            self.job = None
        return None

    def end(self) -> None:
        """Ends the process, whatever it is doing."""
        self.process.kill()
        self.process.wait()
        self.connection.close()


def _serve(descriptor: int, parent: int) -> None:
    """What a worker does: writes the shards that it is asked for."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends its workers
    # A worker that is busy would not notice the end of its parent, and write into the draft of
    # whoever comes next.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return
    connection = Connection(descriptor)
    try:
        source, threaded = connection.recv()
        while True:
            message = connection.recv()
            if isinstance(message, Work):
                write = ShardWriter(source, message, threaded)
                continue
            try:
                write(message, lambda items: connection.send(_Progress(items)))
            except Exception as error:
                connection.send(_Failed(_sendable(error)))
            else:
                connection.send(_Finished())
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


def _sendable(error: Exception) -> Exception:
    """The error as the parent is to raise it: the user's as it is, ours with its traceback."""
    if isinstance(error, UserError):
        return error
    import traceback

    return RuntimeError("".join(traceback.format_exception(error)))


if __name__ == "__main__":
    from components.create_tfrecords import workers

    # By its proper name, so that messages are of the classes that the parent knows.
    workers._serve(int(sys.argv[1]), int(sys.argv[2]))
