"""Transformed examples become a checkpoint."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from trainer import imports
from trainer.artifact import REPRODUCIBLE, read_json, write_json
from trainer.catalog import load_config
from trainer.config import suited_to, with_settings
from trainer.data.facts import check_settings, read_facts
from trainer.errors import UserError
from trainer.training import Training

BACKENDS = ("tensorflow", "jax")

EARLIER = "earlier.json"
"""In a checkpoint folder: the histories of earlier stages, in their order."""

HISTORY = "history.json"

FORKED = "PAPER2HUB_FORKED"
"""Set where the process began as a fork of one that had TensorFlow, and so Keras, imported."""


def train(
    model: str,
    transformed_examples: str,
    checkpoint: str,
    logs: str,
    settings: dict[str, Any] | None = None,
    training: dict[str, Any] | None = None,
    backend: str = "",
    initial: str = "",
    stage_settings: dict[str, Any] | None = None,
) -> dict[str, dict[str, Any]]:
    """Trains a model on transformed examples, or goes on where an earlier call was cut short.

    Args:
        model: Name of the model.
        transformed_examples: Folder of transformed examples, as preprocess writes it.
        checkpoint: Folder to keep the checkpoint in.
        logs: Folder to write event files for TensorBoard to; empty for none.
        settings: Changes to the model's configuration, such as {"epochs": 2}.
        training: How to carry it out, whatever the model, such as {"precision": "mixed_bfloat16"}.
        backend: tensorflow or jax; empty for what KERAS_BACKEND says, or else tensorflow.
        initial: Folder of a checkpoint whose networks to begin with; empty for fresh ones.
        stage_settings: Changes that a stage of a pipeline makes where settings does not.

    Raises:
        UserError: an argument does not fit the model, the examples or the checkpoint.
        TryAgain: the training was asked to end, and is saved.
    """
    chosen = {**(stage_settings or {}), **(settings or {})}
    facts = read_facts(transformed_examples)
    config = suited_to(with_settings(load_config(model), chosen), facts, chosen)
    check_settings(transformed_examples, config)
    way = with_settings(Training(), training or {})
    choose_backend(backend)
    state = _engine().train(
        model,
        config,
        transformed_examples,
        checkpoint,
        training=way,
        initial=initial or None,
        logs=logs or None,
    )
    if initial:
        _keep_earlier(initial, checkpoint)
    return {
        "checkpoint": {"model": model, "step": state.step, "epoch": state.epoch},
        # They hold times: two runs of the same training never have the same.
        "logs": {REPRODUCIBLE: False},
    }


def _engine() -> ModuleType:
    """The engine; imported late, since Keras fixes its backend when it is imported."""
    if "trainer.engine.train" in sys.modules:
        return sys.modules["trainer.engine.train"]
    imports.begin()
    with imports.quietly():
        from trainer.engine import train as engine
    imports.end()
    return engine


def _keep_earlier(initial: str, checkpoint: str) -> None:
    """Keeps, for the report, the histories of the trainings that the first networks are from."""
    before = Path(initial)
    earlier = read_json(before / EARLIER) if (before / EARLIER).is_file() else []
    if (before / HISTORY).is_file():
        earlier = [*earlier, read_json(before / HISTORY)]
    if earlier:
        write_json(Path(checkpoint) / EARLIER, earlier)


def choose_backend(backend: str = "") -> None:
    """Makes Keras use a backend, before it is imported.

    Args:
        backend: tensorflow or jax; empty for what KERAS_BACKEND says, or else tensorflow.

    Raises:
        UserError: there is no such backend, or Keras runs on another in this process already.
    """
    backend = backend or os.environ.get("KERAS_BACKEND") or BACKENDS[0]
    if backend not in BACKENDS:
        raise UserError(f"The backend must be {' or '.join(BACKENDS)}; got {backend!r}.")
    os.environ["KERAS_BACKEND"] = backend
    keras = sys.modules.get("keras")
    if keras is not None and keras.backend.backend() != backend:
        if os.environ.pop(FORKED, ""):
            # The local runner imported Keras on its default backend for us: begin without that.
            os.execv(sys.executable, [sys.executable, "-m", "components.train", *sys.argv[1:]])  # noqa: S606
        raise UserError(
            f"Keras must not have been imported on another backend than {backend} in this process; "
            f"it runs on {keras.backend.backend()}. Set KERAS_BACKEND={backend} before it starts."
        )
