from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from trainer.data.examples import encode_example
from trainer.data.manifest import Manifest, write_manifest
from trainer.data.manifest import Split as SplitInfo
from trainer.data.records import RecordWriter
from trainer.dataset import Feature
from trainer.engine import input as engine_input
from trainer.engine.input import PADDING, Split
from trainer.errors import UserError

KEY = Feature("bytes")


def write(folder: Path, features: Mapping[str, Feature], rows: Sequence[Mapping[str, Any]]) -> Path:
    """Writes a split `train` in two shards."""
    folder.mkdir()
    every = {"key": KEY, **features}
    written = []
    half = len(rows) // 2
    for number, part in enumerate((rows[:half], rows[half:])):
        name = f"train-{number:05d}-of-00002.tfrecord"
        with RecordWriter(folder / name) as writer:
            for index, row in enumerate(part, number * half):
                writer.write(encode_example(every, {"key": b"%d" % index, **row}))
        written.append(writer.shard(name))
    manifest = Manifest(
        dataset="d",
        title="D",
        homepage="",
        licence="none",
        source_digest="",
        class_names=(),
        evaluation_split="train",
        features=every,
        splits={"train": SplitInfo(tuple(written))},
    )
    write_manifest(folder, manifest)
    return folder


@pytest.fixture
def numbers(tmp_path: Path) -> Split:
    features = {"image": Feature("uint8", (2,), "raw"), "label": Feature("int64")}
    rows = [{"image": np.array([i, 2 * i], np.uint8), "label": i} for i in range(10)]
    return Split(write(tmp_path / "numbers", features, rows), "train")


BOXES = {
    "box": Feature("float32", (None, 4), content="box"),
    "label": Feature("int64", (None,), content="label"),
    "text": Feature("bytes", (None,), content="text"),
    "size": Feature("int64", (2,)),
}


def boxes(count: int) -> dict[str, Any]:
    return {
        "box": np.arange(4 * count, dtype=np.float32).reshape(count, 4),
        "label": np.arange(count, dtype=np.int64),
        "text": np.array([b"%d" % i for i in range(count)] + [None], object)[:count],
        "size": np.array([count, 7], np.int64),
    }


@pytest.fixture
def ragged(tmp_path: Path) -> Split:
    return Split(write(tmp_path / "ragged", BOXES, [boxes(n) for n in (1, 0, 3, 0, 0, 5)]), "train")


def test_in_order_gives_all_as_they_are_stored(numbers: Split) -> None:
    batches = list(numbers.in_order(4))
    assert [b["label"].tolist() for b in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert batches[1]["image"].tolist() == [[4, 8], [5, 10], [6, 12], [7, 14]]
    assert batches[1]["image"].dtype == np.uint8
    assert batches[2]["key"].tolist() == [b"8", b"9"]


def labels(split: Split, epoch: int, batch_size: int = 5, seed: int = 1) -> list[int]:
    batches = split.shuffled(batch_size, seed, epoch).as_numpy_iterator()
    return [int(label) for batch in batches for label in batch["label"]]


def test_the_order_follows_from_seed_and_epoch(numbers: Split) -> None:
    assert labels(numbers, 0) == labels(numbers, 0)
    assert sorted(labels(numbers, 0)) == list(range(10))
    orders = {tuple(labels(numbers, epoch, seed=seed)) for epoch in range(3) for seed in range(3)}
    assert len(orders) == 9
    # What does not fill a batch is left out, and is another part in each epoch.
    assert len(labels(numbers, 0, batch_size=4)) == 8
    assert sorted(labels(numbers, 0, batch_size=4)) != sorted(labels(numbers, 1, batch_size=4))


def two_sides(folder: Path, domains: Sequence[int]) -> Split:
    features = {"domain": Feature("int64"), "number": Feature("int64")}
    rows = [{"domain": domain, "number": i} for i, domain in enumerate(domains)]
    return Split(write(folder, features, rows), "train", {"domain": ("_a", "_b")})


def test_examples_of_two_sides_stand_beside_each_other(tmp_path: Path) -> None:
    split = two_sides(tmp_path / "sides", [0, 1, 1] * 4)
    assert split.examples == 6

    def epoch(number: int, begin: int = 0, part: tuple[int, int] = (0, 1)) -> list[Any]:
        def augment(example: Mapping[str, Any], seed: Any) -> dict[str, Any]:
            return {**example, "draw": tf.random.stateless_uniform((), seed)}

        batches = split.shuffled(
            2, 0, number, augment, {"noise": (3,)}, begin=begin, part=part
        ).as_numpy_iterator()
        return [{name: value.tolist() for name, value in batch.items()} for batch in batches]

    first = epoch(0)
    assert len(first) == 3
    names = {f"{name}_{side}" for name in ("number", "draw") for side in "ab"} | {"noise"}
    assert set(first[0]) == names
    a, b = ([n for batch in first for n in batch[f"number_{side}"]] for side in "ab")
    assert set(a) == {0, 3, 6, 9} and max(map(a.count, a)) == 2  # the smaller side comes round
    assert len(set(b)) == 6 and not set(b) & {0, 3, 6, 9}
    draws = [x for batch in first for side in "ab" for x in batch[f"draw_{side}"]]
    assert len(set(draws)) == 12
    assert epoch(0) == first and epoch(0, begin=1) == first[1:]
    assert [batch["number_a"] for batch in epoch(1)] != [batch["number_a"] for batch in first]
    halves = [epoch(0, part=(i, 2)) for i in range(2)]
    joined = [[*x["number_b"], *y["number_b"]] for x, y in zip(*halves, strict=True)]
    assert joined == [batch["number_b"] for batch in first]
    kept = next(split.in_order(3))
    assert kept["domain"].tolist() == [0, 1, 1] and "number" in kept


def test_a_side_without_examples_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"every domain from 0 to 1; of 1 it has none"):
        two_sides(tmp_path / "sides", [0, 0, 0, 0])


def test_a_split_that_does_not_fit_into_memory_is_read_anew(
    numbers: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_input, "CACHED_BYTES", 0)
    streamed = Split(tmp_path / "numbers", "train")
    assert labels(streamed, 0) == labels(streamed, 0)
    assert sorted(labels(streamed, 0)) == list(range(10))


def test_augmentation_follows_from_the_place_in_the_epoch(numbers: Split) -> None:
    def augment(example: Mapping[str, Any], seed: Any) -> dict[str, Any]:
        return {**example, "drawn": tf.random.stateless_uniform((), seed), "place": seed[1]}

    def drawn(epoch: int) -> list[tuple[float, int]]:
        (batch,) = numbers.shuffled(10, 1, epoch, augment).as_numpy_iterator()
        assert "key" not in batch  # no accelerator can hold a string
        return list(zip(batch["drawn"].tolist(), batch["place"].tolist(), strict=True))

    assert drawn(0) == drawn(0)
    assert [place for _, place in drawn(0)] == list(range(10))
    assert len({number for epoch in range(3) for number, _ in drawn(epoch)}) == 30


def test_a_batch_larger_than_the_split_is_told(numbers: Split) -> None:
    with pytest.raises(UserError, match="must be at most the number of training examples, 10; got"):
        numbers.shuffled(11, 0, 0)


def test_ragged_features_are_filled_up_to_a_power_of_two(ragged: Split) -> None:
    first, second = ragged.in_order(3)
    assert first["box"].shape == (3, 4, 4)
    assert first["label"].tolist() == [
        [0, PADDING, PADDING, PADDING],
        [PADDING] * 4,
        [0, 1, 2, PADDING],
    ]
    np.testing.assert_array_equal(first["box"][2, :3], boxes(3)["box"])
    assert (first["box"][2, 3] == PADDING).all()
    assert first["text"].tolist() == [[b"0", b"", b"", b""], [b""] * 4, [b"0", b"1", b"2", b""]]
    assert first["size"].tolist() == [[1, 7], [0, 7], [3, 7]]
    assert second["label"].shape == (3, 8)
    # One where there is none at all: no program likes an empty axis.
    assert [batch["label"].shape for batch in ragged.in_order(1)][1] == (1, 1)


def test_an_augmentation_may_give_ragged_features_a_length_of_its_own(ragged: Split) -> None:
    def augment(example: Mapping[str, Any], seed: Any) -> dict[str, Any]:
        box = tf.pad(
            example["box"][:3], [[0, 3 - tf.minimum(3, tf.shape(example["box"])[0])], [0, 0]]
        )
        return {"box": tf.ensure_shape(box, (3, 4)), "size": example["size"]}

    (batch,) = ragged.shuffled(6, 0, 0, augment).as_numpy_iterator()
    assert batch["box"].shape == (6, 3, 4)


def test_ragged_features_are_filled_up_in_training_too(ragged: Split) -> None:
    (batch,) = ragged.shuffled(6, 0, 0).as_numpy_iterator()
    assert batch["box"].shape == (6, 8, 4)
    assert set(batch) == {"box", "label", "size"}
    counts = (batch["label"] != PADDING).sum(axis=1)
    assert counts.tolist() == batch["size"][:, 0].tolist()


def test_nothing_else_is_filled_up(ragged: Split) -> None:
    def augment(example: Mapping[str, Any], seed: Any) -> dict[str, Any]:
        return {**example, "image": tf.zeros([tf.shape(example["box"])[0], 2])}

    with pytest.raises(ValueError, match=r"must have a known shape; 'image' is \(None, 2\)"):
        ragged.shuffled(6, 0, 0, augment)


NOISE = {"noise": (3,), "second": (2, 2)}


def epoch(split: Split, **keywords: Any) -> list[dict[str, np.ndarray]]:
    return list(split.shuffled(4, 0, 1, noise=NOISE, **keywords).as_numpy_iterator())


def test_noise_is_fresh_in_each_batch_epoch_and_name(numbers: Split) -> None:
    first, second = epoch(numbers)
    assert first["noise"].shape == (4, 3) and first["second"].shape == (4, 2, 2)
    drawn = np.concatenate(
        [first["noise"].ravel(), second["noise"].ravel(), first["second"].ravel()]
    )
    assert len(np.unique(drawn)) == drawn.size
    other = next(iter(numbers.shuffled(4, 0, 2, noise=NOISE).as_numpy_iterator()))
    assert not np.isin(other["noise"], drawn).any()
    again = epoch(numbers)
    for name in first:
        np.testing.assert_array_equal(first[name], again[0][name])


def test_noise_is_standard_normal(numbers: Split) -> None:
    batch = next(iter(numbers.shuffled(10, 0, 0, noise={"n": (4000,)}).as_numpy_iterator()))
    # Of 40,000 numbers mean and deviation are off by less than five of their standard errors.
    assert abs(batch["n"].mean()) < 0.025 and abs(batch["n"].std() - 1) < 0.018
    assert batch["n"].dtype == np.float32


def test_an_epoch_that_begins_later_is_the_rest_of_the_whole(numbers: Split) -> None:
    whole, rest = epoch(numbers), epoch(numbers, begin=1)
    assert len(whole) == 2 and len(rest) == 1
    for name, value in whole[1].items():
        np.testing.assert_array_equal(rest[0][name], value)
    assert epoch(numbers, begin=2) == []


def test_parts_of_batches_make_the_whole(numbers: Split) -> None:
    def shifted(example: Mapping[str, Any], seed: Any) -> dict[str, Any]:
        return {
            "value": tf.cast(example["label"], tf.int32)
            + tf.random.stateless_uniform((), seed, 0, 10**6, tf.int32)
        }

    whole = epoch(numbers, augment=shifted)
    parts = [epoch(numbers, augment=shifted, part=(i, 2)) for i in range(2)]
    for number, batch in enumerate(whole):
        for name, value in batch.items():
            joined = np.concatenate([part[number][name] for part in parts])
            np.testing.assert_array_equal(joined, value)
    rest = epoch(numbers, augment=shifted, part=(1, 2), begin=1)
    np.testing.assert_array_equal(rest[0]["value"], parts[1][1]["value"])


def test_batches_without_equal_parts_are_refused(numbers: Split) -> None:
    with pytest.raises(UserError, match=r"multiple of the number of processes, 3; got 4"):
        numbers.shuffled(4, 0, 0, part=(0, 3))


def test_noise_of_an_evaluation_belongs_to_the_example(numbers: Split) -> None:
    by_three = [batch["noise"] for batch in numbers.in_order(3, NOISE)]
    by_ten = next(numbers.in_order(10, NOISE))
    np.testing.assert_array_equal(np.concatenate(by_three), by_ten["noise"])
    assert len(np.unique(by_ten["noise"])) == 30
