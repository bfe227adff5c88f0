import hashlib
import os
import sqlite3
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.local import digest
from pipelines.local.digest import ABSENT, Digests, look, of_value, walk

PROPERTY = settings(
    deadline=None, database=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)


@pytest.fixture
def digests(tmp_path):
    made = Digests(tmp_path / "memory" / "digests.sqlite")
    yield made
    made.close()


@pytest.fixture
def read_files(monkeypatch):
    """The files that have been read to the end, in their order."""
    seen = []
    actual = digest.sha256

    def counted(path):
        seen.append(str(path))
        return actual(path)

    monkeypatch.setattr(digest, "sha256", counted)
    return seen


def settle(path):
    """Waits until the time of the file's last change is in the past, as Digests wants it."""
    while time.time_ns() - path.stat().st_ctime_ns <= digest._SETTLED_NANOSECONDS:
        time.sleep(0.005)


def tree(folder, **files):
    for name, content in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


def test_a_file_is_its_sha_256(digests, tmp_path):
    (tmp_path / "a").write_bytes(b"content")
    assert digests.of(tmp_path / "a") == hashlib.sha256(b"content").hexdigest()
    assert digests.of_file(str(tmp_path / "a")) == hashlib.sha256(b"content").hexdigest()


def test_what_is_not_there_is_absent(digests, tmp_path):
    assert digests.of(tmp_path / "nothing") == ABSENT
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    assert digests.of(tmp_path / "link") == ABSENT
    with pytest.raises(OSError, match="nothing"):
        digests.of_file(tmp_path / "nothing")


def test_equal_folders_have_equal_digests_wherever_they_are(digests, tmp_path):
    one = tree(tmp_path / "one", a="1", b__c="2")
    other = tree(tmp_path / "other", b__c="2", a="1")
    os.utime(other / "a", (1, 1))
    assert digests.of(one) == digests.of(other)


def change_content(folder):
    (folder / "a").write_text("2")


def rename(folder):
    (folder / "a").rename(folder / "aa")


def move_down(folder):
    (folder / "a").rename(folder / "b" / "a")


def add_empty_file(folder):
    (folder / "n").touch()


def add_empty_folder(folder):
    (folder / "n").mkdir()


def remove(folder):
    (folder / "b" / "c").unlink()


def replace_by_link(folder):
    (folder / "a").unlink()
    (folder / "a").symlink_to("b/c")


def replace_by_folder(folder):
    (folder / "a").unlink()
    (folder / "a").mkdir()


def swap(folder):
    (folder / "a").write_text("2")
    (folder / "b" / "c").write_text("1")


@pytest.mark.parametrize(
    "change",
    [
        *(change_content, rename, move_down, add_empty_file, add_empty_folder, remove),
        *(replace_by_link, replace_by_folder, swap),
    ],
    ids=lambda function: function.__name__,
)
def test_any_change_within_a_folder_changes_its_digest(change, digests, tmp_path):
    folder = tree(tmp_path / "folder", a="1", b__c="2")
    before = digests.of(folder)
    change(folder)
    assert digests.of(folder) != before


def test_where_a_link_leads_counts_and_not_what_is_there(digests, tmp_path):
    folder = tree(tmp_path / "folder", a="1")
    (folder / "link").symlink_to("a")
    linked = digests.of(folder)
    (folder / "link").unlink()
    (folder / "link").symlink_to("b")
    assert digests.of(folder) != linked


def test_names_that_are_no_text_are_no_obstacle(digests, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / os.fsdecode(b"\xff\xfe")).touch()
    (tmp_path / "folder" / "a\nb").touch()
    assert len(digests.of(tmp_path / "folder")) == 64
    assert look(tmp_path / "folder", 10)


def test_a_file_that_has_not_changed_is_read_once(digests, read_files, tmp_path):
    file = tmp_path / "a"
    file.write_text("1")
    settle(file)
    first = digests.of(file)
    assert digests.of(file) == first
    assert len(read_files) == 1
    file.rename(tmp_path / "b")  # which changes the ctime, and so it is read again
    assert digests.of(tmp_path / "b") == first


def test_what_is_known_outlasts_the_program(read_files, tmp_path):
    file = tmp_path / "a"
    file.write_text("1")
    settle(file)
    results = []
    for _ in range(3):
        digests = Digests(tmp_path / "digests.sqlite")
        results.append(digests.of(file))
        digests.close()
    assert len(set(results)) == 1
    assert len(read_files) == 1


def test_a_file_that_has_just_changed_is_not_remembered(digests, read_files, tmp_path, monkeypatch):
    file = tmp_path / "a"
    for content in ("1", "2", "3"):
        file.write_text(content)
        assert digests.of(file) == hashlib.sha256(content.encode()).hexdigest()
    read_files.clear()
    monkeypatch.setattr(digest, "_SETTLED_NANOSECONDS", 10**15)  # however slow this machine is
    file.write_text("4")
    assert digests.of(file) == digests.of(file)
    assert len(read_files) == 2


def test_a_change_of_the_same_size_with_the_old_time_is_noticed(digests, tmp_path):
    file = tmp_path / "a"
    file.write_text("before")
    settle(file)
    before = file.stat()
    assert digests.of(file) == hashlib.sha256(b"before").hexdigest()
    with open(file, "r+") as opened:
        opened.write("after!")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = file.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert digests.of(file) == hashlib.sha256(b"after!").hexdigest()


def test_a_file_that_was_replaced_by_one_that_looks_alike_is_noticed(digests, tmp_path):
    file, other = tmp_path / "a", tmp_path / "b"
    file.write_text("before")
    settle(file)
    digests.of(file)
    other.write_text("after!")
    stat = file.stat()
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    settle(other)
    os.replace(other, file)
    assert digests.of(file) == hashlib.sha256(b"after!").hexdigest()


@pytest.mark.parametrize(
    "damage", [b"this is no database" * 100, b"SQLite format 3\0" + b"\xff" * 999]
)
def test_a_damaged_memory_is_made_anew(damage, read_files, tmp_path):
    memory, file = tmp_path / "digests.sqlite", tmp_path / "a"
    file.write_text("1")
    settle(file)
    memory.write_bytes(damage)
    for _ in range(2):
        digests = Digests(memory)
        assert digests.of(file) == hashlib.sha256(b"1").hexdigest()
        digests.close()
    assert len(read_files) == 1


def test_a_memory_that_is_damaged_later_is_done_without(digests, tmp_path):
    file = tmp_path / "a"
    file.write_text("1")
    settle(file)
    with sqlite3.connect(tmp_path / "memory" / "digests.sqlite") as connection:
        connection.execute("DROP TABLE files")
    connection.close()
    for _ in range(2):
        assert digests.of(file) == hashlib.sha256(b"1").hexdigest()


def test_a_link_to_a_file_or_folder_is_known_without_reading(digests, read_files, tmp_path):
    folder = tree(tmp_path / "folder", a="1", b__c="2")
    (folder / "link").symlink_to("a")
    (folder / "empty").mkdir()
    for file in (folder / "a", folder / "b" / "c"):
        settle(file)
    before = digests.of(folder)
    read = len(read_files)
    digests.link(folder, tmp_path / "copy")
    assert digests.of(tmp_path / "copy") == before
    assert digests.of(folder) == before
    assert len(read_files) == read
    assert (folder / "a").samefile(tmp_path / "copy" / "a")
    digests.link(folder / "a", tmp_path / "file")
    assert digests.of(tmp_path / "file") == hashlib.sha256(b"1").hexdigest()
    assert len(read_files) == read


def test_a_file_that_changed_while_it_was_linked_is_read(digests, tmp_path, monkeypatch):
    file = tmp_path / "a"
    file.write_text("before")
    settle(file)
    digests.of(file)
    actual = os.link

    def link_and_write(source, target):
        actual(source, target)
        with open(source, "a") as opened:
            opened.write("!")

    monkeypatch.setattr(os, "link", link_and_write)
    digests.link(file, tmp_path / "b")
    assert digests.of(tmp_path / "b") == hashlib.sha256(b"before!").hexdigest()


def test_all_that_is_in_a_folder_is_listed_in_order(tmp_path):
    folder = tree(tmp_path / "folder", b="1", a__z="2", a__y__x="3")
    (folder / "c").symlink_to("b")
    assert [(name, kind) for name, kind, _ in walk(folder)] == [
        *(("a", "d"), ("a/y", "d"), ("a/y/x", "f"), ("a/z", "f"), ("b", "f"), ("c", "l"))
    ]


def test_the_looks_of_a_folder_change_with_names_sizes_and_times(tmp_path):
    folder = tree(tmp_path / "folder", a="1", b__c="2")
    for file in (folder / "a", folder / "b" / "c"):
        os.utime(file, (1, 1))
    first = look(folder, 100)
    assert look(folder, 100) == first
    os.utime(folder / "b" / "c", (2, 2))
    touched = look(folder, 100)
    (folder / "a").rename(folder / "d")
    renamed = look(folder, 100)
    tree(folder, e="")
    assert len({first, touched, renamed, look(folder, 100)}) == 4
    assert look(folder / "d", 100) != look(folder / "e", 100)


def test_a_folder_of_too_many_files_is_not_looked_at(tmp_path):
    folder = tree(tmp_path / "folder", a="1", b__c="2")  # three entries
    assert look(folder, 3) is not None
    assert look(folder, 2) is None


@PROPERTY
@given(
    st.dictionaries(st.text(), st.integers() | st.lists(st.text()) | st.booleans(), max_size=5),
    st.randoms(),
)
def test_a_value_has_one_digest_whatever_the_order_of_its_keys(value, random):
    items = list(value.items())
    random.shuffle(items)
    assert of_value(value) == of_value(dict(items))


def test_different_values_have_different_digests():
    values = [None, "", 0, False, [], {}, "0", [0], {"": 0}, 1, True, 1.5, "ü", [[], []], [[[]]]]
    assert len({of_value(value) for value in values}) == len(values)
