"""Reads variables out of MATLAB files of version 5 (`save -v6` and `save -v7`), trusting nothing.

SciPy's reader crashes the process on some damaged files, and gives a file whatever memory it asks
for. This one checks every size before it believes it. It knows what datasets use: numbers,
characters, cells and structures; everything else is read as None. The format is described in
"MAT-File Format" (The MathWorks), chapter 1.
"""

from __future__ import annotations

import dataclasses
import math
import struct
import zlib
from typing import Any, BinaryIO

import numpy as np

MAX_BYTES = 2**31
"""Most bytes of one variable, which is also the most that MATLAB can store in this format."""

_HEADER, _TAG = 128, 8  # bytes
_MAX_VARIABLES = 1000  # ours
_MAX_DEPTH = 8  # of structures and cells within each other; ours
_MAX_DIMENSIONS = 32  # ours
_NAME_BYTES = 4096  # of a variable's content, within which its name and shape must stand; ours
_CHUNK = 2**20
_INFLATION = 1040  # zlib makes at most 1032 bytes out of one (its technical notes); and headers

# Types of elements (table 1-1) and classes of arrays (table 1-3)
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8"}
_NUMBERS |= {12: "i8", 13: "u8"}
_ARRAY, _COMPRESSED = 14, 15
_ENCODINGS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
_CELL, _STRUCTURE, _CHARACTERS = 1, 2, 4
_NUMERIC = range(6, 16)
UINT8 = 9
"""`Variable.kind` of an array of unsigned bytes."""


@dataclasses.dataclass(frozen=True)
class Variable:
    """One variable of a file: what its header says, and where it is.

    Attributes:
        name: as in MATLAB.
        kind: class of the array, such as `UINT8`.
        shape: its sizes.
        offset: of its element in the file, behind the tag.
        size: of the element, in bytes of the file.
        inflated: its size without compression; 0 if it is not compressed.
        order: "<" for little-endian, ">" for big-endian.
    """

    name: str
    kind: int
    shape: tuple[int, ...]
    offset: int
    size: int
    inflated: int
    order: str


def list_variables(file: BinaryIO) -> dict[str, Variable]:
    """The variables of a file, by name; of each just the beginning is read.

    Raises:
        ValueError: the file is of another format, damaged or cut short; the message is a part of a
            sentence that says how.
    """
    length = file.seek(0, 2)
    file.seek(0)
    order = _byte_order(file.read(_HEADER))
    variables: dict[str, Variable] = {}
    offset = _HEADER
    while offset < length:
        file.seek(offset)
        tag = file.read(_TAG)
        if len(tag) < _TAG:
            raise ValueError("it is cut short")
        kind, size = struct.unpack(f"{order}2I", tag)
        offset += _TAG
        if kind not in (_ARRAY, _COMPRESSED) or not size:
            raise ValueError(f"byte {offset - _TAG:,} begins no variable")
        if offset + size > length:
            raise ValueError(
                f"it is cut short: {length:,} bytes, and a variable ends at {offset + size:,}"
            )
        beginning, inflated = file.read(min(size, _NAME_BYTES)), 0
        if kind == _COMPRESSED:
            beginning, inflated = _inflate_beginning(beginning, order)
        array, shape, name, _ = _Reader(order).array_header(memoryview(beginning))
        variable = Variable(name, array, shape, offset, size, inflated, order)
        _check_sizes(variable)
        variables[variable.name] = variable
        if len(variables) > _MAX_VARIABLES:
            raise ValueError(f"it has more than {_MAX_VARIABLES:,} variables")
        offset += size
    return variables


def read_variable(file: BinaryIO, variable: Variable, max_bytes: int = MAX_BYTES) -> Any:
    """The value of a variable.

    Args:
        file: that the variable was listed from.
        variable: which one.
        max_bytes: most bytes that its content may have.

    Returns:
        Numbers as an array of the shape in the file, in the type in which they are stored there,
        which may be smaller than MATLAB's, and without imaginary parts; characters as a string, row
        after row; cells as a list and structures as a list of dictionaries, column after column;
        None for what is none of these.

    Raises:
        ValueError: the variable is damaged or too large; the message is a part of a sentence.
    """
    size = variable.inflated or variable.size
    if size > max_bytes:
        raise ValueError(f"{variable.name} has {size:,} bytes, more than {max_bytes:,}")
    file.seek(variable.offset)
    content = _inflate(file, variable) if variable.inflated else memoryview(file.read(size))
    return _Reader(variable.order).array(content, 0)


def _byte_order(header: bytes) -> str:
    if header.startswith((b"\x89HDF", b"MATLAB 7.3")):
        raise ValueError("it is of version 7.3 (HDF5)")
    order = {b"IM": "<", b"MI": ">"}.get(header[126:128])
    if not order:
        raise ValueError(f"it begins with {header[:12]!r}")
    (version,) = struct.unpack(f"{order}H", header[124:126])
    if version == 0x0200:
        raise ValueError("it is of version 7.3 (HDF5)")
    if version != 0x0100:
        raise ValueError(f"it says to be of version {version:#06x}")
    return order


def _check_sizes(variable: Variable) -> None:
    """Refuses what a variable of its size in the file cannot have."""
    size = variable.inflated or variable.size
    # No compression of zlib's makes more of a byte; so a small file cannot ask for much memory.
    limit = _INFLATION * variable.size
    if size > limit:
        raise ValueError(f"{variable.name} has {size:,} bytes, more than {limit:,}")
    if variable.kind in _NUMERIC and math.prod(variable.shape) > size:
        raise ValueError(f"{size:,} bytes are there for numbers of shape {variable.shape}")


def _inflate_beginning(data: bytes, order: str) -> tuple[bytes, int]:
    """The beginning of a compressed array, behind its tag, and the size of all of it."""
    try:
        inflated = zlib.decompressobj().decompress(data, _NAME_BYTES)
    except zlib.error as error:
        raise ValueError(f"compressed data are damaged ({error})") from error
    if len(inflated) < _TAG:
        raise ValueError("compressed data are cut short")
    kind, size = struct.unpack(f"{order}2I", inflated[:_TAG])
    if kind != _ARRAY:
        raise ValueError("compressed data are not an array")
    return inflated[_TAG:], size


def _inflate(file: BinaryIO, variable: Variable) -> memoryview:
    """The whole content of a compressed variable, behind its tag."""
    content = bytearray(_TAG + variable.inflated)
    filled, unread, waiting = 0, variable.size, b""
    inflater = zlib.decompressobj()
    while not inflater.eof:
        if not waiting:
            waiting = file.read(min(unread, _CHUNK))
            unread -= len(waiting)
        try:
            piece = inflater.decompress(waiting, _CHUNK)
        except zlib.error as error:
            raise ValueError(
                f"the compressed data of {variable.name} are damaged ({error})"
            ) from error
        if not piece and not waiting:
            raise ValueError(f"the compressed data of {variable.name} are cut short")
        if filled + len(piece) > len(content):
            raise ValueError(f"{variable.name} is longer than it says")
        content[filled : filled + len(piece)] = piece
        filled += len(piece)
        waiting = inflater.unconsumed_tail
    if filled < len(content):
        raise ValueError(f"{variable.name} is shorter than it says")
    return memoryview(content)[_TAG:]


class _Reader:
    """Takes arrays apart; every size is held against what is there."""

    def __init__(self, order: str):
        self._order = order

    def array_header(self, content: memoryview) -> tuple[int, tuple[int, ...], str, memoryview]:
        """Class, shape and name of an array, and what follows."""
        _, flags, content = self._element(content)
        _, sizes, content = self._element(content)
        _, name, content = self._element(content)
        if len(flags) != 8 or len(sizes) % 4 or not 8 <= len(sizes) <= 4 * _MAX_DIMENSIONS:
            raise ValueError("a variable's header is damaged")
        (flag,) = struct.unpack(f"{self._order}I", flags[:4])
        shape = struct.unpack(f"{self._order}{len(sizes) // 4}i", sizes)
        if min(shape) < 0:
            raise ValueError("a variable has a negative size")
        return flag & 0xFF, shape, bytes(name).decode("latin-1"), content

    def array(self, content: memoryview, depth: int) -> Any:
        """The value of an array, given all of it behind its tag."""
        if not content:  # how MATLAB writes [] in a structure
            return np.empty((0, 0))
        if depth > _MAX_DEPTH:
            raise ValueError(f"structures lie more than {_MAX_DEPTH} deep in each other")
        kind, shape, _, content = self.array_header(content)
        if kind in _NUMERIC:
            return self._numbers(shape, content)
        if kind == _CHARACTERS:
            return self._characters(shape, content)
        if kind == _CELL:
            return self._arrays(math.prod(shape), content, depth)
        if kind == _STRUCTURE:
            return self._structures(math.prod(shape), content, depth)
        return None

    def _numbers(self, shape: tuple[int, ...], content: memoryview) -> np.ndarray[Any, Any]:
        kind, data, _ = self._element(content)  # an imaginary part may follow; datasets have none
        if kind not in _NUMBERS:
            raise ValueError(f"numbers are stored as type {kind}")
        dtype = np.dtype(self._order + _NUMBERS[kind])
        if len(data) != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"{len(data):,} bytes are there for numbers of shape {shape}")
        return np.frombuffer(data, dtype).reshape(shape, order="F")

    def _characters(self, shape: tuple[int, ...], content: memoryview) -> str:
        kind, data, _ = self._element(content)
        encoding = _ENCODINGS.get(kind)
        if not encoding:
            raise ValueError(f"characters are stored as type {kind}")
        if encoding in ("utf-16", "utf-32"):
            encoding += "-le" if self._order == "<" else "-be"
        text = bytes(data).decode(encoding)  # a UnicodeDecodeError is a ValueError, too
        rows = shape[0] or 1
        return "".join(text[row::rows] for row in range(min(rows, len(text))))

    def _structures(self, count: int, content: memoryview, depth: int) -> list[dict[str, Any]]:
        _, length, content = self._element(content)
        _, names, content = self._element(content)
        if len(length) != 4:
            raise ValueError("the field names of a structure are damaged")
        (width,) = struct.unpack(f"{self._order}i", length)
        if width < 1 or len(names) % width:
            raise ValueError("the field names of a structure are damaged")
        fields = [
            bytes(names[at : at + width]).split(b"\0")[0].decode("latin-1")
            for at in range(0, len(names), width)
        ]
        values = self._arrays(count * len(fields), content, depth)
        return [
            dict(zip(fields, values[at : at + len(fields)], strict=True))
            for at in range(0, len(values), len(fields) or 1)
        ]

    def _arrays(self, count: int, content: memoryview, depth: int) -> list[Any]:
        if _TAG * count > len(content):  # each has a tag
            raise ValueError(f"{len(content):,} bytes are there for {count:,} values")
        values = []
        for _ in range(count):
            kind, element, content = self._element(content)
            if kind != _ARRAY:
                raise ValueError(f"a value within another is of type {kind}")
            values.append(self.array(element, depth + 1))
        return values

    def _element(self, content: memoryview) -> tuple[int, memoryview, memoryview]:
        """Type and content of the first element, and what follows it."""
        if len(content) < _TAG:
            raise ValueError("a variable is cut short")
        kind, size = struct.unpack(f"{self._order}2I", content[:_TAG])
        if kind >> 16:  # a small element: its size and content are within the tag
            kind, size = kind & 0xFFFF, kind >> 16
            if size > 4:
                raise ValueError("a small element has more than 4 bytes")
            return kind, content[4 : 4 + size], content[_TAG:]
        content = content[_TAG:]
        if size > len(content):
            raise ValueError("a value reaches out of its variable")
        return kind, content[:size], content[-(-size // 8) * 8 :]  # they begin at multiples of 8
