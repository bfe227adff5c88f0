"""The models that have a pipeline: every file here whose name is a folder of trainer/models."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

import pipelines
from trainer import catalog
from trainer.errors import UserError


def names() -> list[str]:
    """Names of all models with a pipeline, sorted; imports none of them."""
    files = {m.name for m in pkgutil.iter_modules(pipelines.__path__) if not m.ispkg}
    return sorted(files & set(catalog.model_names()))


def load(name: str) -> ModuleType:
    """A model's pipeline module: `pipeline` for this machine, `build(target)` for any; imports KFP.

    Raises:
        UserError: there is no such model.
    """
    check(name)
    return importlib.import_module(f"pipelines.{name}")


def check(name: str) -> None:
    """Refuses what is no model.

    Raises:
        UserError: there is no such model.
    """
    if name not in names():
        raise UserError(f"The model must be one of {', '.join(names())}; got {name!r}.")
