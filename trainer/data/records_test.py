import hashlib
import itertools
import struct

import google_crc32c
import numpy as np
import pytest

from trainer.data.records import (
    RecordScan,
    RecordWriter,
    next_record,
    read_record,
    read_records,
    read_shard,
)
from trainer.errors import UserError

RECORDS = [b"", b"a", b"\x00" * 9, bytes(range(20))]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "a.tfrecord"
    with RecordWriter(path) as writer:
        for record in RECORDS:
            writer.write(record)
    return path


def test_records_come_back_in_order(path):
    assert list(read_records(path)) == RECORDS


def test_an_empty_file_has_no_records(tmp_path):
    with RecordWriter(tmp_path / "empty") as writer:
        pass
    assert writer.shard("empty").records == 0
    assert list(read_records(tmp_path / "empty")) == []


def test_frame_is_the_published_format(tmp_path):
    with RecordWriter(tmp_path / "one") as writer:
        writer.write(b"123456789")
    content = (tmp_path / "one").read_bytes()
    assert content[:8] == b"\x09" + b"\x00" * 7
    assert content[12:21] == b"123456789"
    # CRC-32C's check value is e3069283; turned right by 15 bits: 2507c60d; plus a282ead8: c78ab0e5.
    assert content[21:] == bytes.fromhex("e5b08ac7")


def test_shard_describes_the_file(path):
    writer = RecordWriter(path)
    with writer:
        for record in RECORDS:
            writer.write(record)
    shard, content = writer.shard("train-00000-of-00001.tfrecord"), path.read_bytes()
    assert shard.file == "train-00000-of-00001.tfrecord"
    assert shard.records == len(RECORDS)
    assert shard.bytes == len(content) == sum(16 + len(record) for record in RECORDS)
    assert shard.crc32c == f"{google_crc32c.value(content):08x}"
    assert shard.sha256 == hashlib.sha256(content).hexdigest()


def test_a_record_as_written_is_read_while_the_next_is_damaged(path):
    content = bytearray(path.read_bytes())
    content[-5] ^= 1  # inside the data of the last record
    path.write_bytes(content)
    records = read_records(path)
    assert [next(records) for _ in range(3)] == RECORDS[:3]
    with pytest.raises(UserError, match=r"record 3 of '.*a.tfrecord' is damaged: .* its data"):
        next(records)


@pytest.mark.parametrize("position", [0, 7, 8, 11])
def test_a_damaged_header_is_told_before_its_length_is_believed(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 0x80
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"record 0 .* its length"):
        list(read_records(path))


def test_every_cut_is_told(path):
    content = path.read_bytes()
    ends = {0}
    for record in RECORDS:
        ends.add(max(ends) + 16 + len(record))
    for size in range(len(content)):
        path.write_bytes(content[:size])
        if size in ends:
            assert len(list(read_records(path))) < len(RECORDS)
        else:
            with pytest.raises(UserError, match="the file ends inside"):
                list(read_records(path))


BEGINS = (0, 16, 33, 58)  # 16 bytes around each record of RECORDS
END = 94


def write(path, records):
    with RecordWriter(path) as writer:
        for record in records:
            writer.write(record)
    return path.read_bytes()


def scanned(path):
    return list(RecordScan(path))


def test_a_scan_tells_records_their_places_and_the_checksums_of_the_file(path):
    scan, content = RecordScan(path), path.read_bytes()
    records = list(scan)
    assert [record.data for record in records] == RECORDS
    assert [record.number for record in records] == [0, 1, 2, 3]
    assert [record.offset for record in records] == list(BEGINS)
    assert {record.damage for record in records} == {""}
    assert scan.bytes == len(content) == END
    assert scan.crc32c == f"{google_crc32c.value(content):08x}"
    assert scan.sha256 == hashlib.sha256(content).hexdigest()


def test_a_scan_of_an_empty_file_finds_nothing(tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    scan = RecordScan(tmp_path / "empty")
    assert list(scan) == []
    assert (scan.bytes, scan.crc32c, scan.sha256) == (0, "00000000", hashlib.sha256().hexdigest())


def test_records_across_and_beyond_the_blocks_that_are_read_are_whole(tmp_path):
    chance = np.random.default_rng(1)
    sizes = [*chance.integers(40_000, size=200).tolist(), 2_500_000, 0, 2**20 - 16, 2**20, 3]
    records = [chance.bytes(size) for size in sizes]
    content = write(tmp_path / "large", records)
    told = []
    scan = RecordScan(tmp_path / "large", told.append)
    assert [record.data for record in scan] == records
    assert scan.bytes == len(content) == sum(told) == sum(sizes) + 16 * len(sizes)
    assert scan.sha256 == hashlib.sha256(content).hexdigest()
    assert scan.crc32c == f"{google_crc32c.value(content):08x}"


def test_every_flipped_bit_is_found_and_mended(path):
    content = path.read_bytes()
    for place, bit in itertools.product(range(len(content)), range(8)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << bit
        path.write_bytes(damaged)
        records = scanned(path)
        (found,) = [record for record in records if record.damage]
        assert found.wrong_byte == place
        assert found.number == sum(begin <= place for begin in BEGINS) - 1
        assert f"at byte {place} of the file" in found.damage
        assert [record.data for record in records] == RECORDS
        assert [record.offset for record in records] == list(BEGINS)


def test_what_kind_of_bit_has_changed_is_told(path):
    content = path.read_bytes()
    for place, what in ((33, "length"), (41, "checksum of its length"), (45, "data")):
        damaged = bytearray(content)
        damaged[place] ^= 4
        path.write_bytes(damaged)
        assert scanned(path)[2].damage.startswith(
            f"one bit of {'its' if what == 'data' else 'the'}"
        )
        assert what in scanned(path)[2].damage


def test_a_changed_stretch_of_data_hides_no_other_record(path):
    content = bytearray(path.read_bytes())
    content[70:80] = b"0123456789"
    path.write_bytes(content)
    records = scanned(path)
    assert [record.data for record in records[:3]] == RECORDS[:3]
    assert records[3].damage == (
        "the checksum of its data is wrong: bytes 70 to 89 of the file are not as they were written"
    )
    assert records[3].data == bytes(content[70:90])
    assert records[3].wrong_byte is None


def test_after_a_header_that_is_lost_the_next_record_is_found(path):
    content = bytearray(path.read_bytes())
    content[33:45] = b"not a header"
    path.write_bytes(content)
    records = scanned(path)
    # What lies between the damaged header and the next sound one is one record, by its checksum.
    assert [record.data for record in records] == RECORDS
    assert records[2].damage == "its length is damaged; its data is whole"
    content[47] ^= 0xFF
    path.write_bytes(content)
    records = scanned(path)
    assert [record.data for record in records] == [*RECORDS[:2], None, RECORDS[3]]
    assert records[2].damage == (
        "its length is damaged, and nothing can be read up to byte 58 of the file, where the next "
        "record begins"
    )


def test_the_last_record_is_read_without_its_header(path):
    content = bytearray(path.read_bytes())
    content[58:70] = b"not a header"
    path.write_bytes(content)
    assert [record.data for record in scanned(path)] == RECORDS
    content[75] ^= 0xFF
    path.write_bytes(content)
    assert scanned(path)[3].damage == (
        "its length is damaged, and the rest of the file, 36 bytes, cannot be read"
    )


def test_bytes_that_were_lost_or_put_in_cost_no_record_but_their_own(path):
    content = path.read_bytes()
    for changed in (content[:20] + b"more" + content[20:], content[:25] + content[27:]):
        path.write_bytes(changed)
        records = scanned(path)
        assert [r.data for r in records if not r.damage] == [RECORDS[0], *RECORDS[2:]]


def test_every_cut_of_a_scanned_file_is_told(path):
    content = path.read_bytes()
    for size in range(len(content)):
        path.write_bytes(content[:size])
        scan = RecordScan(path)
        records = list(scan)
        whole = [record.data for record in records if not record.damage]
        assert whole == RECORDS[: sum(begin <= size for begin in (*BEGINS[1:], END))]
        assert scan.bytes == size
        if size in (0, *BEGINS):
            assert len(records) == len(whole)
        else:
            assert records[-1].damage.startswith("the file ends inside")
            assert len(records) == len(whole) + 1


def test_a_length_beyond_the_end_of_the_file_is_not_believed(tmp_path):
    with RecordWriter(tmp_path / "a") as writer:
        writer.write(b"whole")
    length = struct.pack("<Q", 2**60)
    crc = google_crc32c.value(length)
    masked = (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
    with open(tmp_path / "a", "ab") as file:
        file.write(length + struct.pack("<I", masked) + b"rest")
    records = scanned(tmp_path / "a")
    assert [record.data for record in records] == [b"whole", None]
    assert "4 of its 1,152,921,504,606,846,980 bytes are there" in records[1].damage


def test_garbage_of_any_kind_ends(tmp_path):
    chance = np.random.default_rng(5)
    whole = write(tmp_path / "a", [chance.bytes(size) for size in chance.integers(60, size=30)])
    for _ in range(300):
        content = bytearray(whole)
        for _ in range(chance.integers(1, 6)):
            place, length, kind = chance.integers((len(content), 40, 3)).tolist()
            if kind == 0:
                content[place : place + length] = chance.bytes(length)
            elif kind == 1:
                del content[place : place + length]
            else:
                content[place:place] = bytes(length)
        (tmp_path / "a").write_bytes(content)
        scan = RecordScan(tmp_path / "a")
        assert all(record.offset <= len(content) for record in scan)
        assert scan.sha256 == hashlib.sha256(content).hexdigest()


def test_flipped_bits_are_not_looked_for_without_end(tmp_path):
    size = 3 * 2**20
    content = bytearray(write(tmp_path / "a", [bytes(size)] * 7))
    for number in range(7):
        content[number * (size + 16) + size] ^= 16  # near the end, where it is found at once
    (tmp_path / "a").write_bytes(content)
    records = scanned(tmp_path / "a")
    assert [record.wrong_byte is not None for record in records] == [True] * 5 + [False] * 2
    assert all(record.damage for record in records)


def test_what_advance_raises_ends_the_scan(path):
    def stop(count):
        raise InterruptedError(count)

    with pytest.raises(InterruptedError):
        list(RecordScan(path, stop))


def test_a_record_is_read_by_its_place(path):
    assert [read_record(path, begin) for begin in BEGINS] == RECORDS
    for place in (1, END, END + 100):
        with pytest.raises(UserError, match=f"at byte {place} of '.*a.tfrecord' is not"):
            read_record(path, place)
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"?")
    with pytest.raises(UserError, match="at byte 58"):
        read_record(path, 58)


def test_the_next_record_is_found_from_any_place(path):
    for place in range(END + 5):
        later = [begin for begin in BEGINS if begin >= place]
        assert next_record(path, place) == (later[0] if later else None)


def test_a_shard_that_is_not_there_is_told(path, tmp_path):
    assert list(read_shard(path)) == RECORDS
    for read in (lambda p: list(read_shard(p)), lambda p: next_record(p, 0)):
        with pytest.raises(UserError, match=r"must be files to read; '.*none' cannot be read"):
            read(tmp_path / "none")
    with pytest.raises(UserError, match="there is no such file"):
        list(read_shard(tmp_path))
