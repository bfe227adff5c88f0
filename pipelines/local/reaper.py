"""Waits for an engine to be gone and removes the containers that it has left.

A program of its own: `python -m pipelines.local.reaper`, the run's name in the environment. The
engine holds the other end of its standard input and writes `done` when nothing is left to do.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from typing import Any

RUN_LABEL = "paper2hub.run"
"""The label that every container of a run has; its value is the run's name."""

RUN_VARIABLE = "PAPER2HUB_RUN"

_PATIENCE_SECONDS = 30.0
"""How long to go on asking a daemon that does not answer (ours)."""


def remove_containers(client: Any, run: str) -> None:
    """Removes all containers of a run, whatever they are doing."""
    import docker.errors

    for container in client.containers.list(
        all=True, filters={"label": f"{RUN_LABEL}={run}"}, ignore_removed=True
    ):
        with contextlib.suppress(docker.errors.APIError):
            container.remove(force=True, v=True)


def main() -> None:
    """Waits for the end of the standard input."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    run = os.environ[RUN_VARIABLE]
    if sys.stdin.buffer.read() == b"done\n":
        return
    import docker
    import docker.errors
    import requests

    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline:
        try:
            client = docker.from_env()
            # Twice: the engine may have asked for one more with its last breath.
            for _ in range(2):
                remove_containers(client, run)
                time.sleep(0.5)
            return
        except (docker.errors.DockerException, requests.RequestException):
            time.sleep(0.5)


if __name__ == "__main__":
    main()
