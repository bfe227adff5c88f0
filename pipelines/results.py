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
        minutes: what the command took on that hardware, which may have had other work to do.
        unit: unit of a metric that the paper does not publish, such as "%".
    """

    metric: str
    value: float
    dataset: str
    settings: dict[str, Any]
    hardware: str
    date: str
    commit: str
    command: str
    minutes: float
    unit: str = ""


@dataclasses.dataclass(frozen=True)
class Reproduction:
    """A published result and ours, either of which may be missing.

    Attributes:
        published: what the paper says; None for a metric that is ours alone.
        measured: what we measured; None where we have not.
    """

    published: Result | None
    measured: Measurement | None

    def __post_init__(self) -> None:
        if self.published is None and self.measured is None:
            raise ValueError("A reproduction must have a published number or one of ours.")

    @property
    def metric(self) -> str:
        """Name of the metric of both numbers."""
        return self.published.metric if self.published else self._ours.metric

    @property
    def unit(self) -> str:
        """Unit of both numbers; empty where they have none."""
        return self.published.unit if self.published else self._ours.unit

    @property
    def variant(self) -> str:
        """The variant that they are of; empty where there is only one."""
        if self.published:
            return self.published.variant
        return str(self._ours.settings.get("variant", ""))

    @property
    def dataset(self) -> str:
        """What the published number was measured on; ours where there is none."""
        return self.published.dataset if self.published else self._ours.dataset

    @property
    def published_text(self) -> str:
        """The published number with its unit; a dash where there is none."""
        return _text(self.published.value, self.unit, "g") if self.published else "–"

    @property
    def measured_text(self) -> str:
        """Our number with its unit and dataset, or why there is none."""
        if self.measured:
            return f"{_text(self.measured.value, self.unit, '.4g')}, {self.measured.dataset}"
        reason = self.published.not_measured if self.published else ""
        return f"not measured: {reason}" if reason else "not yet run"

    @property
    def _ours(self) -> Measurement:
        if self.measured is None:
            raise ValueError("there is no measurement")
        return self.measured


def measurements(model: str) -> list[Measurement]:
    """What has been measured of a model; nothing where it has no results.json."""
    path = model_folder(model) / "results.json"
    return [Measurement(**entry) for entry in read_json(path)] if path.is_file() else []


def reproductions(model: str) -> list[Reproduction]:
    """Every published result of a model beside our newest one of the same metric and variant.

    Ours may come from another dataset than the published one; each names its own. After these come
    the metrics that are ours alone: the newest measurement of each on each dataset, in the order
    of results.json.
    """
    default_variant = getattr(load_config(model), "variant", "")
    return beside(load_paper(model).results, measurements(model), default_variant)


def beside(
    published: tuple[Result, ...], measured: list[Measurement], default_variant: str = ""
) -> list[Reproduction]:
    """Published results and measurements in the rows of a table, see `reproductions`.

    Args:
        published: what the paper says.
        measured: what there is of ours.
        default_variant: the variant of measurements whose settings name none.
    """
    rows = [Reproduction(p, newest(p, measured, default_variant)) for p in published]
    known = {p.metric for p in published}
    alone: dict[tuple[str, str, str], Measurement] = {}
    for entry in measured:
        if entry.metric not in known:
            key = (entry.metric, entry.dataset, entry.settings.get("variant", default_variant))
            alone[key] = max(alone.get(key, entry), entry, key=lambda m: m.date)
    return [*rows, *(Reproduction(None, entry) for entry in alone.values())]


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


def _text(value: float, unit: str, form: str) -> str:
    return f"{value:{form}} {unit}".rstrip()
