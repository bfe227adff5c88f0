"""What the command `plan` does: asks the cloud, and shows the plan to a person or a program."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.cloud.account import Account
from pipelines.cloud.placement import Part, Placement, placed
from trainer.errors import UserError
from trainer.progress import duration

if TYPE_CHECKING:
    from rich.console import Console

    from pipelines.cloud.plan import Plan, Range, Refused, StepPlan

_INVALID = 2
"""Exit code where a machine that was asked for is none: the caller can mend it."""


def plan(
    model: str,
    account: Account,
    values: Mapping[str, Any],
    *,
    machines: Mapping[str, str],
    pinned_by: str,
    cache: bool | None,
    root: Path,
    as_json: bool,
    console: Console,
) -> int:
    """Shows what `submit` would do with the same words.

    Args:
        model: name of the model.
        account: where it would run.
        values: of the pipeline's parameters.
        machines: part of the work -> machine as text, where it is not the account's.
        pinned_by: registry, lock file or `local`, where it is not the account's.
        cache: whether earlier results may be used; None as the pipeline says.
        root: folder of the runs on this machine.
        as_json: print JSON.
        console: where to print tables.

    Returns:
        The command's exit code: 0, or 2 where there is no such machine.

    Raises:
        UserError: there is no such model, machine, image or parameter, or the cloud refuses.
        TryAgain: registry or cloud do not answer.
    """
    from pipelines.cloud import plan as planning
    from pipelines.cloud.submission import cloud_of, request_for
    from pipelines.local.history import usual_seconds

    refused = refused_machines(placed(account.placement(machines)))
    # The pipeline is compiled with the model's own machine in place of one that there is not.
    texts = {**account.machines, **machines}
    account_of_rest = dataclasses.replace(account, machines={})
    rest = {part: text for part, text in texts.items() if part not in refused}
    request = request_for(
        model, account_of_rest, values, machines=rest, pinned_by=pinned_by, cache=cache
    )
    pipeline = str(request.specification()["pipelineInfo"]["name"])
    made = planning.plan(
        request,
        account,
        cloud_of(account),
        here=usual_seconds(root, pipeline),
        refused=refused,
    )
    if as_json:
        print(json.dumps(dataclasses.asdict(made) | {"valid": made.valid}, indent=2))
    else:
        show(made, console)
    return 0 if made.valid else _INVALID


def refused_machines(place: Placement) -> dict[Part, Refused]:
    """The machines of a placement that there are not, with the reasons."""
    from pipelines.cloud.plan import Refused

    found: dict[Part, Refused] = {}
    for part, machine in place.machines.items():
        try:
            place.machine(part, machine)  # type: ignore[arg-type]  # a wrong part is told later
        except UserError as error:
            found[part] = Refused(machine, str(error))  # type: ignore[index]
    return found


def show(made: Plan, console: Console) -> None:
    """Prints a plan, in a table and lines below it; all that a colour says is in words too."""
    from rich.table import Table

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False)

    where = f"{made.kind}, {made.region}" if made.region else made.kind
    say(f"{made.pipeline} on {made.target} ({where}); nothing has been submitted.")
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("step", no_wrap=True, min_width=max(len(s.step) for s in made.steps))
    for name in ("", "machine", "time", f"cost in {made.currency}"):
        table.add_column(name, overflow="fold")
    for step in made.steps:
        table.add_row(
            step.step, _state(step), _machine(step), _time(step), _cost(step), style=_style(step)
        )
    console.print(table, highlight=False)
    for step in made.steps:
        if not step.valid:
            say(f"{step.step}: {step.problem}")
    runs = [(step.why, step.step) for step in made.steps if step.valid and not step.cached]
    for why, steps in _together(runs).items():
        say(f"{_listed(steps)} run{'s' if len(steps) == 1 else ''}: {why}.")
    if made.compared_with:
        day = made.compared_date[: len("2026-01-01")]
        say(f"Compared with the last job that succeeded, {made.compared_with} of {day}.")
    where = f" in {made.region}" if made.region else ""
    needed = [(f"{q}{where}", step.step) for step in made.steps for q in step.quotas]
    for quota, steps in _together(needed).items():
        say(f"Quota: {quota}, for {_listed(steps)}.")
    left_out = [(step.price_note, step.step) for step in made.steps if step.price_note]
    for note, steps in _together(left_out).items():
        say(f"Cost of {_listed(steps)}: {note}.")
    for note in made.notes:
        say(note)
    say(f"{_sum(made)} List prices of {made.prices_date}.")


def _together(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """What is said of several steps in the same words, once."""
    found: dict[str, list[str]] = {}
    for said, step in pairs:
        found.setdefault(said, []).append(step)
    return found


def _listed(names: Sequence[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def _sum(made: Plan) -> str:
    if len(made.unknown) == len(made.steps):
        beside = f", beside {made.run_fee:.2f} {made.currency} for the run" if made.run_fee else ""
        return f"Together: not known{beside}."
    fee = f", {made.run_fee:.2f} for the run included" if made.run_fee else ""
    without = f"; without {_listed(made.unknown)}, not known" if made.unknown else ""
    return f"Together: {_amount(made.cost)} {made.currency}{fee}{without}."


def _state(step: StepPlan) -> str:
    if not step.valid:
        return "invalid"
    return "cached" if step.cached else "runs"


def _style(step: StepPlan) -> str:
    if not step.valid:
        return "red"
    return "dim" if step.cached else ""


def _machine(step: StepPlan) -> str:
    hosts = f"{step.hosts} × " if step.hosts > 1 else ""
    return f"{hosts}{step.machine_type} ({step.machine})" if step.machine_type else step.machine


def _time(step: StepPlan) -> str:
    if step.cached:
        return "0 s"
    if step.seconds:
        low, high = duration(step.seconds.low), duration(step.seconds.high)
        return f"{low if low == high else f'{low} to {high}'}, {step.time_source}"
    if step.seconds_here is not None:
        return f"not known; {duration(step.seconds_here)} on this machine"
    return "not known"


def _cost(step: StepPlan) -> str:
    if step.cost:
        return _amount(step.cost)
    return f"{_amount(step.hour)} an hour" if step.hour else "not known"


def _amount(cost: Range) -> str:
    low, high = f"{cost.low:.2f}", f"{cost.high:.2f}"
    return low if low == high else f"{low} to {high}"
