"""Files of a dataset, read so that no name, link, pipe or size of theirs can do harm."""

from __future__ import annotations

import errno
import functools
import os
import stat
from pathlib import Path

from trainer.errors import BadItem

MAX_BYTES = 2**28
"""Largest file that is read as one item, 256 MiB (ours): far above any picture of a dataset."""


# Opening a pipe would otherwise wait for a writer for ever.
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC


def read_file(root: Path, path: str, expected: str) -> bytes:
    """The content of one file of a dataset.

    Args:
        root: folder of the dataset, as `Path.resolve` gives it.
        path: of the file, below the root; from wherever a name was found, trusted or not.
        expected: what would have been accepted, for the reason of a refusal.

    Raises:
        BadItem: there is no such file, it is no ordinary one (a folder, a pipe, a device), it is
            outside the root or a link leads there, it cannot be read, or it is too large.
    """
    if "\0" in path:
        raise BadItem("its name has a zero byte in it", expected)
    try:
        descriptor = _open(root, path, expected)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise BadItem("it is not a file but something else", expected)
            if status.st_size > MAX_BYTES:
                raise BadItem(
                    f"the file has {status.st_size:,} bytes", f"at most {MAX_BYTES:,} bytes"
                )
            return _read(descriptor, status.st_size)
        finally:
            os.close(descriptor)
    except FileNotFoundError as error:
        raise BadItem("there is no such file", expected) from error
    except OSError as error:
        raise BadItem(f"it cannot be read ({error.strerror or error})", expected) from error


def _open(root: Path, path: str, expected: str) -> int:
    """A descriptor of the file, which is below the root whatever links lead to it."""
    folder, _, name = path.rpartition("/")
    place = _resolved(root, folder)
    try:
        real = f"{place}/{name}"
        descriptor = os.open(real, _FLAGS | os.O_NOFOLLOW) if _within(place, root) else None
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        real = os.path.realpath(f"{place}/{name}", strict=True)
        descriptor = os.open(real, _FLAGS) if _within(real, root) else None
    if descriptor is None:
        raise BadItem("its path or a symbolic link leads out of the data folder", expected)
    return descriptor


@functools.lru_cache(maxsize=4096)  # files of a class lie side by side, and resolving takes long
def _resolved(root: Path, folder: str) -> str:
    return os.path.realpath(root / folder, strict=True)


def _within(path: str, root: Path) -> bool:
    return path == str(root) or path.startswith(f"{str(root).rstrip('/')}/")


def _read(descriptor: int, size: int) -> bytes:
    """The whole file; one call is enough unless the file is being written."""
    content = os.read(descriptor, size + 1)
    while len(content) < size and (more := os.read(descriptor, size - len(content))):
        content += more
    return content


def readable(name: str) -> str:
    """A file's name as text that can be written down, whatever bytes the disk has for it."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
