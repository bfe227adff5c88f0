"""Which files lie in the folders of a dataset, as lists of names that are cheap to keep and send.

Hidden entries, whose names begin with a dot, are passed over everywhere.
"""

from __future__ import annotations

import bisect
import dataclasses
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from trainer.errors import UserError


@dataclasses.dataclass(frozen=True)
class Listing:
    """Files in groups (a group is mostly the folder of a class), those of a group in a row.

    Attributes:
        groups: names of the groups, in order.
        starts: number of the first file of each group.
        names: of all files, without their folders.
    """

    groups: tuple[str, ...]
    starts: tuple[int, ...]
    names: tuple[str, ...]

    @classmethod
    def of(cls, contents: Mapping[str, Iterable[str]]) -> Listing:
        """A listing of the names in each group, in the order given."""
        starts: list[int] = []
        names: list[str] = []
        for group in contents.values():
            starts.append(len(names))
            names.extend(group)
        return cls(tuple(contents), tuple(starts), tuple(names))

    def __len__(self) -> int:
        return len(self.names)

    def group(self, index: int) -> str:
        """Name of the group that a file is in."""
        return self.groups[bisect.bisect_right(self.starts, index) - 1]


def folders_in(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted; none if there is no such folder.

    Raises:
        UserError: the folder cannot be read.
    """
    return sorted(entry.name for entry in _visible(folder) if entry.is_dir())


def others_in(folder: Path) -> list[str]:
    """Names of what lies in a folder and is none, files above all, sorted; none if it is not there.

    Raises:
        UserError: the folder cannot be read.
    """
    return sorted(entry.name for entry in _visible(folder) if not entry.is_dir())


def all_in(folder: Path) -> list[str]:
    """Names of all that lies in a folder, sorted; none if there is no such folder.

    Raises:
        UserError: the folder cannot be read.
    """
    return sorted(entry.name for entry in _visible(folder))


def _visible(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UserError(
            f"Folders of a dataset must be readable; {str(folder)!r} is not "
            f"({error.strerror or error}). Give yourself the right to read it."
        ) from error
