"""Ends trainings at random instants, runs them again until done, and compares every byte.

    python -m tests.bench.train_kills [MODEL ...] [--kills N] [--requests N] [--backend NAME]

Each run trains with TINY settings, saves after every step, and is ended by SIGKILL, which nobody
can answer, or by SIGTERM, a request to save and end.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import importlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.bench import data_kills
from tests.bench.data_contest import say
from tests.bench.data_kills import PATIENCE, ROOT, Step
from trainer.errors import TryAgain
from trainer.progress import PROGRESS_FILE

AT_MOST = 4
"""How often one training is ended before it is left to itself (ours)."""

MODELS = ("dcgan", "regnety")
EPOCHS = 12

SIGNALS = {"SIGKILL": signal.SIGKILL, "SIGTERM": signal.SIGTERM}


@dataclasses.dataclass
class Toll:
    """What became of the trainings.

    Attributes:
        signals: name of a signal -> how many runs it ended.
        resumed: runs that went on from a step after the first.
        saved: runs that a SIGTERM ended with exit code 75 and every step saved that was taken.
        trainings: trainings that were ended and run again until they were done.
        equal: of these, those whose files were, byte for byte, those of the undisturbed one.
        steps: at which steps runs were ended, as far as the checkpoint says.
        faults: what must not be, a line each.
        seconds: of the undisturbed run.
    """

    signals: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    resumed: int = 0
    saved: int = 0
    trainings: int = 0
    equal: int = 0
    steps: list[int] = dataclasses.field(default_factory=list)
    faults: list[str] = dataclasses.field(default_factory=list)
    seconds: float = 0.0

    def __str__(self) -> str:
        ended = ", ".join(f"{name} {count}" for name, count in sorted(self.signals.items()))
        steps = f", at steps {min(self.steps)} to {max(self.steps)}" if self.steps else ""
        return (
            f"{self.signals.total()} runs ended ({ended}){steps}, {self.saved} of them saved on "
            f"request; {self.resumed} runs went on; {self.equal} of {self.trainings} results byte "
            f"for byte as undisturbed; {len(self.faults)} faults"
        )


@dataclasses.dataclass(frozen=True)
class Victim:
    """A training of which runs are ended.

    Attributes:
        step: its command line, and the checkpoint folder alone in a folder of its own.
        progress: file in which a run tells how far it is.
        batch_size: examples of a step.
        environment: variables of its processes.
    """

    step: Step
    progress: Path
    batch_size: int
    environment: Mapping[str, str]

    @property
    def checkpoint(self) -> Path:
        """The folder that the training writes."""
        return self.step.outputs[0]


def training(
    folder: Path,
    model: str,
    examples: Path,
    settings: Mapping[str, Any],
    training: Mapping[str, Any] | None = None,
    backend: str = "tensorflow",
) -> Victim:
    """The step that trains a model; it saves after every step unless told otherwise.

    Args:
        folder: for what it writes.
        model: name of the model.
        examples: transformed ones.
        settings: changes to the model's config; with `batch_size`.
        training: how it is carried out.
        backend: tensorflow or jax.
    """
    output = folder / "of a training" / "checkpoint"
    output.parent.mkdir(parents=True)
    arguments = {
        "model": model,
        "transformed_examples": examples,
        "checkpoint": output,
        "logs": "",
        "settings": json.dumps(dict(settings)),
        "training": json.dumps({"save_seconds": 0.0, **(training or {})}),
        "backend": backend,
    }
    flags = [f"--{name}={value}" for name, value in arguments.items()]
    progress = folder / "progress.json"
    return Victim(
        Step([sys.executable, "-m", "components.train", *flags], [output]),
        progress,
        int(settings["batch_size"]),
        {PROGRESS_FILE: str(progress), "JAX_PLATFORMS": "cpu"},
    )


def end_at_random(
    victim: Victim, counts: Mapping[str, int], seed: int, at_most: int = AT_MOST
) -> Toll:
    """Ends runs at instants of their own while they train, each time running them again.

    Args:
        victim: what is run.
        counts: name of a signal -> how many runs it is to end.
        seed: decides on instants and on the order of the signals.
        at_most: how often one training is ended before it may finish.
    """
    chance = random.Random(seed)  # noqa: S311
    toll = Toll()
    began = time.monotonic()
    starting = _undisturbed(victim, toll)
    toll.seconds = time.monotonic() - began
    wanted = data_kills.digests(victim.step)
    steps = _steps_saved(victim)
    waiting = [name for name, count in counts.items() for _ in range(count)]
    chance.shuffle(waiting)
    attempts = 0
    while waiting and attempts < 10 * sum(counts.values()):
        data_kills.clear(victim.step)
        ended = 0
        while waiting and ended < at_most and attempts < 10 * sum(counts.values()):
            attempts += 1
            before = _steps_saved(victim)
            # What is left takes as much less as it has fewer steps.
            left = (toll.seconds - starting) * (1.0 - before / max(steps, 1))
            moment = chance.uniform(0.0, left)
            name = waiting[-1]
            where = f"{name} {attempts} (seed {seed}: {moment:.3f} s after its first step)"
            if not _end_once(victim, name, moment, before, toll, where):
                break
            waiting.pop()
            ended += 1
        else:
            _finish(victim, toll, f"training {toll.trainings + 1} (seed {seed})")
        if ended:
            toll.trainings += 1
            found = data_kills.digests(victim.step)
            wrong = data_kills.differences(wanted, found)
            toll.equal += not wrong
            toll.faults += [f"training {toll.trainings} (seed {seed}): {line}" for line in wrong]
    if waiting:
        toll.faults.append(f"{len(waiting)} runs could not be ended in time")
    data_kills.clear(victim.step)
    return toll


def _undisturbed(victim: Victim, toll: Toll) -> float:
    """Runs it whole; returns the seconds until it had taken its first step."""
    began = time.monotonic()
    process = _start(victim)
    _wait_for_step(victim, process)
    starting = time.monotonic() - began
    code = data_kills.end(process, toll, "undisturbed")
    if code:
        raise RuntimeError(f"The undisturbed training ended with exit code {code}: {_said(victim)}")
    return starting


def _end_once(
    victim: Victim, name: str, moment: float, before: int, toll: Toll, where: str
) -> bool:
    """Starts a run and ends it; says whether it was ended before it was done."""
    process = _start(victim)
    _wait_for_step(victim, process)
    time.sleep(moment)
    taken = _examples_done(victim) // victim.batch_size
    process.send_signal(SIGNALS[name])  # of one that has ended, nobody is hit
    code = data_kills.end(process, toll, where)
    if code == 0:
        return False
    toll.signals[name] += 1
    toll.resumed += before > 0
    steps = _steps_saved(victim)
    toll.steps.append(steps)
    if name == "SIGKILL":
        if code != -signal.SIGKILL:
            toll.faults.append(f"{where}: it ended with exit code {code}: {_said(victim)}")
    elif code != TryAgain.exit_code:
        toll.faults.append(f"{where}: asked to end, it gave exit code {code}: {_said(victim)}")
    elif steps < before + taken:
        toll.faults.append(f"{where}: of {before + taken} steps {steps} were saved")
    else:
        toll.saved += 1
    return True


def _finish(victim: Victim, toll: Toll, where: str) -> None:
    before = _steps_saved(victim)
    code = data_kills.end(_start(victim), toll, where)
    toll.resumed += before > 0
    if code:
        toll.faults.append(f"{where}: run again, it gave exit code {code}: {_said(victim)}")


def _start(victim: Victim) -> subprocess.Popen[bytes]:
    victim.progress.unlink(missing_ok=True)
    with _errors(victim).open("wb") as errors:
        return subprocess.Popen(
            list(victim.step.command),
            cwd=ROOT,
            env={**os.environ, **victim.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
        )


def _errors(victim: Victim) -> Path:
    return victim.progress.with_name("standard error")


def _said(victim: Victim) -> str:
    return _errors(victim).read_text("utf-8", "replace")[-500:].strip()


def _wait_for_step(victim: Victim, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and not _examples_done(victim):
        if time.monotonic() > deadline:
            return  # as one that hangs, which is found when its end is waited for
        time.sleep(0.01)


def _examples_done(victim: Victim) -> int:
    """Examples that the run says it has trained on; written whole or not at all."""
    if not victim.progress.is_file():
        return 0
    return int(json.loads(victim.progress.read_text("utf-8"))["done"])


def _steps_saved(victim: Victim) -> int:
    """Steps of the checkpoint that a run would go on from."""
    state = victim.checkpoint / "state.json"
    return int(json.loads(state.read_text("utf-8"))["step"]) if state.is_file() else 0


def on_sample(folder: Path, model: str, epochs: int, backend: str = "tensorflow") -> Victim:
    """A model's TINY config, for so many epochs, on the sample of its pipeline's dataset."""
    from components.create_tfrecords.create_tfrecords import create_tfrecords
    from components.preprocess.preprocess import preprocess
    from trainer.catalog import model_part

    settings = dataclasses.asdict(model_part(model, "config").TINY) | {"epochs": epochs}
    spec = importlib.import_module(f"pipelines.{model}").pipeline.pipeline_spec
    dataset = spec.root.input_definitions.parameters["dataset"].default_value.string_value
    importlib.import_module(f"trainer.data.{dataset}.sample").write_sample(folder / "data")
    examples, transformed = folder / "examples", folder / "transformed_examples"
    create_tfrecords(str(examples), str(folder / "data"), dataset, shards=2)
    preprocess(model, str(examples), str(transformed), str(folder / "transform_graph"), settings)
    return training(folder, model, transformed, settings, backend=backend)


def tell(title: str, toll: Toll) -> None:
    """Prints what became of a model's trainings."""
    say(f"{title}, {toll.seconds:.1f} s undisturbed", str(toll))
    for fault in toll.faults:
        say("  fault", fault)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=list(MODELS), metavar="MODEL")
    parser.add_argument("--kills", type=int, default=15, help="SIGKILLs for each model")
    parser.add_argument("--requests", type=int, default=5, help="SIGTERMs for each model")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of a training")
    parser.add_argument("--seed", type=int, default=1, help="decides on the instants")
    parser.add_argument("--backend", default="tensorflow", help="tensorflow or jax")
    given = parser.parse_args()
    counts = {"SIGKILL": given.kills, "SIGTERM": given.requests}
    faults = 0
    for model in given.models:
        with tempfile.TemporaryDirectory(prefix="paper2hub-bench-") as folder:
            victim = on_sample(Path(folder), model, given.epochs, given.backend)
            toll = end_at_random(victim, counts, given.seed)
        tell(f"{model} on {given.backend}", toll)
        faults += len(toll.faults)
    sys.exit(faults > 0)


if __name__ == "__main__":
    main()
