import json

import pytest

from trainer.data.coco_detection import json_stream
from trainer.data.coco_detection.json_stream import read_lists
from trainer.errors import UserError


def read(path, content, names=("a", "b")):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(read_lists(path, names))


@pytest.fixture
def file(tmp_path):
    return tmp_path / "file.json"


def test_elements_come_with_their_text(file):
    found = read(file, ' {"x": {"a": [9]}, "b" : [ 1.50 ,{"k":"v"}\n], "y": 7,"a":[]} \n')
    assert found == [("b", 1.5, "1.50"), ("b", {"k": "v"}, '{"k":"v"}')]


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 1000])
def test_it_does_not_matter_where_the_window_ends(file, chunk, monkeypatch):
    monkeypatch.setattr(json_stream, "_CHUNK", chunk)
    document = {
        "n": 12345,
        "a": [1234567, -2.5e10, "é😀 [,]", [[]], {}],
        "b": [None, {"c": [1, 2]}],
    }
    for text in (json.dumps(document, ensure_ascii=False), json.dumps(document, indent=1)):
        found = read(file, text)
        assert [value for name, value, _ in found if name == "a"] == document["a"]
        assert [value for name, value, _ in found if name == "b"] == document["b"]
        assert all(json.loads(text) == value for _, value, text in found)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has '', not '{', at character 0"),
        ("[1]", r"has '\[', not '{', at character 0"),
        ("{}", "Expecting value.* at character 1"),
        ('{"a": [1], "b": [2]', "has '', not '}' or ',', at character 19"),
        ('{"a": [1 2]}', "has '2', not ']' or ',', at character 9"),
        ('{"a": [{"x": 1,}]}', "is cut short or damaged .* at character 15"),
        ('{"a": [1], "b": [2, "cut', r"\(Unterminated string starting at\) at character 20"),
        ('{"a": [1], "b": [2]} {', "goes on after its end at character 21"),
        ('{"a": [1], "a": [2]}', "has a second list 'a'"),
        ('{"a": [1], "b": null}', "has something else where the list 'b' must be"),
        ('{"a": [1], 5: 6}', "has something else where a name must be"),
        ('{"a": [1], "b" [2]}', "not ':', at character 15"),
        ('{"a": [' + "[" * 100_000, "nests too deep at character 7"),
        ('{"a": [' + "9" * 5000 + "]}", "has a value that cannot be used .* at character 7"),
        (b'{"a": ["\xff"]}', r"is not UTF-8 \(invalid start byte\) at character 8"),
        (b'{"a": ["x"], "b": ["\xe2\x82', r"is not UTF-8 \(unexpected end of data\)"),
        ('{"b": [1]}', "must have the list 'a'; it has none"),
    ],
)
def test_damage_is_told_with_its_place(file, content, message):
    with pytest.raises(UserError, match=message) as error:
        read(file, content)
    assert "file.json" in str(error.value)
    assert "\n" not in str(error.value)


def test_damage_far_from_the_end_is_found_without_reading_all(file, monkeypatch):
    monkeypatch.setattr(json_stream, "_CHUNK", 100)
    monkeypatch.setattr(json_stream, "LONGEST", 1000)
    with pytest.raises(UserError, match=r"cut short or damaged .* at character 11\."):
        read(file, '{"a": [1, {2: 3}, ' + "4, " * 10_000 + "5]}")
    with pytest.raises(UserError, match=r"Unterminated string starting at. at character 7"):
        read(file, '{"a": ["' + "x" * 10_000 + '"]}')
    assert len(read(file, '{"a": [' + " " * 10_000 + '1], "b": []}')) == 1


def test_a_file_that_cannot_be_read_is_told(tmp_path):
    with pytest.raises(UserError, match=r"must be readable; it is not \(Is a directory\)"):
        list(read_lists(tmp_path, ("a",)))
