"""Prints the losses of a recipe on stored batches; run by a test with the other backend.

    KERAS_BACKEND=jax python -m tests.losses FOLDER PRECISION

FOLDER is a checkpoint with `batches.npz` beside it; the trained checkpoint goes to
FOLDER/jax. PRECISION is float32 or float64.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import keras
import numpy as np
from keras.src.backend.common import dtypes

from trainer import backend
from trainer.catalog import load_recipe
from trainer.engine import checkpoint


def compute_in(precision: str) -> None:
    """Makes Keras compute in float32 or float64; layers and constants made before keep theirs."""
    keras.config.set_floatx(precision)
    keras.config.set_dtype_policy(precision)
    # On JAX, Keras promotes to float32 whatever it meets, JAX's own x64 notwithstanding.
    dtypes.BIT64_TO_BIT32_DTYPE["float64"] = precision


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
    compute_in(sys.argv[2])
    main(Path(sys.argv[1]))
