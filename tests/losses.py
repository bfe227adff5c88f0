"""Prints the losses of a recipe on stored batches; run by a test with the other backend.

    KERAS_BACKEND=jax python -m tests.losses FOLDER

FOLDER is a checkpoint with `batches.npz` beside it; the trained checkpoint goes to FOLDER/jax.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from trainer import backend
from trainer.catalog import load_recipe
from trainer.engine import checkpoint


def main(folder: Path) -> None:
    """Restores the checkpoint, takes a step on each batch, and prints a JSON list of logs."""
    state = checkpoint.read_state(folder)
    recipe = load_recipe(state.model)(state.load_config())
    step = backend.current().TrainStep(recipe)
    checkpoint.restore(folder, recipe)
    step.read()
    stored = np.load(folder / "batches.npz")
    batches: dict[int, dict[str, np.ndarray]] = {}
    for name in stored.files:
        number, key = name.split("/", 1)
        batches.setdefault(int(number), {})[key] = stored[name]
    logs = [{k: float(v) for k, v in step(i, batches[i]).items()} for i in sorted(batches)]
    step.write()
    checkpoint.save(folder / "jax", recipe, state)
    print(json.dumps(logs))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
