"""What it takes to run tasks: a command as a process of this machine, or in a container."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pipelines.local.graph import Graph
from trainer.errors import TryAgain

NOT_STARTED = 127
"""Exit code of a command that could not be started, as in a shell."""

NOT_KNOWN = TryAgain.exit_code
"""Exit code of a task whose own will never be known, its spawner or the daemon being gone."""


@dataclass(frozen=True)
class Job:
    """One attempt at a task.

    Attributes:
        identity: names it among all jobs of this engine.
        task: path of the task.
        image: the container image that the pipeline asks for.
        command: what to call, every placeholder filled in; may be empty for the image's own.
        folder: where to run it.
        log: file that takes its standard output and error, at its end.
        environment: variables to set; secrets are among them.
        writable: the task's own folder.
        readable: other files and folders that it needs.
        shared: folders of the run that all tasks may write to.
        cpu: processors that it may use at most; None for any number.
        memory: bytes that it may use at most; None for any amount.
        accelerators: how many GPUs it gets.
        shared_memory: bytes of /dev/shm; None for the usual.
    """

    identity: str
    task: str
    image: str
    command: tuple[str, ...]
    folder: Path
    log: Path
    environment: Mapping[str, str]
    writable: Path
    readable: tuple[Path, ...] = ()
    shared: tuple[Path, ...] = ()
    cpu: float | None = None
    memory: int | None = None
    accelerators: int = 0
    shared_memory: int | None = None


class Running(Protocol):
    """A job that has been started."""

    def wait(self, seconds: float | None) -> int | None:
        """Its exit code once it has ended and nothing of it is left; None after so many seconds."""

    def end(self, at_once: bool) -> None:
        """Asks it to end, or ends it; does not wait."""

    def reason(self) -> str:
        """Why it ended, where the exit code does not tell."""


class Launcher(Protocol):
    """A way to run jobs."""

    name: str

    def check(self, graph: Graph) -> tuple[str, ...]:
        """Refuses what it cannot do before anything starts; names the wishes it does not follow.

        Raises:
            UserError: names the task and what stands in the way.
        """

    def begin(self, root: Path, run: str, lock: int) -> None:
        """Gets ready for a run, and removes what an earlier engine has left of it.

        Args:
            root: the folder of all runs.
            run: name of the run.
            lock: the run's lock, for helpers that outlive the engine by a moment.
        """

    def expect(self, commands: Sequence[tuple[str, ...]]) -> None:
        """Is told, again and again, what is probably still to be started."""

    def identity(self, image: str, command: Sequence[str], values: Sequence[str]) -> dict[str, Any]:
        """What the result depends on besides the inputs: `label` and digests of code or image."""

    def start(self, job: Job) -> Running:
        """Starts a job.

        Raises:
            OSError: it could not be started; says why.
            UserError: it could not be started, and the caller can mend it.
        """

    def hurry(self) -> None:
        """Gives up what is being prepared for a start: the run is about to end."""

    def close(self) -> None:
        """Ends all that it has started."""
