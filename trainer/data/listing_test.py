import os

import pytest

from trainer.data.listing import Listing, all_in, folders_in, others_in
from trainer.errors import UserError


def test_names_in_a_folder_are_sorted_and_hidden_ones_passed_over(tmp_path):
    for name in ("b", "a", ".hidden"):
        (tmp_path / name).mkdir()
    for name in ("2", "10", ".DS_Store"):
        (tmp_path / name).touch()
    (tmp_path / "to a").symlink_to("a")
    (tmp_path / "nowhere").symlink_to("absent")
    os.mkfifo(tmp_path / "pipe")
    assert folders_in(tmp_path) == ["a", "b", "to a"]
    assert others_in(tmp_path) == ["10", "2", "nowhere", "pipe"]
    assert all_in(tmp_path) == ["10", "2", "a", "b", "nowhere", "pipe", "to a"]


def test_what_is_no_folder_holds_nothing(tmp_path):
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    for name in ("file", "pipe", "absent", "absent/deeper"):
        assert folders_in(tmp_path / name) == others_in(tmp_path / name) == []


def test_a_folder_that_cannot_be_read_is_told(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(UserError, match="loop' is not"):
        all_in(tmp_path / "loop")


def test_files_know_their_group():
    listing = Listing.of({"": ["x"], "a": ["1", "2"], "empty": [], "b": ["1"]})
    assert len(listing) == 4
    assert listing.names == ("x", "1", "2", "1")
    assert [listing.group(index) for index in range(4)] == ["", "a", "a", "b"]
