"""Transformed examples become a checkpoint."""

from __future__ import annotations

import os
import sys
from typing import Any

from trainer.catalog import load_config
from trainer.config import suited_to, with_settings
from trainer.data.facts import read_facts
from trainer.errors import UserError

BACKENDS = ("tensorflow", "jax")

FORKED = "PAPER2HUB_FORKED"
"""Set where the process began as a fork of one that had TensorFlow, and so Keras, imported."""


def train(
    model: str,
    transformed_examples: str,
    checkpoint: str,
    settings: dict[str, Any] | None = None,
    backend: str = "",
) -> dict[str, dict[str, Any]]:
    """Trains a model on transformed examples, or goes on where an earlier call was cut short.

    Args:
        model: Name of the model.
        transformed_examples: Folder of transformed examples, as preprocess writes it.
        checkpoint: Folder to keep the checkpoint in.
        settings: Changes to the model's configuration, such as {"epochs": 2}.
        backend: tensorflow or jax; empty for what KERAS_BACKEND says, or else tensorflow.
    """
    chosen = settings or {}
    facts = read_facts(transformed_examples)
    config = suited_to(with_settings(load_config(model), chosen), facts, chosen)
    choose_backend(backend)
    from trainer.engine import train as engine  # Keras fixes its backend when it is imported

    state = engine.train(model, config, transformed_examples, checkpoint)
    return {"checkpoint": {"model": model, "step": state.step, "epoch": state.epoch}}


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
