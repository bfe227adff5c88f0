import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from trainer.data.png import SIGNATURE, Damage, inspect_png

NOISE = np.random.default_rng(0).integers(0, 256, (9, 13, 3), np.uint8)


def encode(mode="RGB", **options):
    file = io.BytesIO()
    Image.fromarray(NOISE).convert(mode).save(file, "PNG", **options)
    return file.getvalue()


def chunk(name, content=b""):
    return b"".join(
        (
            struct.pack(">I", len(content)),
            name,
            content,
            struct.pack(">I", zlib.crc32(name + content)),
        )
    )


def header(width=2, height=3, depth=8, colour=0, compression=0, filters=0, interlaced=0):
    values = (width, height, depth, colour, compression, filters, interlaced)
    return chunk(b"IHDR", struct.pack(">2I5B", *values))


ROWS = b"\0ab\1cd\4ef"  # 2 × 3 grey pixels, each row after its filter
PIXELS = chunk(b"IDAT", zlib.compress(ROWS))
END = chunk(b"IEND")
PALETTE = chunk(b"PLTE", bytes(range(9)))


def check(data):
    png = inspect_png(data)
    png.check_pixels()
    return png


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_what_pillow_writes_keeps_the_rules(mode):
    png = check(encode(mode))
    assert (png.width, png.height, png.animated, png.exif) == (13, 9, False, False)
    assert png.depth == {"1": 1, "I;16": 16}.get(mode, 8)


def test_pixels_may_lie_in_several_chunks_and_something_behind_the_end():
    data = zlib.compress(ROWS)
    pieces = [chunk(b"IDAT", data[:3]), chunk(b"IDAT"), chunk(b"IDAT", data[3:])]
    check(b"".join((SIGNATURE, header(), chunk(b"teXt", b"a"), *pieces, END, b"more")))


def test_each_pass_of_an_interlaced_picture_has_rows_of_its_own():
    # 3 × 2 pixels: of the seven passes four have pixels, 1 × 1, 1 × 1, 1 × 1 and 3 × 1.
    rows = b"\0a" + b"\0b" + b"\0c" + b"\0def"
    for content, fault in ((rows, ""), (rows[:-1], "fewer"), (rows + b"x", "more")):
        data = b"".join(
            (SIGNATURE, header(3, 2, interlaced=1), chunk(b"IDAT", zlib.compress(content)), END)
        )
        if fault:
            with pytest.raises(Damage, match=fault):
                check(data)
        else:
            check(data)


def test_animations_and_exif_are_told():
    frames = {"save_all": True, "append_images": [Image.fromarray(255 - NOISE)]}
    assert inspect_png(encode(**frames)).animated
    block = Image.Exif()
    block[0x0112] = 6
    assert inspect_png(encode(exif=block)).exif


@pytest.mark.parametrize(
    ("chunks", "fault"),
    [
        ((), "no end"),
        ((header(), PIXELS), "no end"),
        ((header(), PIXELS, END[:-1]), "no end"),
        ((header(), PIXELS[:-20]), "no end"),
        ((header(), chunk(b"a1bc"), PIXELS, END), "no name of a chunk"),
        ((header(), PIXELS[:-1] + b"\0", END), "checksum of its chunk IDAT is wrong"),
        ((PIXELS, header(), END), "begin with its header"),
        ((header(), header(), PIXELS, END), "one only"),
        ((chunk(b"IHDR", b"abc"), PIXELS, END), "header has 3 bytes"),
        ((header(depth=3), PIXELS, END), "values that there are not"),
        ((header(depth=4, colour=2), PIXELS, END), "values that there are not"),
        ((header(colour=5), PIXELS, END), "values that there are not"),
        ((header(compression=1), PIXELS, END), "values that there are not"),
        ((header(filters=1), PIXELS, END), "values that there are not"),
        ((header(interlaced=2), PIXELS, END), "values that there are not"),
        ((header(width=0), PIXELS, END), "it says to have 0 × 3 pixels"),
        ((header(height=2**31), PIXELS, END), "it says to have 2 × 2147483648 pixels"),
        ((header(), PIXELS, chunk(b"tIME"), PIXELS, END), "interrupted"),
        ((header(), PIXELS, PALETTE, END), "palettes, or one behind"),
        ((header(), PALETTE, PALETTE, PIXELS, END), "two palettes"),
        ((header(), chunk(b"PLTE", b"ab"), PIXELS, END), "palette has 2 bytes"),
        ((header(colour=3), PIXELS, END), "no palette"),
        ((header(), chunk(b"ABCD"), PIXELS, END), "unknown critical chunk ABCD"),
        ((header(), END), "no pixels"),
        ((header(height=4), PIXELS, END), "fewer pixels"),
        ((header(height=2), PIXELS, END), "more pixels"),
        ((header(), chunk(b"IDAT"), END), "fewer pixels"),
        ((header(), chunk(b"IDAT", zlib.compress(ROWS)[:-2]), END), "checksum of its pixels"),
        ((header(), chunk(b"IDAT", zlib.compress(ROWS)[:-1] + b"x"), END), "pixels are damaged"),
        ((header(), chunk(b"IDAT", b"no stream"), END), "pixels are damaged"),
        ((header(), chunk(b"IDAT", zlib.compress(b"\5" + ROWS[1:])), END), "a filter"),
    ],
)
def test_what_breaks_a_rule_is_told(chunks, fault):
    with pytest.raises(Damage, match=fault):
        check(b"".join((SIGNATURE, *chunks)))


def chunks_of(data):
    place, chunks = len(SIGNATURE), []
    while place < len(data):
        (length,) = struct.unpack_from(">I", data, place)
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += 12 + length
    return chunks


def mutated(data, random):
    """A PNG with a change in one of its chunks, or in their order, and right checksums."""
    chunks = chunks_of(data)
    which = int(random.integers(len(chunks)))
    name, content = chunks[which]
    kind = int(random.integers(5))
    if kind == 0 and content:
        changed = bytearray(content)
        changed[int(random.integers(len(content)))] ^= 1 << int(random.integers(8))
        chunks[which] = (name, bytes(changed))
    elif kind == 1:
        chunks[which] = (name, content[: int(random.integers(len(content) + 1))])
    elif kind == 2:
        chunks.insert(int(random.integers(len(chunks))), (name, content))
    elif kind == 3:
        chunks[which] = ([b"teXt", b"ABCD", b"PLTE"][int(random.integers(3))], content)
    else:
        chunks[which] = (name, content + random.bytes(int(random.integers(4))))
    return SIGNATURE + b"".join(chunk(*c) for c in chunks)


def test_what_is_accepted_tensorflow_decodes():
    import tensorflow as tf

    random = np.random.default_rng(1)
    originals = [encode(mode) for mode in ("1", "L", "P", "RGB", "RGBA", "I;16")]
    accepted = 0
    for number in range(3_000):
        data = mutated(originals[number % len(originals)], random)
        try:
            check(data)
        except Damage:
            continue
        accepted += 1
        tf.io.decode_png(data)
    assert 100 < accepted < 2_500
