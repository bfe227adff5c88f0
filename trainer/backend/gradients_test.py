import numpy as np
import pytest

from trainer.backend.gradients import clip_global_norm


def test_the_joint_norm_is_bounded_and_the_direction_kept() -> None:
    gradients = {"a": [np.array([3.0, 0.0])], "b": [np.array([[4.0]])]}  # norm 5
    clipped = clip_global_norm(gradients, 1.0)
    np.testing.assert_allclose(clipped["a"][0], [0.6, 0.0], rtol=1e-6)
    np.testing.assert_allclose(clipped["b"][0], [[0.8]], rtol=1e-6)


@pytest.mark.parametrize("clip_norm", [None, 5.0, 100.0])
def test_what_is_within_the_bound_stays(clip_norm: float | None) -> None:
    gradients = {"a": [np.array([3.0, 4.0])]}
    np.testing.assert_allclose(clip_global_norm(gradients, clip_norm)["a"][0], [3.0, 4.0])


def test_zero_gradients_stay_zero() -> None:
    assert float(clip_global_norm({"a": [np.zeros(1)]}, 1.0)["a"][0][0]) == 0.0
