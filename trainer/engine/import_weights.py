"""Published checkpoints of other frameworks become ours, ready to evaluate and export."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trainer.catalog import load_config, load_recipe, model_folder
from trainer.config import with_settings
from trainer.engine import checkpoint
from trainer.engine.train import installed_versions
from trainer.errors import UserError
from trainer.torch_checkpoint import read_torch_checkpoint, state_dict


def formats(model: str) -> list[str]:
    """What a model's weights can be imported from: its modules named `import_<format>`.

    Such a module offers `settings_of(state)`, the settings that a state dict's shapes tell, and
    `convert(state)`, the arrays by our variables' names. Where a file has only a part of them,
    `LEFT` says how the names of the others begin.
    """
    modules = model_folder(model).glob("import_*.py")
    return sorted(p.stem.removeprefix("import_") for p in modules if not p.stem.endswith("_test"))


def import_weights(
    model: str,
    format: str,
    file: str | Path,
    output: str | Path,
    settings: Mapping[str, Any] | None = None,
) -> checkpoint.State:
    """Turns a published checkpoint into one of ours.

    Args:
        model: name of the model.
        format: whose names and layouts the file has, such as "pycls".
        file: `.pth`, `.pyth`, `.pt` or `.safetensors`; or a folder of them, where each network has
            a file of its own.
        output: folder for the checkpoint.
        settings: changes to the configuration beyond what the shapes in the file tell.

    Returns:
        What the checkpoint is.

    Raises:
        UserError: no such format, or the file does not hold the model's weights.
    """
    if format not in formats(model):
        raise UserError(
            f"Weights of {model} must come from {', '.join(formats(model)) or 'nowhere yet'}; "
            f"got {format!r}."
        )
    converter = importlib.import_module(f"trainer.models.{model}.import_{format}")
    state = _read(Path(file))
    told = {**converter.settings_of(state), **(settings or {})}
    config = with_settings(load_config(model), told)
    recipe = load_recipe(model)(config)
    arrays: Mapping[str, np.ndarray] = converter.convert(state)
    variables = checkpoint.named_variables(recipe, networks_only=True)
    left = getattr(converter, "LEFT", ())
    missing = sorted(v for v in set(variables) - set(arrays) if not v.startswith(left))
    surplus = sorted(set(arrays) - set(variables))
    if missing or surplus:
        raise UserError(
            f"{file} must hold the weights of {model} with {told}; it lacks {_some(missing)} and "
            f"has {_some(surplus)} besides."
        )
    for name in arrays:
        variable = variables[name]
        if arrays[name].shape != tuple(variable.shape):
            raise UserError(
                f"{name} must have shape {list(variable.shape)} with {told}; in {file} it has "
                f"{list(arrays[name].shape)}."
            )
        variable.assign(arrays[name])
    return checkpoint.save(
        output,
        recipe,
        checkpoint.State(
            model=model,
            config=dataclasses.asdict(config),
            class_names=(),  # a state dict knows none
            step=0,
            epoch=0,
            file="",
            sha256="",
            origin=f"Imported from the {format} checkpoint {Path(file).name}.",
            versions=installed_versions(),
        ),
        networks_only=True,
    )


def _read(path: Path) -> Mapping[str, np.ndarray]:
    """A state dict; that of a folder has those of its files, as in "d1-40000/conv1.0.weight"."""
    if not path.is_dir():
        return state_dict(read_torch_checkpoint(path))
    return {
        f"{file.stem}/{name}": value
        for file in sorted(path.iterdir())
        if not file.name.startswith(".")
        for name, value in state_dict(read_torch_checkpoint(file)).items()
    }


def _some(names: list[str]) -> str:
    if not names:
        return "nothing"
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
