import hashlib
from pathlib import Path

import pytest

from trainer.artifact import read_json, sha256, whole_folder, write_json


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


def test_json_is_read_as_written_and_nan_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "a" / "b.json", {"é": [1, 2.5, None]})
    assert read_json(tmp_path / "a" / "b.json") == {"é": [1, 2.5, None]}
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "nan.json", float("nan"))
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_sha256_is_that_of_the_contents(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"paper")
    assert sha256(tmp_path / "file") == hashlib.sha256(b"paper").hexdigest()
