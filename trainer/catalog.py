"""What there is: a folder of `trainer/models` is a model, one of `trainer/data` a dataset."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from trainer import data, models
from trainer.dataset import Dataset
from trainer.errors import UserError
from trainer.paper import Paper


def model_names() -> list[str]:
    """Names of all models, sorted."""
    return _folders(models, "config")


def dataset_names() -> list[str]:
    """Names of all dataset adapters, sorted."""
    return _folders(data, "dataset")


def model_part(model: str, part: str) -> ModuleType:
    """A module of a model's folder: `config`, `data` or `recipe`.

    Raises:
        UserError: there is no such model.
    """
    _check(model, model_names(), "model")
    return importlib.import_module(f"trainer.models.{model}.{part}")


def model_folder(model: str) -> Path:
    """Where a model's files are, such as its README.md and results.json."""
    _check(model, model_names(), "model")
    return Path(models.__path__[0]) / model


def load_paper(model: str) -> Paper:
    """What the model's paper published."""
    paper: Paper = model_part(model, "config").PAPER
    return paper


def load_config(model: str) -> Any:
    """The model's default Config: the paper's main experiment."""
    return model_part(model, "config").Config()


def load_recipe(model: str) -> Callable[[Any], Any]:
    """The model's `recipe(config)`; imports Keras."""
    recipe: Callable[[Any], Any] = model_part(model, "recipe").recipe
    return recipe


def dataset_module(name: str) -> ModuleType:
    """The adapter module of a dataset.

    Raises:
        UserError: there is no such dataset.
    """
    _check(name, dataset_names(), "dataset")
    return importlib.import_module(f"trainer.data.{name}.dataset")


def open_dataset(root: str | Path, name: str = "") -> tuple[str, Dataset]:
    """Opens a dataset on disk with the adapter named, or with the one that knows its layout.

    Returns:
        The adapter's name and the open dataset.

    Raises:
        UserError: the folder is missing, or no adapter or more than one knows its layout.
    """
    folder = Path(root)
    if not folder.is_dir():
        raise UserError(f"The data must be a folder; {str(folder)!r} is not one.")
    if name:
        return name, dataset_module(name).open_dataset(folder)
    fitting = [n for n in dataset_names() if dataset_module(n).recognises(folder)]
    fitting = [n for n in fitting if not dataset_module(n).INFO.general] or fitting
    if len(fitting) != 1:
        layouts = "; ".join(f"{n}: {dataset_module(n).INFO.layout}" for n in dataset_names())
        found = f"fits {' and '.join(fitting)}" if fitting else "fits none"
        raise UserError(
            f"The data must have the layout of one dataset; {str(folder)!r} {found}. "
            f"Layouts known: {layouts}. Name the dataset to decide."
        )
    return fitting[0], dataset_module(fitting[0]).open_dataset(folder)


def _folders(package: ModuleType, part: str) -> list[str]:
    """The folders of a package that have the module that makes them what they are."""
    return sorted(
        module.name
        for module in pkgutil.iter_modules(package.__path__)
        if module.ispkg
        and any((Path(p) / module.name / f"{part}.py").is_file() for p in package.__path__)
    )


def _check(name: str, known: list[str], kind: str) -> None:
    if name not in known:
        raise UserError(f"The {kind} must be one of {', '.join(known)}; got {name!r}.")
