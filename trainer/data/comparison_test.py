import dataclasses
import json

import numpy as np
import pytest

from trainer.data.comparison import Comparison, Difference, Differences, bytes_to_read
from trainer.data.comparison import compare_examples as compare
from trainer.data.manifest import MANIFEST, read_manifest, write_manifest
from trainer.dataset import Feature
from trainer.errors import UserError

DETECTION = {
    "key": Feature("bytes"),
    "image": Feature("bytes", content="image"),
    "box": Feature("float32", (None, 4), content="box"),
    "category": Feature("int64", (None,), content="label"),
    "text": Feature("bytes", (None,), content="text"),
}
KINDS = ("removed", "added", "moved", "changed", "relabelled")


def example(key, image=b"picture", label=0):
    return {"key": key.encode(), "image": image, "label": label}


SPLITS = {
    "train": [example(f"train/{n}", label=n % 2) for n in range(6)],
    "test": [example(f"test/{n}") for n in range(3)],
}


def changed(**replaced):
    """SPLITS with other examples in the place of some; None for one left out."""
    splits = {}
    for split, examples in SPLITS.items():
        keys = [f"{split}_{number}" for number in range(len(examples))]
        splits[split] = [
            replaced.get(key, e)
            for key, e in zip(keys, examples, strict=True)
            if replaced.get(key, e) is not None
        ]
    return splits


@pytest.fixture
def pair(tmp_path, write_examples):
    def write(splits, features=None, shards=2, **facts):
        arguments = {"features": features} if features else {}
        first = write_examples(tmp_path / "a", SPLITS)
        return first, write_examples(tmp_path / "b", splits, shards=shards, **arguments, **facts)

    return write


def counts(comparison):
    return {kind: found.count for kind, found in comparison.examples.items() if found.count}


def test_a_folder_is_equal_to_itself_and_is_not_read_for_it(pair):
    first, second = pair(SPLITS)
    assert bytes_to_read(first, second) == 0
    found = compare(first, second)
    assert found.equal
    assert found.facts == ()
    assert found.records == {"train": (6, 6), "test": (3, 3)}
    assert set(found.examples) == set(KINDS)


def test_neither_shards_nor_order_matter(pair):
    splits = {split: examples[::-1] for split, examples in SPLITS.items()}
    first, second = pair(splits, shards=3)
    read = []
    assert compare(first, second, advance=read.append).equal
    assert sum(read) == bytes_to_read(first, second)
    assert sum(read) > 0


def test_keys_that_are_gone_or_new_are_named(pair):
    new = example("train/new")
    found = compare(*pair(changed(train_3=None, test_0=None, train_5=new)))
    assert not found.equal
    assert counts(found) == {"removed": 3, "added": 1}
    assert found.examples["removed"].named == (
        Difference("test/0", "test"),
        Difference("train/3", "train"),
        Difference("train/5", "train"),
    )
    assert found.examples["added"].named == (Difference("train/new", "", "train"),)
    assert found.records == {"train": (6, 5), "test": (3, 2)}


def test_the_features_that_differ_are_named(pair):
    splits = changed(
        train_1=example("train/1", image=b"other", label=1),
        train_2=example("train/2", image=b"other", label=1),
        test_1=example("test/1", label=1),
    )
    found = compare(*pair(splits))
    assert counts(found) == {"changed": 3, "relabelled": 2}
    assert found.changed_features == {"image": 2, "label": 2}
    assert found.examples["changed"].named == (
        Difference("test/1", features=("label",)),
        Difference("train/1", features=("image",)),
        Difference("train/2", features=("image", "label")),
    )
    assert found.examples["relabelled"].named == (
        Difference("test/1", "cat", "dog", ("label",)),
        Difference("train/2", "cat", "dog", ("label",)),
    )


def test_an_example_that_moved_to_another_split_is_neither_gone_nor_new(pair):
    splits = {"train": SPLITS["train"][1:], "test": [*SPLITS["test"], SPLITS["train"][0]]}
    found = compare(*pair(splits))
    assert counts(found) == {"moved": 1}
    assert found.examples["moved"].named == (Difference("train/0", "train", "test"),)


def test_as_many_are_named_as_asked_for_and_all_are_counted(pair):
    first, second = pair({"train": [example("x")], "test": [example("y")]})
    found = compare(first, second, named=2)
    assert (found.examples["removed"].count, len(found.examples["removed"].named)) == (9, 2)
    assert counts(compare(first, second, named=0)) == {"removed": 9, "added": 2}


def test_shards_that_both_have_are_not_read(pair):
    splits = changed(test_2=example("test/2", label=1))
    first, second = pair(splits)
    # test/2 is in the first of two shards of test; the other and those of train are the same.
    shard = "test-00000-of-00002.tfrecord"
    assert bytes_to_read(first, second) == sum((r / shard).stat().st_size for r in (first, second))
    assert counts(compare(first, second)) == {"changed": 1, "relabelled": 1}


def test_what_the_manifests_say_differently_is_told(pair):
    features = {
        "key": Feature("bytes"),
        "image": Feature("bytes", content="image"),
        "label": Feature("int64", content="label"),
        "weight": Feature("float32", (2,)),
    }
    splits = {
        split: [{**e, "weight": np.ones(2, np.float32)} for e in examples]
        for split, examples in SPLITS.items()
    }
    first, second = pair(splits, features, licence="MIT", class_names=("cat", "wolf"), notes=("n",))
    found = compare(first, second)
    facts = {fact.name: (fact.first, fact.second) for fact in found.facts}
    assert facts == {
        "licence": ("none stated", "MIT"),
        "class names": ("2 classes, alone with dog", "2 classes, alone with wolf"),
        "feature weight of train": ("", "float32 [2]"),
        "feature weight of test": ("", "float32 [2]"),
        "note": ("", "n"),
    }
    assert not found.equal
    assert counts(found) == {}


def test_another_order_of_the_classes_is_told(pair):
    found = compare(*pair(SPLITS, class_names=("dog", "cat")))
    assert [dataclasses.astuple(fact) for fact in found.facts] == [
        ("class names", "number 0 is cat", "number 0 is dog")
    ]


def test_a_split_that_only_one_has_is_told(pair):
    found = compare(*pair({"train": SPLITS["train"], "validation": SPLITS["test"]}))
    assert found.records == {"train": (6, 6), "test": (3, 0), "validation": (0, 3)}
    facts = [dataclasses.astuple(fact) for fact in found.facts]
    assert facts == [("split test", "there", ""), ("split validation", "", "there")]
    assert counts(found) == {"moved": 3}


def test_features_of_open_shape_are_compared(tmp_path, write_examples):
    def values(key, boxes, labels, *texts):
        box = np.array(boxes, np.float32).reshape(-1, 4)
        text = np.empty(len(texts), object)
        text[:] = texts
        return {
            "key": key,
            "image": b"",
            "box": box,
            "category": np.array(labels, np.int64),
            "text": text,
        }

    one = [
        values(b"a", [1, 2, 3, 4], [0], b"ab", b"c"),
        values(b"b", [1, 2, 3, 4, 5, 6, 7, 8], [0, 1], b"x"),
        values(b"c", [], []),
    ]
    two = [
        values(b"a", [1, 2, 3, 4], [0], b"a", b"bc"),
        values(b"b", [5, 6, 7, 8, 1, 2, 3, 4], [1, 0], b"x"),
        values(b"c", [], []),
    ]
    first = write_examples(tmp_path / "a", {"train": one}, DETECTION)
    second = write_examples(tmp_path / "b", {"train": two}, DETECTION)
    found = compare(first, second)
    assert found.changed_features == {"text": 1, "box": 1, "category": 1}
    assert found.examples["relabelled"].named == (
        Difference("b", "cat, dog", "dog, cat", ("category",)),
    )


def test_refused_and_changed_items_are_compared(tmp_path, write_examples):
    def item(key, reason, kind="reason"):
        return {"split": "train", "key": key, kind: reason}

    first = write_examples(
        tmp_path / "a",
        SPLITS,
        refused=[item("a", "empty"), item("b", "CMYK"), item("c", "empty")],
        changed=[item("d", "turned", "change")],
    )
    second = write_examples(
        tmp_path / "b", SPLITS, refused=[item("c", "damaged"), item("b", "CMYK")]
    )
    found = compare(first, second)
    assert found.quarantine["removed"] == Differences(1, (Difference("a", "empty"),))
    assert found.quarantine["added"] == Differences()
    assert found.quarantine["changed"].named == (Difference("c", "empty", "damaged"),)
    assert found.changes["removed"].named == (Difference("d", "turned"),)
    assert not found.equal


@pytest.mark.parametrize("side", [0, 1])
def test_a_key_that_comes_twice_is_refused(tmp_path, write_examples, side):
    twice = {**SPLITS, "test": [*SPLITS["test"], SPLITS["train"][4]]}
    folders = [write_examples(tmp_path / str(n), SPLITS, shards=n + 1) for n in range(2)]
    folders[side] = write_examples(tmp_path / "twice", twice, shards=3)
    with pytest.raises(UserError, match=r"must be unique; 'train/4' comes twice in '.*twice'"):
        compare(*folders)


def test_damage_is_told_and_not_taken_for_a_difference(pair):
    first, second = pair(SPLITS, shards=3)
    path = second / "train-00001-of-00003.tfrecord"
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(UserError, match=r"record 1 of '.*train-00001.*' is damaged"):
        compare(first, second)
    path.unlink()
    with pytest.raises(UserError, match=r"train-00001-of-00003.tfrecord' cannot be read"):
        compare(first, second)


def test_records_that_are_not_as_declared_are_told(pair):
    first, second = pair(SPLITS, shards=3)
    values = json.loads((second / MANIFEST).read_text())
    values["features"]["label"]["dtype"] = "float32"
    (second / MANIFEST).write_text(json.dumps(values))
    with pytest.raises(UserError, match="must be as its manifest declares them; Feature 'label'"):
        compare(first, second)


def test_the_same_shards_declared_differently_are_read(pair):
    first, second = pair(SPLITS)
    manifest = read_manifest(second)
    features = {name: f for name, f in manifest.features.items() if name != "label"}
    write_manifest(second, dataclasses.replace(manifest, features=features))
    assert bytes_to_read(first, second) > 0
    found = compare(first, second)
    assert [fact.name for fact in found.facts] == [
        "feature label of train",
        "feature label of test",
    ]
    assert counts(found) == {}


def test_nothing_differs_in_nothing():
    none = {"removed": Differences(), "added": Differences()}
    assert Comparison((), {"train": (0, 0)}, none, {}, none, none).equal
    assert not Comparison((), {"train": (0, 1)}, none, {}, none, none).equal
