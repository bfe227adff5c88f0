"""Filters and orders of lists, as Google's APIs write them (AIP-160, AIP-132), in part."""

from __future__ import annotations

import datetime
import operator
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tests.cloud.answers import Refused

_TERM = re.compile(
    r"""\s*(?P<not>NOT\s+|-)?\(*\s*
    (?P<key>[A-Za-z_]\w*(?:\.(?:[\w-]+|"[^"]*"))*)
    \s*(?P<operator>!=|<=|>=|=|:|<|>)\s*
    (?P<value>"(?:[^"\\]|\\.)*"|'[^']*'|[^\s()]+)\s*\)*\s*""",
    re.VERBOSE,
)
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
}

Look = Callable[[Any, str], Any]
"""Finds the value of a field, by its name in snake case; raises KeyError for an unknown one."""


def matching(items: Iterable[Any], text: str, look: Look) -> list[Any]:
    """The items that a filter lets through.

    Args:
        items: of the list.
        text: the filter; terms with AND between them, or OR within them. Empty for all.
        look: finds the value of an item's field.

    Raises:
        Refused: the filter cannot be read, or has a field that there is not.
    """
    groups = [
        [_term(part, look) for part in re.split(r"\s+OR\s+", group)]
        for group in re.split(r"\s+AND\s+", text.strip())
        if group
    ]
    return [item for item in items if all(any(t(item) for t in group) for group in groups)]


def ordered(items: Sequence[Any], text: str, look: Look) -> list[Any]:
    """The items in the order of some fields, such as "create_time desc"; as they are without."""
    result = list(items)
    for part in reversed([p.split() for p in text.split(",") if p.strip()]):
        name = snake(part[0])
        down = len(part) > 1 and part[1].lower() == "desc"
        try:
            result.sort(key=lambda item: _sortable(look(item, name)), reverse=down)
        except KeyError as error:
            raise Refused(400, f"Invalid field in order_by: {part[0]}.") from error
    return result


def _sortable(value: Any) -> tuple[bool, Any]:
    """A value, or its absence, as what can be compared."""
    return value is not None, value


def _term(text: str, look: Look) -> Callable[[Any], bool]:
    match = _TERM.fullmatch(text)
    if match is None:
        raise Refused(400, f"Provided filter is not valid near {text!r}.")
    key, sign = snake(match["key"]), match["operator"]
    value = match["value"].strip("\"'")
    negated = bool(match["not"])

    def holds(item: Any) -> bool:
        try:
            found = look(item, key)
        except KeyError as error:
            raise Refused(400, f"Provided filter is not valid: unknown field {key}.") from error
        return _compare(found, sign, value) != negated

    return holds


def _compare(found: Any, sign: str, value: str) -> bool:
    if sign == ":":
        return found is not None and (value == "*" or value.strip("*") in str(found))
    if isinstance(found, datetime.datetime):
        return _COMPARE[sign](found, datetime.datetime.fromisoformat(value))
    if sign in ("=", "!=") and value.endswith("*") and found is not None:
        return str(found).startswith(value[:-1]) == (sign == "=")
    if found is None:
        return sign == "!="
    return _COMPARE[sign](str(found), value)


def snake(name: str) -> str:
    """A field's name in snake case; the key of a label stays as it is."""
    head, dot, rest = name.partition(".")
    return re.sub(r"(?<=[a-z])([A-Z])", r"_\1", head).lower() + dot + rest.replace('"', "")
