import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from components.create_tfrecords.create_tfrecords import create_tfrecords
from trainer.data import gallery
from trainer.data.gallery import content_of, feature_table, groups, rows, write_gallery
from trainer.data.images import encode_png
from trainer.data.manifest import CHANGES, QUARANTINE, read_manifest
from trainer.dataset import Feature
from trainer.errors import UserError

VOID = {"meta", "img", "input", "br", "link", "hr", "col"}
SCRIPT = "<script>alert('&')</script>"
EVERYTHING = {
    "key": Feature("bytes", description="name"),
    "image": Feature("bytes", content="image"),
    "box": Feature("float32", (None, 4), content="box"),
    "label": Feature("int64", (None,), content="label"),
    "mask": Feature("bytes", (None,), content="mask"),
    "text": Feature("bytes", (None,), content="text"),
    "area": Feature("float32", (None,)),
}


def texts(*values):
    array = np.empty(len(values), object)
    array[:] = [value if isinstance(value, bytes) else value.encode() for value in values]
    return array


def png(height=40, width=80, value=200):
    return encode_png(np.full((height, width, 3), value, np.uint8))


def mask(top, bottom, height=40, width=80):
    array = np.zeros((height, width, 1), np.uint8)
    array[top:bottom] = 255
    return encode_png(array)


def everything(
    key="写真/α.png", boxes=((0, 0, 40, 20), (20, 10, 80, 40)), labels=(1, 0), captions=()
):
    return {
        "key": key.encode(),
        "image": png(),
        "box": np.array(boxes, np.float32).reshape(-1, 4),
        "label": np.array(labels, np.int64),
        "mask": texts(*(mask(5 * n, 5 * n + 5) for n in range(len(labels)))),
        "text": texts(*captions),
        "area": np.arange(len(labels), dtype=np.float32),
    }


class Page(HTMLParser):
    """A page: its elements in order as (tag, attributes), and the text within it."""

    def __init__(self, path):
        super().__init__(convert_charrefs=True)
        self.elements, self.open, self.text = [], [], ""
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data

    def of(self, tag, kind=None):
        return [a for t, a in self.elements if t == tag and kind in (None, a.get("class"))]


def check(page):
    """What must hold for every page: it needs nothing else, runs nothing, and has texts for all."""
    assert page.of("script") == []
    policy = page.of("meta")[1]["content"]
    assert "default-src 'none'" in policy
    for _, attributes in page.elements:
        assert not any(name.startswith("on") for name in attributes)
        assert attributes.get("src", "data:image/").startswith("data:image/")
        if "href" in attributes:
            assert re.match(r"#|https?://", attributes["href"])
    for image in page.of("img"):
        assert "alt" in image
        content = base64.b64decode(image["src"].partition(",")[2])
        with Image.open(io.BytesIO(content)) as opened:
            opened.load()
            assert max(opened.size) <= 320
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for link in page.of("a"):
        if link["href"].startswith("#"):
            assert link["href"][1:] in ids


@pytest.fixture
def show(tmp_path):
    def write(folder, most=25, split=""):
        count = write_gallery(folder, tmp_path / "page.html", most, split)
        page = Page(tmp_path / "page.html")
        check(page)
        return count, page

    return write


@pytest.mark.parametrize(
    "name", ["cifar10", "coco_instances", "coco_panoptic", "cub", "image_folder", "msra10k"]
)
def test_samples_of_datasets_are_shown(name, tmp_path, show):
    module = __import__(f"trainer.data.{name}.sample", fromlist=["write_sample"])
    counts = module.write_sample(tmp_path / "data")
    create_tfrecords(str(tmp_path / "examples"), str(tmp_path / "data"), name)
    manifest = read_manifest(tmp_path / "examples")
    written, page = show(tmp_path / "examples", 10)
    total = min(10, sum(counts.values()))
    assert written == total
    pictures = [image for image in page.of("img") if image.get("class") != "layer"]
    assert len(pictures) == total
    assert all(image["alt"] for image in pictures)
    assert "cannot be shown" not in page.text
    shown = rows(tmp_path / "examples", 10)
    assert len(shown) == total
    if "box" in manifest.features:
        assert sum(row.boxes for row in shown) > 0
        assert page.of("div", "box")
    if "mask" in manifest.features:
        assert page.of("img", "layer")
    if "text" in manifest.features:
        assert len(page.of("q")) == sum(len(row.texts) for row in shown) > 0


def test_boxes_lie_where_they_are_and_have_names(tmp_path, write_examples, show):
    folder = write_examples(tmp_path / "a", {"train": [everything()]}, EVERYTHING, 1)
    _, page = show(folder)
    styles = [dict(re.findall(r"([\w-]+): ([^;]+)", box["style"])) for box in page.of("div", "box")]
    places = [[style[side] for side in ("left", "top", "width", "height")] for style in styles]
    # The larger box is drawn first, so that the smaller one lies above it.
    assert places == [["25.0%", "25.0%", "75.0%", "75.0%"], ["0.0%", "0.0%", "50.0%", "50.0%"]]
    assert [style["--colour"] for style in styles] == [gallery.colour(1), gallery.colour(0)]
    assert re.findall(r'"box".*<b>(\w+)</b>', page.source) == ["cat", "dog"]
    (picture,) = [image for image in page.of("img") if "class" not in image]
    assert picture["alt"] == "写真/α.png; dog, cat; 2 boxes; 2 masked regions"
    assert "80 × 40 PNG, 2 boxes, 2 masked regions" in page.text
    assert len(page.of("img", "layer")) == 1
    # Two labels of boxes are no class of the picture.
    assert page.of("bdi", "label") == []


def test_text_of_any_kind_is_shown_as_text(tmp_path, write_examples, show):
    captions = (SCRIPT, "طائر", "\x1b[31mred\x00", "back\u202ewards", b"\xff\xfe")
    folder = write_examples(
        tmp_path / SCRIPT.replace("/", "_"),
        {"train": [everything(key=f"{SCRIPT}.png", captions=captions)]},
        EVERYTHING,
        1,
        refused=[{"split": "train", "key": SCRIPT, "reason": SCRIPT, "expected": SCRIPT}],
        class_names=(SCRIPT, '"quoted"'),
        title=SCRIPT,
        licence=SCRIPT,
        homepage=f"javascript:alert(1) http://a.example/{SCRIPT}, https://b.example/.",
        notes=(SCRIPT,),
    )
    _, page = show(folder)
    assert page.text.count(SCRIPT) >= 9
    assert "طائر" in page.text
    assert "�[31mred�" in page.text
    assert "back�wards" in page.text
    assert "\\xff\\xfe" in page.text
    links = [link["href"] for link in page.of("a") if not link["href"].startswith("#")]
    assert links == [f"http://a.example/{SCRIPT}", "https://b.example/"]


def test_an_example_without_boxes_or_captions_is_shown(tmp_path, write_examples, show):
    example = everything(boxes=(), labels=())
    folder = write_examples(tmp_path / "a", {"train": [example]}, EVERYTHING, 1)
    _, page = show(folder)
    assert page.of("img", "layer") == []
    assert [image["alt"] for image in page.of("img")] == ["写真/α.png"]
    (row,) = rows(folder, 5)
    assert (row.boxes, row.masks, row.texts, row.label) == (0, 0, (), "")


def test_a_box_that_is_not_finite_or_lies_outside_does_no_harm(tmp_path, write_examples, show):
    boxes = ((np.nan, 0, 1, 1), (-50, -50, 1000, 1000), (70, 30, 10, 5))
    example = everything(boxes=boxes, labels=(0, 1, 7))
    folder = write_examples(tmp_path / "a", {"train": [example]}, EVERYTHING, 1)
    _, page = show(folder)
    assert len(page.of("div", "box")) == 2
    assert "left: 0.0%; top: 0.0%; width: 100.0%; height: 100.0%" in page.source
    assert "3 boxes, 2 of them drawn" in page.text
    assert re.findall(r'"box".*<b>(\w+)</b>', page.source) == ["dog", "7"]


def test_what_cannot_be_decoded_is_said_and_the_others_are_shown(tmp_path, write_examples, show):
    bad = {**everything("bad"), "image": b"no picture", "mask": texts(b"no mask")}
    folder = write_examples(tmp_path / "a", {"train": [bad, everything("good")]}, EVERYTHING, 1)
    count, page = show(folder)
    assert count == 2
    assert "image cannot be shown: no picture" in page.text
    assert "mask cannot be shown: no picture" in page.text
    assert len([image for image in page.of("img") if "class" not in image]) == 1
    assert rows(folder, 2)[0].pictures[0].startswith("no picture")


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_transformed_examples_are_pictures_too(tmp_path, write_examples, show, dtype):
    features = {
        "key": Feature("bytes"),
        "image": Feature(dtype, (8, 10, 3), "raw"),
        "photo": Feature(dtype, (6, 6, 1), "raw"),
        "mask": Feature("uint8", (8, 10), "raw"),
        "vector": Feature("float32", (20,), "raw"),
    }
    part = np.zeros((8, 10), np.uint8)
    part[2:5] = 1
    example = {
        "key": b"a",
        "image": np.full((8, 10, 3), 1, dtype),
        "photo": np.full((6, 6, 1), 1, dtype),
        "mask": part,
        "vector": np.arange(20, dtype=np.float32),
    }
    folder = write_examples(
        tmp_path / "a", {"train": [example]}, features, 1, split_features={"test": features}
    )
    _, page = show(folder)
    pictures = [image for image in page.of("img") if "class" not in image]
    assert [picture["alt"] for picture in pictures] == ["a; 1 masked region", ""]
    assert len(page.of("img", "layer")) == 1
    assert f"10 × 8 {dtype}, 6 × 6 {dtype}, 1 masked region" in page.text
    assert "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, … (20)" in page.text
    assert "Classes" not in page.text


def labelled(labels, split="train"):
    return [
        {"key": f"{split}/{n}".encode(), "image": png(8, 8), "label": label}
        for n, label in enumerate(labels)
    ]


def bars(page):
    table = re.search(r'<table class="bars">.*?</table>', page.source, re.DOTALL)[0]
    return re.findall(r"<bdi>(.*?)</bdi>.*?<b[^>]*>([\d,]+)</b>.*?<b[^>]*>([\d,]+)</b>", table)


def test_classes_are_counted_in_every_split(tmp_path, write_examples, show):
    splits = {"train": labelled([0, 0, 0, 1]), "test": labelled([1, 4], "test")}
    folder = write_examples(tmp_path / "a", splits)
    _, page = show(folder, 1)
    assert bars(page) == [("cat", "3", "0"), ("dog", "1", "1"), ("4", "0", "1")]
    assert page.source.count('<b class="absent">0</b>') == 2


def test_of_many_classes_the_ends_are_shown(tmp_path, write_examples, show):
    names = tuple(f"class {n}" for n in range(60))
    labels = [*range(50), *([7] * 5), *([3] * 9)]
    splits = {"train": labelled(labels), "test": labelled([3], "test")}
    folder = write_examples(tmp_path / "a", splits, class_names=names)
    _, page = show(folder, 0)
    assert bars(page)[:3] == [("class 3", "10", "1"), ("class 7", "6", "0"), ("class 0", "1", "0")]
    assert "most frequent 10, median 1, rarest 0; 10 without an example" in page.text
    assert page.text.count("class 59") == 1


def test_where_there_are_too_many_to_count_it_says_so(tmp_path, write_examples, show, monkeypatch):
    monkeypatch.setattr(gallery, "COUNTED", 5)
    splits = {"train": labelled([0] * 10), "test": labelled([1], "test")}
    _, page = show(write_examples(tmp_path / "a", splits))
    assert "Of train, 5 examples of 10 were counted, evenly spaced." in page.text
    assert bars(page) == [("cat", "5", "0"), ("dog", "0", "1")]


def test_examples_are_spread_over_all_splits_and_always_the_same(tmp_path, write_examples, show):
    splits = {"train": labelled([0] * 40), "validation": [], "test": labelled([1] * 3, "test")}
    folder = write_examples(tmp_path / "a", splits, shards=1)
    count, page = show(folder, 10)
    assert count == 10
    keys = re.findall(r"<code><bdi>(.*?)</bdi>", page.source)
    assert keys == [*(f"train/{n * 40 // 7}" for n in range(7)), "test/0", "test/1", "test/2"]
    assert show(folder, 10)[1].source == page.source
    count, page = show(folder, 4, "test")
    assert count == 3
    assert [row.key for row in rows(folder, 2, "train")] == ["train/0", "train/1"]
    assert [row.key for row in rows(folder, 5)][2:] == ["train/2", "test/0", "test/1"]
    with pytest.raises(UserError, match="must be one of train, validation, test; got 'other'"):
        show(folder, 4, "other")


def test_reasons_of_one_kind_are_one_group(tmp_path, write_examples, show):
    refused = [
        {"split": split, "key": f"{n}.gif", "reason": reason, "expected": "a picture"}
        for n, (split, reason) in enumerate(
            [
                ("train", "an animated GIF (2 frames)"),
                ("train", "the file is empty (0 bytes)"),
                ("test", "an animated GIF (17 frames)"),
                ("train", "not an image; the file begins with b'GIF89a\\x00'"),
                ("train", "an animated GIF (2 frames)"),
                ("test", "an animated GIF (2 frames)"),
            ]
        )
    ]
    changed = [{"split": "train", "key": "a", "change": "turned by 90 degrees"}]
    folder = write_examples(
        tmp_path / "a", {"train": labelled([0])}, refused=refused, changed=changed
    )
    found = groups(folder, QUARANTINE)
    assert [(group.count, group.reason) for group in found] == [
        (4, "an animated GIF (… frames)"),
        (1, "not an image; the file begins with b'GIF89a\\x00'"),
        (1, "the file is empty (0 bytes)"),
    ]
    assert dict(found[0].splits) == {"train": 2, "test": 2}
    assert found[0].keys == ("0.gif", "2.gif", "4.gif")
    assert found[0].expected == "a picture"
    (change,) = groups(folder, CHANGES)
    assert (change.count, change.reason) == (1, "turned by 90 degrees")
    _, page = show(folder)
    assert "an animated GIF (… frames)" in page.text
    assert "an animated GIF (17 frames)" in page.text
    assert "All 6, one by one" in page.text
    assert "turned by 90 degrees" in page.text


def test_no_more_kinds_of_reasons_are_kept_than_a_person_would_read(tmp_path, write_examples):
    letters = [chr(ord("a") + n // 26) + chr(ord("a") + n % 26) for n in range(150)]
    refused = [{"split": "train", "key": k, "reason": f"no {k}", "expected": ""} for k in letters]
    folder = write_examples(tmp_path / "a", {"train": labelled([0])}, refused=refused)
    found = groups(folder, QUARANTINE)
    assert len(found) == 101
    assert (found[0].reason, found[0].count) == ("other reasons", 50)


def test_features_that_differ_between_splits_are_listed_apart(tmp_path, write_examples):
    features = {"key": Feature("bytes"), "image": Feature("uint8", (2, 2, 3), "raw")}
    folder = write_examples(
        tmp_path / "a",
        {"train": [], "test": []},
        features,
        split_features={"train": {"key": features["key"], "image": Feature("bytes")}},
    )
    table = [
        (f["name"], f["shape"], f["kept"], f["splits"])
        for f in feature_table(read_manifest(folder))
    ]
    assert table == [
        ("key", "", "list", ""),
        ("image", "", "list", "train"),
        ("image", "2 × 2 × 3", "raw bytes", "test"),
    ]


def test_content_is_told_by_the_name_where_it_is_not_declared():
    assert content_of("box", Feature("float32", (4,))) == "box"
    assert content_of("other", Feature("float32", (4,), content="box")) == "box"
    assert content_of("other", Feature("float32", (4,))) == ""


def test_a_page_that_cannot_be_written_is_told(tmp_path, write_examples):
    folder = write_examples(tmp_path / "a", {"train": labelled([0])})
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="must be a file that can be written"):
        write_gallery(folder, tmp_path / "file" / "page.html", 1)
