"""The training loop: step, log, evaluate, save, and go on where it was cut short."""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import itertools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from trainer import backend
from trainer.artifact import write_json
from trainer.catalog import load_recipe, model_part
from trainer.data.manifest import read_manifest
from trainer.engine import checkpoint
from trainer.engine.evaluate import compile_predict, evaluate
from trainer.engine.input import Split
from trainer.engine.statistics import StatisticsMeter
from trainer.errors import UserError
from trainer.progress import Progress

EVALUATIONS = 20
"""An evaluation after every epoch, but at most so many in a whole training (ours)."""

PACKAGES = ("keras", "tensorflow", "jax", "numpy")


def train(model: str, config: Any, examples: str | Path, folder: str | Path) -> checkpoint.State:
    """Trains a model on transformed examples, from scratch or from where `folder` stands.

    A checkpoint is kept after every epoch. Order and augmentation of an epoch follow from the seed
    and its number alone, so a training that is cut short and called again ends with the weights of
    one that was not.

    Args:
        model: name of the model.
        config: its Config; `epochs`, `batch_size` and `seed` steer the loop.
        examples: transformed examples with a `train` split and an evaluation split.
        folder: where the checkpoint is kept, with `history.json` beside it.

    Returns:
        The state of the last checkpoint.

    Raises:
        UserError: the folder holds a checkpoint of another model or configuration, or a loss became
            NaN or infinite.
    """
    manifest = read_manifest(examples)
    keras.utils.set_random_seed(config.seed)
    recipe = load_recipe(model)(config)
    step_function = backend.current().TrainStep(recipe)
    state = checkpoint.State(
        model=model,
        config=dataclasses.asdict(config),
        class_names=manifest.class_names,
        step=0,
        epoch=0,
        file="",
        sha256="",
        origin=f"Trained on {manifest.title} with the {keras.backend.backend()} backend.",
        versions=installed_versions(),
    )
    history: list[dict[str, Any]] = []
    if (Path(folder) / checkpoint.STATE).is_file():
        _check_same(checkpoint.read_state(folder), state)
        state = checkpoint.restore(folder, recipe)
        step_function.read()
        history = checkpoint.read_history(folder)[: state.epoch]

    training = Split(examples, "train")
    evaluation = Split(examples, manifest.evaluation_split)
    predict = compile_predict(recipe)
    measure = StatisticsMeter(recipe) if recipe.statistics_examples else None
    augment = getattr(model_part(model, "data"), "augment", None)
    if augment is not None:
        augment = functools.partial(augment, config=config)
    every = math.ceil(config.epochs / EVALUATIONS)
    steps = training.examples // config.batch_size
    progress = Progress((config.epochs - state.epoch) * steps * config.batch_size, "examples")

    for epoch in range(state.epoch, config.epochs):
        batches = training.shuffled(config.batch_size, config.seed, epoch, augment)
        means = _Means(model)
        for batch in _batches(batches):
            logs = step_function(state.step, batch)
            state = dataclasses.replace(state, step=state.step + 1)
            means.add(logs, state.step)
            progress.advance(config.batch_size, means.newest())
        record: dict[str, Any] = {"epoch": epoch + 1, "step": state.step, **means.result()}
        step_function.write()
        if (epoch + 1) % every == 0 or epoch + 1 == config.epochs:
            if measure is not None:
                # The same seed as no epoch has: measured on other crops than the next epoch's.
                count = math.ceil(recipe.statistics_examples / config.batch_size)
                unseen = training.shuffled(config.batch_size, config.seed, config.epochs, augment)
                measure(itertools.islice(_batches(unseen), count))
                step_function.read()
            scored = evaluate(recipe, predict, evaluation, config.batch_size, manifest.class_names)
            record["evaluation"] = scored.numbers
        history.append(record)
        write_json(Path(folder) / checkpoint.HISTORY, history)
        state = dataclasses.replace(state, epoch=epoch + 1)
        state = checkpoint.save(folder, recipe, state)
    return state


def installed_versions() -> dict[str, str]:
    """Versions of the packages that decide what a training gives, as far as they are installed."""
    installed = {d.name: d.version for d in importlib.metadata.distributions()}
    return {name: installed[name] for name in PACKAGES if name in installed}


class _Means:
    """Means of logged scalars over an epoch; reads the device only every so often."""

    READ_EVERY = 20

    def __init__(self, model: str):
        self.model = model
        self.pending: list[tuple[int, Mapping[str, Any]]] = []
        self.sums: dict[str, float] = {}
        self.counts: dict[str, int] = {}
        self.last: dict[str, float] = {}

    def add(self, logs: Mapping[str, Any], step: int) -> None:
        self.pending.append((step, logs))
        if len(self.pending) >= self.READ_EVERY:
            self._read()

    def newest(self) -> dict[str, float]:
        return self.last

    def result(self) -> dict[str, float]:
        self._read()
        return {name: total / self.counts[name] for name, total in self.sums.items()}

    def _read(self) -> None:
        for step, logs in self.pending:
            for name, tensor in logs.items():
                value = float(np.asarray(tensor))
                if not math.isfinite(value):
                    raise UserError(
                        f"Every loss of {self.model} must stay finite; {name} became {value} at "
                        f"step {step}. The last good checkpoint is kept: lower the learning rate, "
                        "or look at the examples."
                    )
                self.sums[name] = self.sums.get(name, 0.0) + value
                self.counts[name] = self.counts.get(name, 0) + 1
                self.last[name] = value
        self.pending.clear()


def _batches(dataset: Any) -> Any:
    """Batches in the form the backend takes fastest: its own tensors, or NumPy arrays."""
    return dataset if keras.backend.backend() == "tensorflow" else dataset.as_numpy_iterator()


def _check_same(old: checkpoint.State, new: checkpoint.State) -> None:
    if old.model != new.model:
        raise UserError(
            f"The folder's checkpoint must be of {new.model}; it is of {old.model}. Choose another "
            "folder."
        )
    before = checkpoint.jsonable(old.config)
    now = checkpoint.jsonable(new.config)
    changed = [k for k in now if before.get(k) != now[k]]
    if changed:
        changes = ", ".join(f"{k} {before.get(k)} -> {now[k]}" for k in changed)
        raise UserError(
            f"A training goes on only with the settings it began with; changed: {changes}. "
            "Choose another folder."
        )
