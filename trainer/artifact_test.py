import hashlib
from pathlib import Path

import pytest

from trainer.artifact import read_json, resumable_folder, sha256, whole_folder, write_json
from trainer.errors import UserError


def test_a_folder_appears_whole_and_replaces_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "folder"
    for text in ("first", "second"):
        with whole_folder(target) as draft:
            (draft / text).write_text(text)
            assert not (target / text).exists()
        assert [p.name for p in target.iterdir()] == [text]
    assert [p.name for p in target.parent.iterdir()] == ["folder"]


def test_a_block_that_fails_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    with whole_folder(target) as draft:
        (draft / "good").touch()
    with pytest.raises(KeyboardInterrupt), whole_folder(target) as draft:
        (draft / "bad").touch()
        raise KeyboardInterrupt
    assert [p.name for p in target.iterdir()] == ["good"]
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_what_a_killed_process_left_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / ".folder.unfinished").mkdir()
    (tmp_path / ".folder.unfinished" / "half").touch()
    with whole_folder(tmp_path / "folder") as draft:
        assert not list(draft.iterdir())


def test_with_the_same_plan_work_goes_on(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "folder"
    plan = {"é": 1, "b": "\udcff"}
    with pytest.raises(KeyboardInterrupt), resumable_folder(target, plan) as draft:
        (draft / "done").touch()
        raise KeyboardInterrupt
    assert not target.exists()
    with resumable_folder(target, plan) as draft:
        assert (draft / "done").exists()
        (draft / "more").touch()
    assert {p.name for p in target.iterdir()} == {"done", "more"}
    assert [p.name for p in target.parent.iterdir()] == ["folder"]


def test_with_another_plan_it_begins_anew_and_replaces_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    with resumable_folder(target, {"a": 1}) as draft:
        (draft / "old").touch()
    with pytest.raises(KeyError), resumable_folder(target, {"a": 2}) as draft:
        (draft / "half").touch()
        raise KeyError
    assert [p.name for p in target.iterdir()] == ["old"]
    with resumable_folder(target, {"a": 3}) as draft:
        assert [p.name for p in draft.iterdir()] == ["plan.json"]
        (draft / "new").touch()
    assert [p.name for p in target.iterdir()] == ["new"]


def test_only_one_process_at_a_time_writes_a_folder(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    refused = pytest.raises(UserError, match="Only one process at a time")
    with resumable_folder(target, {}), refused:
        resumable_folder(target, {}).__enter__()
    with resumable_folder(target, {}):
        pass


def test_json_is_read_as_written_and_nan_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "a" / "b.json", {"é": [1, 2.5, None]})
    assert read_json(tmp_path / "a" / "b.json") == {"é": [1, 2.5, None]}
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "nan.json", float("nan"))
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_sha256_is_that_of_the_contents(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"paper")
    assert sha256(tmp_path / "file") == hashlib.sha256(b"paper").hexdigest()
