import keras
import numpy as np
import pytest
from keras import ops

from trainer.optimizers.pruning import PruningAdam, kept_weights


def test_the_smallest_weights_go_by_the_schedule_and_stay_away() -> None:
    start = np.linspace(-1.0, 1.0, 40, dtype=np.float32).reshape(5, 8)
    kernel = keras.Variable(start, name="kernel")
    other = keras.Variable(start, name="other")
    optimizer = PruningAdam(1e-6, kept={"kernel": 8}, steps=12, every=3)
    optimizer.build([kernel, other])
    gradient = ops.ones((5, 8))
    gone = np.zeros((5, 8), bool)
    for step in range(16):
        optimizer.apply([gradient, gradient], [kernel, other])
        value = ops.convert_to_numpy(kernel)
        done = min(step // 3 * 3 / 12, 1.0)
        zeros = int(32 * (1.0 - (1.0 - done) ** 3) + 0.5)
        assert np.count_nonzero(value == 0) == zeros, step
        # Nothing comes back, and what stays is larger than what went.
        assert (value[gone] == 0).all()
        gone = value == 0
        if zeros:
            assert np.abs(start[gone]).max() < np.abs(start[~gone]).min() + 1e-4
    assert np.count_nonzero(ops.convert_to_numpy(other)) == 40


def test_without_kernels_it_is_adam() -> None:
    pruning, plain = (keras.Variable(np.arange(4.0), name="kernel") for _ in range(2))
    ours, theirs = PruningAdam(0.1, kept={}, steps=1, every=1), keras.optimizers.Adam(0.1)
    for _ in range(3):
        ours.apply([ops.array([1.0, -2.0, 0.5, 0.0])], [pruning])
        theirs.apply([ops.array([1.0, -2.0, 0.5, 0.0])], [plain])
    np.testing.assert_array_equal(ops.convert_to_numpy(pruning), ops.convert_to_numpy(plain))


def test_what_was_chosen_is_part_of_the_state() -> None:
    kernel = keras.Variable(np.array([0.1, -0.2, 0.3, 0.4]), name="kernel")
    optimizer = PruningAdam(0.0, kept={"kernel": 2}, steps=1, every=1)
    optimizer.build([kernel])
    for _ in range(2):
        optimizer.apply([ops.ones(4)], [kernel])
    masks = [v for v in optimizer.variables if "mask" in v.path]
    assert [ops.convert_to_numpy(v).tolist() for v in masks] == [[0, 0, 1, 1]]


@pytest.mark.parametrize(("steps", "every"), [(0, 1), (5, 0), (5, 2), (1, 2)])
def test_a_schedule_that_ends_between_two_choices_is_refused(steps: int, every: int) -> None:
    with pytest.raises(ValueError, match="steps must be every"):
        PruningAdam(kept={}, steps=steps, every=every)


def test_names_that_no_variable_has_are_refused() -> None:
    optimizer = PruningAdam(kept={"kernal": 2}, steps=1, every=1)
    with pytest.raises(ValueError, match="kernal"):
        optimizer.build([keras.Variable(np.zeros(4), name="kernel")])


def test_densities_are_erdos_renyi_kernels() -> None:
    shapes = {"wide": (1, 1, 100, 300), "narrow": (3, 3, 10, 10), "thin": (3, 3, 20, 1)}
    kept = kept_weights(shapes, 2_000)
    assert sum(kept.values()) == pytest.approx(2_000, abs=3)
    # In proportion to the sum of the sizes: 402 to 26 to 27; "thin" has just 180 weights.
    assert kept == {"wide": 1767, "narrow": 114, "thin": 118}
    # Where one is full, the others share the rest.
    fuller = kept_weights(shapes, 4_000)
    assert fuller["thin"] == 180
    assert fuller["wide"] / fuller["narrow"] == pytest.approx(402 / 26, rel=0.01)
    assert kept_weights(shapes, 31_080) == {"wide": 30_000, "narrow": 900, "thin": 180}


@pytest.mark.parametrize("total", [2, 31_081])
def test_more_weights_than_there_are_cannot_be_kept(total: int) -> None:
    shapes = {"wide": (1, 1, 100, 300), "narrow": (3, 3, 10, 10), "thin": (3, 3, 20, 1)}
    with pytest.raises(ValueError, match="can be kept"):
        kept_weights(shapes, total)
