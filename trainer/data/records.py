"""TFRecord files: records one after another, guarded by checksums, written and read as streams.

A record is its length (8 bytes, little-endian), the masked CRC-32C of that length (4 bytes), the
data, and the masked CRC-32C of the data (4 bytes), as TensorFlow's tf.io.TFRecordWriter writes it.
"""

from __future__ import annotations

import collections
import functools
import hashlib
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple, Self

import google_crc32c

from trainer.data.damage import flipped_bit, masked, masked_crc32c, mended_header, next_header
from trainer.data.manifest import Shard
from trainer.errors import UserError

_LENGTH = struct.Struct("<Q")
_CHECKSUM = struct.Struct("<I")
_HEADER = struct.Struct("<QI")
_HEADER_BYTES = _LENGTH.size + _CHECKSUM.size
_WRITTEN = 2**18  # bytes that are written at once
_PIECES = 1024  # pieces of records that are written at once
_LARGE = 2**12  # bytes from which on copying a piece costs more than handling it alone
_BLOCKS = 32  # blocks of records that wait for the threads
_BLOCK = 2**20  # bytes that a scan reads at once
_NEAR = 2**16  # bytes read at once where the next record is near, as most are
_SECOND_READING = 2**28  # the longest stretch after a damaged length that is tried as one record
_SEARCHED = 2**24  # bytes of a file in which flipped bits are looked for, which takes a few seconds


class RecordWriter:
    """Writes records to a file and keeps count of what went in; a context manager.

    Args:
        file: the file to write, where what stood there is replaced; or one open for writing, as a
            bucket has it, which the writer closes.
        threaded: whether threads compute the SHA-256, which takes as long as everything else, and
            write; worth it where processors have nothing else to do.

    Attributes:
        records: number of records written so far.
        bytes: number of bytes written so far.
    """

    def __init__(self, file: str | Path | BinaryIO, threaded: bool = False):
        self.records = 0
        self.bytes = 0
        self._crc32c = google_crc32c.Checksum()
        self._sha256 = hashlib.sha256()
        self._file: BinaryIO
        if isinstance(file, str | Path):
            self._file = open(file, "wb", buffering=0)  # noqa: SIM115 - closed by __exit__
        else:
            self._file = file
        self._pieces: list[bytes] = []
        self._waiting = 0
        self._threads = [ThreadPoolExecutor(1) for _ in range(2)] if threaded else []
        self._busy: collections.deque[Future[None]] = collections.deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self._flush()
                self._wait(0)
        finally:
            for thread in self._threads:
                thread.shutdown(cancel_futures=True)
            self._file.close()

    def write(self, data: bytes | Sequence[bytes]) -> None:
        """Appends one record, given whole or in pieces, which spares a large one being copied."""
        pieces = (data,) if isinstance(data, bytes) else data
        size = sum(map(len, pieces))
        checksum = 0
        for piece in pieces:
            checksum = google_crc32c.extend(checksum, piece)
        length = _LENGTH.pack(size)
        self._pieces += (length + _masked_crc32c(length), *pieces, _CHECKSUM.pack(masked(checksum)))
        self.records += 1
        self.bytes += _HEADER_BYTES + size + _CHECKSUM.size
        self._waiting += size
        if self._waiting >= _WRITTEN or len(self._pieces) >= _PIECES:
            self._flush()

    def shard(self, file_name: str) -> Shard:
        """What the manifest says about the file, as it stands now, under the name given."""
        self._flush()
        self._wait(0)
        return Shard(
            file=file_name,
            records=self.records,
            bytes=self.bytes,
            crc32c=self._crc32c.digest().hex(),
            sha256=self._sha256.hexdigest(),
        )

    def _flush(self) -> None:
        """Hands what has gathered to the file and the checksums."""
        if not self._pieces:
            return
        pieces = gathered(self._pieces)
        self._pieces, self._waiting = [], 0
        if self._threads:
            tasks = zip(self._threads, (self._hash, self._put), strict=True)
            self._busy += [thread.submit(task, pieces) for thread, task in tasks]
            self._wait(_BLOCKS)
        else:
            self._hash(pieces)
            self._put(pieces)

    def _wait(self, most: int) -> None:
        """Waits until the threads have no more than so many tasks left; raises what they raise."""
        while len(self._busy) > most:
            self._busy.popleft().result()

    def _hash(self, pieces: Sequence[bytes]) -> None:
        for piece in pieces:
            self._sha256.update(piece)

    def _put(self, pieces: Sequence[bytes]) -> None:
        for piece in pieces:
            self._crc32c.update(piece)
            written = self._file.write(piece)
            while written is not None and written < len(piece):  # an unbuffered file may take part
                piece = piece[written:]
                written = self._file.write(piece)


def gathered(pieces: Iterable[bytes]) -> list[bytes]:
    """The same bytes in fewer pieces: small ones are put together, large ones are not copied."""
    gathered: list[bytes] = []
    small: list[bytes] = []
    for piece in pieces:
        if len(piece) < _LARGE:
            small.append(piece)
            continue
        gathered += (b"".join(small), piece)
        small.clear()
    gathered.append(b"".join(small))
    return gathered


def read_records(path: str | Path, file: BinaryIO | None = None) -> Iterator[bytes]:
    """The records of a file in order; every checksum is compared.

    Args:
        path: the file.
        file: the same, where it is open already, as a bucket has it; it is closed at the end.

    Raises:
        UserError: a record is damaged or cut short; names the file and the record's number.
    """
    with open(path, "rb") if file is None else file as stream:
        number = 0
        while header := stream.read(_HEADER_BYTES):
            length = header[: _LENGTH.size]
            if len(header) < _HEADER_BYTES:
                raise _damaged(path, number, "the file ends inside its header")
            # Compared before it is believed: a damaged length would ask for any amount of memory.
            if header[_LENGTH.size :] != _masked_crc32c(length):
                raise _damaged(path, number, "the checksum of its length is wrong")
            size: int = _LENGTH.unpack(length)[0]
            data = stream.read(size)
            checksum = stream.read(_CHECKSUM.size)
            if len(data) < size or len(checksum) < _CHECKSUM.size:
                raise _damaged(path, number, "the file ends inside it")
            if checksum != _masked_crc32c(data):
                raise _damaged(path, number, "the checksum of its data is wrong")
            yield data
            number += 1


def read_shard(path: str | Path) -> Iterator[bytes]:
    """The records of a shard, of which nobody knows yet whether it is there and whole.

    Raises:
        UserError: the file is missing or cannot be read, or a record is damaged or cut short.
    """
    try:
        if not Path(path).is_file():
            raise OSError("there is no such file")
        yield from read_records(path)
    except OSError as error:
        raise _unreadable(path, error) from error


def next_record(path: str | Path, place: int) -> int | None:
    """Where in a shard the first record begins that begins at a byte or later; None for none.

    Raises:
        UserError: the file is missing or cannot be read.
    """
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            return next_header(functools.partial(os.pread, file.fileno()), place, size, _NEAR)
    except OSError as error:
        raise _unreadable(path, error) from error


def read_record(path: str | Path, offset: int) -> bytes:
    """The record of a file that begins at a byte that a scan has told.

    Raises:
        UserError: there is no whole record.
    """
    with open(path, "rb") as file:
        file.seek(offset)
        header = file.read(_HEADER_BYTES)
        room = os.fstat(file.fileno()).st_size - offset - _HEADER_BYTES - _CHECKSUM.size
        if len(header) == _HEADER_BYTES:
            size, stored = _HEADER.unpack(header)
            if masked_crc32c(header[: _LENGTH.size]) == stored and size <= room:
                data = file.read(size)
                if file.read(_CHECKSUM.size) == _masked_crc32c(data):
                    return data
    raise UserError(
        f"The records of a TFRecord file must be whole; that at byte {offset:,} of {str(path)!r} "
        "is not. Create the examples again."
    )


class ScannedRecord(NamedTuple):
    """A record as it lies in a file, whole or damaged.

    Attributes:
        number: its number in the file, from 0.
        offset: the byte of the file at which it begins.
        data: its data, mended if one wrong bit was found and as it lies there otherwise; None if it
            cannot be told from the rest of the file.
        damage: what is wrong, as the end of a sentence; empty for a whole record.
        wrong_byte: the byte of the file that has the wrong bit, where it is one bit.
    """

    number: int
    offset: int
    data: bytes | None
    damage: str = ""
    wrong_byte: int | None = None


class RecordScan:
    """Reads a file of records once, from the first byte to the last, and goes on after damage.

    Iterating gives every record, whole or damaged. A record whose data is damaged hides none of the
    others: its length has a checksum of its own. After a damaged length the next record is found by
    that checksum; what lies between counts as one record. The memory needed is that of the largest
    record a few times over and 3 MiB, whatever a damaged file claims.

    Args:
        path: the file.
        advance: called with the number of bytes each time some have been read; what it raises ends
            the scan.

    Attributes:
        bytes: size of the file; like the next two, right when the iteration has ended.
        crc32c: CRC-32C of the whole file, eight hexadecimal digits.
        sha256: SHA-256 of the whole file, hexadecimal.
    """

    def __init__(self, path: str | Path, advance: Callable[[int], None] | None = None):
        self.bytes = 0
        self.crc32c = ""
        self.sha256 = ""
        self._path = path
        self._advance = advance

    def __iter__(self) -> Iterator[ScannedRecord]:
        # One thread computes the checksums of the file while this one takes the records apart.
        with open(self._path, "rb", 0) as file, ThreadPoolExecutor(1) as digester:
            reader = _Forward(file, digester, self._advance)
            number = 0
            while record := _next_scanned(reader, number):
                yield record
                number += 1
            self.bytes, self.crc32c, self.sha256 = reader.digests()


class _Forward:
    """A file that is read once, forwards; a thread computes its checksums meanwhile."""

    def __init__(
        self,
        file: BinaryIO,
        digester: ThreadPoolExecutor,
        advance: Callable[[int], None] | None,
    ):
        self.size = os.fstat(file.fileno()).st_size
        self.place = 0
        self.searchable = _SEARCHED
        self._file = file
        self._digester = digester
        self._advance = advance
        self._sha256 = hashlib.sha256()
        self._crc32c = 0
        self._block = b""
        self._at = 0  # how far the block has been used
        self._pending: Future[None] | None = None

    def read(self, count: int) -> bytes:
        """The next bytes, fewer at the end of the file."""
        end = self._at + count
        if end <= len(self._block):
            data = self._block[self._at : end]
            self._at = end
        else:
            data = self._read_across(count)
        self.place += len(data)
        return data

    def pread(self, count: int, place: int) -> bytes:
        """Bytes from anywhere in the file, without moving."""
        return os.pread(self._file.fileno(), count, place)

    def skip_to(self, place: int) -> None:
        """Goes on to a place of the file, or to its end."""
        while self.place < place and self.read(min(place - self.place, _BLOCK)):
            pass

    def digests(self) -> tuple[int, str, str]:
        """Number of bytes read, and their CRC-32C and SHA-256 as hexadecimal digits."""
        if self._pending:
            self._pending.result()
        return self.place, f"{self._crc32c:08x}", self._sha256.hexdigest()

    def _read_across(self, count: int) -> bytes:
        """The next bytes, which go beyond the block."""
        pieces = [self._block[self._at :]]
        missing = count - len(pieces[0])
        self._block, self._at = b"", 0
        while missing > 0 and (block := self._file.read(_BLOCK)):
            if self._pending:
                self._pending.result()  # no more than one block waits in memory
            self._pending = self._digester.submit(self._digest, block)
            if self._advance:
                self._advance(len(block))
            self._block, self._at = block, min(missing, len(block))
            pieces.append(block[: self._at])
            missing -= self._at
        return b"".join(pieces)

    def _digest(self, block: bytes) -> None:
        # Of blocks of 1 MiB, both are computed without holding back the other threads.
        self._sha256.update(block)
        self._crc32c = google_crc32c.extend(self._crc32c, block)


def _next_scanned(reader: _Forward, number: int) -> ScannedRecord | None:
    """The next record, whole or damaged; None at the end of the file."""
    offset = reader.place
    header = reader.read(_HEADER_BYTES)
    if len(header) < _HEADER_BYTES:
        damage = "the file ends inside its header"
        return ScannedRecord(number, offset, None, damage) if header else None
    size, stored = _HEADER.unpack(header)
    if masked_crc32c(header[: _LENGTH.size]) != stored:
        return _without_header(reader, ScannedRecord(number, offset, None), header)
    # Asked of the file's size first: what a record claims must not decide how much is read.
    rest = size + _CHECKSUM.size
    there = reader.size - reader.place
    if rest <= there:
        data, footer = reader.read(size), reader.read(_CHECKSUM.size)
        there = len(data) + len(footer)
    if rest > there:
        reader.skip_to(reader.size)
        damage = f"the file ends inside it: {there:,} of its {rest:,} bytes are there"
        return ScannedRecord(number, offset, None, damage)
    record = ScannedRecord(number, offset, data)
    (stored,) = _CHECKSUM.unpack(footer)
    return record if masked_crc32c(data) == stored else _damaged_data(reader, record, stored)


def _damaged_data(reader: _Forward, record: ScannedRecord, stored: int) -> ScannedRecord:
    """A record whose checksum is wrong, with what can be said about it."""
    data = record.data or b""
    begin = record.offset + _HEADER_BYTES
    reader.searchable -= len(data)
    found = flipped_bit(data, stored) if reader.searchable >= 0 else None
    if found is None:
        damage = (
            f"the checksum of its data is wrong: bytes {begin:,} to {begin + len(data) - 1:,} of "
            "the file are not as they were written"
        )
        return record._replace(damage=damage)
    place, bit = found
    wrong = begin + place
    if place >= len(data):
        damage = f"one bit of the checksum of its data has changed, at byte {wrong:,} of the file"
        return record._replace(damage=damage, wrong_byte=wrong)
    mended = bytearray(data)
    mended[place] ^= 1 << bit
    damage = f"one bit of its data has changed, at byte {wrong:,} of the file"
    return record._replace(data=bytes(mended), damage=damage, wrong_byte=wrong)


def _without_header(reader: _Forward, record: ScannedRecord, header: bytes) -> ScannedRecord:
    """What can be said of the record whose header has just been read, and is damaged."""
    offset, size = record.offset, reader.size
    frame = _HEADER_BYTES + _CHECKSUM.size
    mended = mended_header(header, min(size - offset - frame, _SECOND_READING))
    if mended:
        length, place = mended
        found = _with_length(reader, record, length, follows=True)
        if found:
            what = "length" if place < _LENGTH.size else "checksum of its length"
            wrong = offset + place
            damage = f"one bit of the {what} has changed, at byte {wrong:,} of the file"
            if found.damage:
                damage = f"{damage}, and {found.damage}"
            return found._replace(damage=damage, wrong_byte=wrong)
    following = next_header(reader.pread, offset + 1, size)
    end = size if following is None else following
    if frame <= end - offset <= _SECOND_READING:
        found = _with_length(reader, record, end - offset - frame, follows=False)
        if found:
            return found._replace(damage="its length is damaged; its data is whole")
    reader.skip_to(end)
    if following is None:
        rest = f"the rest of the file, {end - offset:,} bytes, cannot be read"
        return record._replace(damage=f"its length is damaged, and {rest}")
    between = f"nothing can be read up to byte {end:,} of the file, where the next record begins"
    return record._replace(damage=f"its length is damaged, and {between}")


def _with_length(
    reader: _Forward, record: ScannedRecord, length: int, follows: bool
) -> ScannedRecord | None:
    """The record with its data, if the length is the one given; None, without having moved, if not.

    The checksum of the data proves the length. If `follows`, so does a sound header, or the end of
    the file, right after the record.
    """
    begin = record.offset + _HEADER_BYTES
    end = begin + length + _CHECKSUM.size
    content = reader.pread(end - begin, begin)
    if len(content) < end - begin:
        return None
    data, (stored,) = content[:length], _CHECKSUM.unpack(content[length:])
    found = record._replace(data=data)
    if masked_crc32c(data) != stored:
        after = reader.pread(_HEADER_BYTES, end)
        sound = len(after) == _HEADER_BYTES and (
            masked_crc32c(after[: _LENGTH.size]) == _HEADER.unpack(after)[1]
        )
        if not follows or (after and not sound):
            return None
        found = _damaged_data(reader, found, stored)
    reader.skip_to(end)
    return found


def _masked_crc32c(data: bytes) -> bytes:
    return _CHECKSUM.pack(masked_crc32c(data))


def _unreadable(path: str | Path, error: OSError) -> UserError:
    return UserError(
        f"The shards of examples must be files to read; {str(path)!r} cannot be read "
        f"({error.strerror or error}). `paper2hub examples verify` lists what else is wrong."
    )


def _damaged(path: str | Path, number: int, what: str) -> UserError:
    return UserError(
        f"The records of a TFRecord file must be whole; record {number} of {str(path)!r} is "
        f"damaged: {what}. Create the examples again."
    )
