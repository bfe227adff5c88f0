"""Checkpoints: all variables as safetensors, and `state.json`, which says what they are.

A checkpoint folder holds `checkpoint-<step>.safetensors` and, written last, `state.json`; a folder
without `state.json` is no checkpoint. Either backend reads what the other wrote.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
from safetensors import numpy as safetensors

from trainer.artifact import read_json, sha256, write_json
from trainer.catalog import load_config
from trainer.config import with_settings
from trainer.errors import UserError
from trainer.recipe import Recipe

STATE = "state.json"
HISTORY = "history.json"


@dataclasses.dataclass(frozen=True)
class State:
    """What a checkpoint is.

    Attributes:
        model: name of the model.
        config: the model's Config, field by field.
        class_names: name of each label; empty where there are none.
        step: optimizer steps taken.
        epoch: epochs completed.
        file: the safetensors file beside it.
        sha256: of that file.
        origin: how the weights came about, in a sentence.
        versions: package -> version.
    """

    model: str
    config: Mapping[str, Any]
    class_names: tuple[str, ...]
    step: int
    epoch: int
    file: str
    sha256: str
    origin: str
    versions: Mapping[str, str]

    def load_config(self) -> Any:
        """The Config that the checkpoint was made with."""
        return with_settings(load_config(self.model), self.config)


def named_variables(recipe: Recipe, networks_only: bool = False) -> dict[str, keras.Variable]:
    """Every variable of a recipe by its name in checkpoints.

    Names are `networks/<network>/<layer>/<variable>`, `optimizers/<loss>/<network>/<number>` and
    `seeds/<number>`; optimizers must have been built.

    Args:
        recipe: the recipe.
        networks_only: leave out what only training needs.
    """
    named = {
        f"networks/{name}/{variable.path}": variable
        for name, network in recipe.networks.items()
        for variable in network.variables
    }
    if networks_only:
        return named
    for update in recipe.updates:
        for name, optimizer in update.optimizers.items():
            for i, variable in enumerate(optimizer.variables):
                named[f"optimizers/{update.loss.__name__}/{name}/{i:04d}"] = variable
    for i, seed in enumerate(recipe.seeds):
        named[f"seeds/{i}"] = seed.state
    return named


def save(folder: str | Path, recipe: Recipe, state: State, networks_only: bool = False) -> State:
    """Writes a checkpoint and removes older ones of the folder once it is whole.

    Args:
        folder: made where it is missing.
        recipe: whose variables to save.
        state: what to say of them; `file` and `sha256` are filled in.
        networks_only: leave out what only training needs.

    Returns:
        The state as written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    file = f"checkpoint-{state.step:08d}.safetensors"
    variables = named_variables(recipe, networks_only)
    arrays = {
        name: np.asarray(keras.ops.convert_to_numpy(variable.value), order="C")
        for name, variable in variables.items()
    }
    draft = folder / f".{file}.unfinished"
    # Not save_file, whose files only their owner may read.
    draft.write_bytes(safetensors.save(arrays))
    draft.replace(folder / file)
    state = dataclasses.replace(state, file=file, sha256=sha256(folder / file))
    write_json(folder / STATE, dataclasses.asdict(state))
    for path in folder.glob("checkpoint-*.safetensors"):
        if path.name != file:
            path.unlink()
    return state


def read_state(folder: str | Path) -> State:
    """What the checkpoint in a folder is.

    Raises:
        UserError: the folder holds no finished checkpoint.
    """
    path = Path(folder) / STATE
    if not path.is_file():
        raise UserError(
            f"A checkpoint must be a folder with a {STATE}, as train or import-weights writes it; "
            f"{str(folder)!r} has none."
        )
    values = read_json(path)
    return State(**{**values, "class_names": tuple(values["class_names"])})


def restore(folder: str | Path, recipe: Recipe, networks_only: bool = False) -> State:
    """Assigns the values of a checkpoint to the variables of a recipe.

    Args:
        folder: the checkpoint.
        recipe: whose variables to set.
        networks_only: leave optimizers and seeds as they are.

    Returns:
        What the checkpoint is.

    Raises:
        UserError: the file is damaged, or does not fit the recipe.
    """
    state = read_state(folder)
    path = Path(folder) / state.file
    if not path.is_file() or sha256(path) != state.sha256:
        raise UserError(
            f"The checkpoint {path} must have the SHA-256 that {STATE} names; it is damaged or "
            "missing. Train again, or copy the folder again."
        )
    arrays = safetensors.load_file(path)
    for name, variable in named_variables(recipe, networks_only).items():
        value = arrays.get(name)
        if value is None or value.shape != tuple(variable.shape):
            came = "is missing" if value is None else f"has shape {list(value.shape)}"
            raise UserError(
                f"The checkpoint must hold {name!r} with shape {list(variable.shape)}; it {came}. "
                f"It was made by {state.model} with {dict(state.config)}."
            )
        variable.assign(value)
    return state


def jsonable(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config as `state.json` gives it back: tuples as lists."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in config.items()}


def read_history(folder: str | Path) -> list[dict[str, Any]]:
    """What was measured in each epoch of the checkpoint's training; empty if it was imported."""
    path = Path(folder) / HISTORY
    history: list[dict[str, Any]] = read_json(path) if path.is_file() else []
    return history
