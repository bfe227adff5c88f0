"""Digests of files and folders, each file read once for as long as it does not change."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainer.artifact import sha256

ABSENT = "absent"
"""The digest of what is not there, such as an artifact that is nothing but its metadata."""

_SETTLED_NANOSECONDS = 20_000_000
"""A file changed later than this may change again without its time showing it (ours: five ticks
of the kernel's clock for file times)."""


class Digests:
    """SHA-256 of files, remembered by inode, size and both times of change.

    Writing to a file changes its ctime, which no program can set; a file that looks the same is the
    same, short of a failing disk.

    Args:
        file: the database to remember in; made where it is missing, and made anew where it is
            damaged.
    """

    def __init__(self, file: Path):
        self._lock = threading.Lock()
        self._file = file
        self._connection = self._open()

    def close(self) -> None:
        """Closes the database."""
        with self._lock:
            self._connection.close()

    def of_file(self, path: str | Path) -> str:
        """The SHA-256 of a file's content, in hexadecimal.

        Raises:
            OSError: it cannot be read.
        """
        path = Path(path)
        before = path.stat()
        known = self._known(before)
        if known:
            return known
        digest = sha256(path)
        if _signature(path.stat()) == _signature(before) and (
            time.time_ns() - before.st_ctime_ns > _SETTLED_NANOSECONDS
        ):
            self._remember(before, digest)
        return digest

    def of(self, path: str | Path) -> str:
        """The digest of a file, or of a folder with all that is in it; `ABSENT` for neither.

        Raises:
            OSError: it cannot be read.
        """
        path = Path(path)
        if path.is_file():
            return self.of_file(path)
        if not path.is_dir():
            return ABSENT
        total = hashlib.sha256()
        for name, kind, entry in walk(path):
            value = {"f": self.of_file, "l": os.readlink}.get(kind, lambda _: "")(entry)
            total.update(f"{kind} {name}\0{value}\n".encode("utf-8", "surrogateescape"))
        return total.hexdigest()

    def link(self, source: Path, target: Path) -> None:
        """Makes the target another name of the source, a file or a folder, or else a copy of it.

        The digests of its files stay known, although a new name changes the ctime.
        """
        if source.is_file() and not source.is_symlink():
            self._link_file(source, target)
            return
        target.mkdir(parents=True, exist_ok=True)
        for name, kind, entry in walk(source):
            if kind == "d":
                (target / name).mkdir(exist_ok=True)
            elif kind == "l":
                shutil.copyfile(entry, target / name, follow_symlinks=False)
            else:
                self._link_file(entry, target / name)

    def _link_file(self, source: Path, target: Path) -> None:
        before = source.stat()
        known = self._known(before)
        try:
            os.link(source, target)
        except OSError:  # another file system, or one without links
            shutil.copy2(source, target)
            return
        after = source.stat()
        same = (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
        if known and same:
            self._remember(after, known)

    def _known(self, stat: os.stat_result) -> str | None:
        with self._lock, contextlib.suppress(sqlite3.Error):
            row = self._connection.execute(
                "SELECT digest FROM files WHERE signature = ?", (_signature(stat),)
            ).fetchone()
            return str(row[0]) if row else None
        return None

    def _remember(self, stat: os.stat_result, digest: str) -> None:
        with self._lock, contextlib.suppress(sqlite3.Error):
            self._connection.execute(
                "INSERT OR REPLACE INTO files VALUES (?, ?)", (_signature(stat), digest)
            )

    def _open(self) -> sqlite3.Connection:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        for attempt in range(2):
            connection = sqlite3.connect(
                self._file, timeout=10, check_same_thread=False, isolation_level=None
            )
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = OFF")  # what is lost is computed again
                connection.execute(
                    "CREATE TABLE IF NOT EXISTS files (signature TEXT PRIMARY KEY, digest TEXT)"
                )
                return connection
            except sqlite3.DatabaseError:
                connection.close()
                if attempt:
                    raise
                for damaged in self._file.parent.glob(f"{self._file.name}*"):
                    damaged.unlink(missing_ok=True)
        raise AssertionError


def walk(folder: Path) -> Iterator[tuple[str, str, Path]]:
    """All that is in a folder, sorted: relative name, kind (f, d or l for a link), path."""
    with os.scandir(folder) as entries:
        listed = sorted(entries, key=lambda entry: entry.name)
    for entry in listed:
        path = Path(entry.path)
        if entry.is_symlink():
            yield entry.name, "l", path
        elif entry.is_dir():
            yield entry.name, "d", path
            for name, kind, below in walk(path):
                yield f"{entry.name}/{name}", kind, below
        else:
            yield entry.name, "f", path


def look(path: Path, at_most: int) -> str | None:
    """What a file or a folder looks like: a digest of names, sizes and times, nothing being read.

    Args:
        path: the file or folder.
        at_most: gives up, with None, where there are more files.
    """
    total, count = hashlib.sha256(), 0
    waiting = [(str(path), "")]
    if path.is_file():
        stat = path.stat()
        return hashlib.sha256(f"{stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()
    while waiting:
        folder, prefix = waiting.pop()
        try:
            with os.scandir(folder) as entries:
                listed = sorted(entries, key=lambda entry: entry.name)
        except OSError:
            continue
        for entry in listed:
            count += 1
            if count > at_most:
                return None
            name = f"{prefix}{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                waiting.append((entry.path, f"{name}/"))
                continue
            with contextlib.suppress(OSError):
                stat = entry.stat()
                text = f"{name}\0{stat.st_size} {stat.st_mtime_ns}\n"
                total.update(text.encode("utf-8", "surrogateescape"))
    return total.hexdigest()


def of_value(value: Any) -> str:
    """The SHA-256 of a JSON value, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _signature(stat: os.stat_result) -> str:
    return f"{stat.st_dev} {stat.st_ino} {stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}"
