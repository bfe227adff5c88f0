"""All recurring work as `schedules.yaml` describes it, and what makes the targets match it.

The difference between file and targets is computed first, as a list of changes; a dry run shows
that list, and a real one carries out the same.

Ours is what bears our label and is left to nobody else: a schedule of ours that the file does not
have is deleted, and all others are left alone. Where what a schedule submits has changed and the
target cannot change it in place, a new one is made before the old one goes, so that a failure
between the two loses nothing; what is then there twice, the next sync takes away.
"""

from __future__ import annotations

import dataclasses
import datetime
import difflib
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml

from pipelines.cloud import cron as crons
from pipelines.cloud.account import Account
from pipelines.cloud.job import Recurring, Request, Scheduled, Schedules, schedule_digest
from pipelines.cloud.placement import Part
from trainer.errors import TryAgain, UserError

LOCAL = "local"
"""The target that is this machine."""

Action = Literal[
    "create", "update", "recreate", "delete", "pause", "resume", "nothing", "leave", "refuse"
]
"""What is done to a schedule; leave: it is not ours; refuse: the file asks for what cannot be."""

IDLE = ("nothing", "leave")
"""Actions that change nothing."""

CHANGEABLE: Mapping[str, frozenset[str]] = {
    "vertex": frozenset({"cron", "time_zone", "most_at_once", "most_runs", "end"}),
    "kubeflow": frozenset(),
    LOCAL: frozenset({"digest", "cron", "time_zone", "most_at_once", "most_runs", "start", "end"}),
}
"""Kind of target -> what it can change of a schedule in place."""

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_LONGEST_NAME = 50  # a label holds 63 characters
_FIELDS = (
    "model",
    "target",
    "cron",
    "time_zone",
    "settings",
    "training",
    "parameters",
    "machines",
    "limits",
    "paused",
)
_LIMITS = ("most_at_once", "most_runs", "start", "end")
_MAPPINGS = ("settings", "training", "parameters", "machines", "limits")


@dataclasses.dataclass(frozen=True)
class Entry:
    """Recurring work as the file has it.

    Attributes:
        name: unique in the file.
        model: name of the model.
        target: local, or the account that it runs in.
        cron: five fields: minute, hour, day of the month, month, day of the week.
        time_zone: the zone in which they are meant.
        settings: changes to the model's Config.
        training: how training is carried out.
        parameters: values of further parameters of the pipeline.
        machines: part of the work -> machine as text, where it is not the account's.
        most_at_once: how many of its runs may be at work at a time; what comes beyond is skipped.
        most_runs: after how many runs it is over; 0 for never.
        start: from when on, in UTC (ISO 8601); empty for at once.
        end: until when, in UTC (ISO 8601); empty for ever.
        paused: whether it only waits to be resumed.
    """

    name: str
    model: str
    target: str
    cron: str
    time_zone: str = "UTC"
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    training: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    parameters: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    machines: Mapping[str, str] = dataclasses.field(default_factory=dict)
    most_at_once: int = 1
    most_runs: int = 0
    start: str = ""
    end: str = ""
    paused: bool = False

    def values(self) -> dict[str, Any]:
        """Values of the pipeline's parameters that it sets."""
        given = {"settings": dict(self.settings), "training": dict(self.training)}
        return {**self.parameters, **{name: value for name, value in given.items() if value}}


@dataclasses.dataclass(frozen=True)
class Target:
    """Somewhere that schedules are.

    Attributes:
        name: what entries call it.
        kind: local, vertex or kubeflow.
        schedules: what speaks with it.
        prepare: what an entry submits there.
    """

    name: str
    kind: str
    schedules: Schedules
    prepare: Callable[[Entry], Recurring]


@dataclasses.dataclass(frozen=True)
class Change:
    """What is to be done to one schedule.

    Attributes:
        action: see `Action`.
        name: of the schedule; of one that is not ours, its title.
        target: where it is.
        why: in words.
        recurring: what it is to become.
        found: what it is.
        error: why nothing can be done.
    """

    action: Action
    name: str
    target: str
    why: str
    recurring: Recurring | None = None
    found: Scheduled | None = None
    error: Exception | None = None

    def line(self) -> str:
        """The change as commands show it."""
        return f"{self.action:<8}  {self.name} on {self.target}: {self.why}"


def read_entries(file: Path) -> dict[str, Entry]:
    """All entries of a file, by their names.

    Raises:
        UserError: there is no such file, or an entry is wrong.
    """
    try:
        node = yaml.compose(file.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        _refuse_twice(node, file)
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(
            f"Recurring work must be described in a file; {file} does not exist here. "
            "Go to the project's folder, or name one by --file."
        ) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        what = getattr(error, "problem", None) or getattr(error, "strerror", None) or error
        hint = '; a cron must stand in quotes, as in "0 3 * * 1"' if "alias" in str(error) else ""
        raise UserError(f"{file}{where} must be YAML: {what}{hint}.") from error
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise UserError(f"{file} must map names to schedules; got {type(found).__name__}.")
    return {str(name): _entry(str(name), fields, file) for name, fields in found.items()}


def plan(
    entries: Mapping[str, Entry],
    targets: Mapping[str, Target],
    now: datetime.datetime,
    only: str = "",
) -> list[Change]:
    """What makes the targets match the entries: first what is made, then what is taken away.

    Args:
        entries: what is to be.
        targets: all targets there are, by their names.
        now: the time.
        only: name of the one target that is looked at; all without.
    """
    changes: list[Change] = []
    removals: list[Change] = []
    there: dict[str, list[Scheduled]] = {}
    for name, target in targets.items():
        if only in ("", name):
            try:
                there[name] = target.schedules.schedules()
            except (UserError, TryAgain) as error:
                why = f"its schedules cannot be read: {error}"
                changes.append(Change("refuse", "every schedule", name, why, error=error))
    for entry in entries.values():
        place = resolve(entry.target, targets)
        if place is None:
            known = ", ".join(targets)
            refusal = UserError(
                f"The target of {entry.name} must be one of {known}; got {entry.target!r}."
            )
            if only in ("", entry.target):
                changes.append(_refused(entry, entry.target, refusal))
        elif place.name in there:
            ours = [found for found in there[place.name] if found.name == entry.name]
            try:
                made, removed = _compare(entry, place, ours, now)
            except (UserError, TryAgain) as error:
                made, removed = [_refused(entry, place.name, error)], []
            changes += made
            removals += removed
    for name, schedules in there.items():
        for found in schedules:
            removals += _not_in_the_file(found, name, entries, targets)
    unsure = {change.name for change in changes if change.action == "refuse"}
    unsure |= {
        entry.name
        for entry in entries.values()
        if (place := resolve(entry.target, targets)) and not only and place.name not in there
    }
    # What cannot be made now is not taken away where it still is.
    return changes + [c for c in removals if c.action == "leave" or c.name not in unsure]


def carry_out(
    changes: Sequence[Change], targets: Mapping[str, Target], tell: Callable[[Change], None]
) -> list[tuple[Change, Exception]]:
    """Does what a plan says, each change for itself; what failed, and why.

    What belongs to a schedule of which something has failed is left as it is: nothing is deleted
    before what replaces it is there.

    Args:
        changes: the plan.
        targets: as for `plan`.
        tell: is told each change when it begins.
    """
    failures: list[tuple[Change, Exception]] = []
    for change in changes:
        tell(change)
        if change.error is not None:
            failures.append((change, change.error))
            continue
        if change.action in IDLE:
            continue
        if any(change.name == failed.name for failed, _ in failures):
            why = TryAgain(
                f"{change.name} on {change.target} was left as it is, for what comes before "
                "failed; sync again."
            )
            failures.append((change, why))
            continue
        try:
            _carry_out(change, targets[change.target].schedules)
        except Exception as error:  # the others are to have their turn
            failures.append((change, error))
    return failures


def find_ours(name: str, targets: Mapping[str, Target]) -> list[tuple[Target, Scheduled]]:
    """The schedules of a name, wherever they are.

    Raises:
        UserError: there is none.
    """
    listed = [(target, target.schedules.schedules()) for target in targets.values()]
    found = [(target, each) for target, those in listed for each in those if each.name == name]
    if not found:
        names = sorted({each.name for _, those in listed for each in those if each.name})
        close = difflib.get_close_matches(name, names, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise UserError(
            f"A schedule must be one of {', '.join(names) or 'none, for there are none'}; got "
            f"{name!r}.{hint} `paper2hub schedules sync` makes those of the file."
        )
    return found


def targets_of(
    accounts: Mapping[str, Account],
    local: Schedules,
    prepare_locally: Callable[[Entry], Recurring],
) -> dict[str, Target]:
    """This machine and all accounts; what speaks with a cloud is imported when it is asked.

    Raises:
        UserError: an account has the name of this machine.
    """
    if LOCAL in accounts:
        raise UserError("The name of a target must not be 'local', which is this machine.")
    found = {LOCAL: Target(LOCAL, LOCAL, local, prepare_locally)}
    for account in accounts.values():
        found[account.name] = Target(
            account.name, account.kind, _Account(account), _preparation(account)
        )
    return found


def resolve(name: str, targets: Mapping[str, Target]) -> Target | None:
    """The target of a name, or the only one of a kind; None where there is none."""
    of_kind = [target for target in targets.values() if target.kind == name]
    return targets.get(name) or (of_kind[0] if len(of_kind) == 1 else None)


def recurring(entry: Entry, request: Request) -> Recurring:
    """An entry as a target takes it, with what it submits there."""
    return Recurring(
        name=entry.name,
        request=request,
        cron=entry.cron,
        time_zone=entry.time_zone,
        paused=entry.paused,
        most_at_once=entry.most_at_once,
        most_runs=entry.most_runs,
        start=entry.start,
        end=entry.end,
    )


class _Account:
    """The schedules of an account; its client is made at the first question."""

    def __init__(self, account: Account):
        self._account = account
        self._made: Schedules | None = None

    def schedules(self) -> list[Scheduled]:
        return self._cloud.schedules()

    def create_schedule(self, recurring: Recurring) -> Scheduled:
        return self._cloud.create_schedule(recurring)

    def update_schedule(self, found: Scheduled, recurring: Recurring) -> bool:
        return self._cloud.update_schedule(found, recurring)

    def delete_schedule(self, found: Scheduled) -> None:
        self._cloud.delete_schedule(found)

    def pause_schedule(self, found: Scheduled) -> None:
        self._cloud.pause_schedule(found)

    def resume_schedule(self, found: Scheduled) -> None:
        self._cloud.resume_schedule(found)

    @property
    def _cloud(self) -> Schedules:
        if self._made is None:
            from pipelines.cloud.submission import cloud_of

            self._made = cloud_of(self._account)
        return self._made


def _preparation(account: Account) -> Callable[[Entry], Recurring]:
    """What prepares entries for an account; each pipeline is compiled and pinned once."""
    compiled: dict[tuple[Any, ...], Request] = {}

    def prepare(entry: Entry) -> Recurring:
        from pipelines.cloud.submission import request_for
        from pipelines.local.graph import parameter_values, parse_graph

        key = (entry.model, *sorted(entry.machines.items()))
        if key not in compiled:
            compiled[key] = request_for(entry.model, account, machines=entry.machines)
        plain = compiled[key]
        values = {**plain.parameters, **entry.values()}
        parameter_values(parse_graph(plain.text), values)
        return recurring(entry, dataclasses.replace(plain, parameters=values))

    return prepare


def _refused(entry: Entry, target: str, error: Exception) -> Change:
    return Change("refuse", entry.name, target, str(error), error=error)


def _compare(
    entry: Entry, target: Target, ours: Sequence[Scheduled], now: datetime.datetime
) -> tuple[list[Change], list[Change]]:
    """What is to be done for an entry, and which of its schedules are too many.

    Raises:
        UserError: the target cannot do what the entry asks for.
        TryAgain: what the entry submits cannot be found out now.
    """
    name, place = entry.name, target.name
    over = bool(entry.end) and _moment(entry.end) <= now
    if over and not ours:
        return [Change("nothing", name, place, f"it ended at {entry.end}")], []
    wanted = _as_wanted(target.prepare(entry), target, now)
    if not ours:
        return [Change("create", name, place, f"there is none; {_described(wanted)}", wanted)], []
    # The one that is most like it stays, so that least is to be done.
    kept, *others = sorted(ours, key=lambda found: (len(_drift(found, wanted)), found.identifier))
    removals = [
        Change(
            "delete", name, place, f"there is another of this name: {each.identifier}", None, each
        )
        for each in others
    ]
    drift = _drift(kept, wanted)
    if over:
        why = f"it ended at {entry.end}"
        over_there = kept.end == wanted.end
        return [
            Change("nothing" if over_there else "delete", name, place, why, None, kept)
        ], removals
    why = "; ".join(drift.values())
    # Vertex AI plans no run after the last one, and then lets nothing be changed.
    through = target.kind == "vertex" and not kept.paused and not kept.next_run
    if drift.keys() - CHANGEABLE[target.kind] or (drift and through):
        return [Change("recreate", name, place, why, wanted, kept)], removals
    changes = [Change("update", name, place, why, wanted, kept)] if drift else []
    if kept.paused and not wanted.paused:
        why = "it is paused and the file says paused: false; what it missed stays missed"
        changes.append(Change("resume", name, place, why, wanted, kept))
    elif wanted.paused and not kept.paused and not through:
        why = "it is not paused and the file says paused: true"
        changes.append(Change("pause", name, place, why, wanted, kept))
    why = "it has made its runs" if through else "as the file says"
    return changes or [Change("nothing", name, place, why)], removals


def _as_wanted(recurring: Recurring, target: Target, now: datetime.datetime) -> Recurring:
    """What an entry asks of a target now, in the target's own terms.

    Raises:
        UserError: the target cannot do it.
    """
    if recurring.start and _moment(recurring.start) <= now:
        # Clouds refuse to begin in the past, and put the time of making there.
        recurring = dataclasses.replace(recurring, start="")
    if target.kind != "kubeflow":
        return recurring
    if recurring.most_runs:
        raise UserError(
            f"most_runs of {recurring.name} must be 0 on Kubeflow, which counts no runs; got "
            f"{recurring.most_runs}. An end would work."
        )
    in_utc = crons.in_utc(recurring.cron, recurring.time_zone, now)
    return dataclasses.replace(recurring, cron=in_utc, time_zone="UTC")


def _drift(found: Scheduled, wanted: Recurring) -> dict[str, str]:
    """What a schedule has otherwise than it should, field by field, in words."""
    drift = {}
    digest = schedule_digest(wanted)
    if found.digest != digest:
        drift["digest"] = (
            f"what it submits has changed, {found.digest} to {digest}"
            if found.digest
            else "what it submits is not what was synced"
        )
    for name in ("cron", "time_zone", "most_at_once", "most_runs", "start", "end"):
        is_now, must_be = getattr(found, name), getattr(wanted, name)
        if name == "start" and not must_be:
            continue  # the target's own: when it was made
        if is_now != must_be:
            shown = [str(value) if value != "" else "none" for value in (is_now, must_be)]
            drift[name] = f"{name} is {shown[0]} and the file says {shown[1]}"
    return drift


def _not_in_the_file(
    found: Scheduled, place: str, entries: Mapping[str, Entry], targets: Mapping[str, Target]
) -> list[Change]:
    """What is to be done to a schedule that no entry has there."""
    if not found.name:
        why = "it is not ours"
        return [Change("leave", found.title or found.identifier, place, why, None, found)]
    if found.name not in entries:
        return [Change("delete", found.name, place, "the file does not have it", None, found)]
    target = resolve(entries[found.name].target, targets)
    if target is None or target.name == place:
        return []  # an entry whose target is not known may have meant this one
    why = f"the file has it on {target.name}"
    return [Change("delete", found.name, place, why, None, found)]


def _carry_out(change: Change, schedules: Schedules) -> None:
    found, wanted = change.found, change.recurring
    if change.action == "create" and wanted:
        schedules.create_schedule(wanted)
    elif change.action == "recreate" and wanted and found:
        _recreate(found, wanted, schedules)
    elif change.action == "update" and wanted and found:
        if not schedules.update_schedule(found, wanted):
            _recreate(found, wanted, schedules)
    elif change.action == "delete" and found:
        schedules.delete_schedule(found)
    elif change.action == "pause" and found:
        schedules.pause_schedule(found)
    elif change.action == "resume" and found:
        schedules.resume_schedule(found)


def _recreate(found: Scheduled, wanted: Recurring, schedules: Schedules) -> None:
    """Makes the new one, then deletes the old one."""
    made = schedules.create_schedule(wanted)
    if made.identifier == found.identifier:
        raise TryAgain(f"{wanted.name} could not be made beside the one that is there; sync again.")
    schedules.delete_schedule(found)


def _described(recurring: Recurring) -> str:
    paused = ", paused" if recurring.paused else ""
    return f"{recurring.cron} {recurring.time_zone}{paused}"


def _moment(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text)


def _entry(name: str, fields: Any, file: Path) -> Entry:
    """One entry of the file, checked as far as it can be without its target."""
    if not _NAME.fullmatch(name) or len(name) > _LONGEST_NAME:
        raise UserError(
            f"{file}: the name of a schedule must be lower-case words and digits joined by -, at "
            f"most {_LONGEST_NAME} characters; got {name!r}."
        )
    if not isinstance(fields, dict):
        raise UserError(f"{file}: {name} must be a mapping of fields; got {fields!r}.")

    def refuse(field: str, what: str) -> UserError:
        return UserError(f"{file}: {field} of {name} must {what}.")

    _known(fields, _FIELDS, name, file)
    values: dict[str, Any] = {key: fields.get(key) or {} for key in _MAPPINGS}
    for key, value in values.items():
        if not isinstance(value, dict):
            raise refuse(key, f"be a mapping; got {value!r}")
    for key in ("model", "target", "cron"):
        if key not in fields:
            raise UserError(f"{file}: {name} must have a {key}.")
    for key in ("model", "target", "cron", "time_zone"):
        if not isinstance(fields.get(key, ""), str):
            raise refuse(key, f"be text, in quotes; got {fields[key]!r}")
    paused = fields.get("paused", False)
    if not isinstance(paused, bool):
        raise refuse("paused", f"be true or false; got {paused!r}")
    time_zone = fields.get("time_zone", "UTC")
    try:
        expression = crons.checked(fields["cron"])
    except ValueError as error:
        raise refuse("cron", str(error)) from error
    try:
        crons.zone_of(time_zone)
    except ValueError as error:
        raise refuse("time_zone", str(error)) from error
    limits = values.pop("limits")
    _known(limits, _LIMITS, f"limits of {name}", file)
    _check_science(fields["model"], values, refuse)
    _check_machines(fields["target"], values["machines"], refuse)
    start, end = (_checked_moment(limits, key, time_zone, refuse) for key in ("start", "end"))
    if start and end and _moment(end) <= _moment(start):
        raise refuse("end", f"be after its start; got {limits['end']} and {limits['start']}")
    return Entry(
        name=name,
        model=fields["model"],
        target=fields["target"],
        cron=expression,
        time_zone=time_zone,
        most_at_once=_count(limits, "most_at_once", 1, 1, refuse),
        most_runs=_count(limits, "most_runs", 0, 0, refuse),
        start=start,
        end=end,
        paused=paused,
        **values,
    )


def _known(fields: Mapping[str, Any], known: Sequence[str], owner: str, file: Path) -> None:
    for key in fields:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else f" Known: {', '.join(known)}."
            raise UserError(f"{file}: {owner} has no field {key!r}.{hint}")


def _check_science(
    model: str, values: Mapping[str, Any], refuse: Callable[[str, str], UserError]
) -> None:
    from pipelines import catalog
    from trainer.catalog import load_config
    from trainer.config import with_settings
    from trainer.training import Training

    if model not in catalog.names():
        close = difflib.get_close_matches(model, catalog.names(), n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise refuse("model", f"be one of {', '.join(catalog.names())}; got {model!r}{hint}")
    for field, config in (("settings", load_config(model)), ("training", Training())):
        try:
            with_settings(config, values[field])
        except UserError as error:
            raise refuse(field, f"fit: {str(error).removesuffix('.')}") from error
    for key in ("settings", "training"):
        if key in values["parameters"]:
            raise refuse("parameters", f"not have {key}, which is a field of its own")


def _check_machines(
    target: str, machines: Mapping[str, Any], refuse: Callable[[str, str], UserError]
) -> None:
    from pipelines.cloud.machines import parse_machine

    if machines and target == LOCAL:
        raise refuse("machines", "be left out where the target is local, which is this machine")
    for part, text in machines.items():
        parts = typing.get_args(Part)
        if part not in parts:
            raise refuse("machines", f"be for {', '.join(parts)}; got {part!r}")
        try:
            parse_machine(str(text))
        except UserError as error:
            raise refuse("machines", f"be machines: {str(error).removesuffix('.')}") from error


def _checked_moment(
    limits: Mapping[str, Any],
    key: str,
    time_zone: str,
    refuse: Callable[[str, str], UserError],
) -> str:
    """A moment in UTC; what has no zone is meant in that of the entry."""
    value = limits.get(key)
    if value is None or value == "":
        return ""
    try:
        # YAML makes dates of what looks like one.
        moment = datetime.datetime.fromisoformat(str(value))
    except ValueError as error:
        raise refuse(
            key, f"be a moment such as 2026-12-01 or 2026-12-01T08:00; got {value!r}"
        ) from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=crons.zone_of(time_zone))
    return moment.astimezone(datetime.UTC).isoformat(timespec="seconds")


def _count(
    limits: Mapping[str, Any],
    key: str,
    default: int,
    least: int,
    refuse: Callable[[str, str], UserError],
) -> int:
    value = limits.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise refuse(key, f"be a whole number from {least} on; got {value!r}")
    return value


def _refuse_twice(node: Any, file: Path) -> None:
    """Refuses keys that stand twice, of which YAML would take the last."""
    if not isinstance(node, yaml.MappingNode):
        return
    seen = set()
    for key, value in node.value:
        if key.value in seen:
            raise UserError(
                f"{file}, line {key.start_mark.line + 1}: {key.value!r} must stand there once; "
                "it comes a second time."
            )
        seen.add(key.value)
        _refuse_twice(value, file)
