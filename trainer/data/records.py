"""TFRecord files: records one after another, guarded by checksums, written and read as streams.

A record is its length (8 bytes, little-endian), the masked CRC-32C of that length (4 bytes), the
data, and the masked CRC-32C of the data (4 bytes), as TensorFlow's tf.io.TFRecordWriter writes it.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import google_crc32c

from trainer.data.manifest import Shard
from trainer.errors import UserError

_LENGTH = struct.Struct("<Q")
_CHECKSUM = struct.Struct("<I")
_HEADER_BYTES = _LENGTH.size + _CHECKSUM.size


class RecordWriter:
    """Writes records to a file and keeps count of what went in; a context manager.

    Args:
        path: the file to write; what stood there is replaced.

    Attributes:
        records: number of records written so far.
        bytes: number of bytes written so far.
    """

    def __init__(self, path: str | Path):
        self.records = 0
        self.bytes = 0
        self._crc32c = google_crc32c.Checksum()
        self._sha256 = hashlib.sha256()
        self._file: BinaryIO = open(path, "wb")  # noqa: SIM115 - closed by __exit__

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def write(self, data: bytes) -> None:
        """Appends one record."""
        length = _LENGTH.pack(len(data))
        frame = b"".join((length, _masked_crc32c(length), data, _masked_crc32c(data)))
        self._file.write(frame)
        self._crc32c.update(frame)
        self._sha256.update(frame)
        self.records += 1
        self.bytes += len(frame)

    def shard(self, file_name: str) -> Shard:
        """What the manifest says about the file, as it stands now, under the name given."""
        return Shard(
            file=file_name,
            records=self.records,
            bytes=self.bytes,
            crc32c=self._crc32c.digest().hex(),
            sha256=self._sha256.hexdigest(),
        )


def read_records(path: str | Path) -> Iterator[bytes]:
    """The records of a file in order; every checksum is compared.

    Raises:
        UserError: a record is damaged or cut short; names the file and the record's number.
    """
    with open(path, "rb") as file:
        number = 0
        while header := file.read(_HEADER_BYTES):
            length = header[: _LENGTH.size]
            if len(header) < _HEADER_BYTES:
                raise _damaged(path, number, "the file ends inside its header")
            # Compared before it is believed: a damaged length would ask for any amount of memory.
            if header[_LENGTH.size :] != _masked_crc32c(length):
                raise _damaged(path, number, "the checksum of its length is wrong")
            size: int = _LENGTH.unpack(length)[0]
            data = file.read(size)
            checksum = file.read(_CHECKSUM.size)
            if len(data) < size or len(checksum) < _CHECKSUM.size:
                raise _damaged(path, number, "the file ends inside it")
            if checksum != _masked_crc32c(data):
                raise _damaged(path, number, "the checksum of its data is wrong")
            yield data
            number += 1


def _masked_crc32c(data: bytes) -> bytes:
    """The CRC-32C, turned right by 15 bits plus a constant (tensorflow/core/lib/hash/crc32c.h)."""
    crc: int = google_crc32c.value(data)
    return _CHECKSUM.pack((((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


def _damaged(path: str | Path, number: int, what: str) -> UserError:
    return UserError(
        f"The records of a TFRecord file must be whole; record {number} of {str(path)!r} is "
        f"damaged: {what}. Create the examples again."
    )
