"""Files and folders that are either whole or absent, and their digests (standard library only)."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from trainer.errors import UserError

REPRODUCIBLE = "reproducible"
"""Key of an artifact's metadata: False where equal work gives other bytes each time, as in logs."""

_PLAN = "plan.json"


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


@contextlib.contextmanager
def resumable_folder(path: str | Path, plan: Mapping[str, Any]) -> Iterator[Path]:
    """Yields a folder that takes the place of `path` when the block ends well, and stays if not.

    Whoever comes back with the same plan finds in it what was done before, and must be able to tell
    finished files from others, by their names; with another plan it is empty. What stood at `path`
    is as before until the block ends well.

    Args:
        path: the folder to make.
        plan: all that its content depends on, as JSON.

    Raises:
        UserError: another process is at work on it.
    """
    target = Path(path)
    draft = target.with_name(f".{target.name}.unfinished")
    draft.mkdir(parents=True, exist_ok=True)
    with _locked(draft, target):
        note = draft / _PLAN
        wanted = json.dumps(plan, indent=2, sort_keys=True) + "\n"
        if not note.is_file() or note.read_text(encoding="utf-8", errors="replace") != wanted:
            _empty(draft)
            write_text(note, wanted)
        yield draft
        note.unlink()
        if target.exists():
            shutil.rmtree(target)
        os.replace(draft, target)


@contextlib.contextmanager
def _locked(draft: Path, target: Path) -> Iterator[None]:
    """Holds the lock of a folder, which ends with this process however it ends."""
    descriptor = os.open(draft, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever held it before may have finished, and given the folder its final name.
            ours = draft.is_dir() and os.path.samestat(os.fstat(descriptor), draft.stat())
        except BlockingIOError:
            ours = False
        except OSError:
            ours = True  # buckets have no locks; there a pipeline has one writer
        if not ours:
            raise UserError(
                f"Only one process at a time may write {str(target)!r}; another one is doing it. "
                "Wait for it, or end it."
            )
        yield
    finally:
        os.close(descriptor)


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


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
