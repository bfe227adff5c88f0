"""What several tests stand on: examples of every model's own dataset, made once."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainer import imports
from trainer.catalog import model_names, model_part

imports.begin()


def pytest_collection_finish() -> None:
    """All is imported."""
    imports.end()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of one model, or else of one file, run in one process, which makes fixtures once."""
    for item in items:
        call = getattr(item, "callspec", None)
        model = call.params.get("model") if call else None
        item.add_marker(pytest.mark.xdist_group(str(model or item.path)))


def model_cases() -> list[Any]:
    """Every model, for parametrizing; `slow` where its config says that TINY takes minutes."""
    return [
        pytest.param(
            model,
            marks=[pytest.mark.slow]
            if getattr(model_part(model, "config"), "TINY_TAKES_MINUTES", False)
            else [],
        )
        for model in model_names()
    ]


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A model's examples, raw and transformed, with the settings of its TINY config."""

    model: str
    settings: dict[str, Any]
    examples: Path
    transformed_examples: Path
    transform_graph: Path


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Prepared]:
    """Makes examples for a model from its dataset's sample, by the real steps, once a session."""
    made: dict[str, Prepared] = {}

    def prepare(model: str) -> Prepared:
        if model not in made:
            made[model] = _prepare(model, tmp_path_factory.mktemp(model))
        return made[model]

    return prepare


def _prepare(model: str, folder: Path) -> Prepared:
    from components.create_tfrecords.create_tfrecords import create_tfrecords
    from components.preprocess.preprocess import preprocess

    spec = importlib.import_module(f"pipelines.{model}").pipeline.pipeline_spec
    dataset = spec.root.input_definitions.parameters["dataset"].default_value.string_value
    sample = importlib.import_module(f"trainer.data.{dataset}.sample")
    sample.write_sample(folder / "data")
    prepared = Prepared(
        model,
        dataclasses.asdict(model_part(model, "config").TINY),
        folder / "examples",
        folder / "transformed_examples",
        folder / "transform_graph",
    )
    create_tfrecords(str(prepared.examples), str(folder / "data"), dataset, shards=2)
    preprocess(
        model,
        str(prepared.examples),
        str(prepared.transformed_examples),
        str(prepared.transform_graph),
        prepared.settings,
    )
    return prepared
