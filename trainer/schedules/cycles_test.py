import keras
import pytest

from trainer.schedules.cycles import TriangularCycles


@pytest.mark.parametrize(
    ("step", "rate"),
    [  # by hand: from 1 to 5 in 4 steps, and back in 4
        *((0, 1.0), (1, 2.0), (3, 4.0), (4, 5.0), (5, 4.0), (7, 2.0)),
        *((8, 1.0), (12, 5.0), (16, 1.0), (17, 2.0)),
    ],
)
def test_it_rises_and_falls_in_straight_lines(step: int, rate: float) -> None:
    assert float(TriangularCycles(1.0, 5.0, half_cycle=4)(step)) == rate


@pytest.mark.parametrize(
    ("step", "rate"),
    [(0, 1.0), (4, 5.0), (7, 2.0), (8, 1.0), (10, 2.0), (12, 3.0), (16, 1.0), (20, 2.0)],
)
def test_the_tops_of_triangular2_come_down_by_halves(step: int, rate: float) -> None:
    assert float(TriangularCycles(1.0, 5.0, half_cycle=4, shrink=0.5)(step)) == rate


def test_it_is_exact_after_more_steps_than_a_float_can_count() -> None:
    step = 2**24 + 1  # the first whole number that float32 has not; 1 within a cycle of 8
    assert float(TriangularCycles(1.0, 5.0, half_cycle=4)(step)) == 2.0


def test_an_optimizer_takes_it_and_gives_it_back() -> None:
    optimizer = keras.optimizers.SGD(TriangularCycles(1.0, 5.0, half_cycle=4, shrink=0.5))
    copy = keras.optimizers.SGD.from_config(optimizer.get_config())
    variable = keras.Variable([100.0])
    copy.build([variable])
    for rate in (1.0, 2.0, 3.0):
        assert float(copy.learning_rate) == rate
        copy.apply([keras.ops.ones(1)], [variable])
    assert float(variable[0]) == 100.0 - (1.0 + 2.0 + 3.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((2.0, 1.0, 4), "lowest must be between 0 and highest"),
        ((-1.0, 1.0, 4), "lowest must be between 0 and highest"),
        ((0.0, 1.0, 0), "half_cycle must be at least 1 step; got 0"),
        ((0.0, 1.0, 4, 0.0), "shrink must be above 0 and at most 1"),
        ((0.0, 1.0, 4, 1.5), "shrink must be above 0 and at most 1"),
    ],
)
def test_what_makes_no_cycle_is_refused(arguments: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TriangularCycles(*arguments)  # type: ignore[arg-type]
