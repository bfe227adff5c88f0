import io
import os
import tarfile
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from trainer.data.imagenet.archive import index_archive
from trainer.errors import BadItem, UserError

FORMATS = {"v7": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def tar(members, kind=tarfile.USTAR_FORMAT):
    """An archive of (name, content) in that order; a content of None makes a folder."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=kind) as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            if content is None:
                member.type = tarfile.DIRTYPE
                archive.addfile(member)
            else:
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def pictures(wnid, count, size=700):
    return [(f"{wnid}_{n}.JPEG", f"{wnid} {n} ".encode() * size) for n in range(count)]


A, B, C = (pictures(wnid, 3) for wnid in ("n00000001", "n00000002", "n00000003"))
NESTED = tar([("n00000001.tar", tar(A)), ("n00000002.tar", tar(B)), ("n00000003.tar", tar(C))])


def write(tmp_path, content):
    path = tmp_path / "images.tar"
    path.write_bytes(content)
    return path


def contents(archive):
    """(group, name) -> content, or why there is none."""
    found = {}
    for index in range(len(archive)):
        try:
            content = archive.read(index)
        except BadItem as error:
            content = error.reason
        found[archive.group(index), archive.name(index)] = content
    assert len({archive.key(index) for index in range(len(archive))}) == len(archive)
    return found


def expected(**groups):
    return {(wnid, name): content for wnid, files in groups.items() for name, content in files}


ALL = expected(n00000001=A, n00000002=B, n00000003=C)


@pytest.mark.parametrize("kind", FORMATS.values(), ids=FORMATS)
def test_files_are_read_where_they_are(tmp_path, kind):
    members = [*A, ("folder/", None), ("folder/B", b"B" * 512), ("./empty", b""), ("c d", b"e")]
    archive = index_archive(write(tmp_path, tar(members, kind)))
    assert contents(archive) == {
        **{("", name): content for name, content in A},
        ("", "B"): b"B" * 512,
        ("", "empty"): b"",
        ("", "c d"): b"e",
    }
    assert archive.key(0) == "images.tar/n00000001_0.JPEG"
    assert archive.groups == ()


@pytest.mark.parametrize("kind", FORMATS.values(), ids=FORMATS)
def test_archives_in_an_archive_are_read_where_they_are(tmp_path, kind):
    inner = [(f"./{f[0][0][:9]}.tar", tar(f, kind)) for f in (B, A)]
    archive = index_archive(write(tmp_path, tar(inner, kind)), of_archives=True)
    assert contents(archive) == expected(n00000001=A, n00000002=B)
    assert archive.groups == ("n00000002", "n00000001")
    assert archive.key(0) == "images.tar/n00000002.tar/n00000002_0.JPEG"


def test_hidden_files_are_left_out(tmp_path):
    archive = index_archive(write(tmp_path, tar([("._a", b"1"), ("a", b"2"), ("x/.b", b"3")])))
    assert contents(archive) == {("", "a"): b"2"}


def test_names_too_long_for_a_header_are_cut_but_all_files_are_there(tmp_path):
    for kind in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        content = tar([("x" * 150, b"1"), ("a", b"2")], kind)
        found = contents(index_archive(write(tmp_path, content)))
        assert list(found.values()) == [b"1", b"2"]


def test_names_may_be_any_bytes(tmp_path):
    content = tar([("xy", b"1")]).replace(b"xy", b"\xc3\xff")
    checksum = 8 * ord(" ") + sum(content[:148]) + sum(content[156:512])
    content = content[:148] + b"%06o\0 " % checksum + content[156:]
    archive = index_archive(write(tmp_path, content))
    assert archive.key(0) == r"images.tar/\xc3\xff"
    assert archive.read(0) == b"1"


def test_sizes_in_binary_are_read(tmp_path):
    content = bytearray(tar(A))
    content[124:136] = b"\x80" + len(A[0][1]).to_bytes(11, "big")
    content[148:156] = b" " * 8
    content[148:156] = b"%06o\0 " % sum(content[:512])
    found = contents(index_archive(write(tmp_path, bytes(content))))
    assert found == {("", name): content for name, content in A}


def test_the_same_name_twice_is_told_and_has_a_key_of_its_own(tmp_path):
    archive = index_archive(write(tmp_path, tar([("a", b"1"), ("b", b"2"), ("a", b"3")])))
    assert [archive.key(index) for index in range(3)] == [
        "images.tar/a",
        "images.tar/b",
        "images.tar/a#2560",
    ]
    assert archive.read(0) == b"1"
    with pytest.raises(BadItem, match="another file has the same name"):
        archive.read(2)


def test_what_is_no_file_is_told(tmp_path):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, kind in (("link", tarfile.SYMTYPE), ("pipe", tarfile.FIFOTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
    found = contents(index_archive(write(tmp_path, file.getvalue())))
    assert found == dict.fromkeys(
        [("", "link"), ("", "pipe")], "it is not a file but something else"
    )


def place(content, name):
    """Where the header of a member begins."""
    return content.index(name.encode())


def damage(content, offset):
    return content[: offset + 130] + b"?" + content[offset + 131 :]


def test_a_damaged_header_loses_its_file_alone(tmp_path):
    content = damage(NESTED, place(NESTED, "n00000002_1.JPEG"))
    found = contents(index_archive(write(tmp_path, content), of_archives=True))
    assert (
        found.pop(("n00000002", "")) == "a header is damaged; 9,216 bytes up to the next are lost"
    )
    assert found == {k: v for k, v in ALL.items() if k != ("n00000002", "n00000002_1.JPEG")}


def test_a_damaged_header_of_an_inner_archive_loses_nothing(tmp_path):
    content = damage(NESTED, place(NESTED, "n00000002.tar"))
    archive = index_archive(write(tmp_path, content), of_archives=True)
    found = contents(archive)
    assert found.pop(("", "")) == "a header is damaged; 512 bytes up to the next are lost"
    assert found == ALL
    assert archive.key(3) == f"images.tar#{place(NESTED, 'n00000002.tar')}"


def test_a_damaged_last_header_is_told(tmp_path):
    content = damage(NESTED, place(NESTED, "n00000003_2.JPEG"))
    found = contents(index_archive(write(tmp_path, content), of_archives=True))
    assert found.pop(("n00000003", "")).startswith("a header is damaged")
    assert found == {k: v for k, v in ALL.items() if k != ("n00000003", "n00000003_2.JPEG")}


@pytest.mark.parametrize("cut", [*range(0, len(NESTED), 4096 + 37), len(NESTED) - 9000])
def test_a_cut_archive_keeps_what_is_whole(tmp_path, cut):
    path = write(tmp_path, NESTED[:cut])
    if cut < 512:
        with pytest.raises(UserError, match=r"images\.tar must be a tar archive"):
            index_archive(path, of_archives=True)
        return
    archive = index_archive(path, of_archives=True)
    found = contents(archive)
    whole = {place: content for place, content in found.items() if isinstance(content, bytes)}
    assert whole == {
        place: content
        for place, content in ALL.items()
        if NESTED.index(content) + len(content) <= cut
    }
    if cut >= place(NESTED, "n00000003.tar") + 512 + len(tar(C)) + 512:  # in the zeros at its end
        assert found == ALL
        return
    (lost,) = set(found) - set(whole)
    assert found[lost].startswith("the archive is cut short")
    assert lost == list(found)[-1]


def test_an_archive_that_ends_behind_a_file_is_told(tmp_path):
    end = place(NESTED, "n00000003.tar")
    archive = index_archive(write(tmp_path, NESTED[:end]), of_archives=True)
    found = contents(archive)
    assert found.pop(("", "")) == "the archive is cut short: its end is missing"
    assert found == expected(n00000001=A, n00000002=B)


def test_a_class_without_images_is_told(tmp_path):
    content = tar([("n00000001.tar", tar(A)), ("n00000002.tar", tar([]))])
    archive = index_archive(write(tmp_path, content), of_archives=True)
    found = contents(archive)
    assert found.pop(("n00000002", "")) == "a class without images: its archive is empty"
    assert found == expected(n00000001=A)


def test_a_file_outside_of_the_inner_archives_is_told(tmp_path):
    content = tar([("readme.txt", b"text"), ("n00000001.tar", tar(A))])
    found = contents(index_archive(write(tmp_path, content), of_archives=True))
    assert found.pop(("", "readme.txt")) == "a file outside of the archive of a class"
    assert found == expected(n00000001=A)


def test_a_file_that_reaches_out_of_its_inner_archive_is_told(tmp_path):
    inner = bytearray(tar(A))
    inner[124:136] = b"%011o\0" % (len(inner) + 1)
    inner[148:156] = b" " * 8
    inner[148:156] = b"%06o\0 " % sum(inner[:512])
    content = tar([("n00000001.tar", bytes(inner)), ("n00000002.tar", tar(B))])
    found = contents(index_archive(write(tmp_path, content), of_archives=True))
    assert found.pop(("n00000001", A[0][0])).startswith("the file reaches out")
    assert found.pop(("n00000001", "")).startswith("a header is damaged")
    assert found == expected(n00000001=A[1:], n00000002=B)


@pytest.mark.parametrize("content", [b"", b"<html>", b"\x1f\x8b" + b"x" * 5000, bytes(10240)])
def test_another_file_is_told(tmp_path, content):
    with pytest.raises(UserError, match=r"images\.tar must be a tar archive; it begins with"):
        index_archive(write(tmp_path, content))


def test_what_cannot_be_opened_is_told(tmp_path):
    os.mkfifo(tmp_path / "pipe.tar")
    for name in ("pipe.tar", "absent.tar", "."):
        with pytest.raises(UserError, match="must be a tar archive; it cannot be read"):
            index_archive(tmp_path / name)


def test_a_file_above_the_limit_is_a_bad_item(tmp_path):
    path = tmp_path / "images.tar"
    member = tarfile.TarInfo("large")
    member.size = 2**28 + 1
    with open(path, "wb") as file:
        file.write(member.tobuf())
        file.truncate(2**28 + 2 * 512 + 10240)  # a sparse file takes no room
    archive = index_archive(path)
    with pytest.raises(BadItem, match="the file has 268,435,457 bytes"):
        archive.read(0)


def test_an_archive_that_changes_or_goes_away_gives_bad_items(tmp_path):
    path = write(tmp_path, tar(A))
    archive = index_archive(path)
    path.write_bytes(tar(A)[:1000])
    with pytest.raises(BadItem, match="has become shorter"):
        archive.read(0)
    path.unlink()
    with pytest.raises(BadItem, match="it cannot be read"):
        archive.read(0)


LOST = "a header is damaged; {:,} bytes up to the next are lost"
EMPTY = "a class without images: its archive is empty"


@pytest.mark.parametrize(
    ("begin", "end", "lost", "reasons"),
    [
        ("n00000001_1.JPEG", "n00000001_2.JPEG", A[1:2], [("n00000001", LOST.format(9216))]),
        ("n00000002.tar", "n00000003.tar", B, [("", LOST.format(31_232))]),
        # From the first file of an archive into the next: the archive's end looks like its end.
        (
            *("n00000001_0.JPEG", "n00000002_1.JPEG", A + B[:1]),
            [("", LOST.format(9_728)), ("n00000001", EMPTY)],
        ),
    ],
)
def test_files_that_have_become_zeros_are_told(tmp_path, begin, end, lost, reasons):
    begin, end = place(NESTED, begin), place(NESTED, end)
    content = NESTED[:begin] + bytes(end - begin) + NESTED[end:]
    found = contents(index_archive(write(tmp_path, content), of_archives=True))
    assert [(k[0], reason) for k, reason in found.items() if not k[1]] == reasons
    names = {name for name, _ in lost}
    assert {k: v for k, v in found.items() if k[1]} == {
        k: v for k, v in ALL.items() if k[1] not in names
    }


def test_an_archive_that_ends_in_much_emptiness_is_told_soon(tmp_path):
    path = write(tmp_path, tar(A))
    with open(path, "ab") as file:  # as when room was made for a file that never came whole
        file.truncate(2**28)
    begin = time.monotonic()
    found = contents(index_archive(path))
    assert found.pop(("", "")).startswith("a header is damaged; 268,4")
    assert found == {("", name): content for name, content in A}
    assert time.monotonic() - begin < 5


def test_an_index_is_small_and_quick(tmp_path):
    count = 20_000
    names = np.arange(count).astype("S").tolist()
    header = tarfile.TarInfo("n00000001_00000000.JPEG").tobuf()

    def renamed(name):
        block = bytearray(header[:512])
        block[10:18] = name.rjust(8, b"0")
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
        return bytes(block)

    path = write(tmp_path, b"".join(map(renamed, names)) + bytes(10240))
    tracemalloc.start()
    try:
        archive = index_archive(path)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(archive) == count
    assert archive.name(12_345) == "n00000001_00012345.JPEG"
    assert kept / count < 60  # bytes per file: ImageNet's training images fit into 80 MB


def test_random_damage_gives_files_or_reasons():
    generator = np.random.default_rng(0)
    path = Path("images.tar")
    from trainer.data.imagenet.archive import index_content

    for _ in range(300):
        content = np.frombuffer(NESTED, np.uint8).copy()
        places = generator.integers(0, len(content), 40)
        content[places] = generator.integers(0, 256, 40)
        data = content[: generator.integers(0, 2 * len(content))].tobytes()
        try:
            archive = index_content(
                path, lambda at, n, data=data: data[at : at + n], len(data), True
            )
        except UserError:
            continue
        keys = {archive.key(index) for index in range(len(archive))}
        assert len(keys) == len(archive)
        for index in range(len(archive)):
            end = archive.offsets[index] + archive.sizes[index]
            assert end <= len(data) or index in archive.faults
