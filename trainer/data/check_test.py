import io

import numpy as np
import pytest
from PIL import Image

from trainer.data.check import check_example
from trainer.data.images import encode_png
from trainer.dataset import Feature
from trainer.errors import BadItem

FEATURES = {
    "image": Feature("bytes", content="image"),
    "mask": Feature("bytes", (None,), content="mask"),
    "box": Feature("float32", (None, 4), content="box"),
    "label": Feature("int64", (None,), content="label"),
    "text": Feature("bytes", (None,), content="text"),
    "area": Feature("float32"),
}


def objects(*values):
    array = np.empty(len(values), object)
    array[:] = values
    return array


def picture(width=30, height=20):
    return encode_png(np.zeros((height, width, 1), np.uint8))


def turned(width, height, orientation):
    block, file = Image.Exif(), io.BytesIO()
    block[0x0112] = orientation
    Image.new("L", (width, height)).save(file, "PNG", exif=block)
    return file.getvalue()


def example(**changes):
    return {
        "image": picture(),
        "mask": objects(picture(), picture()),
        "box": np.array([[0, 0, 30, 20], [1.5, 2, 3, 4]], np.float32),
        "label": np.array([0, 2]),
        "text": objects(b"a bird", "犬".encode()),
        "area": 1.0,
        **changes,
    }


def boxes(*corners):
    return np.array([corners], np.float32)


def test_what_holds_goes_through_as_it_is():
    stored, changes = check_example(FEATURES, example(), "a.png", 3)
    assert changes == []
    for name, value in example().items():
        np.testing.assert_array_equal(stored[name], value)


def test_nothing_of_a_kind_is_no_fault():
    nothing = example(
        mask=objects(), text=objects(), box=np.zeros((0, 4), np.float32), label=np.zeros(0, int)
    )
    stored, _ = check_example(FEATURES, nothing, "a", 3)
    assert stored["box"].shape == (0, 4)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"image": b""}, "the file is empty"),
        ({"mask": objects(picture(), picture(20, 30))}, "mask 1 has 20 × 30 pixels, the image 30"),
        ({"mask": objects(b"")}, r"mask 0: the file is empty"),
        ({"mask": objects(picture()[:-12])}, "mask 0: the image is truncated"),
        ({"mask": objects(turned(30, 20, 3))}, r"mask 0 asks viewers to turn it"),
        ({"box": boxes(0, 0, np.nan, 2)}, "box 0 has a corner that is NaN"),
        ({"box": boxes(0, -np.inf, 2, 2)}, "box 0 has a corner that is NaN or infinite"),
        ({"box": boxes(5, 0, 4, 2)}, r"box 0 is inverted or empty: \(5, 0, 4, 2\)"),
        ({"box": boxes(0, 7, 4, 7)}, "box 0 is inverted or empty"),
        ({"box": boxes(0, 0, 31.5, 2)}, r"box 0 reaches out of the image: \(0, 0, 31.5, 2\)"),
        ({"box": boxes(0, -1.5, 3, 2)}, "box 0 reaches out"),
        ({"box": boxes(30, 0, 30.5, 2)}, "box 0 reaches out"),  # within the overhang, yet outside
        ({"box": boxes(-1, 0, -0.5, 2)}, "box 0 reaches out"),
        ({"label": np.array([0, 3])}, "label is 3"),
        ({"label": np.array([-1])}, "label is -1"),
        ({"text": objects(b"a", b" \n")}, "text 1 is empty"),
        ({"text": objects(b"\xff")}, "text 0 is not UTF-8"),
        ({"area": float("nan")}, "area has a value that is NaN"),
    ],
)
def test_what_does_not_hold_is_refused_with_the_reason(changes, reason):
    with pytest.raises(BadItem, match=reason) as error:
        check_example(FEATURES, example(**changes), "a", 3)
    assert error.value.expected


def test_a_little_overhang_is_cut_off():
    stored, _ = check_example(FEATURES, example(box=boxes(-0.5, -1, 30.9, 20)), "a", 3)
    np.testing.assert_array_equal(stored["box"], boxes(0, 0, 30, 20))
    assert stored["box"].dtype == np.float32


@pytest.mark.parametrize("content", ["box", "mask"])
def test_nobody_knows_where_boxes_of_a_turned_picture_are(content):
    nothing = example(mask=objects(), box=np.zeros((0, 4), np.float32), image=turned(30, 20, 3))
    _, changes = check_example(FEATURES, nothing, "a", 3)
    assert changes == ["turned upright: EXIF orientation 3"]
    some = {**nothing, content: example()[content]}
    with pytest.raises(BadItem, match=f"EXIF orientation is 3, and {content} may be drawn on"):
        check_example(FEATURES, some, "a", 3)


def test_a_mask_that_lies_on_its_side_tells_how_it_was_drawn():
    features = {name: FEATURES[name] for name in ("image", "mask")}
    mask = objects(picture(30, 20))
    upright = {"image": turned(20, 30, 6), "mask": mask}  # 30 × 20 when turned
    stored, changes = check_example(features, upright, "a", 3)
    assert changes == ["turned upright: EXIF orientation 6"]
    assert Image.open(io.BytesIO(stored["image"])).size == (30, 20)
    with pytest.raises(BadItem, match="the image 20 × 30 after it was turned upright"):
        check_example(features, {"image": turned(30, 20, 6), "mask": mask}, "a", 3)
    square = {"image": turned(20, 20, 6), "mask": objects(picture(20, 20))}
    with pytest.raises(BadItem, match="before or after it is turned"):
        check_example(features, square, "a", 3)


def test_single_values_are_checked_as_lists_are():
    features = {
        "box": Feature("float32", (4,), content="box"),
        "label": Feature("int64", content="label"),
        "text": Feature("bytes", content="text"),
    }
    good = {"box": boxes(0, 0, 9e3, 9e3)[0], "label": 10**6, "text": b"a"}
    stored, _ = check_example(features, good, "a", 0)
    np.testing.assert_array_equal(stored["box"], good["box"])
    for name, value, reason in (
        ("box", boxes(1, 0, 1, 1)[0], "^box is inverted"),
        ("label", -1, "^label is -1; expected 0 or more"),
        ("text", b"", "^text is empty"),
    ):
        with pytest.raises(BadItem, match=reason):
            check_example(features, {**good, name: value}, "a", 0)
