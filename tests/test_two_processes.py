"""Two processes of a cluster train as one does, and neither is left waiting when the other ends."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import pytest

STEPS = 4
PATIENCE = 240
"""Seconds after which a process counts as hanging."""

both_backends = pytest.mark.parametrize("backend", ["tensorflow", "jax"])


def start(backend: str, arguments: Sequence[str], config: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.distributed.processes", str(STEPS), *arguments],
        env={**os.environ, "KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu", "TF_CONFIG": config},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_two(backend: str, *arguments: str) -> list[subprocess.Popen[str]]:
    """A cluster of two workers on this machine."""
    with socket.socket() as first, socket.socket() as second:
        for free in (first, second):
            free.bind(("localhost", 0))
        workers = [f"localhost:{free.getsockname()[1]}" for free in (first, second)]
    tasks = ({"type": "worker", "index": index} for index in range(2))
    configs = [json.dumps({"cluster": {"worker": workers}, "task": task}) for task in tasks]
    return [start(backend, arguments, config) for config in configs]


def finish(*processes: subprocess.Popen[str]) -> list[tuple[int, str, str]]:
    """Exit code, output and errors of each; none is left behind."""
    try:
        ended = [process.communicate(timeout=PATIENCE) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(p.returncode, *streams) for p, streams in zip(processes, ended, strict=True)]


@both_backends
def test_two_processes_equal_one(backend: str) -> None:
    ended = finish(start(backend, ()), *start_two(backend))
    for code, _, errors in ended:
        assert code == 0, errors[-3000:]
    alone, *together = (json.loads(output.splitlines()[-1]) for _, output, _ in ended)
    assert alone["votes"] == [True, False, False, False]
    for result in together:
        # Each in turn was of a mind to stop, and both heard of it.
        assert result["votes"] == [True, True, False, False]
        for ours, theirs in zip(alone["logs"], result["logs"], strict=True):
            assert theirs == pytest.approx(ours, rel=1e-4)
        for a, b in zip(alone["values"], result["values"], strict=True):
            np.testing.assert_allclose(b, a, rtol=1e-2, atol=1e-4)
    assert together[0] == together[1]


@pytest.mark.slow
@both_backends
@pytest.mark.parametrize("killed", [0, 1])
def test_a_process_whose_partner_is_killed_asks_to_be_tried_again(
    backend: str, killed: int
) -> None:
    ended = finish(*start_two(backend, "--killed", str(killed)))
    assert ended[killed][0] < 0
    code, _, errors = ended[1 - killed]
    assert code == 75, errors[-3000:]
    assert f"Process {1 - killed} of 2 reaches the others no longer" in errors


@pytest.mark.slow
@both_backends
@pytest.mark.parametrize("mistaken", [0, 1])
def test_a_process_that_ends_with_an_error_tells_it_and_waits_for_nobody(
    backend: str, mistaken: int
) -> None:
    ended = finish(*start_two(backend, "--mistaken", str(mistaken)))
    code, _, errors = ended[mistaken]
    assert code == 2, errors[-3000:]
    assert "It must not be so." in errors
    assert ended[1 - mistaken][0] == 75, ended[1 - mistaken][2][-3000:]
