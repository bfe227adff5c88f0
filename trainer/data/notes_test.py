import json

import pytest

from trainer.data.notes import MAX_LINE, note_line, read_notes
from trainer.errors import UserError

ENTRIES = [
    {"split": "train", "key": "a/写真.png", "reason": "empty", "expected": "a picture"},
    {"split": "test", "key": "b", "reason": "no image\u2028", "expected": ""},
]


def write(path, lines):
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def test_entries_come_back_in_order(tmp_path):
    lines = [json.dumps(entry, ensure_ascii=False) for entry in ENTRIES]
    assert list(read_notes(write(tmp_path / "a", lines))) == ENTRIES


def test_an_entry_is_one_line_whoever_counts_them(tmp_path):
    names = "a\u0085b\u2028c\u2029d\ne\r\x0c\x1c"
    lines = [note_line({**entry, "key": names}) for entry in ENTRIES]
    text = "".join(lines)
    assert len(text.splitlines()) == len(text.split("\n")) - 1 == 2
    assert "写真" in note_line(ENTRIES[0])
    (tmp_path / "a").write_text(text, encoding="utf-8")
    assert [entry["key"] for entry in read_notes(tmp_path / "a")] == [names, names]


def test_there_may_be_no_file_and_no_entry(tmp_path):
    assert list(read_notes(tmp_path / "none")) == []
    assert list(read_notes(write(tmp_path / "a", []))) == []


@pytest.mark.parametrize(
    "line", ["{", "[]", "3", '{"split": "train"}', "[" * 100_000, '{"key": "' + "x" * MAX_LINE]
)
def test_a_line_that_is_no_entry_is_named(tmp_path, line):
    path = write(tmp_path / "a", [json.dumps(ENTRIES[0]), line])
    with pytest.raises(UserError, match="line 2 begins with") as error:
        list(read_notes(path))
    assert len(str(error.value)) < 500


def test_what_is_no_file_is_told(tmp_path):
    with pytest.raises(UserError, match="it is not a file but something else"):
        list(read_notes(tmp_path))
