"""The published number of each model beside the one we measured."""

from __future__ import annotations

import dataclasses
from typing import Any

from trainer.artifact import read_json
from trainer.catalog import load_config, load_paper, model_folder
from trainer.paper import Result


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One entry of a model's results.json.

    Attributes:
        metric: name of the metric, as the evaluation writes it.
        value: the number, in the unit of the published one.
        dataset: what it was measured on.
        settings: changes to the model's Config.
        hardware: the machine.
        date: day of the measurement, such as "2026-11-20".
        commit: the state of this repository.
        command: what to type to measure it again.
    """

    metric: str
    value: float
    dataset: str
    settings: dict[str, Any]
    hardware: str
    date: str
    commit: str
    command: str


@dataclasses.dataclass(frozen=True)
class Reproduction:
    """A published result, and ours where it has been measured."""

    published: Result
    measured: Measurement | None


def measurements(model: str) -> list[Measurement]:
    """What has been measured of a model; nothing where it has no results.json."""
    path = model_folder(model) / "results.json"
    return [Measurement(**entry) for entry in read_json(path)] if path.is_file() else []


def reproductions(model: str) -> list[Reproduction]:
    """Every published result of a model beside our newest one of the same metric and variant.

    Ours may come from another dataset than the published one; each names its own.
    """
    default_variant = getattr(load_config(model), "variant", "")
    return [
        Reproduction(published, newest(published, measurements(model), default_variant))
        for published in load_paper(model).results
    ]


def newest(
    published: Result, measured: list[Measurement], default_variant: str = ""
) -> Measurement | None:
    """The latest measurement of a published metric and variant; one of the same dataset goes first.

    Args:
        published: what to compare with; without a variant it stands for all variants.
        measured: what there is to choose from.
        default_variant: the variant of measurements whose settings name none.
    """
    comparable = [
        m
        for m in measured
        if m.metric == published.metric
        and published.variant in ("", m.settings.get("variant", default_variant))
    ]
    return max(comparable, key=lambda m: (m.dataset == published.dataset, m.date), default=None)
