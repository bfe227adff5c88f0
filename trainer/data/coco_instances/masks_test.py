import io
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from trainer.data.coco_instances import masks
from trainer.data.coco_instances.masks import draw, encode_mask
from trainer.errors import BadItem

HEIGHT, WIDTH = 12, 17


def refusal(segmentation, height=HEIGHT, width=WIDTH):
    with pytest.raises(BadItem) as error:
        draw(segmentation, height, width)
    assert error.value.expected
    return error.value.reason


def rectangle(left, top, right, bottom):
    return [left, top, right, top, right, bottom, left, bottom]


def expected(*slices):
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    for rows, columns in slices:
        mask[rows, columns] = 255
    return mask


def test_a_polygon_is_filled():
    drawn = draw([rectangle(2.0, 3.0, 6.0, 8.0)], HEIGHT, WIDTH)
    np.testing.assert_array_equal(drawn, expected((slice(3, 8), slice(2, 6))))
    assert drawn.dtype == np.uint8 and drawn.flags.c_contiguous


def test_polygons_are_united_where_they_overlap_as_well():
    drawn = draw([rectangle(0, 0, 4, 4), rectangle(2, 2, 8, 6)], HEIGHT, WIDTH)
    parts = expected((slice(0, 4), slice(0, 4)), (slice(2, 6), slice(2, 8)))
    np.testing.assert_array_equal(drawn, parts)


def test_what_reaches_over_the_edge_is_cut_off():
    drawn = draw([rectangle(-3, -5, 2, 400)], HEIGHT, WIDTH)
    np.testing.assert_array_equal(drawn, expected((slice(None), slice(0, 2))))
    assert not draw([rectangle(50, 50, 60, 60)], HEIGHT, WIDTH).any()


def test_an_outline_between_the_middles_of_pixels_has_none():
    assert not draw([rectangle(2.6, 2.6, 3.4, 3.4)], HEIGHT, WIDTH).any()


def test_run_lengths_go_down_the_columns_and_begin_with_background():
    counts = [13, 3, HEIGHT * WIDTH - 16]  # column 1 from row 1 on
    drawn = draw({"size": [HEIGHT, WIDTH], "counts": counts}, HEIGHT, WIDTH)
    np.testing.assert_array_equal(drawn, expected((slice(1, 4), slice(1, 2))))
    full = {"size": [HEIGHT, WIDTH], "counts": [0, HEIGHT * WIDTH]}
    assert draw(full, HEIGHT, WIDTH).min() == 255


def test_run_lengths_of_nothing_may_stand_between_others():
    counts = [0, 0, 12, 0, 0, 2, HEIGHT * WIDTH - 14]
    drawn = draw({"size": [HEIGHT, WIDTH], "counts": counts}, HEIGHT, WIDTH)
    np.testing.assert_array_equal(drawn, expected((slice(0, 2), slice(1, 2))))


@pytest.mark.parametrize("seed", range(20))
def test_packed_run_lengths_are_those_of_pycocotools(seed):
    generator = np.random.default_rng(seed)
    shape = generator.integers(1, 200, 2)
    mask = np.zeros(shape, np.uint8)
    if seed % 2:
        mask[shape[0] // 3 :, shape[1] // 4 : shape[1] // 2] = 1
    mask ^= generator.random(shape) < generator.choice([0, 0.001, 0.3])
    packed = coco_mask.encode(np.asfortranarray(mask))
    drawn = draw(
        {"size": list(map(int, packed["size"])), "counts": packed["counts"].decode()}, *shape
    )
    np.testing.assert_array_equal(drawn, mask * 255)


@pytest.mark.parametrize("seed", range(10))
def test_polygons_are_drawn_as_pycocotools_draws_them(seed):
    generator = np.random.default_rng(seed)
    polygons = [generator.uniform(-3, 25, 2 * n).round(2).tolist() for n in (3, 5, 40)]
    drawn = draw(polygons, HEIGHT, WIDTH)
    parts = coco_mask.decode(coco_mask.frPyObjects(polygons, HEIGHT, WIDTH))
    np.testing.assert_array_equal(drawn, parts.max(axis=2) * 255)


PIXELS = HEIGHT * WIDTH


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        (None, "its segmentation is neither polygons nor run lengths"),
        ("polygon", "its segmentation is neither polygons nor run lengths"),
        ([], "its segmentation is empty"),
        ([[]], "a polygon of it has no x and y of 3 points or more"),
        ([[1, 2, 3, 4]], "a polygon of it has no x and y of 3 points or more"),
        ([[1, 2, 3, 4, 5, 6, 7]], "a polygon of it has no x and y of 3 points or more"),
        ([1, 2, 3, 4, 5, 6], "a polygon of it has no x and y of 3 points or more"),
        ([{"size": [1, 2]}], "a polygon of it has no x and y of 3 points or more"),
        ([[1, 2, 3, 4, 5, "6"]], "a polygon of it has something that is not a number"),
        ([[1, 2, 3, 4, 5, None]], "a polygon of it has something that is not a number"),
        ([[1, 2, 3, 4, 5, True]], "a polygon of it has something that is not a number"),
        ([[1, 2, 3, 4, 5, [6]]], "a polygon of it has something that is not a number"),
        ([[1, 2, 3, 4, 5, float("nan")]], "a polygon of it has a number that is no place"),
        ([[1, 2, 3, 4, 5, float("inf")]], "a polygon of it has a number that is no place"),
        ([[1, 2, 3, 4, 5, 1e9]], "a polygon of it has a number that is no place"),
        ([[1, 2, 3, 4, 5, -(10**400)]], "a polygon of it has a number that is no place"),
        ([[0, 0, 9e5, 9e5, 0, 9e5]], "its outline is 2,700,003 pixels long"),
        ([[0, 0, 5, 5, 0, 5]] * 10_001, "its segmentation has 10,001 polygons"),
        ({}, "its run lengths are of another size"),
        ({"size": [WIDTH, HEIGHT], "counts": [PIXELS]}, "its run lengths are of another size"),
        ({"size": HEIGHT, "counts": [PIXELS]}, "its run lengths are of another size"),
        ({"size": [HEIGHT, WIDTH]}, "its run lengths are no list of whole numbers and no string"),
        ({"size": [HEIGHT, WIDTH], "counts": 7}, "its run lengths are no list of whole numbers"),
        ({"size": [HEIGHT, WIDTH], "counts": [204.0]}, "its run lengths are no list of whole"),
        ({"size": [HEIGHT, WIDTH], "counts": ["204"]}, "its run lengths are no list of whole"),
        ({"size": [HEIGHT, WIDTH], "counts": []}, "its run lengths do not add up to 12 × 17"),
        ({"size": [HEIGHT, WIDTH], "counts": [203]}, "its run lengths do not add up to 12 × 17"),
        ({"size": [HEIGHT, WIDTH], "counts": [205]}, "its run lengths do not add up to 12 × 17"),
        ({"size": [HEIGHT, WIDTH], "counts": [-1, 205]}, "its run lengths do not add up"),
        ({"size": [HEIGHT, WIDTH], "counts": [2**64, 204 - 2**64]}, "its run lengths do not add"),
        ({"size": [HEIGHT, WIDTH], "counts": ""}, "its run lengths do not add up"),
        ({"size": [HEIGHT, WIDTH], "counts": "\x00"}, "its run lengths are packed .* damaged"),
        ({"size": [HEIGHT, WIDTH], "counts": "é"}, "its run lengths are packed .* damaged"),
        ({"size": [HEIGHT, WIDTH], "counts": "oooooooooo0"}, "its run lengths are packed .* dam"),
        ({"size": [HEIGHT, WIDTH], "counts": "\\"}, "its run lengths are packed .* cut short"),
        ({"size": [HEIGHT, WIDTH], "counts": "O"}, "its run lengths are packed .* damaged"),
        ({"size": [HEIGHT, WIDTH], "counts": "0" * 10**6}, "its run lengths do not add up"),
    ],
)
def test_what_cannot_be_drawn_is_refused(segmentation, reason):
    assert re.match(reason, refusal(segmentation))


def test_masks_are_grey_png():
    mask = draw([rectangle(2, 3, 6, 8)], HEIGHT, WIDTH)
    with Image.open(io.BytesIO(encode_mask(mask))) as image:
        assert (image.format, image.mode) == ("PNG", "L")
        np.testing.assert_array_equal(np.asarray(image), mask)
    assert encode_mask(mask) == encode_mask(mask.copy())


FUZZ = """
import random, resource
from trainer.data.coco_instances.masks import draw
from trainer.errors import BadItem

resource.setrlimit(resource.RLIMIT_AS, (2 * 2**30, 2 * 2**30))
chance = random.Random(0)
odd = [0, -1, 0.5, 1e9, -1e18, 1e308, float("nan"), float("inf"), 2**31, 2**32, 2**63, 10**400,
       None, True, "7", [], {}]
drawn = refused = 0
for number in range(20_000):
    height, width = chance.choice([(1, 1), (1, 9), (9, 1), (40, 60)])
    pixels = height * width
    kind = chance.randrange(3)
    if kind == 0:
        sizes = chance.choices([0, 1, 2, 5, 6, 6, 8, 8, 30], k=chance.choice([0, 1, 1, 3]))
        content = [[chance.uniform(-90, 90) for _ in range(size)] for size in sizes]
        lists = content
    else:
        cuts = sorted(chance.choices(range(pixels + 1), k=chance.choice([0, 1, 5, 40])))
        counts = [end - begin for begin, end in zip([0, *cuts], [*cuts, pixels])]
        if kind == 1:
            lists = [counts]
        else:
            text = "".join(chr(chance.choice([*range(48, 112), 0, 47, 112, 300]))
                           for _ in range(chance.choice([0, 1, 2, 6, 50])))
            counts, lists = text, []
        content = {"size": [height, width], "counts": counts}
        if chance.random() < 0.1:
            content["size"] = chance.choice([[width, height], [0, 0], [2**40, 2**40], odd, None])
    for values in lists:
        if values and chance.random() < 0.3:
            values[chance.randrange(len(values))] = chance.choice(odd)
    try:
        mask = draw(content, height, width)
    except BadItem:
        refused += 1
    else:
        drawn += 1
        if mask.shape != (height, width):
            raise RuntimeError(mask.shape)
print(drawn, refused)
"""


def test_damage_does_not_reach_c_code():
    root = Path(masks.__file__).parents[3]
    command = [sys.executable, "-W", "error", "-c", FUZZ]
    answer = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120)
    assert answer.returncode == 0, answer.stderr
    drawn, refused = map(int, answer.stdout.split())
    assert drawn > 5000
    assert refused > 5000
