"""When a cron expression comes round, in its own time zone and as another zone has it.

The five fields are minute, hour, day of the month, month and day of the week, written as all of
Vertex AI, Kubeflow and cron understand them. Where both days are restricted one of them suffices,
and on the two days on which clocks change a run is neither lost nor done twice: as cron does it.
"""

from __future__ import annotations

import datetime
import difflib
import functools
import itertools
import re
import zoneinfo
from collections.abc import Iterator, Mapping

from cronsim import CronSim, CronSimError

from trainer.errors import UserError

UTC = datetime.UTC

_NAMES = ("minute", "hour", "day of the month", "month", "day of the week")
_BOUNDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_WORDS: tuple[Mapping[str, int], ...] = (
    {},
    {},
    {},
    {name: number for number, name in enumerate(_MONTHS, start=1)},
    {name: number for number, name in enumerate(_DAYS)},
)
_TERM = re.compile(r"(?:(?P<all>\*)|(?P<first>\w+)(?:-(?P<last>\w+))?)(?:/(?P<step>\d+))?")
_DAY_MINUTES = 24 * 60
_YEARS = 2  # of a zone's offsets that are looked at; rules further on may change


def checked(cron: str) -> str:
    """An expression with single spaces between its fields.

    Raises:
        ValueError: it is none that every target understands; says what is wrong.
    """
    fields = cron.split()
    if len(fields) != len(_NAMES):
        raise ValueError(f"have five fields, {', '.join(_NAMES)}, as in '0 3 * * 1'; got {cron!r}")
    for index, field in enumerate(fields):
        try:
            _expand(field, index)
        except ValueError as error:
            raise ValueError(f"have a {_NAMES[index]} that {error}; got {field!r}") from error
    normal = " ".join(fields)
    try:
        next(CronSim(normal, datetime.datetime(2024, 1, 1, tzinfo=UTC)))
    except (CronSimError, StopIteration) as error:
        raise ValueError(f"come round at some time; {normal!r} never does") from error
    return normal


def zone_of(name: str) -> zoneinfo.ZoneInfo:
    """A time zone.

    Raises:
        ValueError: there is none of this name; says what would work.
    """
    known = zoneinfo.available_timezones()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"be a time zone such as Europe/Paris or UTC; got {name!r}{hint}")
    return zoneinfo.ZoneInfo(name)


def following(cron: str, time_zone: str, after: datetime.datetime) -> Iterator[datetime.datetime]:
    """All moments, in UTC, at which an expression comes round after a moment.

    Args:
        cron: an expression, checked.
        time_zone: the zone in which it is meant.
        after: a moment with a time zone.
    """
    last = after.astimezone(UTC)
    for moment in CronSim(cron, after.astimezone(zoneinfo.ZoneInfo(time_zone))):
        found = moment.astimezone(UTC)
        # The hour that comes twice has one name: what it names may lie before.
        if found > last:
            yield found
            last = found


def due(
    cron: str, time_zone: str, after: datetime.datetime, until: datetime.datetime
) -> datetime.datetime | None:
    """The last moment after one and not after another at which an expression comes round."""
    last = None
    for moment in following(cron, time_zone, after):
        if moment > until:
            break
        last = moment
    return last


def in_utc(cron: str, time_zone: str, now: datetime.datetime) -> str:
    """The expression that comes round in UTC when this one does in its zone.

    Raises:
        UserError: there is none: clocks of the zone change, or days would begin elsewhere.
    """
    offsets = {_minutes(moment.astimezone(zoneinfo.ZoneInfo(time_zone))) for moment in _days(now)}
    if offsets == {0}:
        return cron
    refusal = f"Kubeflow has no time zones, and '{cron}' in {time_zone} has no equal in UTC"
    if len(offsets) > 1:
        raise UserError(f"{refusal}, for clocks change there; write it in time_zone: UTC.")
    (offset,) = offsets
    minutes, hours, days, months, weekdays = (
        _expand(field, index) for index, field in enumerate(cron.split())
    )
    moved = [divmod(60 * h + m - offset, _DAY_MINUTES) for h in hours for m in minutes]
    shifts = {shift for shift, _ in moved}
    texts = cron.split()
    if texts[2:] != ["*", "*", "*"]:
        if len(shifts) > 1 or (shifts != {0} and texts[2:4] != ["*", "*"]):
            raise UserError(f"{refusal}, for its days begin at another hour; write it in UTC.")
        weekdays = {(day + next(iter(shifts))) % 7 for day in weekdays}
    times = {divmod(minute, 60) for _, minute in moved}
    hours, minutes = {h for h, _ in times}, {m for _, m in times}
    if len(hours) * len(minutes) != len(times):
        raise UserError(f"{refusal}, for its hours are not whole ones; write it in UTC.")
    return " ".join(
        _text(values, index)
        for index, values in enumerate((minutes, hours, days, months, weekdays))
    )


def covering(
    cron: str,
    time_zone: str,
    now: datetime.datetime,
    here: datetime.tzinfo | None = None,
) -> str:
    """An expression that comes round here at least whenever this one does in its zone.

    A cron that knows no time zones is given it; what it starts looks whether it is time.

    Args:
        cron: an expression, checked.
        time_zone: the zone in which it is meant.
        now: from when on.
        here: the zone of this machine; None for what the machine says.
    """
    return _covering(cron, time_zone, next(_days(now)), here)


@functools.lru_cache(maxsize=256)  # a server asks every few seconds
def _covering(
    cron: str, time_zone: str, now: datetime.datetime, here: datetime.tzinfo | None
) -> str:
    zone, days = zoneinfo.ZoneInfo(time_zone), list(_days(now))
    offsets = [(_minutes(day.astimezone(zone)), _minutes(day.astimezone(here))) for day in days]
    differences = {there - ours for there, ours in offsets}
    if differences == {0}:
        return cron
    minutes, hours = (_expand(field, index) for index, field in enumerate(cron.split()[:2]))
    times = {
        divmod((60 * hour + minute - difference) % _DAY_MINUTES, 60)
        for hour in hours
        for minute in minutes
        for difference in differences
    }
    day = datetime.timedelta(days=1)
    for (before, _), (after, _), moment in zip(offsets, offsets[1:], days, strict=False):
        if before != after:  # a run that the change of clocks moves
            for found in following(cron, time_zone, moment - day):
                if found > moment + 2 * day:
                    break
                local = found.astimezone(here)
                times.add((local.hour, local.minute))
    return f"{_text({m for _, m in times}, 0)} {_text({h for h, _ in times}, 1)} * * *"


def _days(now: datetime.datetime) -> Iterator[datetime.datetime]:
    """A moment of each day of the years that are looked at."""
    noon = now.astimezone(UTC).replace(hour=12, minute=0, second=0, microsecond=0)
    return (noon + datetime.timedelta(days=day) for day in range(-1, 366 * _YEARS))


def _minutes(moment: datetime.datetime) -> int:
    offset = moment.utcoffset()
    return round(offset.total_seconds() / 60) if offset else 0


def _expand(field: str, index: int) -> set[int]:
    """The values that a field stands for.

    Raises:
        ValueError: it stands for none; says what it must be.
    """
    low, high = _BOUNDS[index]
    found: set[int] = set()
    for term in field.split(","):
        match = _TERM.fullmatch(term)
        if match is None:
            raise ValueError(f"is *, {low} to {high}, or such with - and , and /")
        if match["all"]:
            first, last = low, high
        else:
            first = _value(match["first"], index)
            last = first if match["last"] is None else _value(match["last"], index)
            if match["step"] and match["last"] is None:
                raise ValueError("has * or a range before /")
        if last < first:
            raise ValueError("has ranges that begin with the smaller value")
        step = int(match["step"] or 1)
        if not 0 < step <= high:
            raise ValueError(f"has steps of 1 to {high}")
        found.update(range(first, last + 1, step))
    return found


def _value(text: str, index: int) -> int:
    low, high = _BOUNDS[index]
    value = _WORDS[index].get(text.lower(), int(text) if text.isdecimal() else -1)
    if not low <= value <= high:
        sunday = "; Sunday is 0" if _NAMES[index].endswith("week") else ""
        raise ValueError(f"is from {low} to {high}{sunday}")
    return value


def _text(values: set[int], index: int) -> str:
    low, high = _BOUNDS[index]
    ordered = sorted(values)
    if ordered == list(range(low, high + 1)):
        return "*"
    runs = []
    for _, group in itertools.groupby(enumerate(ordered), lambda pair: pair[1] - pair[0]):
        of_run = [value for _, value in group]
        runs.append(f"{of_run[0]}-{of_run[-1]}" if len(of_run) > 2 else ",".join(map(str, of_run)))
    return ",".join(runs)
