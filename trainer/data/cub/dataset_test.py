import os
import pickle
import shutil

import pytest

from trainer.data.cub.dataset import open_dataset, recognises
from trainer.data.cub.sample import write_sample
from trainer.errors import BadItem, UserError

FIRST = "001.Black_footed_Albatross/Black_footed_Albatross_0001_796001"


@pytest.fixture
def root(tmp_path):
    write_sample(tmp_path)
    return tmp_path


def table(root, name):
    return root / "CUB_200_2011" / f"{name}.txt"


def edit(root, name, *changes):
    """Replaces lines, which must be there, or adds some (old is ""); new None removes."""
    lines = table(root, name).read_text().splitlines()
    for old, new in changes:
        place = lines.index(old) if old else len(lines)
        lines[place : place + 1] = [] if new is None else [new]
    table(root, name).write_text("\n".join(lines) + "\n")


def keys(dataset):
    return {
        dataset.key(split, index): (split, index)
        for split, count in dataset.splits.items()
        for index in range(count)
    }


def refused(root):
    """key -> reason of each item that is refused; all others can be read."""
    dataset = open_dataset(root)
    reasons = {}
    for key, place in keys(dataset).items():
        try:
            dataset.read(*place)
        except BadItem as error:
            assert error.expected
            reasons[key] = error.reason
    return reasons


def test_an_example_has_what_the_tables_say(root):
    edit(root, "bounding_boxes", ("1 6.0 8.0 30.0 20.0", "1 6.5 8.25 30.0 20.0"))
    dataset = open_dataset(root)
    assert dataset.class_names == (
        "Black footed Albatross",
        "Laysan Albatross",
        "Red faced Cormorant",
    )
    assert dataset.key("train", 0) == f"images/{FIRST}.jpg"
    example = dataset.read("train", 0)
    assert example["image"] == (root / f"CUB_200_2011/images/{FIRST}.jpg").read_bytes()
    assert example["label"] == 0
    assert example["box"].tolist() == [6.5, 8.25, 36.5, 28.25]
    assert len(example["text"]) == 10
    assert example["text"][0] == b"a black bird in picture 0, said in 2 words"
    assert [dataset.read("test", index)["label"] for index in range(6)] == [0, 0, 1, 1, 2, 2]


def test_the_split_is_that_of_the_table(root):
    assert open_dataset(root).splits == {"train": 12, "test": 6}
    edit(root, "train_test_split", ("1 1", "1 0"))
    dataset = open_dataset(root)
    assert dataset.splits == {"train": 11, "test": 7}
    assert dataset.key("test", 0) == f"images/{FIRST}.jpg"


def test_the_folder_itself_and_the_one_around_it_may_be_given(root):
    outer, inner = open_dataset(root), open_dataset(root / "CUB_200_2011")
    assert keys(outer) == keys(inner)
    assert recognises(root) and recognises(root / "CUB_200_2011")
    assert not recognises(root / "CUB_200_2011" / "images")
    assert len(inner.read("train", 0)["text"]) == 0  # the captions are outside of the root
    (root / "text_c10").rename(root / "CUB_200_2011" / "text_c10")
    for place in (root, root / "CUB_200_2011"):
        assert len(open_dataset(place).read("train", 0)["text"]) == 10


def test_without_captions_there_are_none_and_the_description_says_so(root):
    assert "none on this disk" not in open_dataset(root).features["text"].description
    shutil.rmtree(root / "text_c10")
    dataset = open_dataset(root)
    text = dataset.read("train", 0)["text"]
    assert (text.shape, text.dtype) == ((0,), object)
    assert "none on this disk" in dataset.features["text"].description


@pytest.mark.parametrize(
    ("content", "captions"),
    [
        (b"a\nb", [b"a", b"b"]),
        (b"a\r\nb\r\n", [b"a", b"b"]),
        (b" a \nb\n\n\n", [b"a", b"b"]),
        (b"a\n\nb\n", [b"a", b"", b"b"]),
        (b"", [b""]),
        (b"\xff", [b"\xff"]),
    ],
)
def test_captions_are_lines(root, content, captions):
    (root / "text_c10" / f"{FIRST}.txt").write_bytes(content)
    assert open_dataset(root).read("train", 0)["text"].tolist() == captions


def test_a_picture_whose_captions_are_missing_is_refused(root):
    (root / "text_c10" / f"{FIRST}.txt").unlink()
    assert refused(root) == {f"images/{FIRST}.jpg": "its captions: there is no such file"}


def test_captions_of_millions_of_lines_are_refused(root):
    (root / "text_c10" / f"{FIRST}.txt").write_bytes(b"\n" * 2**24 + b"a")
    assert "its captions have 16,777,217 bytes" in refused(root)[f"images/{FIRST}.jpg"]


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("image_class_labels", [("1 1", "")], "image_class_labels.txt has no line for image 1"),
        ("image_class_labels", [("1 1", "x1 1")], "image_class_labels.txt has no line for image 1"),
        ("image_class_labels", [("1 1", "1 2")], "has class '2' for it, but it lies in 001.Black"),
        ("image_class_labels", [("1 1", "1 4")], "has class '4' for it, but it lies in 001.Black"),
        ("image_class_labels", [("1 1", "1")], "has class '' for it"),
        ("image_class_labels", [("", "1 1")], "image_class_labels.txt has several lines for image"),
        ("bounding_boxes", [("1 6.0 8.0 30.0 20.0", "")], "bounding_boxes.txt has no line for"),
        ("bounding_boxes", [("1 6.0 8.0 30.0 20.0", "1 6 8 30")], "not four numbers"),
        ("bounding_boxes", [("1 6.0 8.0 30.0 20.0", "1 6 8 30 nan")], "not four numbers"),
        ("bounding_boxes", [("1 6.0 8.0 30.0 20.0", "1 6 8 30 inf")], "not four numbers"),
        ("bounding_boxes", [("1 6.0 8.0 30.0 20.0", "1 6 8 30 2_0")], "not four numbers"),
        ("bounding_boxes", [("1 6.0 8.0 30.0 20.0", "1 6 8 30 ２")], "not four numbers"),
        ("bounding_boxes", [("1 6.0 8.0 30.0 20.0", "1 6 8 30 1e999")], "no place in pixels"),
        ("bounding_boxes", [("1 6.0 8.0 30.0 20.0", "1 -1e30 8 30 2")], "no place in pixels"),
        ("train_test_split", [("1 1", "1 2")], "train_test_split.txt has '2' for image 1, not"),
        ("train_test_split", [("1 1", None)], "train_test_split.txt has no line for image 1"),
    ],
)
def test_an_image_that_the_tables_do_not_agree_on_is_refused(root, name, changes, reason):
    edit(root, name, *changes)
    reasons = refused(root)
    assert list(reasons) == [f"images/{FIRST}.jpg"]
    assert reason in reasons[f"images/{FIRST}.jpg"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("x " + FIRST + ".jpg", {"images.txt#1", "image_class_labels.txt#1"}),
        ("1", {"images.txt#1"}),
        ("2 " + FIRST + ".jpg", {"images.txt#2", "image_class_labels.txt#1"}),
        ("99 " + FIRST + ".jpg", {f"images/{FIRST}.jpg", "image_class_labels.txt#1"}),
        ("1 ../images.txt", {"images/../images.txt"}),
        ("1 /etc/passwd", {"images//etc/passwd"}),
        ("1 001.Black_footed_Albatross/../x.jpg", {"images/001.Black_footed_Albatross/../x.jpg"}),
        ("1 001.Black_footed_Albatross/", {"images/001.Black_footed_Albatross/"}),
        ("1 004.Auk/a.jpg", {"images/004.Auk/a.jpg"}),
        (
            "1 001.Black_footed_Albatross/absent.jpg",
            {"images/001.Black_footed_Albatross/absent.jpg"},
        ),
    ],
)
def test_a_wrong_line_of_images_is_told_and_its_image_is_not_lost(root, line, expected):
    edit(root, "images", (f"1 {FIRST}.jpg", line))
    assert set(refused(root)) == expected
    assert sum(open_dataset(root).splits.values()) == 17 + len(expected)


def test_names_that_are_no_text_get_a_key_that_is(root):
    folder = root / "CUB_200_2011" / "images" / "001.Black_footed_Albatross"
    name = os.fsdecode(b"\xff \xc3\xa9.jpg")
    (root / "CUB_200_2011" / "images" / f"{FIRST}.jpg").rename(folder / name)
    path = table(root, "images")
    _, rest = path.read_bytes().split(b"\n", 1)
    path.write_bytes(b"1 001.Black_footed_Albatross/\xff \xc3\xa9.jpg\n" + rest)
    captions = root / "text_c10" / "001.Black_footed_Albatross"
    (root / "text_c10" / f"{FIRST}.txt").rename(captions / os.fsdecode(b"\xff \xc3\xa9.txt"))
    assert refused(root) == {}
    key = "images/001.Black_footed_Albatross/\\xff é.jpg"
    assert open_dataset(root).key("train", 0) == key


def test_blank_lines_and_windows_line_ends_do_no_harm(root):
    for name in ("images", "classes", "bounding_boxes"):
        content = table(root, name).read_bytes().replace(b"\n", b"\r\n")
        table(root, name).write_bytes(b"\r\n" + content + b"\n \n")
    assert refused(root) == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "must number the classes from 1"),
        ("1 a\n3 b\n", "must number the classes from 1"),
        ("0 a\n1 b\n", "must number the classes from 1"),
        ("1 a\n1 b\n", "must number the classes from 1"),
        ("1 a\nx b\n", "must number the classes from 1"),
        ("1 a\n2\n", "must name every class"),
        ("1 001.a_b\n2 002.a b\n", "must give classes different names; its 2 have 1"),
    ],
)
def test_classes_that_are_not_right_are_told(root, content, message):
    table(root, "classes").write_text(content)
    with pytest.raises(UserError, match=message):
        open_dataset(root)


def test_a_missing_table_is_named(root):
    table(root, "train_test_split").unlink()
    with pytest.raises(UserError, match=r"lacks train_test_split\.txt"):
        open_dataset(root)
    table(root, "bounding_boxes").unlink()
    assert not recognises(root)


def test_a_table_out_of_the_root_or_too_large_is_told(root):
    outside = root.with_name("outside.txt")
    table(root, "classes").rename(outside)
    table(root, "classes").symlink_to(outside)
    with pytest.raises(UserError, match=r"CUB_200_2011/classes\.txt must be a table .* leads out"):
        open_dataset(root)
    table(root, "classes").unlink()
    table(root, "classes").write_bytes(b"\n" * (2**24 + 1))
    with pytest.raises(UserError, match="of at most 16,777,216 bytes; it has 16,777,217"):
        open_dataset(root)


def test_a_copy_in_another_process_reads_the_same(root):
    dataset = open_dataset(root)
    copy = pickle.loads(pickle.dumps(dataset))  # noqa: S301
    assert repr(copy.read("test", 5)) == repr(dataset.read("test", 5))
