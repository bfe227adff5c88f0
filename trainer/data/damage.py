"""What can be told of a damaged TFRecord file: the bit that is wrong, where reading can go on."""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable
from typing import Any

import google_crc32c
import numpy as np

LONGEST = 2**22
"""Most bytes in which a flipped bit is looked for, 4 MiB (ours): it takes a second in Python."""

_POLYNOMIAL = 0x82F63B78  # CRC-32C (Castagnoli), reflected: RFC 3720, appendix B.4
_MASK = 0xA282EAD8  # tensorflow/core/lib/hash/crc32c.h
_HEADER = struct.Struct("<QI")


def masked_crc32c(data: bytes) -> int:
    """The CRC-32C of data, masked."""
    return masked(google_crc32c.value(data))


def masked(crc: int) -> int:
    """A CRC-32C turned right by 15 bits, plus a constant (tensorflow/core/lib/hash/crc32c.h)."""
    return (((crc >> 15) | (crc << 17)) + _MASK) & 0xFFFFFFFF


def flipped_bit(data: bytes, stored: int) -> tuple[int, int] | None:
    """The one bit whose flip explains that a masked checksum is not that of the data.

    A cyclic redundancy check is linear: what one wrong bit does to it depends on nothing but how
    far from the end it is, so it is followed back from the end to the bit.

    Args:
        data: what was read.
        stored: the masked CRC-32C that it should have.

    Returns:
        The byte's place in the data and the bit within it, 0 to 7; the place is `len(data)` to
        `len(data) + 3` for a bit of the checksum itself, which stands after it in little-endian
        order. None if no one bit explains it, or the data is longer than `LONGEST`.
    """
    came = masked_crc32c(data)
    wrong = came ^ stored
    if wrong.bit_count() == 1:
        place, bit = divmod(wrong.bit_length() - 1, 8)
        return len(data) + place, bit
    if not wrong or len(data) > LONGEST:
        return None
    table, by_last = _tables()
    ones = {table[1 << bit]: bit for bit in range(8)}
    state = _unmasked(came) ^ _unmasked(stored)
    for place in range(len(data) - 1, -1, -1):
        if state in ones:
            return place, ones[state]
        last = by_last[state >> 24]
        state = ((state ^ table[last]) << 8 | last) & 0xFFFFFFFF
    return None


def mended_header(header: bytes, room: int) -> tuple[int, int] | None:
    """A damaged record header with the one bit turned back that makes it right.

    Args:
        header: 12 bytes: the length and its masked checksum.
        room: the largest length that there can be.

    Returns:
        The length, and the wrong byte's place in the header; None if it is not a matter of one bit.
    """
    for place in range(_HEADER.size):
        for bit in range(8):
            mended = bytearray(header)
            mended[place] ^= 1 << bit
            length, stored = _HEADER.unpack(mended)
            if length <= room and masked_crc32c(bytes(mended[:8])) == stored:
                return length, place
    return None


def next_header(
    read: Callable[[int, int], bytes], begin: int, end: int, chunk_bytes: int = 2**20
) -> int | None:
    """The place of the next whole record header of a file, known by the checksum of its length.

    One place in 2^32 looks like a header and is none; its record must also fit into the file, which
    leaves fewer still.

    Args:
        read: gives what the file has at a place: (number of bytes, place), as os.pread.
        begin: where to begin.
        end: size of the file.
        chunk_bytes: how much to read at once, 64 or more.
    """
    while begin + 16 <= end:
        chunk = np.frombuffer(read(min(chunk_bytes, end - begin), begin), np.uint8)
        places = len(chunk) - 11
        if places <= 0:
            return None
        # The upper half of a length is zero in any file below 4 GiB, which settles most places.
        upper = min(end >> 32, 255)
        likely = np.flatnonzero(chunk[4 : 4 + places] <= upper)
        for offset in (5, 6, 7):
            likely = likely[chunk[likely + offset] <= (255 if end >> 40 else 0)]
        frames = chunk[likely[:, None] + np.arange(12)]
        lengths = np.ascontiguousarray(frames[:, :8]).view("<u8")[:, 0]
        stored = np.ascontiguousarray(frames[:, 8:]).view("<u4")[:, 0]
        room = np.uint64(end - 16 - begin) - np.minimum(likely, end - 16 - begin).astype(np.uint64)
        right = (_masked_of_lengths(frames[:, :8]) == stored) & (lengths <= room)
        found = likely[right]
        if len(found):
            return begin + int(found[0])
        begin += places
    return None


def _masked_of_lengths(lengths: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The masked CRC-32C of each row of 8 bytes, uint32 [n]."""
    table = np.array(_tables()[0], np.uint32)
    state = np.full(len(lengths), 0xFFFFFFFF, np.uint32)
    for column in range(8):
        state = table[(state & 0xFF).astype(np.uint8) ^ lengths[:, column]] ^ (state >> 8)
    state = ~state
    return (state >> 15 | state << 17) + np.uint32(_MASK)


def _unmasked(masked: int) -> int:
    turned = (masked - _MASK) & 0xFFFFFFFF
    return (turned << 15 | turned >> 17) & 0xFFFFFFFF


@functools.cache
def _tables() -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What each byte does to the checksum, and the byte whose effect has a given upper byte."""
    effects = []
    for byte in range(256):
        state = byte
        for _ in range(8):
            state = state >> 1 ^ (_POLYNOMIAL if state & 1 else 0)
        effects.append(state)
    by_upper = sorted(range(256), key=lambda byte: effects[byte] >> 24)
    return tuple(effects), tuple(by_upper)
