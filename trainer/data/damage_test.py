import itertools
import struct

import pytest

from trainer.data.damage import (
    LONGEST,
    flipped_bit,
    masked_crc32c,
    mended_header,
    next_header,
)

DATA = bytes(range(7, 47))


def flip(data, place, bit):
    flipped = bytearray(data)
    flipped[place] ^= 1 << bit
    return bytes(flipped)


def header(length):
    packed = struct.pack("<Q", length)
    return packed + struct.pack("<I", masked_crc32c(packed))


def searched(content, begin=0, chunk_bytes=2**20):
    return next_header(
        lambda count, place: content[place : place + count], begin, len(content), chunk_bytes
    )


def test_the_masked_checksum_is_the_published_one():
    # CRC-32C's check value is e3069283; turned right by 15 bits: 2507c60d; plus a282ead8: c78ab0e5.
    assert masked_crc32c(b"123456789") == 0xC78AB0E5


def test_every_flipped_bit_is_found():
    stored = masked_crc32c(DATA)
    for place, bit in itertools.product(range(len(DATA)), range(8)):
        assert flipped_bit(flip(DATA, place, bit), stored) == (place, bit)


def test_a_flipped_bit_of_the_checksum_is_told_from_one_of_the_data():
    stored = masked_crc32c(DATA)
    for bit in range(32):
        assert flipped_bit(DATA, stored ^ 1 << bit) == (len(DATA) + bit // 8, bit % 8)


def test_two_flipped_bits_are_never_taken_for_one():
    stored = masked_crc32c(DATA)
    bits = list(itertools.product(range(0, len(DATA), 3), range(8)))
    for first, second in itertools.combinations(bits, 2):
        assert flipped_bit(flip(flip(DATA, *first), *second), stored) is None


def test_what_is_whole_or_too_long_has_no_flipped_bit():
    assert flipped_bit(DATA, masked_crc32c(DATA)) is None
    long = bytes(LONGEST)
    assert flipped_bit(flip(long, LONGEST - 9, 3), masked_crc32c(long)) == (LONGEST - 9, 3)
    longer = bytes(LONGEST + 1)
    assert flipped_bit(flip(longer, LONGEST - 9, 3), masked_crc32c(longer)) is None


def test_every_flipped_bit_of_a_header_is_mended():
    for length in (0, 1, 300, 2**33):
        for place, bit in itertools.product(range(12), range(8)):
            damaged = flip(header(length), place, bit)
            assert mended_header(damaged, 2**40) == (length, place)
            if length:
                assert mended_header(damaged, length - 1) is None


def test_a_header_with_two_flipped_bits_is_given_up():
    assert mended_header(flip(flip(header(300), 0, 0), 9, 5), 2**40) is None


@pytest.mark.parametrize("before", range(40, 140, 7))
def test_the_next_header_is_found_wherever_it_begins(before):
    # In chunks of 64 bytes, some of these lie across the border of two.
    content = bytes(range(1, 101)) * 2
    content = content[:before] + header(5) + b"12345" + b"\x00" * 4
    assert searched(content, chunk_bytes=64) == before
    assert searched(content) == before
    assert searched(content, begin=before) == before
    assert searched(content, begin=before + 1) is None


def test_a_header_whose_record_does_not_fit_is_none():
    assert searched(b"x" * 20 + header(6) + b"12345" + b"\x00" * 4) is None
    assert searched(b"x" * 20 + header(5) + b"12345" + b"\x00" * 4) == 20


def test_zeros_are_no_headers():
    assert searched(bytes(5000)) is None
    assert searched(bytes(5000) + header(0) + bytes(4)) == 5000


def test_nothing_is_found_in_what_is_too_short():
    for size in range(17):
        assert searched(b"x" * size) is None


def test_lengths_of_more_than_four_gigabytes_are_known():
    begin, size = 100, 2**33 + 500

    def read(count, place):  # a file of nothing but one header
        content = bytearray(count)
        for offset, byte in enumerate(header(2**33)):
            if place <= begin + offset < place + count:
                content[begin + offset - place] = byte
        return bytes(content)

    assert next_header(read, 0, size) == begin
