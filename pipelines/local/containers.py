"""Runs tasks in containers, with Docker's own client."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import docker.errors
import docker.types
import requests

from pipelines.local import reaper
from pipelines.local.graph import Graph
from pipelines.local.launcher import NOT_KNOWN, Job, Running
from trainer.errors import TryAgain, UserError

RUN_LABEL = reaper.RUN_LABEL
TASK_LABEL = "paper2hub.task"

_CLIENT_SECONDS = 60
_CREATING_AT_ONCE = 8
"""Containers that are being made at the same time (ours: more only wait in the daemon)."""


@dataclass(frozen=True)
class Options:
    """What the caller wants of Docker.

    Attributes:
        user: user and group of the containers, "1000:1000"; the caller's own where it is empty.
        network: name of the network, "none" or "host"; Docker's default where it is empty.
        mounts: further folders to see, each with the path in the container: read-only.
    """

    user: str = ""
    network: str = ""
    mounts: tuple[tuple[Path, str], ...] = ()


class Containers:
    """Starts every task in a container of its own.

    The root of the runs is seen read-only at its own path, the task's folder and shared folders of
    the run can be written to, and data named by parameters is seen read-only. A container is kept
    until its exit code has been read; a reaper process removes what is left of a run whose engine
    was killed.

    Args:
        options: what the caller wants of Docker.

    Raises:
        UserError: there is no Docker daemon to talk to.
    """

    name = "docker"

    def __init__(self, options: Options = Options()):
        self._options = options
        self._slots = threading.BoundedSemaphore(_CREATING_AT_ONCE)
        self._images: dict[str, Any] = {}
        self._pulling = threading.Lock()
        self._run = ""
        self._reaper: subprocess.Popen[bytes] | None = None
        try:
            self._client = docker.from_env(timeout=_CLIENT_SECONDS)
            self._about = self._client.info()
        except (docker.errors.DockerException, requests.RequestException) as error:
            raise UserError(
                "--docker needs a Docker daemon that this user may talk to; "
                f"{_first_line(error)}. Start Docker, or run without --docker."
            ) from error

    def check(self, graph: Graph) -> tuple[str, ...]:
        """See `Launcher`; images that are absent are pulled here, before anything starts."""
        for path, container in graph.containers():
            if not container.image:
                raise UserError(f"The image of {path} must be named; it is not.")
            if "{{" not in container.image:  # else a value decides, and it is pulled then
                self._image(container.image, path)
            if container.resources.accelerator and "nvidia" not in str(self._about["Runtimes"]):
                raise UserError(
                    f"{path} asks for {container.resources.accelerator}, which Docker must be able "
                    "to hand on; install NVIDIA's container toolkit, or compile for local."
                )
        return ()

    def begin(self, root: Path, run: str, lock: int) -> None:
        """See `Launcher`."""
        self._root, self._run = root, run
        reaper.remove_containers(self._client, run)
        environment = {**os.environ, reaper.RUN_VARIABLE: run}
        self._reaper = subprocess.Popen(
            [sys.executable, "-m", reaper.__name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
            pass_fds=[lock] if lock >= 0 else [],
            start_new_session=True,
        )

    def expect(self, commands: Sequence[tuple[str, ...]]) -> None:
        """See `Launcher`."""

    def identity(self, image: str, command: Sequence[str], values: Sequence[str]) -> dict[str, Any]:
        """See `Launcher`; an image is known by its content, whatever its tag."""
        return {"label": image, "image": self._image(image, "a task").id}

    def start(self, job: Job) -> Running:
        """See `Launcher`."""
        image = self._image(job.image, job.task)
        mounts = [
            docker.types.Mount(str(target), str(path), "bind", read_only=read_only)
            for path, target, read_only in self._mounts(job)
        ]
        gpus = [docker.types.DeviceRequest(count=job.accelerators, capabilities=[["gpu"]])]
        processors = float(self._about.get("NCPU") or os.cpu_count() or 1)
        with self._slots, _reporting(job.task):
            container = self._client.containers.create(
                image.id,
                command=list(job.command[1:]) if job.command else None,
                entrypoint=[job.command[0]] if job.command else None,
                environment={"HOME": "/tmp", **job.environment},  # noqa: S108  in the container
                working_dir=str(job.folder),
                user=self._options.user or f"{os.getuid()}:{os.getgid()}",
                mounts=mounts,
                network=self._options.network or None,
                labels={RUN_LABEL: self._run, TASK_LABEL: job.task},
                nano_cpus=int(min(job.cpu, processors) * 1e9) if job.cpu else None,
                mem_limit=job.memory,
                memswap_limit=job.memory,
                device_requests=gpus if job.accelerators else None,
                shm_size=job.shared_memory,
                init=True,  # a shell as first process would not hand on SIGTERM
            )
            try:
                container.start()
            except BaseException:
                _remove(container)
                raise
        return _Container(container, job)

    def hurry(self) -> None:
        """See `Launcher`."""

    def close(self) -> None:
        """See `Launcher`."""
        with contextlib.suppress(docker.errors.DockerException, requests.RequestException):
            reaper.remove_containers(self._client, self._run)
        if self._reaper is not None and self._reaper.stdin is not None:
            # The run is over and nothing is left: the reaper has nothing more to do.
            self._reaper.stdin.write(b"done\n")
            self._reaper.stdin.close()
            self._reaper.wait()
            self._reaper = None
        self._client.close()

    def _image(self, name: str, task: str) -> Any:
        """An image, pulled where it is absent."""
        with self._pulling:
            if name not in self._images:
                try:
                    self._images[name] = self._client.images.get(name)
                except docker.errors.ImageNotFound:
                    self._images[name] = self._pull(name, task)
                except (docker.errors.DockerException, requests.RequestException) as error:
                    raise TryAgain(
                        f"The daemon must be there; it is not: {_first_line(error)}."
                    ) from error
            return self._images[name]

    def _pull(self, name: str, task: str) -> Any:
        try:
            repository, tag = _name_and_tag(name)
            return self._client.images.pull(repository, tag=tag)
        except (docker.errors.DockerException, requests.RequestException) as error:
            hint = "`make images` builds it" if name.startswith("paper2hub/") else "check its name"
            raise UserError(
                f"The image {name} of {task} must be here or in a registry; {hint}. "
                f"{_first_line(error)}"
            ) from error

    def _mounts(self, job: Job) -> Iterator[tuple[Path, str | Path, bool]]:
        """What the container sees: path here, path there, whether it is read-only."""
        yield self._root, self._root, True
        for path in (job.writable, *job.shared):
            yield path, path, False
        for path in job.readable:
            if not path.is_relative_to(self._root):
                yield path, path, True
        for path, target in self._options.mounts:
            yield path, target, True


class _Container:
    """A container that has been started; its log is copied as it comes."""

    def __init__(self, container: Any, job: Job):
        self._container = container
        self._ended = threading.Event()
        self._code = NOT_KNOWN
        self._reason = ""
        self._asked = False
        self._job = job
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def wait(self, seconds: float | None) -> int | None:
        return self._code if self._ended.wait(seconds) else None

    def end(self, at_once: bool) -> None:
        with contextlib.suppress(docker.errors.DockerException, requests.RequestException):
            self._container.kill("SIGKILL" if at_once else "SIGTERM")

    def reason(self) -> str:
        return self._reason

    def _follow(self) -> None:
        """Copies the log until its end, then reads the exit code before the container goes."""
        try:
            with open(self._job.log, "ab") as log:
                for part in self._container.logs(stream=True, follow=True):
                    log.write(part)
                    log.flush()
            # Nothing was removed yet, so the answer is that of this container and no default.
            self._code = self._wait()
            self._container.reload()
            state = self._container.attrs["State"]
            if state.get("Status") not in ("exited", "dead"):
                self._code, self._reason = NOT_KNOWN, "Its container did not end as one does."
            elif state.get("OOMKilled"):
                self._reason = "It was killed for want of memory; its limit is too low."
            elif self._code == 137:
                self._reason = "It was killed."
        except (docker.errors.DockerException, requests.RequestException, OSError) as error:
            self._code = NOT_KNOWN
            self._reason = f"Docker lost it: {_first_line(error)}."
        finally:
            _remove(self._container)
            self._ended.set()

    def _wait(self) -> int:
        while True:
            try:
                return int(self._container.wait(timeout=_CLIENT_SECONDS)["StatusCode"])
            except requests.exceptions.ReadTimeout:
                time.sleep(0.1)  # it still runs, but has closed its output


def _remove(container: Any) -> None:
    with contextlib.suppress(docker.errors.DockerException, requests.RequestException):
        container.remove(force=True, v=True)


@contextlib.contextmanager
def _reporting(task: str) -> Iterator[None]:
    """Says in the engine's terms why a container could not be started."""
    try:
        yield
    except docker.errors.APIError as error:
        raise OSError(error.explanation or str(error)) from error
    except (docker.errors.DockerException, requests.RequestException) as error:
        raise OSError(f"Docker could not be reached: {_first_line(error)}") from error


def _name_and_tag(name: str) -> tuple[str, str | None]:
    if "@" in name:
        return name, None
    repository, colon, tag = name.rpartition(":")
    return (repository, tag) if colon and "/" not in tag else (name, "latest")


def _first_line(error: Exception) -> str:
    text = str(error).strip().partition("\n")[0]
    return text.rstrip(".") or type(error).__name__
