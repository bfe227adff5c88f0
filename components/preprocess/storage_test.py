from pathlib import Path

import pytest

from components.preprocess.storage import Folder, in_the_cloud, resumable


def test_a_file_is_there_when_it_is_whole(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path / "new"))
    with folder.creating("deep/file") as file:
        file.write(b"half")
        assert not folder.exists("deep/file")
    assert folder.read("deep/file") == b"half"
    assert folder.files() == ["deep/file"]
    with pytest.raises(ZeroDivisionError), folder.creating("deep/file") as file:
        file.write(b"other")
        raise ZeroDivisionError
    assert folder.read("deep/file") == b"half"
    assert folder.files() == ["deep/file"]


def test_names_may_hold_what_patterns_are_made_of(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path / "a [b] *?"))
    folder.write("x*.json", b"{}")
    folder.write("y.json", b"{}")
    folder.remove(["x*.json"])
    assert folder.files() == ["y.json"]


def test_what_dead_processes_left_is_removed(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    folder.write("a.tfrecord", b"1")
    for name in (".a.tfrecord." + "0f" * 16 + ".unfinished", "deep/.b." + "1" * 32 + ".unfinished"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / ".other.unfinished").write_bytes(b"")
    folder.remove_unfinished()
    assert folder.files() == [".other.unfinished", "a.tfrecord"]


def test_a_copy_has_the_same_files(tmp_path: Path) -> None:
    folder, other = Folder(str(tmp_path / "one")), Folder(str(tmp_path / "two"))
    folder.write("deep/saved_model.pb", b"1")
    folder.write("assets/words", b"2")
    folder.copy_to(other, last="saved_model.pb")
    assert {name: other.read(name) for name in other.files()} == {
        "assets/words": b"2",
        "deep/saved_model.pb": b"1",
    }
    times = [Path(other.place(name)).stat().st_mtime_ns for name in other.files()]
    assert times == sorted(times)


def test_a_folder_is_discarded_with_all_that_is_in_it(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path / "one"))
    folder.discard()  # it need not be there
    folder.write("deep/file", b"1")
    folder.discard()
    assert not (tmp_path / "one").exists()
    assert folder.files() == []


def test_a_draft_stays_until_the_block_ends_well(tmp_path: Path) -> None:
    target = str(tmp_path / "made")
    with pytest.raises(ZeroDivisionError), resumable(target, {"a": 1}) as draft:
        draft.write("file", b"1")
        raise ZeroDivisionError
    with resumable(target, {"a": 1}) as draft:
        assert draft.read("file") == b"1"
    assert Folder(target).files() == ["file"]


def test_mounted_buckets_have_addresses() -> None:
    assert in_the_cloud("/gcs/bucket/run/examples") == "gs://bucket/run/examples"
    for path in ("gs://bucket/run", "/data/gcs/run", "relative/gcs/run"):
        assert in_the_cloud(path) == path


def test_a_folder_is_its_path() -> None:
    assert Folder("gs://bucket/run/").place("a/b") == "gs://bucket/run/a/b"
    assert Folder("gs://bucket/run/").remote
    assert Folder("examples").absolute().path == f"{Path.cwd()}/examples"
    assert Folder("gs://bucket/run").absolute() == Folder("gs://bucket/run")
