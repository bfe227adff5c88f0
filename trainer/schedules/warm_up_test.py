import keras
import pytest
from keras.optimizers.schedules import CosineDecay, PiecewiseConstantDecay

from trainer.schedules.cycles import TriangularCycles
from trainer.schedules.warm_up import LinearWarmUp


@pytest.mark.parametrize(
    ("step", "rate"), [(0, 0.1), (1, 0.275), (2, 0.45), (4, 0.8), (5, 0.8), (1000, 0.8)]
)
def test_a_constant_rate_is_reached_in_equal_parts(step: int, rate: float) -> None:
    # Goyal et al.: from 0.1 for a batch of 256 to 0.8 for one of 2,048, here in 4 steps.
    schedule = LinearWarmUp(0.8, steps=4, start=1 / 8)
    assert float(schedule(step)) == pytest.approx(rate, rel=1e-6)


def test_it_begins_at_nothing_unless_told() -> None:
    assert [float(LinearWarmUp(1.0, steps=2)(step)) for step in range(4)] == [0.0, 0.5, 1.0, 1.0]


def test_the_schedule_beneath_is_not_put_off() -> None:
    # Half a cosine over 6 steps is 3/4 at step 2 and 1/2 at step 3; the warm-up ends at step 4.
    schedule = LinearWarmUp(CosineDecay(1.0, 6), steps=4)
    assert float(schedule(2)) == pytest.approx(0.75 * 2 / 4, rel=1e-5)
    assert float(schedule(3)) == pytest.approx(0.5 * 3 / 4, rel=1e-5)
    assert float(schedule(4)) == pytest.approx(0.25, rel=1e-5)


def test_epochs_of_steps_are_keras_own_with_one_off_each_boundary() -> None:
    # As the table of this package says: ten steps an epoch, a tenth of the rate from epoch 2 on.
    schedule = PiecewiseConstantDecay([2 * 10 - 1], [1.0, 0.1])
    assert [round(float(schedule(step)), 6) for step in (0, 19, 20, 100)] == [1.0, 1.0, 0.1, 0.1]


@pytest.mark.parametrize("beneath", [0.5, CosineDecay(1.0, 8), TriangularCycles(0.5, 1.0, 2)])
def test_an_optimizer_takes_it_and_gives_it_back(beneath: object) -> None:
    schedule = LinearWarmUp(beneath, steps=4, start=0.25)  # type: ignore[arg-type]
    optimizer = keras.optimizers.SGD(schedule)
    copy = keras.optimizers.SGD.from_config(optimizer.get_config())
    variable = keras.Variable([0.0])
    for each in (optimizer, copy):
        each.build([variable])
    for _ in range(6):
        assert float(copy.learning_rate) == float(optimizer.learning_rate) > 0
        for each in (optimizer, copy):
            each.apply([keras.ops.ones(1)], [variable])


@pytest.mark.parametrize(("steps", "start"), [(0, 0.0), (4, -0.1), (4, 1.1)])
def test_what_is_no_warm_up_is_refused(steps: int, start: float) -> None:
    with pytest.raises(ValueError, match="must"):
        LinearWarmUp(1.0, steps, start)
