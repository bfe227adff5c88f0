"""Folders on this machine's disks and in buckets, read and written in the same way."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems

from trainer.artifact import resumable_folder
from trainer.data.manifest import MANIFEST

PLAN = "plan.json"
"""The file of an unfinished folder in a bucket that tells what is to be in it."""

_PIECE = 2**24  # bytes that are copied at once
_UNFINISHED = ".unfinished"


class Folder:
    """A folder, by its path or by its address, such as `gs://bucket/examples`.

    Workers of any machine can use it: it pickles to its path alone.

    Args:
        path: of the folder, which need not exist.

    Attributes:
        path: as given, without a slash at its end.
        remote: whether it is in a bucket.
    """

    def __init__(self, path: str):
        self.path = path.rstrip("/") or "/"
        self.remote = "://" in path

    def __repr__(self) -> str:
        return f"Folder({self.path!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Folder) and other.path == self.path

    def __hash__(self) -> int:
        return hash(self.path)

    def place(self, name: str) -> str:
        """Path or address of a file in it, whose name may have slashes."""
        return f"{self.path}/{name}"

    def absolute(self) -> Folder:
        """The same folder, wherever whoever uses it works."""
        return self if self.remote else Folder(os.path.abspath(self.path))  # noqa: PTH100

    def below(self, name: str) -> Folder:
        """A folder in it."""
        return Folder(self.place(name))

    def open(self, name: str) -> BinaryIO:
        """Opens a file for reading, as a stream.

        Raises:
            OSError: it cannot be read.
        """
        if not self.remote:
            return open(self.place(name), "rb")
        stream = FileSystems.open(self.place(name), compression_type=CompressionTypes.UNCOMPRESSED)
        return cast(BinaryIO, stream)

    def read(self, name: str) -> bytes:
        """The content of a file."""
        with self.open(name) as file:
            return file.read()

    def exists(self, name: str) -> bool:
        """Whether there is such a file."""
        if not self.remote:
            return Path(self.place(name)).is_file()
        return bool(FileSystems.exists(self.place(name)))

    @contextlib.contextmanager
    def creating(self, name: str) -> Iterator[BinaryIO]:
        """Opens a file for writing, which is there under its name when the block ends well.

        Until then, and for ever if the process dies, it has a name that no other process uses.
        """
        final = self.place(name)
        parent, _, last = final.rpartition("/")
        draft = f"{parent}/.{last}.{uuid.uuid4().hex}{_UNFINISHED}"
        if not self.remote:
            Path(parent).mkdir(parents=True, exist_ok=True)
            try:
                with open(draft, "wb") as file:
                    yield file
            except BaseException:
                Path(draft).unlink(missing_ok=True)
                raise
            os.replace(draft, final)
            return
        try:
            with FileSystems.create(
                draft, compression_type=CompressionTypes.UNCOMPRESSED
            ) as stream:
                yield cast(BinaryIO, stream)
        except BaseException:
            with contextlib.suppress(BeamIOError):
                FileSystems.delete([draft])
            raise
        FileSystems.rename([draft], [final])

    def write(self, name: str, data: bytes) -> None:
        """Writes a file that is either whole or absent."""
        with self.creating(name) as file:
            file.write(data)

    def write_json(self, name: str, value: Any) -> None:
        """Writes a JSON file that is either whole or absent."""
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        self.write(name, text.encode())

    def read_json(self, name: str) -> Any:
        """The content of a JSON file."""
        return json.loads(self.read(name))

    def files(self) -> list[str]:
        """Names of all files in and below it, sorted; none where there is no such folder."""
        if not self.remote:
            root = Path(self.path)
            found = (path for path in root.rglob("*") if not path.is_dir() or path.is_symlink())
            return sorted(path.relative_to(root).as_posix() for path in found)
        # One pattern for what is in it and another for what is below.
        matches = FileSystems.match([self.place("*"), self.place("**")])
        places = {entry.path for match in matches for entry in match.metadata_list}
        return sorted(place.removeprefix(f"{self.path}/") for place in places)

    def remove(self, names: Iterable[str]) -> None:
        """Removes files; those that are not there are no matter."""
        places = [self.place(name) for name in names]
        if not self.remote:
            for place in places:
                Path(place).unlink(missing_ok=True)
        elif places:
            FileSystems.delete(places)

    def discard(self) -> None:
        """Removes the folder with all that is in it; first what says that it is finished."""
        if not self.remote:
            Path(self.place(MANIFEST)).unlink(missing_ok=True)
            if Path(self.path).exists():
                shutil.rmtree(self.path)
            return
        names = self.files()
        self.remove(name for name in names if name == MANIFEST)
        self.remove(name for name in names if name != MANIFEST)

    def copy_to(self, other: Folder, last: str = "") -> None:
        """Copies every file to another folder.

        Args:
            other: the folder to fill.
            last: end of the name of the file that is copied last, when all others are there.
        """
        names = self.files()
        for name in sorted(names, key=lambda name: bool(last) and name.endswith(last)):
            with self.open(name) as source, other.creating(name) as target:
                shutil.copyfileobj(source, target, _PIECE)

    def remove_unfinished(self) -> None:
        """Removes the files that processes left which died as they wrote them."""
        drafts = re.compile(rf"(.*/)?\.[^/]*\.[0-9a-f]{{32}}{re.escape(_UNFINISHED)}")
        self.remove(name for name in self.files() if drafts.fullmatch(name))


@contextlib.contextmanager
def resumable(path: str, plan: Mapping[str, Any]) -> Iterator[Folder]:
    """Yields the folder to fill, which is at `path` when the block ends well, and stays if not.

    On a disk it is a draft that takes the place of `path` at the end, with all that
    `trainer.artifact.resumable_folder` promises. Buckets rename nothing, so there it is `path`
    itself: `manifest.json` is to be written last, and nobody takes it for finished without that.

    Args:
        path: the folder to make.
        plan: all that its content depends on, as JSON; with another plan the folder is empty.
    """
    folder = Folder(path)
    if not folder.remote:
        with resumable_folder(path, plan) as draft:
            yield Folder(str(draft))
        return
    wanted = json.dumps(plan, indent=2, sort_keys=True).encode()
    if not folder.exists(PLAN) or folder.read(PLAN) != wanted:
        folder.discard()
        folder.write(PLAN, wanted)
    yield folder
    folder.remove([PLAN])


def in_the_cloud(path: str) -> str:
    """The address `gs://bucket/name` of a path `/gcs/bucket/name`, where pipelines mount buckets.

    Other paths are as they were: workers may share a disk.
    """
    return re.sub(r"^/gcs/", "gs://", path)
