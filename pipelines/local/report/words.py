"""Statuses, times and values as a person would write them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

SYMBOLS = {
    "succeeded": "✓",
    "cached": "↺",
    "failed": "✕",
    "cancelled": "⊘",
    "skipped": "–",
    "running": "▸",
    "waiting": "·",
}
"""Status of a task -> its sign, in the order in which statuses are told."""

_TEXT_LENGTH = 4_000


def duration(seconds: float | None) -> str:
    """A time in words, such as `0.06 s`, `42 s`, `4 min 05 s` or `2 d 4 h`."""
    if seconds is None:
        return ""
    if 0 < seconds < 0.005:
        return "< 0.01 s"
    for limit, text in ((0.995, "{:.2f} s"), (9.95, "{:.1f} s"), (59.5, "{:.0f} s")):
        if seconds < limit:
            return text.format(max(seconds, 0.0))
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def to_the_second(moment: str | None) -> str:
    """A moment of a record (ISO 8601), such as `2026-11-20 18:00:00`; empty for none."""
    return (moment or "")[:19].replace("T", " ")


def value_in_words(value: Any) -> str:
    """A value as a person would write it."""
    if isinstance(value, str):
        return shortened(value)
    if isinstance(value, Mapping | list | tuple):
        return shortened(as_json(value))
    if value is None:
        return "none"
    return number_in_words(value)


def number_in_words(value: Any) -> str:
    """A number as a person would write it; what is none, as its text or as JSON."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value if isinstance(value, str) else as_json(value)
    if 10_000 <= abs(value) < 1e15 and value == int(value):
        return f"{int(value):,}"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def as_json(value: Any) -> str:
    """A value as JSON: in one line where it is short."""
    flat = json.dumps(value, ensure_ascii=False, default=str)
    return flat if len(flat) <= 72 else json.dumps(value, ensure_ascii=False, indent=2, default=str)


def shortened(text: str) -> str:
    """A text, cut where it is very long."""
    if len(text) <= _TEXT_LENGTH:
        return text
    return f"{text[:_TEXT_LENGTH]}… ({len(text) - _TEXT_LENGTH:,} more characters)"
