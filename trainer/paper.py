"""What was published, as data that tests and pages can read (standard library only)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Result:
    """One published number.

    Attributes:
        metric: name of the metric, the same as the one our evaluation writes.
        value: the number as published, in the unit named by `unit`.
        dataset: what it was measured on, in the paper's words.
        where: table, figure or page it is read from.
        unit: unit of `value`, such as "%" or "squared error per image".
        variant: the model variant it belongs to; empty where there is only one.
        higher_is_better: direction of improvement.
        not_measured: why we measure nothing that compares with it; empty where we do.
    """

    metric: str
    value: float
    dataset: str
    where: str
    unit: str = ""
    variant: str = ""
    higher_is_better: bool = True
    not_measured: str = ""


@dataclasses.dataclass(frozen=True)
class Paper:
    """A publication and the numbers it is remembered for; `results[0]` is the headline."""

    title: str
    authors: str
    year: int
    url: str
    results: tuple[Result, ...]

    def beside(self, measured: Mapping[str, float], variant: str = "") -> list[Comparison]:
        """Each metric, published ones first, with our number and the paper's where there is one.

        Args:
            measured: our metrics, name -> value.
            variant: take the published numbers of this variant, and those of no variant.
        """
        published = {r.metric: r for r in self.results if r.variant in ("", variant)}
        names = [*published, *(name for name in measured if name not in published)]
        return [Comparison(name, measured.get(name), published.get(name)) for name in names]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One metric: what we measured and what was published, either of which may be missing."""

    metric: str
    ours: float | None
    published: Result | None

    @property
    def unit(self) -> str:
        """The unit of both numbers, as far as the paper names one."""
        return self.published.unit if self.published else ""
