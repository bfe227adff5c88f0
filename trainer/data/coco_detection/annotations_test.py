import json
import tracemalloc

import numpy as np
import pytest

from trainer.data.coco_detection.annotations import (
    AnnotationFile,
    Categories,
    ObjectTable,
    Pictures,
    Texts,
    is_file_name,
    is_text,
)
from trainer.errors import BadItem, UserError

CATEGORIES = Categories(np.array([1, 3, 90]), ("person", "car", "toothbrush"))


def picture(identity, name="a.jpg", width=4, height=3):
    return {"id": identity, "file_name": name, "width": width, "height": height}


def pictures(*entries):
    listed = Pictures()
    for entry in entries:
        listed.add(entry)
    listed.seal()
    return listed


def instance(category=1, bbox=(0, 0, 2, 3), area=5, **others):
    return {"category_id": category, "bbox": list(bbox), "area": area, "iscrowd": 0, **others}


def table(*entries, places=None, kind="annotation"):
    objects = ObjectTable(kind)
    for entry in entries:
        objects.add(entry)
    objects.seal(np.array(places or [0] * len(entries)), 2, CATEGORIES)
    return objects


def refusal(function, *arguments):
    with pytest.raises(BadItem) as error:
        function(*arguments)
    assert error.value.expected
    return error.value.reason


def test_labels_number_the_categories_in_the_order_of_their_ids(tmp_path):
    entries = [{"id": n, "name": str(n)} for n in (90, -2, 7)]
    categories = Categories.check(tmp_path, entries)
    assert categories.names == ("-2", "7", "90")
    assert categories.labels(np.array([90, 7, -2, 0, 91, -3])).tolist() == [2, 1, 0, -1, -1, -1]


@pytest.mark.parametrize(
    "entries",
    [
        [],
        [5],
        [{"id": 1}],
        [{"name": "a"}],
        [{"id": "1", "name": "a"}],
        [{"id": True, "name": "a"}],
        [{"id": 1.0, "name": "a"}],
        [{"id": 2**63, "name": "a"}],
        [{"id": 1, "name": ""}],
        [{"id": 1, "name": "\ud800"}],
        [{"id": 1, "name": ["a"]}],
        [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}],
        [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}],
    ],
)
def test_categories_that_are_not_right_are_told(tmp_path, entries):
    with pytest.raises(UserError, match="categor"):
        Categories.check(tmp_path, entries)


def test_pictures_are_found_by_id():
    listed = pictures(picture(9, "nine"), picture(-4, "minus"), picture(2**40, "large"))
    assert listed.find(np.array([2**40, 9, 10, -5, -4])).tolist() == [2, 0, -1, -1, 1]
    assert pictures().find(np.array([1, 2])).tolist() == [-1, -1]
    found = listed.picture(1)
    assert (found.id, found.name, found.width, found.height) == (-4, "minus", 4, 3)


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (5, "its id is not a whole number"),
        ({**picture(1), "id": "1"}, "its id is not a whole number"),
        ({**picture(1), "id": 2**63}, "its id is not a whole number"),
        ({**picture(1), "id": None}, "its id is not a whole number"),
        (picture(1, ""), "its file_name"),
        (picture(1, 7), "its file_name"),
        (picture(1, ".."), "its file_name"),
        (picture(1, "../val2017/a.jpg"), "its file_name is not the name of a file, or is a path"),
        (picture(1, "/etc/passwd"), "its file_name"),
        (picture(1, "a\0.jpg"), "its file_name"),
        (picture(1, "\udcff.jpg"), "its file_name"),
        (picture(1, width=0), "its width and height are not whole numbers from 1"),
        (picture(1, width=4.0), "its width and height"),
        (picture(1, height=2**31), "its width and height"),
        (picture(1, height=None), "its width and height"),
        (picture(8, "c.jpg"), "an entry before it has the same id"),
        (picture(1, "b.jpg"), "an entry before it has the same file_name"),
    ],
)
def test_an_entry_that_cannot_be_used_is_refused_and_others_are_not(entry, reason):
    listed = pictures(picture(8, "b.jpg"), entry, picture(2, "d.jpg"))
    assert refusal(listed.picture, 1).startswith(f"images[1]: {reason}")
    assert listed.name(1) == ""
    assert [listed.picture(0).name, listed.picture(2).name] == ["b.jpg", "d.jpg"]
    assert listed.find(np.array([8, 2])).tolist() == [0, 2]


def test_objects_are_sorted_by_picture_and_keep_their_order():
    entries = [instance(area=n, bbox=(n, n, 1, 1)) for n in range(6)]
    objects = table(*entries, places=[1, 0, -1, 1, 0, 1])
    assert objects.of(0).area.tolist() == [1, 4]
    assert objects.of(1).number.tolist() == [0, 3, 5]
    assert objects.of(1).box.tolist() == [[0, 0, 1, 1], [3, 3, 4, 4], [5, 5, 6, 6]]


def test_boxes_are_corners_and_labels_are_positions():
    found = table(instance(90, (1.5, 2, 10.25, 4), 7.5, iscrowd=1), instance(3)).of(0)
    assert found.box.tolist() == [[1.5, 2, 11.75, 6], [0, 0, 2, 3]]
    assert found.box.dtype == np.float32
    assert (found.label.tolist(), found.crowd.tolist(), found.area.tolist()) == (
        [2, 1],
        [1, 0],
        [7.5, 5],
    )
    assert table(instance(1)).of(1).box.shape == (0, 4)


def test_an_annotation_without_iscrowd_is_no_crowd():
    entry = instance()
    del entry["iscrowd"]
    assert table(entry).of(0).crowd.tolist() == [0]


def test_boxes_without_width_or_height_are_left_out_and_inverted_ones_are_not():
    flat = [instance(bbox=(296.65, 388.33, 1.03, 0.0), area=0.0), instance(bbox=(5, 5, 0, 9))]
    found = table(instance(), *flat, instance(bbox=(5, 5, -1, 2))).of(0)
    assert found.number.tolist() == [0, 3]
    assert found.box[1].tolist() == [5, 5, 4, 7]
    segments = [instance(bbox=(5, 5, 0, 9), id=4)]
    assert table(*segments, kind="segment").of(0).id.tolist() == [4]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"category_id": None}, "its category_id is not a whole number"),
        ({"category_id": 2**70}, "its category_id is not a whole number"),
        ({"category_id": 2}, "its category_id is not in the list of categories"),
        ({"bbox": [1, 2, 3]}, "its bbox is not four numbers"),
        ({"bbox": "1234"}, "its bbox is not four numbers"),
        ({"bbox": [1, 2, 3, "4"]}, "its bbox is not four numbers from"),
        ({"bbox": [1, 2, 3, True]}, "its bbox is not four numbers from"),
        ({"bbox": [1, 2, 3, float("nan")]}, "its bbox is not four numbers from"),
        ({"bbox": [1, 2, 3, 10**400]}, "its bbox is not four numbers from"),
        ({"bbox": [-1e300, 2, 3, 4]}, "its bbox is not four numbers from"),
        ({"area": None}, "its area is not a number of pixels"),
        ({"area": -1}, "its area is not a number of pixels"),
        ({"area": float("inf")}, "its area is not a number of pixels"),
        ({"iscrowd": 2}, "its iscrowd is neither 0 nor 1"),
        ({"iscrowd": True}, "its iscrowd is neither 0 nor 1"),
        ({"iscrowd": "0"}, "its iscrowd is neither 0 nor 1"),
    ],
)
def test_an_object_that_cannot_be_used_spoils_its_picture_only(change, reason):
    objects = table(instance(), {**instance(), **change}, instance(), places=[0, 1, 1])
    assert refusal(objects.of, 1).startswith(f"annotation 1 of the file: {reason}")
    assert len(objects.of(0).label) == 1


@pytest.mark.parametrize("identity", [None, 0, -1, 2**24, 1.0, "1"])
def test_a_segment_must_have_an_id_that_three_bytes_hold(identity):
    objects = table(instance(id=2**24 - 1), instance(id=identity), places=[0, 1], kind="segment")
    assert objects.of(0).id.tolist() == [2**24 - 1]
    assert "its id is not a whole number from 1" in refusal(objects.of, 1)


def test_texts_come_back_in_any_order():
    kept = Texts()
    written = [json.dumps({"n": n, "é": "\0 \n"}) for n in range(100)]
    for text in written:
        kept.append(text)
    kept.seal()
    numbers = [99, 0, 31, 32, 33, 0]
    assert kept.of(numbers) == [written[number] for number in numbers]
    assert kept.of([]) == []


def test_words_for_names():
    assert is_text("é") and not is_text("") and not is_text("\ud83d") and not is_text(3)
    assert is_file_name("a b.jpg") and not is_file_name("a/b") and not is_file_name(".")


def write(path, images, annotations, categories=({"id": 1, "name": "a"},)):
    path.parent.mkdir(exist_ok=True)
    content = {"images": images, "annotations": annotations, "categories": list(categories)}
    path.write_text(json.dumps(content))
    return AnnotationFile(path, ObjectTable("annotation"))


def test_annotations_of_no_picture_are_items_behind_the_pictures(tmp_path):
    annotations = [
        instance(image_id=0),
        instance(image_id=6),
        instance(image_id=None),
        7,
        instance(image_id=0),
    ]
    file = write(tmp_path / "annotations" / "i.json", [picture(0), 8], annotations)
    assert len(file) == 5
    keys = [file.key(index, "train2017") for index in range(5)]
    assert keys[:2] == ["train2017/a.jpg", "annotations/i.json#images[1]"]
    assert keys[2:] == [f"annotations/i.json#annotations[{n}]" for n in (1, 2, 3)]
    assert len(file.objects.of(0).label) == 2
    assert "an annotation without a picture" in refusal(file.picture, 4)


def test_lists_may_come_in_any_order(tmp_path):
    path = tmp_path / "annotations" / "i.json"
    content = {"annotations": [instance(image_id=5)], "categories": [{"id": 1, "name": "a"}]}
    path.parent.mkdir()
    path.write_text(json.dumps({**content, "images": [picture(5)]}))
    file = AnnotationFile(path, ObjectTable("annotation"))
    assert file.objects.of(0).label.tolist() == [0]


def test_a_large_file_takes_less_memory_than_it_is_long(tmp_path):
    count, outline = 20_000, [[round(n * 1.37, 2) for n in range(80)]]
    images = [picture(n, f"{n:012d}.jpg") for n in range(count // 10)]
    annotations = [instance(image_id=n // 10, id=n, segmentation=outline) for n in range(count)]
    path = tmp_path / "annotations" / "i.json"
    write(path, images, annotations)
    del images, annotations
    tracemalloc.start()
    file = AnnotationFile(path, ObjectTable("annotation"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(file) == count // 10
    assert path.stat().st_size > 10_000_000
    assert peak < path.stat().st_size
