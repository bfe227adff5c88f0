"""Damage done to files at random, blindly and by someone who knows their format."""

from __future__ import annotations

import dataclasses
import gzip
import io
import random
import re
import struct
import tarfile
import zlib
from collections.abc import Callable, Sequence

Mutator = Callable[[bytes, random.Random], bytes]

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8"
_MATLAB = b"MATLAB 5.0"
_TAR_BLOCK = 512
_TAR_MAGIC = slice(257, 262)
_NUMBERS = ("0", "-1", "1e999", "NaN", "null", "true", "99999999999999999999", "0.5", '"7"', "[]")
_HUGE = (0, 1, 2, 7, 32_767, 65_535, 100_000, 2**24, 2**31 - 1, 2**32 - 1)


@dataclasses.dataclass(frozen=True)
class Mutation:
    """Damaged content, or what is in its place, and what was done to it, as words for reports."""

    content: bytes | str
    kind: str


def mutate(content: bytes, chance: random.Random, others: Sequence[bytes] = ()) -> Mutation:
    """A file after one to three kinds of damage.

    Args:
        content: the file as it was.
        chance: decides; the same state gives the same damage.
        others: files whose content may get mixed in.
    """
    names = []
    damaged = content
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        options = {**_ANY, **_for_format(damaged)}
        if others:
            options["concatenated"] = lambda data, c: data + c.choice(others)
            options["replaced"] = lambda data, c: c.choice(others)
            options["spliced"] = _splice(others)
        # What knows the format gets further into a reader: half of the damage is of that sort.
        known = sorted(options.keys() - _ANY.keys())
        name = chance.choice(known if known and chance.random() < 0.5 else sorted(options))
        try:
            damaged = options[name](damaged, chance)
        except (ValueError, IndexError, struct.error, zlib.error, EOFError, OSError):
            # It was too damaged already for anyone to know its format.
            damaged = _flip_bits(damaged, chance)
            name = "flipped bits"
        names.append(name)
    if damaged == content:
        damaged = _flip_bits(content, chance)
        names.append("flipped bits")
    return Mutation(damaged, " + ".join(names))


def _for_format(content: bytes) -> dict[str, Mutator]:
    if content.startswith(_PNG):
        return _PNG_DAMAGE
    if content.startswith(_JPEG):
        return _JPEG_DAMAGE
    if content.startswith(b"\x1f\x8b"):
        return {"damaged inside gzip": _inside_gzip, "gzip bomb": _gzip_bomb}
    if content.startswith(_MATLAB):
        return {"damaged element": _inside_matlab, "wrong field": _wrong_field}
    if content[_TAR_MAGIC] == b"ustar":
        return {"damaged member": _tar_header, "hostile member": _tar_member}
    if content.startswith(b"\x00\x00\x08"):
        return {"wrong field": _wrong_field}
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return {}
    return _TEXT_DAMAGE


# Any file.


def _place(content: bytes, chance: random.Random) -> int:
    """Somewhere in a file; its beginning, where headers are, as often as all the rest."""
    size = max(len(content), 1)
    return chance.randrange(min(size, 512) if chance.random() < 0.5 else size)


def _flip_bits(content: bytes, chance: random.Random) -> bytes:
    damaged = bytearray(content or b"\0")
    for place in {_place(damaged, chance) for _ in range(chance.choice((1, 1, 2, 8, 64)))}:
        damaged[place] ^= 1 << chance.randrange(8)
    return bytes(damaged)


def _overwrite(content: bytes, chance: random.Random) -> bytes:
    place = _place(content, chance)
    count = chance.choice((1, 2, 4, 16, 300))
    filling = chance.choice((b"\0", b"\xff", chance.randbytes(1))) * count
    if chance.random() < 0.5:
        filling = chance.randbytes(count)
    return content[:place] + filling + content[place + count :]


def _truncate(content: bytes, chance: random.Random) -> bytes:
    return content[: chance.choice((_place(content, chance), len(content) - 1, len(content) - 2))]


def _insert(content: bytes, chance: random.Random) -> bytes:
    place = _place(content, chance)
    return content[:place] + chance.randbytes(chance.choice((1, 2, 4, 700))) + content[place:]


def _remove(content: bytes, chance: random.Random) -> bytes:
    place = _place(content, chance)
    return content[:place] + content[place + chance.choice((1, 2, 4, 100)) :]


def _repeat(content: bytes, chance: random.Random) -> bytes:
    begin = _place(content, chance)
    end = begin + chance.choice((4, 64, 1000))
    return content[:end] + content[begin:end] * chance.choice((1, 3)) + content[end:]


def _swap(content: bytes, chance: random.Random) -> bytes:
    a, b, c = sorted(_place(content, chance) for _ in range(3))
    return content[:a] + content[b:c] + content[a:b] + content[c:]


def _empty(content: bytes, chance: random.Random) -> bytes:
    return b""


def _append(content: bytes, chance: random.Random) -> bytes:
    return content + chance.choice((chance.randbytes(100), b"\0" * 5000, content))


def _splice(others: Sequence[bytes]) -> Mutator:
    def spliced(content: bytes, chance: random.Random) -> bytes:
        other = chance.choice(others)
        return content[: _place(content, chance)] + other[_place(other, chance) :]

    return spliced


_ANY: dict[str, Mutator] = {
    "flipped bits": _flip_bits,
    "overwritten": _overwrite,
    "truncated": _truncate,
    "inserted": _insert,
    "removed": _remove,
    "repeated": _repeat,
    "swapped": _swap,
    "emptied": _empty,
    "appended": _append,
}


def _wrong_field(content: bytes, chance: random.Random) -> bytes:
    """Another number where a header has one."""
    place = 4 * chance.randrange(min(max(len(content) // 4, 1), 64))
    number = struct.pack(chance.choice("<>") + "I", chance.choice(_HUGE))
    return content[:place] + number + content[place + 4 :]


# PNG: chunks of length, type, data and checksum, all made right again after the damage.


def _png_chunks(content: bytes) -> list[tuple[bytes, bytes]]:
    chunks = []
    place = len(_PNG)
    while place + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, place)
        chunks.append((content[place + 4 : place + 8], content[place + 8 : place + 8 + length]))
        place += 12 + length
    return chunks


def _png(chunks: Sequence[tuple[bytes, bytes]]) -> bytes:
    return _PNG + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def _png_header(content: bytes, chance: random.Random) -> bytes:
    """Another size, depth, colour type or interlacing."""
    chunks = _png_chunks(content)
    header = bytearray(chunks[0][1])
    field = chance.randrange(7)
    if field < 2:
        struct.pack_into(">I", header, 4 * field, chance.choice(_HUGE))
    else:
        header[6 + field] = chance.choice((0, 1, 2, 3, 4, 6, 8, 16, 255))
    return _png([(chunks[0][0], bytes(header)), *chunks[1:]])


def _png_data(content: bytes, chance: random.Random) -> bytes:
    """Pixels damaged under checksums that are right."""
    chunks = _png_chunks(content)
    pixels = b"".join(data for kind, data in chunks if kind == b"IDAT")
    damage = chance.choice((_flip_bits, _truncate, _insert, _remove))
    if chance.random() < 0.5:
        pixels = zlib.compress(damage(zlib.decompress(pixels), chance))
    else:
        pixels = damage(pixels, chance)
    others = [chunk for chunk in chunks if chunk[0] != b"IDAT"]
    return _png([*others[:-1], (b"IDAT", pixels), *others[-1:]])


def _png_order(content: bytes, chance: random.Random) -> bytes:
    """Chunks twice, missing or in another order."""
    chunks = _png_chunks(content)
    chosen = chance.choice(chunks)
    what = chance.randrange(3)
    if what == 0:
        chunks.remove(chosen)
    elif what == 1:
        chunks.insert(chance.randrange(len(chunks) + 1), chosen)
    else:
        chance.shuffle(chunks)
    return _png(chunks)


def _png_chunk(content: bytes, chance: random.Random) -> bytes:
    """A further chunk: an animation of many frames, text that swells, a palette, EXIF."""
    chunks = _png_chunks(content)
    swelling = zlib.compress(bytes(2**23))
    chunk = chance.choice(
        (
            (b"acTL", struct.pack(">II", chance.choice(_HUGE), 0)),
            (b"fcTL", struct.pack(">5I2H2B", 0, 9, 9, 0, 0, 1, 1, 0, 0)),
            (b"fdAT", struct.pack(">I", 1) + zlib.compress(b"\0" * 300)),
            (b"zTXt", b"Comment\0\0" + swelling),
            (b"iTXt", b"Comment\0\1\0\0\0" + swelling),
            (b"iCCP", b"profile\0\0" + swelling),
            (b"PLTE", chance.randbytes(chance.choice((0, 3, 5, 768, 3000)))),
            (b"tRNS", chance.randbytes(chance.choice((0, 1, 2, 6, 300)))),
            (b"eXIf", b"MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0" + chance.randbytes(7)),
            (b"IEND", b""),
            (chance.randbytes(4), chance.randbytes(30)),
        )
    )
    place = chance.randrange(1, len(chunks) + 1)
    return _png([*chunks[:place], chunk, *chunks[place:]])


_PNG_DAMAGE: dict[str, Mutator] = {
    "PNG header": _png_header,
    "PNG pixels": _png_data,
    "PNG chunks": _png_order,
    "PNG chunk added": _png_chunk,
}


# JPEG: segments of a marker and a length, then scans.


def _jpeg_segments(content: bytes) -> list[bytes]:
    """The segments before the first scan, and all the rest as the last."""
    segments = [content[:2]]
    place = 2
    while place + 4 <= len(content) and content[place] == 0xFF and content[place + 1] != 0xDA:
        (length,) = struct.unpack_from(">H", content, place + 2)
        segments.append(content[place : place + 2 + length])
        place += 2 + length
    segments.append(content[place:])
    return segments


def _jpeg_size(content: bytes, chance: random.Random) -> bytes:
    """Another size, precision or number of components in the frame's header."""
    segments = _jpeg_segments(content)
    frames = [n for n, s in enumerate(segments) if s[:1] == b"\xff" and s[1:2] in b"\xc0\xc1\xc2"]
    number = chance.choice(frames)
    frame = bytearray(segments[number])
    field = chance.randrange(4)
    if field < 2:
        struct.pack_into(">H", frame, 5 + 2 * field, chance.choice((0, 1, 9, 4000, 65_500)))
    elif field == 2:
        frame[chance.randrange(9, len(frame))] = chance.choice((0, 1, 2, 3, 4, 0x11, 0x41, 255))
    else:
        frame[4] = chance.choice((0, 8, 12, 16))
    segments[number] = bytes(frame)
    return b"".join(segments)


def _jpeg_order(content: bytes, chance: random.Random) -> bytes:
    """Segments twice, missing, in another order, or of another sort."""
    segments = _jpeg_segments(content)
    place = chance.randrange(1, len(segments) - 1)
    what = chance.randrange(4)
    if what == 0:
        del segments[place]
    elif what == 1:
        segments.insert(chance.randrange(1, len(segments)), segments[place])
    elif what == 2:
        inner = segments[1:-1]
        chance.shuffle(inner)
        segments[1:-1] = inner
    else:
        marker = chance.choice(b"\xc0\xc1\xc2\xc3\xc4\xc9\xcc\xd9\xda\xdb\xdd\xe0\xe1\xe2\xee\xfe")
        segments[place] = segments[place][:1] + bytes([marker]) + segments[place][2:]
    return b"".join(segments)


def _jpeg_scans(content: bytes, chance: random.Random) -> bytes:
    """The scans damaged behind headers that are right, or repeated."""
    *headers, scans = _jpeg_segments(content)
    if chance.random() < 0.3:
        return b"".join(headers) + scans.removesuffix(b"\xff\xd9") * chance.choice((2, 3, 150))
    damage = chance.choice((_flip_bits, _overwrite, _truncate, _insert, _remove, _swap))
    return b"".join(headers) + damage(scans, chance)


def _jpeg_segment(content: bytes, chance: random.Random) -> bytes:
    """A further segment: EXIF, sound or nonsense; Adobe's, which decides on the colours."""
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0" + chance.randbytes(1) + bytes(6)
    turned = b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0"
    turned += bytes([chance.randrange(1, 9), 0, 0, 0, 0, 0, 0])
    marker, data = chance.choice(
        (
            (0xE1, exif),
            (0xE1, turned),
            (0xE1, turned),
            (0xE1, b"Exif\0\0" + chance.randbytes(60)),
            (0xEE, b"Adobe\0\x64\0\0\0\0" + bytes([chance.randrange(4)])),
            (0xE2, b"MPF\0" + chance.randbytes(80)),
            (0xE2, b"ICC_PROFILE\0" + chance.randbytes(80)),
            (0xDD, chance.randbytes(2)),
            (0xFE, chance.randbytes(300)),
            (0xD9, b""),
        )
    )
    segments = _jpeg_segments(content)
    segment = bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data
    segments.insert(chance.randrange(1, len(segments)), segment)
    return b"".join(segments)


_JPEG_DAMAGE: dict[str, Mutator] = {
    "JPEG frame": _jpeg_size,
    "JPEG segments": _jpeg_order,
    "JPEG scans": _jpeg_scans,
    "JPEG segment added": _jpeg_segment,
}


# Files that hold others.


def _inside_gzip(content: bytes, chance: random.Random) -> bytes:
    return gzip.compress(mutate(gzip.decompress(content), chance).content, 1, mtime=0)


def _gzip_bomb(content: bytes, chance: random.Random) -> bytes:
    inner = gzip.decompress(content)
    filling = chance.choice((b"\0", b"0,", b"7\n"))
    return gzip.compress(inner + filling * (chance.choice((2**10, 2**22)) // len(filling)), 1)


def _inside_matlab(content: bytes, chance: random.Random) -> bytes:
    """An element damaged under its compression."""
    place = 128
    elements = []
    while place + 8 <= len(content):
        kind, size = struct.unpack_from("<II", content, place)
        elements.append((kind, content[place + 8 : place + 8 + size]))
        place += 8 + size
    number = chance.randrange(len(elements))
    kind, data = elements[number]
    damage = chance.choice((_flip_bits, _overwrite, _truncate, _insert, _remove, _wrong_field))
    compressed = kind == 15  # miCOMPRESSED, MAT-file format, table 1-1
    if compressed:
        data = zlib.compress(damage(zlib.decompress(data), chance))
    else:
        data = damage(data, chance)
    elements[number] = (kind, data)
    return content[:128] + b"".join(struct.pack("<II", k, len(d)) + d for k, d in elements)


def _tar_header(content: bytes, chance: random.Random) -> bytes:
    """A member's header damaged under a checksum that is right."""
    headers = [
        place
        for place in range(0, len(content) - _TAR_BLOCK, _TAR_BLOCK)
        if content[place:][_TAR_MAGIC] == b"ustar"
    ]
    place = chance.choice(headers)
    header = bytearray(content[place : place + _TAR_BLOCK])
    what = chance.randrange(4)
    if what == 0:  # another size
        header[124:136] = chance.choice(
            (b"00000000000\0", b"77777777777\0", b"-0000000001\0", b"\xff" * 12, b"notanumber!\0")
        )
    elif what == 1:  # another kind: link, device, folder, pipe, long name, sparse, extended header
        header[156] = chance.choice(b"0123456LKxgS\0\xff")
    elif what == 2:  # another name
        name = chance.choice((b"../../escaped.jpg", b"/escaped.jpg", b"", b"\xff\xfe.jpg", b"a/b/"))
        header[:100] = name.ljust(100, b"\0")
    else:
        header[chance.randrange(_TAR_BLOCK)] ^= 1 << chance.randrange(8)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return content[:place] + bytes(header) + content[place + _TAR_BLOCK :]


def _tar_member(content: bytes, chance: random.Random) -> bytes:
    """An archive with a further member that is up to no good."""
    added = io.BytesIO()
    with tarfile.open(fileobj=added, mode="w") as archive:
        member = tarfile.TarInfo(chance.choice(("../escaped.jpg", "/etc/escaped", "x.JPEG")))
        member.type = chance.choice(
            (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.REGTYPE)
        )
        member.linkname = chance.choice(("/etc/passwd", "../../../etc/passwd", "x.JPEG", ""))
        archive.addfile(member)
    member_block = added.getvalue()[:_TAR_BLOCK]
    return member_block + content


# Text: JSON, CSV, lists of names.


def _text_token(content: bytes, chance: random.Random) -> bytes:
    """A number, word or quoted string replaced by something else."""
    tokens = list(re.finditer(rb'-?\d[\d.eE+-]*|"[^"\n]{0,200}"|[A-Za-z_]\w*', content))
    token = chance.choice(tokens)
    new = chance.choice(
        (*_NUMBERS, '""', '"../../escaped.jpg"', '"\\ud800"', "../../../etc/passwd", "é", "")
    )
    return content[: token.start()] + new.encode() + content[token.end() :]


def _text_lines(content: bytes, chance: random.Random) -> bytes:
    """Lines twice, missing, in another order, or joined."""
    lines = content.splitlines(keepends=True)
    place = chance.randrange(len(lines))
    what = chance.randrange(4)
    if what == 0:
        del lines[place]
    elif what == 1:
        lines.insert(chance.randrange(len(lines) + 1), lines[place])
    elif what == 2:
        chance.shuffle(lines)
    else:
        lines[place] = lines[place].rstrip(b"\r\n")
    return b"".join(lines)


def _text_structure(content: bytes, chance: random.Random) -> bytes:
    """A bracket, comma or quote replaced or added."""
    marks = [n for n, byte in enumerate(content) if byte in b'[]{},:"\n\t ']
    place = chance.choice(marks)
    new = chance.choice((b"[", b"]", b"{", b"}", b",", b":", b'"', b"", b"\n", b"[" * 20_000))
    return content[:place] + new + content[place + chance.randrange(2) :]


def _text_encoding(content: bytes, chance: random.Random) -> bytes:
    """Bytes that are no UTF-8, another encoding, other ends of lines, a mark at the beginning."""
    what = chance.randrange(5)
    place = _place(content, chance)
    if what == 0:
        return content[:place] + chance.choice((b"\xff", b"\xc3", b"\0")) + content[place:]
    if what == 1:
        return content.decode().encode(chance.choice(("utf-16", "utf-32-be")))
    if what == 2:
        return content.replace(b"\n", chance.choice((b"\r\n", b"\r", b"\n\n")))
    return b"\xef\xbb\xbf" + content


_TEXT_DAMAGE: dict[str, Mutator] = {
    "another token": _text_token,
    "lines": _text_lines,
    "structure": _text_structure,
    "encoding": _text_encoding,
}
