"""What every decoder demands of a PNG file: the rules of its format, down to the last row.

Pillow reads files that libpng, and so TensorFlow, refuses: it stops once it has pixels enough, and
looks at neither the order of the chunks nor the end. Training must not find that out. Sections are
those of the PNG specification, third edition (W3C, 2025).
"""

from __future__ import annotations

import dataclasses
import struct
import zlib
from collections.abc import Iterable

import numpy as np

SIGNATURE = b"\x89PNG\r\n\x1a\n"

# Section 11.2.1, table 12: colour type -> bit depths; and the samples of a pixel.
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PALETTE_COLOURS = 3
_LONGEST_SIDE = 10**6  # libpng's limit unless it is built with another (PNG_USER_WIDTH_MAX)
# Section 8.1: first column, first row, and the distances between columns and rows of each pass.
_PASSES = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
_ANIMATION = frozenset((b"acTL", b"fcTL", b"fdAT"))  # section 11.3.6
_FILTERS = 5  # section 9.2: types 0 to 4
_BLOCK = 2**20  # bytes of rows that are inflated at once


class Damage(Exception):
    """The file breaks a rule of the format; the message says which, as the end of a sentence."""


@dataclasses.dataclass(frozen=True)
class Png:
    """What the chunks of a PNG tell.

    Attributes:
        width: in pixels.
        height: in pixels.
        depth: bits per sample.
        animated: whether it has any chunk of an animation, all of which need not be there.
        exif: whether there is EXIF, which may ask viewers to turn the picture.
        bare: whether it has nothing but header, palette and pixels; of other chunks, such as texts,
            colour profiles and transparency, only the checksums are looked at here.
    """

    width: int
    height: int
    depth: int
    animated: bool
    exif: bool
    bare: bool
    _colour: int = dataclasses.field(repr=False)
    _interlaced: bool = dataclasses.field(repr=False)
    _pixels: tuple[memoryview, ...] = dataclasses.field(repr=False)

    def check_pixels(self) -> None:
        """Inflates all rows, a few at a time, without keeping them.

        Raises:
            Damage: there are fewer or more than the picture has, or they are damaged.
        """
        bits = self.depth * _SAMPLES[self._colour]
        sizes = [(self.width, self.height)]
        if self._interlaced:
            sizes = [
                (-(-(self.width - column) // across), -(-(self.height - row) // down))
                for column, row, across, down in _PASSES
            ]
        stream = _Inflating(self._pixels)
        try:
            for columns, rows in sizes:
                if columns > 0 and rows > 0:
                    _check_rows(stream, 1 + -(-columns * bits // 8), rows)
            if stream.take(1):
                raise Damage("it has more pixels than it says")
        except zlib.error as error:
            raise Damage(f"its pixels are damaged: {error}") from error
        if not stream.ended:
            raise Damage("the checksum of its pixels is missing")


def inspect_png(data: bytes) -> Png:
    """Reads a PNG chunk by chunk, all but the pixels within them.

    Args:
        data: the whole file; what follows its end is not looked at.

    Raises:
        Damage: a chunk is cut short, damaged, unknown, or where it must not be.
    """
    header: tuple[int, ...] = ()
    names: list[bytes] = []
    pixels: list[memoryview] = []
    view = memoryview(data)
    place = len(SIGNATURE)
    while not names or names[-1] != b"IEND":
        if place + 12 > len(data):
            raise Damage("it has no end")
        (length,) = struct.unpack_from(">I", data, place)
        name, end = data[place + 4 : place + 8], place + 12 + length
        if end > len(data):
            raise Damage("it has no end")
        if not name.isalpha():
            raise Damage(f"{name!r} is no name of a chunk")
        if zlib.crc32(view[place + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
            raise Damage(f"the checksum of its chunk {name.decode()} is wrong")
        if (name == b"IHDR") != (not names):
            raise Damage("it must begin with its header, and have one only")
        content = view[place + 8 : end - 4]
        if name == b"IHDR":
            header = _header(content)
        elif name == b"IDAT":
            if pixels and names[-1] != b"IDAT":
                raise Damage("its pixels are interrupted by another chunk")
            pixels.append(content)
        elif name == b"PLTE":
            if name in names or pixels:
                raise Damage("it has two palettes, or one behind the pixels")
            if length % 3 or not 3 <= length <= 768:
                raise Damage(f"its palette has {length} bytes")
        elif name[:1].isupper() and name != b"IEND":
            raise Damage(f"it has the unknown critical chunk {name.decode()}")
        names.append(name)
        place = end
    width, height, depth, colour, _, _, interlaced = header
    if not pixels:
        raise Damage("it has no pixels")
    if colour == _PALETTE_COLOURS and b"PLTE" not in names:
        raise Damage("it has no palette")
    return Png(
        width=width,
        height=height,
        depth=depth,
        animated=not _ANIMATION.isdisjoint(names),
        exif=b"eXIf" in names,
        bare={b"IHDR", b"PLTE", b"IDAT", b"IEND"}.issuperset(names),
        _colour=colour,
        _interlaced=bool(interlaced),
        _pixels=tuple(pixels),
    )


def _header(content: memoryview) -> tuple[int, ...]:
    if len(content) != 13:
        raise Damage(f"its header has {len(content)} bytes")
    header = struct.unpack(">2I5B", content)
    width, height, depth, colour, compression, filters, interlaced = header
    if depth not in _DEPTHS.get(colour, ()) or compression or filters or interlaced > 1:
        raise Damage("its header has values that there are not")
    if not (0 < width <= _LONGEST_SIDE and 0 < height <= _LONGEST_SIDE):
        raise Damage(f"it says to have {width} × {height} pixels")
    return header


class _Inflating:
    """A compressed stream that lies in several chunks, inflated piece by piece.

    Attributes:
        ended: whether its end, with the checksum, was reached.
    """

    def __init__(self, chunks: Iterable[memoryview]):
        self.ended = False
        self._chunks = iter(chunks)
        self._rest: bytes | memoryview = b""
        self._inflate = zlib.decompressobj()

    def take(self, count: int) -> bytearray:
        """The next so many bytes, or fewer where there are no more.

        Raises:
            zlib.error: the stream is damaged.
        """
        taken = bytearray()
        while len(taken) < count and not self.ended:
            while not self._rest:
                chunk = next(self._chunks, None)
                if chunk is None:
                    return taken
                self._rest = chunk
            taken += self._inflate.decompress(self._rest, count - len(taken))
            self._rest = self._inflate.unconsumed_tail
            self.ended = self._inflate.eof
        return taken


def _check_rows(stream: _Inflating, size: int, rows: int) -> None:
    """Reads rows of so many bytes, each of which begins with its filter."""
    while rows:
        some = min(rows, max(_BLOCK // size, 1))
        block = stream.take(size * some)
        if len(block) < size * some:
            raise Damage("it has fewer pixels than it says")
        if np.frombuffer(block, np.uint8)[::size].max() >= _FILTERS:
            raise Damage("a row has a filter that there is not")
        rows -= some
