"""What machines cost, from a dated file of published list prices.

The file has what could be verified and nothing else: a machine that is not in it costs "price not
known", which is better than a number that somebody made up.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.cloud import machines
from pipelines.cloud.machines import Machine
from trainer.artifact import read_json
from trainer.errors import UserError

FILE = Path(__file__).with_name("prices.json")

OLD_DAYS = 180
"""After so many days the prices are called old (ours)."""

HOURS_PER_MONTH = 730
"""What Google Cloud counts: https://cloud.google.com/compute/disks-image-pricing."""

_KINDS = ("processors", "accelerators", "machines", "chips", "disks", "dataflow")


@dataclasses.dataclass(frozen=True)
class Price:
    """The price of something for an hour; of a disk, of a gigabyte for a month.

    Attributes:
        on_demand: the list price.
        spot: the price of what can be taken away at any time; None where it is not known.
    """

    on_demand: float
    spot: float | None = None

    def times(self, factor: float) -> Price:
        """The price of several, or of a share."""
        return Price(self.on_demand * factor, None if self.spot is None else self.spot * factor)

    def plus(self, other: Price) -> Price:
        """The price of both."""
        known = self.spot is not None and other.spot is not None
        spot = (self.spot or 0.0) + (other.spot or 0.0) if known else None
        return Price(self.on_demand + other.on_demand, spot)


@dataclasses.dataclass(frozen=True)
class Prices:
    """List prices of a day.

    Attributes:
        date: the day of the oldest of those that have one.
        currency: such as USD.
        training_fee: what Vertex AI adds to a machine's price, as a fraction of it.
        pipeline_run: what Vertex AI takes for a run of a pipeline.
        regions: region -> kind of thing -> name -> its price.
    """

    date: datetime.date
    currency: str
    training_fee: float
    pipeline_run: float
    regions: Mapping[str, Mapping[str, Mapping[str, Price]]]

    def warning(self, today: datetime.date) -> str:
        """That the prices are old; empty where they are not."""
        days = (today - self.date).days
        if days <= OLD_DAYS:
            return ""
        return f"The prices are of {self.date}, {days} days ago; today's may differ."

    def machine_hour(self, machine_type: str, machine: Machine, region: str) -> Price | None:
        """What all hosts of a step cost in an hour, disks left out.

        Args:
            machine_type: as Google Cloud names it.
            machine: one that `machines.check` lets pass.
            region: where.

        Returns:
            The price; None where it is not known.
        """
        if machine.is_tpu:
            chips = self._price(region, "chips", _chip(machine))
            return None if chips is None else chips.times(machine.chips)
        gpus = re.fullmatch(r"(a[23]-[a-z]+)-(\d+)g", machine_type)
        if gpus:
            each = self._price(region, "machines", gpus[1])
            return None if each is None else each.times(int(gpus[2]))
        series, _, number = machine_type.rpartition("-")
        processor = self._price(region, "processors", series)
        if processor is None or not number.isdecimal():
            return None
        hour = processor.times(int(number))
        if not machine.accelerator:
            return hour
        gpu = self._price(region, "accelerators", machine.accelerator)
        return None if gpu is None else hour.plus(gpu.times(machine.accelerators))

    def disk_hour(self, kind: str, gigabytes: int, region: str) -> float | None:
        """What a disk costs in an hour; None where it is not known."""
        month = self._price(region, "disks", kind)
        return None if month is None else month.on_demand * gigabytes / HOURS_PER_MONTH

    def dataflow_hour(self, region: str) -> tuple[float, float] | None:
        """What Dataflow takes in an hour for a virtual CPU and for a gigabyte of its memory."""
        found = [self._price(region, "dataflow", name) for name in ("vcpu", "gigabyte")]
        known = [price.on_demand for price in found if price is not None]
        return (known[0], known[1]) if len(known) == len(found) else None

    def _price(self, region: str, kind: str, name: str) -> Price | None:
        return self.regions.get(region, {}).get(kind, {}).get(name)


def read_prices(file: Path = FILE) -> Prices:
    """The prices of a file, checked.

    Raises:
        UserError: there is no such file, or it is not as it must be.
    """
    try:
        content = read_json(file)
    except (OSError, ValueError) as error:
        what = getattr(error, "strerror", None) or "it is no JSON"
        raise UserError(f"Prices must be a file of JSON; {file}: {what}.") from error
    try:
        return _prices(content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{file} must hold prices as prices.json here does; {error}.") from error


@functools.cache
def ours() -> Prices:
    """The prices that came with this version."""
    return read_prices()


def _prices(content: Mapping[str, Any]) -> Prices:
    sources = content["sources"]
    for name, source in sources.items():
        if not source["url"].startswith("https://") or not source["read"]:
            raise ValueError(f"source {name} does not say where it is from")
        if source["date"]:
            datetime.date.fromisoformat(source["date"])
    vertex = content["vertex"]
    regions: dict[str, dict[str, dict[str, Price]]] = {}
    for region, kinds in content["regions"].items():
        strange = sorted(set(kinds) - set(_KINDS))
        if strange:
            raise ValueError(f"{region} has {strange[0]!r}, which is none of {', '.join(_KINDS)}")
        regions[region] = {
            kind: {
                name: _price(entry, f"{region}/{kind}/{name}", sources)
                for name, entry in of_kind.items()
            }
            for kind, of_kind in kinds.items()
        }
    if vertex["source"] not in sources:
        raise ValueError("vertex names a source that there is not")
    return Prices(
        date=datetime.date.fromisoformat(content["date"]),
        currency=str(content["currency"]),
        training_fee=_positive(vertex["training_fee"], "training_fee"),
        pipeline_run=_positive(vertex["pipeline_run"], "pipeline_run"),
        regions=regions,
    )


def _price(entry: Mapping[str, Any], what: str, sources: Mapping[str, Any]) -> Price:
    if entry["source"] not in sources:
        raise ValueError(f"{what} names a source that there is not: {entry['source']!r}")
    on_demand = _positive(entry["on_demand"], what)
    spot = None if entry["spot"] is None else _positive(entry["spot"], what)
    if spot is not None and spot > on_demand:
        raise ValueError(f"spot of {what} is dearer than on demand")
    return Price(on_demand, spot)


def _positive(value: Any, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{what} is no number")
    if not 0 < value < math.inf:
        raise ValueError(f"{what} must be above 0 and got {value}")
    return float(value)


def _chip(machine: Machine) -> str:
    """What a TPU's chip is listed as; those of old generations cost less alone than in pods."""
    pod = machine.accelerator in machines.OLD_TPUS and machine.accelerators > 8
    return f"{machine.accelerator} pod" if pod else machine.accelerator
