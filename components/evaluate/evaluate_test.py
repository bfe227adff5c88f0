import numpy as np

from components.evaluate.evaluate import confusion_json
from trainer.engine.evaluate import Evaluation, pad
from trainer.recipe import ConfusionMatrix


def test_the_confusion_matrix_has_the_form_of_kfp() -> None:
    matrix = ConfusionMatrix(("cat", "dog"), np.array([[3, 1], [0, 2]]))
    assert confusion_json(Evaluation({}, matrix, (), 6)) == {
        "annotationSpecs": [{"displayName": "cat"}, {"displayName": "dog"}],
        "rows": [{"row": [3.0, 1.0]}, {"row": [0.0, 2.0]}],
    }
    assert confusion_json(Evaluation({}, None, (), 6)) == {}


def test_a_short_batch_is_filled_with_its_last_row() -> None:
    assert pad(np.array([[1], [2]]), 4).tolist() == [[1], [2], [2], [2]]
    assert pad(np.array([1, 2]), 2).tolist() == [1, 2]
