import math

import pytest

from trainer.models.regnety.schedule import EpochCosine


@pytest.mark.parametrize(
    ("epoch", "rate"),
    [  # by hand, for a peak of 0.8 over 100 epochs with 5 of warm-up
        (0, 0.8 * 0.1),
        (1, 0.4 * (1 + math.cos(math.pi / 100)) * (0.1 + 0.9 / 5)),
        (5, 0.4 * (1 + math.cos(math.pi * 5 / 100))),
        (50, 0.4),
        (99, 0.4 * (1 + math.cos(math.pi * 99 / 100))),
    ],
)
def test_the_rate_of_an_epoch_holds_for_all_its_steps(epoch: int, rate: float) -> None:
    schedule = EpochCosine(0.8, epochs=100, warmup_epochs=5, steps_per_epoch=10)
    for step in (epoch * 10, epoch * 10 + 9):
        assert float(schedule(step)) == pytest.approx(rate, rel=1e-5, abs=1e-7)


def test_after_the_last_epoch_it_stays_at_zero() -> None:
    schedule = EpochCosine(0.8, epochs=4, warmup_epochs=1, steps_per_epoch=10)
    for step in (40, 49, 60, 80):
        assert float(schedule(step)) == pytest.approx(0.0, abs=1e-7)


def test_without_warm_up_it_begins_at_the_peak() -> None:
    schedule = EpochCosine(0.5, epochs=2, warmup_epochs=0, steps_per_epoch=1)
    assert float(schedule(0)) == pytest.approx(0.5)
    assert float(EpochCosine(**schedule.get_config())(1)) == pytest.approx(float(schedule(1)))
