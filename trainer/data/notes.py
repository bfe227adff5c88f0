"""`quarantine.jsonl` and `changes.jsonl`, entry by entry."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from trainer.errors import UserError

MAX_LINE = 2**20
"""Most bytes of one entry, 1 MiB (ours): a path has 4 KiB at most, and a reason a sentence."""


# What Unicode takes for the end of a line besides those that JSON escapes by itself.
_LINE_ENDS = {ord(end): f"\\u{ord(end):04x}" for end in "\u0085\u2028\u2029"}


def note_line(entry: Mapping[str, str]) -> str:
    """One entry as a line of its own, names in any script readable."""
    return json.dumps(entry, ensure_ascii=False).translate(_LINE_ENDS) + "\n"


def read_notes(path: str | Path) -> Iterator[dict[str, str]]:
    """The entries of a file in order, `split` and `key` among their values; none without the file.

    Raises:
        UserError: the file cannot be read, or a line of it is no entry; names the line.
    """
    file_path = Path(path)
    if not file_path.exists():
        return
    try:
        if not file_path.is_file():
            raise OSError("it is not a file but something else")
        with open(file_path, "rb") as file:
            number = 0
            while line := file.readline(MAX_LINE):
                number += 1
                yield _entry(file_path, number, line)
    except OSError as error:
        raise UserError(
            f"{file_path} must be a file to read; it cannot be read ({error.strerror or error})."
        ) from error


def _entry(path: Path, number: int, line: bytes) -> dict[str, str]:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        entry = None
    if isinstance(entry, dict) and {"split", "key"} <= entry.keys():
        return {name: str(value) for name, value in entry.items()}
    raise UserError(
        f"{path} must have an entry with split and key on each line; line {number:,} begins with "
        f"{line[:40]!r}. Create the examples again."
    )
