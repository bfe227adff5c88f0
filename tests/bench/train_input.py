"""How much of its time a training of RegNetY waits for its input; prints a JSON object.

    python -m tests.bench.train_input EXAMPLES

Measured here, from when a step has been taken until the next one is asked for, without those
between which the loop does something else, and told by the engine.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from tests.bench.train_work import config_of, finish
from trainer import backend
from trainer.data.facts import read_facts
from trainer.engine import train as engine

WARM = 10
"""Steps that are left out: the first ones compile, and find batches that have piled up."""


def main(examples: Path) -> None:
    """Trains for two epochs."""
    facts = read_facts(examples)
    config = config_of(
        "regnety",
        epochs=2,
        num_classes=len(facts.class_names),
        train_examples=facts.train_examples,
        statistics_examples=64,
    )
    module = backend.current()
    asked: list[float] = []
    taken: list[float] = []
    told: list[float] = []

    class Timed(module.TrainStep):
        def __call__(self, step: int, batch: Any) -> Any:
            asked.append(time.perf_counter())
            logs = super().__call__(step, batch)
            finish(logs.values())  # else a step that is still computing would hide the waiting
            taken.append(time.perf_counter())
            return logs

    class Told(engine.Waiting):
        def rates(self, examples: int) -> dict[str, float]:
            rates = super().rates(examples)
            told.append(rates["input_share"])
            return rates

    module.TrainStep, engine.Waiting = Timed, Told
    with tempfile.TemporaryDirectory(prefix="paper2hub-bench-") as folder:
        engine.train("regnety", config, examples, Path(folder) / "checkpoint")
    steps = len(asked) // 2  # of an epoch
    chosen = [n for n in range(WARM, len(asked) - 1) if n % steps >= WARM and (n + 1) % steps]
    waited = sum(asked[n + 1] - taken[n] for n in chosen)
    worked = sum(taken[n] - asked[n] for n in chosen)
    each = statistics.median(taken[n] - asked[n] for n in chosen)
    findings = {
        "measured": waited / (waited + worked),
        "told": statistics.median(told),
        "steps": len(chosen),
        "rate": config.batch_size * len(chosen) / (waited + worked),
        "step_seconds": each,
    }
    print(json.dumps(findings))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
