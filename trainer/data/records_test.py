import hashlib

import google_crc32c
import pytest

from trainer.data.records import RecordWriter, read_records
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
