"""Typed settings of a model: a frozen dataclass, changed by `key=value` (standard library only)."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from trainer.errors import UserError

C = TypeVar("C")

COUNTS = ("epochs", "batch_size")
"""Fields that every config has and the engine counts with."""


@dataclasses.dataclass(frozen=True)
class DatasetFacts:
    """What the examples say of themselves, written by preprocess as `facts.json`.

    Attributes:
        class_names: name of each label; empty where there are none.
        train_examples: number of examples in the training split.
        shorter_side: median over the training pictures of their shorter side, in pixels; 0 where
            there are no pictures.
        channels: 1 where all training pictures that were looked at are grey, 3 otherwise.
    """

    class_names: tuple[str, ...]
    train_examples: int
    shorter_side: int
    channels: int = 3

    def batch_size_up_to(self, largest: int) -> int:
        """The largest power of two that leaves 16 steps an epoch (ours), and at most `largest`."""
        fitting = max(self.train_examples // 16, 1)
        return min(largest, 1 << (fitting.bit_length() - 1))


def with_settings(config: C, settings: Mapping[str, Any]) -> C:
    """The config with some fields replaced; text is converted to each field's type.

    Raises:
        UserError: a key is no field of the config, or a value does not fit the field's type.
    """
    fields = {f.name: f for f in dataclasses.fields(config)}  # type: ignore[arg-type]
    types = typing.get_type_hints(type(config))
    values = {}
    for key, value in settings.items():
        if key not in fields:
            close = difflib.get_close_matches(key, fields, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise UserError(
                f"Settings must be among {', '.join(sorted(fields))}; got {key!r}.{hint}"
            )
        values[key] = _convert(key, value, types[key])
        if key in COUNTS and values[key] < 1:
            raise UserError(f"{key} must be at least 1; got {values[key]}.")
    try:
        return dataclasses.replace(config, **values)  # type: ignore[type-var]
    except ValueError as error:
        raise UserError(str(error)) from error


def suited_to(config: C, facts: DatasetFacts, settings: Mapping[str, Any]) -> C:
    """The config adapted to a dataset, but for the fields set by hand.

    What adapts is the model's own decision: `Config.suited_to(facts)`, where a config has it,
    returns the fields that a dataset decides, such as the number of classes.
    """
    adapt = getattr(config, "suited_to", None)
    if adapt is None:
        return config
    values = {k: v for k, v in adapt(facts).items() if k not in settings}
    return dataclasses.replace(config, **values)  # type: ignore[type-var]


def parse_settings(pairs: list[str]) -> dict[str, str]:
    """Turns `["epochs=2", "variant=400MF"]` into a mapping; the values stay text.

    Raises:
        UserError: a pair has no `=` or no key.
    """
    settings = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            raise UserError(f"A setting must look like key=value, as in epochs=2; got {pair!r}.")
        settings[key.strip()] = value.strip()
    return settings


def _convert(key: str, value: Any, kind: Any) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        for allowed in arguments:
            if str(value) == str(allowed):
                return allowed
        raise UserError(f"{key} must be one of {', '.join(map(str, arguments))}; got {value!r}.")
    if type(None) in arguments:  # Optional
        if value in (None, "", "none", "None"):
            return None
        return _convert(key, value, next(a for a in arguments if a is not type(None)))
    try:
        if kind is bool:
            return _boolean(value)
        if kind is int:
            return _integer(value)
        if kind is float:
            return float(value)
        if kind is str:
            return str(value)
        if origin is tuple:
            return tuple(_convert(key, item, arguments[0]) for item in _items(value))
    except (ValueError, SyntaxError, TypeError):
        pass
    else:
        raise TypeError(f"Config field {key!r} has a type that settings cannot express: {kind}.")
    name = getattr(kind, "__name__", str(kind)) if origin is None else str(kind)
    raise UserError(f"{key} must be of type {name}; got {value!r}.")


def _items(value: Any) -> list[Any] | tuple[Any, ...]:
    """What a tuple is made of: of `1,2`, `(1, 2)` and `[1, 2]`, and of names as in `a,b`."""
    if isinstance(value, str):
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            return [name.strip() for name in value.split(",")]
    return value if isinstance(value, list | tuple) else (value,)


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    known = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if str(value).lower() not in known:
        raise ValueError(value)
    return known[str(value).lower()]


def _integer(value: Any) -> int:
    if isinstance(value, bool):
        raise ValueError(value)
    if isinstance(value, float) and value.is_integer():  # JSON numbers of other tools
        return int(value)
    return int(str(value).replace("_", ""))
