"""What transformed examples say of themselves to a model's config.

`facts.json` tells of their dataset, `settings.json` which settings they were made with.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainer.artifact import read_json, write_json
from trainer.config import DatasetFacts, with_settings
from trainer.errors import UserError

FACTS = "facts.json"
SETTINGS = "settings.json"


def write_facts(folder: str | Path, facts: DatasetFacts) -> None:
    """Writes `facts.json` beside the transformed examples."""
    write_json(Path(folder) / FACTS, dataclasses.asdict(facts))


def read_facts(folder: str | Path) -> DatasetFacts:
    """Reads `facts.json`.

    Raises:
        UserError: the folder holds no transformed examples.
    """
    path = Path(folder) / FACTS
    if not path.is_file():
        raise UserError(
            f"Transformed examples must be a folder with a {FACTS}, as preprocess writes it; "
            f"{str(folder)!r} has none."
        )
    values = read_json(path)
    return DatasetFacts(**{**values, "class_names": tuple(values["class_names"])})


def write_settings(folder: str | Path, settings: Mapping[str, Any]) -> None:
    """Writes `settings.json` beside the transformed examples.

    Args:
        folder: of the transformed examples.
        settings: field of the model's Config -> value, of the fields that preprocessing has read.
    """
    write_json(Path(folder) / SETTINGS, dict(settings))


def check_settings(folder: str | Path, config: Any) -> None:
    """Refuses a config that other transformed examples than these belong to.

    Args:
        folder: of the transformed examples; without a `settings.json` they go with any config.
        config: the model's Config for a training on them.

    Raises:
        UserError: they were made with another value of a setting.
    """
    path = Path(folder) / SETTINGS
    if not path.is_file():
        return
    made_with = read_json(path)
    before = with_settings(config, made_with)
    changed = [
        f"{name} {getattr(before, name)} -> {getattr(config, name)}"
        for name in made_with
        if getattr(before, name) != getattr(config, name)
    ]
    if changed:
        raise UserError(
            "Transformed examples must have been made with the settings of the training; changed: "
            f"{', '.join(changed)}. Run preprocess with these settings; a Stage of a pipeline has "
            "that done by preprocess=True."
        )
