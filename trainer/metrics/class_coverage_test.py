from __future__ import annotations

import numpy as np
import pytest

from trainer.metrics.class_coverage import ClassCoverage, build_judge, cross_entropy
from trainer.recipe import ConfusionMatrix

NAMES = ("cat", "dog", "owl")


def certain(labels: list[int]) -> np.ndarray:
    return np.eye(3, dtype=np.float32)[labels]


def test_shares_are_of_what_was_drawn_and_accuracy_of_what_is_real() -> None:
    metric = ClassCoverage(NAMES)
    for label, found, drawn in (([0, 1, 2], [0, 1, 1], [0, 0, 1]), ([2], [2], [0])):
        metric.update(
            {"label": np.array(label)},
            {"real_probability": certain(found), "generated_probability": certain(drawn)},
        )
    result = metric.result()
    confusion = result.pop("confusion")
    assert result == {
        "smallest_class_share": 0.0,
        "classes_covered": 2.0,
        "class_share_cat": 75.0,
        "class_share_dog": 25.0,
        "class_share_owl": 0.0,
        "judge_accuracy": 75.0,
    }
    assert isinstance(confusion, ConfusionMatrix) and confusion.class_names == NAMES
    np.testing.assert_array_equal(confusion.counts, [[1, 0, 0], [0, 1, 0], [0, 1, 1]])


def test_a_class_counts_from_a_share_of_one_percent_on() -> None:
    metric = ClassCoverage(NAMES)
    drawn = [0] * 989 + [1] * 10 + [2]
    metric.update(
        {"label": np.zeros(1000)},
        {"real_probability": certain([0] * 1000), "generated_probability": certain(drawn)},
    )
    assert metric.result()["classes_covered"] == 2.0
    assert metric.result()["smallest_class_share"] == pytest.approx(0.1)


def test_of_many_classes_only_the_smallest_share_is_named() -> None:
    metric = ClassCoverage([str(i) for i in range(21)])
    even = np.eye(21, dtype=np.float32)
    metric.update(
        {"label": np.arange(21)}, {"real_probability": even, "generated_probability": even}
    )
    assert not any(name.startswith("class_share") for name in metric.result())
    assert metric.result()["smallest_class_share"] == pytest.approx(100 / 21)


@pytest.mark.parametrize("side", [8, 28, 32, 64])
def test_the_judge_takes_pictures_of_any_size(side: int) -> None:
    judge = build_judge((side, side, 3), 5, seed=0)
    assert judge(np.zeros((2, side, side, 3), np.float32)).shape == (2, 5)
    sides = [layer.output.shape[1] for layer in judge.layers if "convolution" in layer.name]
    assert sides[-1] >= min(side, 4)
    values = [v for v in judge.weights if v.path.endswith("kernel")]
    assert len({v.path for v in values}) == 4


def test_an_undecided_judge_costs_the_logarithm_of_the_classes() -> None:
    judge = build_judge((8, 8, 1), 5, seed=0)
    for variable in judge.variables:
        variable.assign(np.zeros(variable.shape))
    image = np.random.default_rng(0).uniform(-1, 1, (4, 8, 8, 1))
    assert float(cross_entropy(judge, image, np.array([0, 1, 2, 4]))) == pytest.approx(np.log(5))
