"""Files and folders that are either whole or absent, and their digests (standard library only)."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """Yields an empty folder that takes the place of `path` when the block ends well.

    What stood at `path` is replaced; if the block raises or the process dies, `path` is as before.
    """
    target = Path(path)
    draft = target.with_name(f".{target.name}.unfinished")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        yield draft
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    if target.exists():
        shutil.rmtree(target)
    os.replace(draft, target)


def write_text(path: str | Path, text: str) -> None:
    """Writes a UTF-8 file that is either whole or absent."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.unfinished")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, target)


def write_json(path: str | Path, value: Any) -> None:
    """Writes an indented JSON file that is either whole or absent; NaN and infinity are refused."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Reads a UTF-8 JSON file."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file, in lower-case hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
