"""The conditions of KFP's If, Elif and Else, as its compiler writes them.

KFP writes CEL and quotes nothing: `x == "it's ok"` becomes `… == 'it's ok'`, and a number that is
compared with an item of unknown type becomes text, even where it is a reference. A text that is no
well-formed CEL is taken as meant where there is one way to read it, and refused otherwise; where
text is compared with a number, the number is meant.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from trainer.errors import UserError


@dataclass(frozen=True)
class Reference:
    """An input of the task; `cast` is what KFP wraps around it, such as `int`."""

    name: str
    cast: str = ""


@dataclass(frozen=True)
class Comparison:
    """One comparison of a condition; all of them must hold."""

    left: Any
    operator: str
    right: Any
    negated: bool = False


@dataclass(frozen=True)
class Condition:
    """Comparisons that must all hold, and the text that they were read from."""

    text: str
    comparisons: tuple[Comparison, ...]

    def references(self) -> set[str]:
        """The inputs of the task that the condition needs."""
        sides = (side for c in self.comparisons for side in (c.left, c.right))
        return {side.name for side in sides if isinstance(side, Reference)}

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Whether it holds for the task's inputs.

        Raises:
            UserError: values that cannot be compared; names the condition.
        """
        return all(self._holds(comparison, values) for comparison in self.comparisons)

    def _holds(self, comparison: Comparison, values: Mapping[str, Any]) -> bool:
        left, right = (self._value(s, values) for s in (comparison.left, comparison.right))
        result = self._compare(left, comparison.operator, right)
        return result is not comparison.negated

    def _value(self, side: Any, values: Mapping[str, Any]) -> Any:
        if not isinstance(side, Reference):
            return side
        value = values.get(side.name)
        if not side.cast:
            return value
        try:
            number = float(value) if value is not None else None
        except (TypeError, ValueError):
            number = None
        if number is None:
            raise UserError(
                f"The condition {self.text} needs a number for {side.name}; got {value!r}."
            )
        return int(number) if side.cast == "int" else number

    def _compare(self, left: Any, sign: str, right: Any) -> bool:
        if isinstance(left, str) and not isinstance(right, str):
            left = _as(right, left)
        elif isinstance(right, str) and not isinstance(left, str):
            right = _as(left, right)
        compare = _OPERATORS[sign]
        if sign in ("==", "!="):
            # To Python a truth value is a number, too.
            return compare(left, right) if _kind(left) == _kind(right) else sign == "!="
        if _kind(left) != _kind(right) or _kind(left) not in (float, str):
            raise UserError(
                f"The condition {self.text} must compare two numbers or two texts; "
                f"got {left!r} and {right!r}."
            )
        result = compare(left, right)
        numbers = (_number(left), _number(right))
        if isinstance(left, str) and None not in numbers and compare(*numbers) != result:
            raise UserError(
                f"The condition {self.text} compares the texts {left!r} and {right!r}, which "
                "as numbers come in the other order; make the parameter a number."
            )
        return result


def parse(text: str) -> Condition:
    """Reads a condition.

    Raises:
        UserError: there is no way, or more than one, to read it.
    """
    readings = list(_readings(text, 0, strict=True)) or list(_readings(text, 0, strict=False))
    if len(readings) != 1:
        raise UserError(
            "A condition must be comparisons of parameters, numbers and texts in one reading; "
            f"{text!r} has {len(readings)}. Texts with quotes in them are best compared in a step."
        )
    return Condition(text, tuple(readings[0]))


_OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
_INPUT = r"inputs\.parameter_values\['(?P<name>[^']+)'\]"
_REFERENCE = re.compile(
    rf"(?P<cast>(?:double\((?:int\()?|int\())?{_INPUT}(?P<close>\)*)(?=[\s')]|$)"
)
_NUMBER = re.compile(r"(?:double\()?(?P<number>-?(?:\d+(?:\.\d*)?(?:e[+-]?\d+)?|inf|nan))\)?")
_BOOLEAN = re.compile(r"true|false")
_SIGN = re.compile(r" (==|!=|<=|>=|<|>) ")


def _readings(text: str, start: int, strict: bool) -> Iterator[list[Comparison]]:
    """All ways to read the text from a position to its end.

    Args:
        text: the condition.
        start: the position.
        strict: a quote within a text ends it, as in CEL.
    """
    negated = text.startswith("!(", start)
    for left, position in _operands(text, start + 2 * negated, strict):
        sign = _SIGN.match(text, position)
        if sign is None:
            continue
        for right, after in _operands(text, sign.end(), strict):
            if not isinstance(left, Reference) and not isinstance(right, Reference):
                continue  # what is known at compile time is no condition
            if negated:
                if not text.startswith(")", after):
                    continue
                after += 1
            first = Comparison(left, sign[1], right, negated)
            if after == len(text):
                yield [first]
            elif text.startswith(" && ", after):
                for rest in _readings(text, after + len(" && "), strict):
                    yield [first, *rest]


def _operands(text: str, start: int, strict: bool) -> Iterator[tuple[Any, int]]:
    """All ways to read an operand at a position, and where each ends."""
    if text.startswith("'", start):
        ends = (m.start() for m in re.finditer("'", text[start + 1 :]))
        for length in ends:
            content = text[start + 1 : start + 1 + length]
            quoted = _reference(content, 0)
            if quoted is not None and quoted[1] == len(content):
                yield quoted[0], start + length + 2
            elif "inputs.parameter_values[" not in content:  # else it has swallowed its neighbour
                yield content, start + length + 2
            if strict:
                return
        return
    reference = _reference(text, start)
    if reference:
        yield reference
        return
    number = _NUMBER.match(text, start)
    if number:
        # `)` belongs to the number only where `double(` does.
        wrapped = number[0].startswith("double(")
        digits = number["number"]
        plain = digits.lstrip("-").isdigit() and not wrapped
        yield (
            (int(digits) if plain else float(digits)),
            number.end() if wrapped else number.end("number"),
        )
        return
    boolean = _BOOLEAN.match(text, start)
    if boolean:
        yield boolean[0] == "true", boolean.end()


def _reference(text: str, start: int) -> tuple[Reference, int] | None:
    match = _REFERENCE.match(text, start)
    if match is None:
        return None
    opened = (match["cast"] or "").count("(")
    if len(match["close"]) < opened:
        return None
    cast = (match["cast"] or "").partition("(")[0]
    return Reference(match["name"], cast), match.start("close") + opened


def _kind(value: Any) -> type | None:
    """What a value is compared as: bool, float for any number, str."""
    if isinstance(value, bool):
        return bool
    if isinstance(value, int | float):
        return float
    return str if isinstance(value, str) else None


def _as(example: Any, text: str) -> Any:
    """The text as a value of the example's kind, where it can be one."""
    if isinstance(example, bool):
        return {"true": True, "false": False}.get(text.lower(), text)
    if isinstance(example, int | float):
        number = _number(text)
        return text if number is None else number
    return text


def _number(text: Any) -> float | None:
    try:
        return float(text)
    except (TypeError, ValueError):
        return None
