import numpy as np
import pytest

from trainer.metrics.classification import Classification
from trainer.recipe import ConfusionMatrix


def test_counts_by_hand() -> None:
    metric = Classification(("cat", "dog"))
    probability = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]])
    metric.update({"label": np.array([0, 0, 1])}, {"probability": probability})
    result = metric.result()
    assert result["top_1_accuracy"] == pytest.approx(200 / 3)
    assert result["cross_entropy"] == pytest.approx(-np.log([0.9, 0.4, 0.8]).mean())
    confusion = result["confusion"]
    assert isinstance(confusion, ConfusionMatrix)
    assert confusion.counts.tolist() == [[1, 1], [0, 1]]
    assert "top_5_accuracy" not in result


def test_top_5_is_being_among_the_five_most_probable() -> None:
    metric = Classification([str(i) for i in range(7)])
    probability = np.arange(7, 0, -1, dtype=float)[None] / 28
    for label in range(7):
        metric.update({"label": np.array([label])}, {"probability": probability})
    assert metric.result()["top_5_accuracy"] == pytest.approx(500 / 7)
    assert metric.result()["top_1_accuracy"] == pytest.approx(100 / 7)
