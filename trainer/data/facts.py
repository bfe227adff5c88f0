"""`facts.json`: what transformed examples tell a model's config of their dataset."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from trainer.artifact import read_json, write_json
from trainer.config import DatasetFacts
from trainer.errors import UserError

FACTS = "facts.json"


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
