import os
from pathlib import Path

import pytest

from trainer.data import files
from trainer.data.files import read_file, readable
from trainer.errors import BadItem


@pytest.fixture
def root(tmp_path):
    (tmp_path / "outside").write_bytes(b"secret")
    folder = tmp_path / "data"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "a").write_bytes(b"content")
    (folder / "empty").touch()
    (folder / "inside").symlink_to("deep/a")
    (folder / "folder").symlink_to("deep")
    (folder / "out").symlink_to(tmp_path / "outside")
    (folder / "up").symlink_to("..")
    (folder / "nowhere").symlink_to("absent")
    (folder / "round").symlink_to("round")
    os.mkfifo(folder / "pipe")
    return folder.resolve()


def read(root, path):
    return read_file(root, path, "a file")


@pytest.mark.parametrize("path", ["deep/a", "inside", "folder/a", "./deep//a", "deep/../deep/a"])
def test_files_and_links_within_the_root_are_read(root, path):
    assert read(root, path) == b"content"


def test_an_empty_file_is_a_file(root):
    assert read(root, "empty") == b""


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("out", "leads out of the data folder"),
        ("up/outside", "leads out of the data folder"),
        ("../outside", "leads out of the data folder"),
        ("/etc/hostname", "leads out of the data folder"),
        ("deep/../../outside", "leads out of the data folder"),
        ("..", "not a file"),
        ("absent", "there is no such file"),
        ("absent/a", "there is no such file"),
        ("nowhere", "there is no such file"),
        ("round", "cannot be read"),
        ("deep", "not a file"),
        ("", "not a file"),
        ("pipe", "not a file"),
        ("deep/a/b", "cannot be read"),
        ("a\0b", "zero byte"),
        ("x" * 300, "cannot be read"),
    ],
)
def test_whatever_else_there_is_is_refused_with_the_reason(root, path, reason):
    with pytest.raises(BadItem, match=reason):
        read(root, path)


def test_a_file_beyond_the_limit_is_not_read(root, monkeypatch):
    monkeypatch.setattr(files, "MAX_BYTES", 6)
    with pytest.raises(BadItem, match="the file has 7 bytes; expected at most 6"):
        read(root, "deep/a")


def test_the_root_directory_itself_may_be_the_root():
    here = Path(__file__).resolve()
    assert read_file(Path("/"), str(here.relative_to("/")), "a file") == here.read_bytes()


def test_names_of_any_bytes_become_text():
    assert readable(os.fsdecode("犬 é".encode())) == "犬 é"
    assert readable(os.fsdecode(b"\xff.jpg")) == r"\xff.jpg"
