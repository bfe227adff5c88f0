"""Files within tar archives: found once by walking from header to header, then read in place.

An archive of archives, as ImageNet's training images are, needs no unpacking either: the inner ones
are not compressed, so their headers stand at multiples of 512 bytes of the outer one, too. The walk
goes through all headers alike, and where one is damaged it looks for the next that is whole.

The format is POSIX.1-2001's "ustar" and its forerunners; of GNU's and pax's additions, long names
and attributes are passed over.
"""

from __future__ import annotations

import array
import dataclasses
import os
import re
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trainer.data.files import MAX_BYTES, readable
from trainer.errors import BadItem, UserError

_BLOCK = 512
_ZEROS = bytes(_BLOCK)
_CHUNK = 2**20
_MAX_PADDING = 2**16  # bytes of zeros that an archive may end with (ours): mostly it is 10 KiB
_INNER = re.compile(rb"(n\d{8})\.tar")
_MEMBER_OF = re.compile(rb"(n\d{8})_")
_FILES = (b"0", b"\0", b"7")  # regular, the same before POSIX, contiguous
_PASSED_OVER = (b"5", b"x", b"g", b"L", b"K")  # folders, pax attributes, GNU's long names
_CUT = "the archive is cut short"
# The checksum's place in a header, and the bytes that may stand there.
_CHECKSUM = slice(148, 156)
_IS_OCTAL = np.isin(np.arange(256), list(b"01234567 \0"))


@dataclasses.dataclass(frozen=True)
class Archive:
    """The files in a tar archive by number, in its order; hidden ones are left out.

    What the archive has lost has a number, too: a damaged header, the place where it is cut short.

    Attributes:
        path: of the archive.
        groups: names of the inner archives, without .tar; () if it is no archive of archives.
        group_numbers: of each file, its place in `groups`; int32 [n], -1 for none.
        offsets: of each file's content in the archive, in bytes; int64 [n].
        sizes: in bytes; int64 [n].
        names: of all files in a row, in the bytes of the archive, without their folders.
        ends: of each name in `names`; int64 [n].
        faults: number of a file that cannot be read -> why.
        repeated: numbers of files whose name an earlier one of the same group has.
    """

    path: Path
    groups: tuple[str, ...]
    group_numbers: np.ndarray[Any, Any]
    offsets: np.ndarray[Any, Any]
    sizes: np.ndarray[Any, Any]
    names: bytes
    ends: np.ndarray[Any, Any]
    faults: Mapping[int, str]
    repeated: frozenset[int]

    @property
    def place(self) -> str:
        """Name of the archive's own file."""
        return self.path.name

    def __len__(self) -> int:
        return len(self.offsets)

    def group(self, index: int) -> str:
        """The inner archive that a file is in, without .tar; "" for none."""
        number = self.group_numbers[index]
        return self.groups[number] if number >= 0 else ""

    def name(self, index: int) -> str:
        """Name of a file; "" for what has none."""
        begin = self.ends[index - 1] if index else 0
        return os.fsdecode(self.names[begin : self.ends[index]])

    def key(self, index: int) -> str:
        """Path of a file: archive, inner archive, name; unique by the byte where that is needed."""
        group, name = self.group(index), self.name(index)
        path = "/".join(filter(None, (self.place, group and f"{group}.tar", name)))
        unique = name and index not in self.repeated
        return readable(path if unique else f"{path}#{self.offsets[index]}")

    def read(self, index: int) -> bytes:
        """The content of a file.

        Raises:
            BadItem: it is lost, too large, or cannot be read any more.
        """
        expected = f"a file in a whole {self.place}"
        if index in self.faults:
            raise BadItem(self.faults[index], expected)
        size, offset = int(self.sizes[index]), int(self.offsets[index])
        if size > MAX_BYTES:
            raise BadItem(f"the file has {size:,} bytes", f"at most {MAX_BYTES:,} bytes")
        try:
            descriptor = _open(self.path)
            try:
                content = os.pread(descriptor, size, offset)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise BadItem(f"it cannot be read ({error.strerror or error})", expected) from error
        if len(content) < size:
            raise BadItem("the archive has become shorter since it was opened", expected)
        return content


def index_archive(path: Path, of_archives: bool = False) -> Archive:
    """Finds the files of an archive; reads headers alone, unless one is damaged.

    Args:
        path: of the archive, which is not compressed.
        of_archives: whether it holds archives named n########.tar, one for each class.

    Raises:
        UserError: it cannot be read, or not one header in it is whole.
    """
    try:
        descriptor = _open(path)
        try:
            size = os.fstat(descriptor).st_size

            def read(offset: int, count: int) -> bytes:
                return os.pread(descriptor, count, offset)

            return index_content(path, read, size, of_archives)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise UserError(
            f"{path} must be a tar archive; it cannot be read ({error.strerror or error})."
        ) from error


def index_content(
    path: Path, read: Callable[[int, int], bytes], size: int, of_archives: bool = False
) -> Archive:
    """Finds the files of an archive whose content is got by `read(offset, count)`.

    Args:
        path: of the archive, for its name.
        read: gives bytes of it, as many as asked for if they are there.
        size: of the archive.
        of_archives: see `index_archive`.

    Raises:
        UserError: not one header in it is whole.
    """
    walk = _Walk(read, size, of_archives)
    walk.run()
    if not walk.headers:
        raise UserError(
            f"{path} must be a tar archive; it begins with {read(0, 12)!r} and not one header in "
            "it is whole. Get the file again."
        )
    return walk.archive(path)


class _Walk:
    """Goes through an archive and notes what it finds."""

    def __init__(self, read: Callable[[int, int], bytes], size: int, of_archives: bool):
        self.headers = 0
        self._read, self._size, self._of_archives = read, size, of_archives
        self._groups: dict[bytes, int] = {}
        self._group: bytes = b""  # the inner archive that is being walked through
        self._group_end = 0
        self._adrift = False  # the header of an inner archive is lost, and so is its end
        self._ended = False  # the zeros at the end of the (outer) archive have been seen
        self._group_numbers = array.array("i")
        self._offsets, self._sizes, self._ends = (array.array("q") for _ in range(3))
        self._hashes = array.array("q")
        self._names = bytearray()
        self._faults: dict[int, str] = {}

    def run(self) -> None:
        """Walks from the beginning to the end."""
        offset = 0
        while offset < self._size:
            block = self._read(offset, _BLOCK)
            if len(block) < _BLOCK:
                if block.strip(b"\0"):
                    self._lose(offset, "the archive is cut short within a header")
                break
            header = _header(block) if block != _ZEROS else None
            if header:
                self.headers += 1
                offset = self._member(offset, *header)
                continue
            following = self._behind_zeros(offset)
            if offset < self._group_end < following:  # those of the inner archive first
                following = self._group_end
            if self._is_padding(offset, following):
                self._ended |= offset >= self._group_end
            else:
                following = self._next_header(max(following, offset + _BLOCK))
                self._ended |= following == self._size
                lost = f"{following - offset:,} bytes up to the next are lost"
                self._lose(offset, f"a header is damaged; {lost}")
            offset = following
        if not self._ended and not self._faults.get(len(self._offsets) - 1, "").startswith(_CUT):
            self._lose(self._size, f"{_CUT}: its end is missing")
        self._tell_empty_groups()

    def archive(self, path: Path) -> Archive:
        """What was found."""
        repeated = self._repeated()
        return Archive(
            path,
            tuple(group.decode() for group in self._groups),
            np.array(self._group_numbers, np.int32),
            np.array(self._offsets, np.int64),
            np.array(self._sizes, np.int64),
            bytes(self._names),
            np.array(self._ends, np.int64),
            {**dict.fromkeys(repeated, "another file has the same name"), **self._faults},
            repeated,
        )

    def _member(self, offset: int, name: bytes, size: int, kind: bytes) -> int:
        """Notes the member whose header stands at an offset; the place of the next header."""
        content = offset + _BLOCK
        following = content + -(-size // _BLOCK) * _BLOCK
        inner = _INNER.fullmatch(name) if self._of_archives and kind in _FILES else None
        if inner:
            self._group, self._group_end, self._adrift = inner[1], following, False
            self._groups.setdefault(self._group, len(self._groups))
            return content
        if kind in _PASSED_OVER or not name or name.startswith(b"."):
            return following
        group, fault = self._group_at(offset, name), ""
        if content + size > self._size:
            fault = f"{_CUT}: {self._size - content:,} of the file's {size:,} bytes are there"
            following = self._size
        elif offset < self._group_end < content + size:
            fault = "the file reaches out of the archive of its class"
            following = content
        elif kind not in _FILES:
            fault = "it is not a file but something else"
        elif self._of_archives and not group:
            fault = "a file outside of the archive of a class"
        self._add(group, name, content, size, fault)
        return following

    def _group_at(self, offset: int, name: bytes = b"") -> bytes:
        """The inner archive that a place is in; if its header is lost, the files' names tell it."""
        if offset < self._group_end:
            return self._group
        member = _MEMBER_OF.match(name) if self._of_archives else None
        return member[1] if member else b""

    def _lose(self, offset: int, fault: str) -> None:
        self._adrift |= self._of_archives and offset >= self._group_end
        self._add(self._group_at(offset), b"", offset, 0, fault)

    def _add(self, group: bytes, name: bytes, offset: int, size: int, fault: str) -> None:
        if fault:
            self._faults[len(self._offsets)] = fault
        number = self._groups.setdefault(group, len(self._groups)) if group else -1
        self._group_numbers.append(number)
        self._offsets.append(offset)
        self._sizes.append(size)
        self._names += name
        self._ends.append(len(self._names))
        self._hashes.append(hash((number, name or offset)))

    def _tell_empty_groups(self) -> None:
        filled = set(self._group_numbers)
        for group, number in list(self._groups.items()):
            if number not in filled:
                self._add(group, b"", self._size, 0, "a class without images: its archive is empty")

    def _repeated(self) -> frozenset[int]:
        """Numbers of files whose name has come before in their group."""
        if len(np.unique(np.array(self._hashes, np.int64))) == len(self._hashes):
            return frozenset()
        seen: set[tuple[int, bytes]] = set()
        repeated, begin = [], 0
        for index, (group, end) in enumerate(zip(self._group_numbers, self._ends, strict=True)):
            place = group, bytes(self._names[begin:end])
            if begin < end and place in seen:
                repeated.append(index)
            seen.add(place)
            begin = end
        return frozenset(repeated)

    def _is_padding(self, begin: int, end: int) -> bool:
        """Whether zeros are those at the end of an archive, and not files that were lost."""
        if not begin < end <= begin + _MAX_PADDING:
            return False
        if end in (self._size, self._group_end):
            return True
        following = _header(self._read(end, _BLOCK)) if self._adrift else None
        return following is not None and _INNER.fullmatch(following[0]) is not None

    def _behind_zeros(self, offset: int) -> int:
        """The first block from an offset on that is not all zeros; the end if there is none."""
        count = 16 * _BLOCK  # mostly there are two, and at most what fills up a tape's record
        zeros = bytes(count)
        while chunk := self._read(offset, count):
            if chunk != zeros[: len(chunk)]:  # a comparison is much faster than a search
                rest = chunk.lstrip(b"\0")
                return offset + (len(chunk) - len(rest)) // _BLOCK * _BLOCK
            offset, count = offset + len(chunk), _CHUNK
            zeros = zeros if len(zeros) == count else bytes(count)
        return self._size

    def _next_header(self, offset: int) -> int:
        """The place of the next whole header from an offset on; the end if there is none."""
        count = 32 * _BLOCK  # a little at first: much of an archive may be damaged in many places
        while chunk := self._read(offset, count):
            blocks = np.frombuffer(chunk[: len(chunk) // _BLOCK * _BLOCK], np.uint8)
            checksums = blocks.reshape(-1, _BLOCK)[:, _CHECKSUM]
            likely = _IS_OCTAL[checksums].all(axis=1) & (checksums >= ord("0")).any(axis=1)
            for number in np.flatnonzero(likely).tolist():
                if _header(chunk[number * _BLOCK : (number + 1) * _BLOCK]):
                    return offset + int(number) * _BLOCK
            offset, count = offset + len(chunk), min(2 * count, _CHUNK)
        return self._size


def _header(block: bytes) -> tuple[bytes, int, bytes] | None:
    """Name without folders, size and kind of a member; None if this is no whole header."""
    if len(block) < _BLOCK:
        return None
    checksum, size = _number(block[_CHECKSUM]), _number(block[124:136])
    if checksum != sum(block) - sum(block[_CHECKSUM]) + 8 * ord(" ") or size is None:
        return None
    name = block[:100].split(b"\0", 1)[0]
    if name.endswith(b"/"):  # how folders were told before there were kinds
        return b"", size, b"5"
    return name.rpartition(b"/")[2], size, block[156:157]


def _number(field: bytes) -> int | None:
    """A number in octal digits, or, as GNU writes those of 8 GiB and more, in binary."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.split(b"\0", 1)[0].strip(b" ")
    return int(digits or b"0", 8) if not digits.strip(b"01234567") else None


def _open(path: Path) -> int:
    """A descriptor of an ordinary file; opening a pipe would wait for a writer for ever."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError("it is not a file but something else")
    return descriptor
