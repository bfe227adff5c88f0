"""Training speed of RegNetY-200MF with our layers, beside its peers, in one run.

    python -m tests.bench.training [--rounds N] [--torch-python PATH]

The contestants take turns, a few steps each, so that a machine whose speed drifts is fair to all;
the ratios are medians over the rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO

from tests.bench import workload

ROOT = Path(__file__).parents[2]
TORCH_MISSING = "not installed: `pip install torch`, or name an environment with --torch-python"


@dataclasses.dataclass
class Contestant:
    """A process that trains when asked to.

    Attributes:
        title: what the table calls it.
        arguments: its command line.
        steps: training steps per turn.
        rounds: how many rounds it takes part in; all when None.
    """

    title: str
    arguments: list[str]
    steps: int = 4
    rounds: int | None = None

    def start(self, errors: IO[str]) -> None:
        """Starts the process and waits until its network is compiled.

        Args:
            errors: file that takes its standard error, to be shown if it fails.
        """
        self._errors = errors
        self._process = subprocess.Popen(
            self.arguments,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": str(workload.THREADS)},
        )
        self.version = self._read()
        self.images_per_second(steps=1)

    def images_per_second(self, steps: int | None = None) -> float:
        """Trains for one turn."""
        count = steps or self.steps
        self._process.stdin.write(f"{count}\n")
        self._process.stdin.flush()
        return count * workload.BATCH_SIZE / float(self._read())

    def stop(self) -> None:
        """Ends the process."""
        self._process.communicate()

    def _read(self) -> str:
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            self._errors.seek(0)
            raise RuntimeError(f"{self.title} ended with exit code {code}.\n{self._errors.read()}")
        return line.strip()


def contestants(torch_python: str) -> list[Contestant]:
    """Ours first; PyTorch only where there is one."""

    def ours(layers: str) -> list[str]:
        return [sys.executable, "-m", "tests.bench.keras_regnety", layers]

    entries = [
        Contestant("ours", ours("ours")),
        Contestant("one convolution per group", ours("grouped")),
        Contestant("Keras's own", ours("keras"), steps=1, rounds=2),
    ]
    if torch_python:
        torch = [torch_python, "-m", "tests.bench.torch_regnety"]
        entries.insert(1, Contestant("PyTorch, channels last", torch))
    return entries


def compare(entries: list[Contestant], rounds: int) -> None:
    """Lets all take turns and prints the table."""
    speeds: dict[str, list[float]] = {entry.title: [] for entry in entries}
    with contextlib.ExitStack() as running:
        for entry in entries:
            entry.start(running.enter_context(tempfile.TemporaryFile("w+")))
            running.callback(entry.stop)
        for i in range(rounds):
            for entry in entries:
                if entry.rounds is None or i < entry.rounds:
                    speeds[entry.title].append(entry.images_per_second())
    print(f"{'layers':<28}{'images/s':>10}{'ours is':>12}   runs on")
    for entry in entries:
        ratio = statistics.median(
            a / b for a, b in zip(speeds[entries[0].title], speeds[entry.title], strict=False)
        )
        speed = statistics.median(speeds[entry.title])
        print(f"{entry.title:<28}{speed:>10.1f}{ratio:>11.2f}×   {entry.version}")


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="turns of each contestant")
    parser.add_argument("--torch-python", default="", help="Python of an environment with PyTorch")
    arguments = parser.parse_args()
    here = sys.executable if importlib.util.find_spec("torch") else ""
    torch_python = arguments.torch_python or here
    print(
        f"Training RegNetY-200MF, {workload.IMAGE_SIZE} px, batch {workload.BATCH_SIZE}, float32, "
        f"{workload.THREADS} threads, {arguments.rounds} rounds",
        flush=True,
    )
    compare(contestants(torch_python), arguments.rounds)
    if not torch_python:
        print(f"{'PyTorch, channels last':<28}{TORCH_MISSING}")


if __name__ == "__main__":
    main()
