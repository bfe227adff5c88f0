"""What a pipeline would do on a cloud, step by step, before anything is spent; it only asks.

For each step: whether the cloud has its result already and if not, what has changed; the machine,
and whether there is such a machine; the time, as far as it is known; what that costs by a dated
price list; and the quota that it needs.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import yaml

from pipelines.cloud import compiled_steps, machines, prices, quota
from pipelines.cloud.account import Account, Kind
from pipelines.cloud.compiled_steps import Step
from pipelines.cloud.job import Cloud, Earlier, Request
from pipelines.cloud.machines import Machine
from pipelines.cloud.placement import Part
from pipelines.cloud.prices import Price, Prices
from pipelines.cloud.quota import Quota
from trainer.errors import UserError


@dataclasses.dataclass(frozen=True)
class Range:
    """What something is at least and at most."""

    low: float
    high: float

    def plus(self, other: Range) -> Range:
        """What both are together."""
        return Range(self.low + other.low, self.high + other.high)


NOTHING = Range(0.0, 0.0)


@dataclasses.dataclass(frozen=True)
class Duration:
    """How long a step takes.

    Attributes:
        seconds: at least and at most.
        source: who says so, such as "3 earlier jobs".
    """

    seconds: Range
    source: str


class Durations(Protocol):
    """Whoever knows how long steps take: earlier jobs, a ledger of results, a plan for TPUs."""

    def of(self, step: Step) -> Duration | None:
        """How long a step takes on its machine; None where that is not known."""


@dataclasses.dataclass(frozen=True)
class Refused:
    """A machine that was asked for and that there is not.

    Attributes:
        machine: what was asked for.
        reason: why there is none such, and what would work.
    """

    machine: Machine
    reason: str


@dataclasses.dataclass(frozen=True)
class StepPlan:
    """What a step would do.

    Attributes:
        step: its name.
        cached: whether the cloud has its result already.
        why: because of what, in words.
        machine: what it asks for, in words.
        machine_type: as Google Cloud names it; empty where the cluster has one.
        hosts: how many machines.
        strategy: how they are had; see `machines.Strategy`.
        valid: whether there is such a machine.
        problem: why not, and what would work; empty where there is.
        seconds: how long it takes; None where that is not known.
        time_source: who says so.
        seconds_here: how long it last took on this machine, which says little of another.
        hour: what an hour costs; None where that is not known.
        cost: what it costs; None where time or price are not known.
        price_note: what the price leaves out; or that it is not known.
        quotas: what must be allowed for it to start.
    """

    step: str
    cached: bool
    why: str
    machine: str
    machine_type: str
    hosts: int
    strategy: str
    valid: bool
    problem: str
    seconds: Range | None
    time_source: str
    seconds_here: float | None
    hour: Range | None
    cost: Range | None
    price_note: str
    quotas: tuple[Quota, ...]


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a pipeline would do.

    Attributes:
        pipeline: its name.
        target: the account's name.
        kind: vertex or kubeflow.
        region: where; empty where the account does not say it.
        compared_with: the job that decides what is cached; empty where there is none.
        compared_date: when that was submitted (ISO 8601).
        steps: in the order in which they run.
        run_fee: what the cloud takes for the run itself.
        cost: of all steps whose cost is known, and the fee.
        unknown: the steps whose cost is not in it.
        currency: of all costs.
        prices_date: the day of the price list (ISO 8601).
        notes: what else there is to know.
    """

    pipeline: str
    target: str
    kind: Kind
    region: str
    compared_with: str
    compared_date: str
    steps: tuple[StepPlan, ...]
    run_fee: float
    cost: Range
    unknown: tuple[str, ...]
    currency: str
    prices_date: str
    notes: tuple[str, ...]

    @property
    def valid(self) -> bool:
        """Whether there are all the machines that it asks for."""
        return all(step.valid for step in self.steps)


class EarlierJobs:
    """How long steps took in earlier jobs, on machines of the same kind.

    Args:
        jobs: that have succeeded.
        kind: of their cloud.
    """

    def __init__(self, jobs: Sequence[Earlier], kind: Kind):
        self._took: list[tuple[Step, float]] = []
        for earlier in jobs:
            for step in _steps_of(earlier, kind):
                task = earlier.job.tasks.get(step.name)
                if task and task.status == "succeeded" and task.seconds:
                    self._took.append((step, task.seconds))

    def of(self, step: Step) -> Duration | None:
        """From the quickest of them to the slowest; of those with the same settings, if any."""
        alike = [
            (earlier, seconds)
            for earlier, seconds in self._took
            if earlier.name == step.name and _kind_of_machine(earlier) == _kind_of_machine(step)
        ]
        same = [
            seconds
            for earlier, seconds in alike
            if earlier.key.get("parameters") == step.key.get("parameters")
        ]
        found = same or [seconds for _, seconds in alike]
        if not found:
            return None
        what = "an earlier job" if len(found) == 1 else f"{len(found)} earlier jobs"
        other = "" if same else " with other settings"
        return Duration(Range(min(found), max(found)), f"{what}{other}")


def plan(
    request: Request,
    account: Account,
    cloud: Cloud,
    *,
    durations: Sequence[Durations] = (),
    here: Mapping[str, float] | None = None,
    refused: Mapping[Part, Refused] | None = None,
    listed: Prices | None = None,
    today: datetime.date | None = None,
) -> Plan:
    """What a request would do, for all that is known.

    Args:
        request: the pipeline, compiled and its images pinned.
        account: where it would run.
        cloud: that account's; it is only asked.
        durations: who else knows how long steps take, the best first; what the account's earlier
            jobs tell comes before them.
        here: step -> seconds that it took on this machine when it last ran.
        refused: part of the work -> a machine that was asked for and that there is not; the
            pipeline is compiled without it.
        listed: prices; None for those that came with this version.
        today: to tell how old the prices are; None for today.

    Raises:
        UserError: the cloud refuses to answer.
        TryAgain: the cloud does not answer.
    """
    listed = listed or prices.ours()
    documents = list(yaml.load_all(request.text, Loader=_loader()))
    specification = documents[0]
    platform = (documents[1] if len(documents) > 1 else None) or {}
    steps = compiled_steps.read_steps(specification, request.parameters, account.kind, platform)
    pipeline = str(specification["pipelineInfo"]["name"])
    jobs = cloud.earlier(pipeline)
    knowing = (EarlierJobs(jobs, account.kind), *durations)
    before = {step.name: step for step in _steps_of(jobs[0], account.kind)} if jobs else {}
    planned: dict[str, StepPlan] = {}
    for step in steps:
        cached, why = _cached(step, before, jobs, planned, request.cache)
        refusal = (refused or {}).get(step.part)
        if refusal:
            cached, why = False, "there is no such machine"
        made = _place(step, refusal, account)
        made = dataclasses.replace(
            made, cached=cached, why=why, seconds_here=(here or {}).get(step.name)
        )
        planned[step.name] = _costed(made, step, refusal, account, listed, knowing)
    fee = listed.pipeline_run if account.kind == "vertex" else 0.0
    total = Range(fee, fee)
    for made in planned.values():
        total = total.plus(made.cost or NOTHING)
    return Plan(
        pipeline=pipeline,
        target=account.name,
        kind=account.kind,
        region=account.region,
        compared_with=jobs[0].job.identifier if jobs else "",
        compared_date=jobs[0].job.created if jobs else "",
        steps=tuple(planned.values()),
        run_fee=fee,
        cost=total,
        unknown=tuple(name for name, made in planned.items() if made.cost is None),
        currency=listed.currency,
        prices_date=listed.date.isoformat(),
        notes=tuple(
            _notes(request, account, jobs, planned, listed, today or datetime.date.today())
        ),
    )


def _cached(
    step: Step,
    before: Mapping[str, Step],
    jobs: Sequence[Earlier],
    planned: Mapping[str, StepPlan],
    cache: bool | None,
) -> tuple[bool, str]:
    """Whether the cloud has a step's result, and because of what."""
    if not (step.cached if cache is None else cache):
        return False, "caching is off"
    if not jobs:
        return False, "no earlier job of this pipeline has succeeded"
    job = jobs[0].job
    if step.name not in before:
        return False, f"{job.identifier} has no such step"
    changes = compiled_steps.differences(before[step.name], step)
    if changes:
        return False, "; ".join(changes)
    runs = (name for name, made in planned.items() if name in step.takes and not made.cached)
    first = next(runs, "")
    if first:
        return False, f"{first} before it runs"
    return True, f"the same as in {job.identifier} of {job.created[: len('2026-01-01')]}"


def _place(step: Step, refusal: Refused | None, account: Account) -> StepPlan:
    """A step with its machine, and whether there is such a machine."""
    machine = refusal.machine if refusal else step.machine
    problem = refusal.reason if refusal else step.problem
    name, number = step.machine_type, 1
    if machine is not None and not problem:
        try:
            machines.check(machine, account.kind, "jax" if machine.is_tpu else "")
            number = machines.hosts(machine)
        except UserError as error:
            problem = str(error)
    if refusal:
        name = refusal.machine.machine_type
    return StepPlan(
        step=step.name,
        cached=False,
        why="",
        machine="not known" if machine is None else str(machine),
        machine_type=name,
        hosts=number,
        strategy="standard" if machine is None else machine.strategy,
        valid=not problem,
        problem=problem,
        seconds=None,
        time_source="",
        seconds_here=None,
        hour=None,
        cost=None,
        price_note="",
        quotas=(),
    )


def _costed(
    made: StepPlan,
    step: Step,
    refusal: Refused | None,
    account: Account,
    listed: Prices,
    knowing: Sequence[Durations],
) -> StepPlan:
    """A step with its time, its cost and the quota that it needs."""
    if made.cached:
        return dataclasses.replace(
            made, seconds=NOTHING, time_source="cached", hour=NOTHING, cost=NOTHING
        )
    machine = step.machine
    if not made.valid or refusal or machine is None:
        return dataclasses.replace(made, price_note="price not known")
    answers = (who.of(step) for who in knowing)
    known = next((answer for answer in answers if answer is not None), None)
    hour, note = _hour(made, step, machine, account, listed)
    cost = None
    if known and hour:
        low, high = known.seconds.low / 3600 * hour.low, known.seconds.high / 3600 * hour.high
        cost = Range(low, high)
    return dataclasses.replace(
        made,
        seconds=known.seconds if known else None,
        time_source=known.source if known else "",
        hour=hour,
        cost=cost,
        price_note=note,
        quotas=quota.quotas(machine, made.machine_type, made.hosts, account.kind),
    )


def _hour(
    made: StepPlan, step: Step, machine: Machine, account: Account, listed: Prices
) -> tuple[Range | None, str]:
    """What an hour of a step costs on all of its hosts, and what that leaves out.

    A machine that is had cheaply costs its spot price at least; at most the list price, which is
    what it comes to where much has to be done again.
    """
    if not account.region:
        return None, f"price not known: target {account.name} has no region"
    if not made.machine_type:
        return None, "price not known: the cluster has the machine"
    price = listed.machine_hour(made.machine_type, machine, account.region)
    if price is None:
        return None, f"price not known: {made.machine_type} in {account.region}"
    notes = []
    if account.kind == "vertex":
        price = price.times(1 + listed.training_fee)
    low = price.on_demand
    if machine.strategy == "spot":
        low = low if price.spot is None else price.spot
        notes += ["spot price not known"] if price.spot is None else []
    elif machine.strategy == "flex-start":
        notes.append("flex-start may be cheaper")
    if step.custom_job:
        disk = _disk(machine, made.hosts, account, listed)
        if disk is None:
            notes.append(f"without the disk, {machines.boot_disk(machine)}: its price is not known")
        else:
            low, price = low + disk, price.plus(Price(disk))
    if step.name.startswith("preprocess") and account.beam == "dataflow":
        beside = listed.dataflow_hour(account.region)
        what = (
            f": {beside[0]:g} {listed.currency} for a virtual CPU and hour, "
            f"{beside[1]:g} for a gigabyte of its memory"
            if beside
            else ", whose price is not known"
        )
        notes.append(f"without Dataflow's workers{what}")
    return Range(low, price.on_demand), "; ".join(notes)


def _disk(machine: Machine, hosts: int, account: Account, listed: Prices) -> float | None:
    """What the boot disks cost in an hour, with what Vertex AI adds."""
    kind, size = machines.boot_disk(machine), machine.boot_disk_gigabytes
    each = listed.disk_hour(kind, size, account.region)
    return None if each is None else each * hosts * (1 + listed.training_fee)


def _notes(
    request: Request,
    account: Account,
    jobs: Sequence[Earlier],
    planned: Mapping[str, StepPlan],
    listed: Prices,
    today: datetime.date,
) -> list[str]:
    notes = []
    same = [e.job.identifier for e in jobs if e.job.identifier.startswith(request.identifier())]
    if same and all(step.valid for step in planned.values()):
        notes.append(
            f"This very request has succeeded as {same[0]}: submit gives that job, and runs the "
            "pipeline once more only with --again."
        )
    if any(made.cached for made in planned.values()):
        notes.append(
            "What is cached here runs all the same if the cloud has removed the result meanwhile."
        )
    if any(made.machine_type.startswith("e2-") for made in planned.values()):
        notes.append(
            "Vertex AI chooses the machines of ordinary steps; they are reckoned as e2-standard."
        )
    if account.kind == "kubeflow":
        notes.append(
            "Nodes of a cluster cost for as long as they are there; the cluster's own fee, and "
            "nodes that wait, are not counted."
        )
    if "@sha256:" not in request.text:
        notes.append("Images are named by tags: a tag that was moved is not seen.")
    warning = listed.warning(today)
    return [*notes, *([warning] if warning else [])]


def _steps_of(earlier: Earlier, kind: Kind) -> list[Step]:
    """The steps of an earlier job; none where it cannot be read, such as one of another version."""
    try:
        return compiled_steps.read_steps(
            earlier.specification, earlier.parameters, kind, earlier.platform
        )
    except (LookupError, TypeError, AttributeError, ValueError, UserError):
        return []


def _kind_of_machine(step: Step) -> tuple[object, ...]:
    """What two machines must have in common for a step to take the same time on them."""
    machine = step.machine
    if machine is None:
        return ()
    return (step.machine_type, machine.topology, machine.accelerators, machine.cpu)


def _loader() -> Any:
    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)
