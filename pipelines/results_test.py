import pytest

from pipelines.results import Measurement, Reproduction, beside, newest, reproductions
from trainer.catalog import model_names
from trainer.paper import Result

PUBLISHED = Result("accuracy", 70.3, "ImageNet", "Table 1", "%", variant="200MF")


def measured(value, date="2026-11-20", dataset="CIFAR-10", metric="accuracy", unit="", **settings):
    return Measurement(
        metric, value, dataset, settings, "2 cores", date, "abc", "paper2hub run", 25.0, unit
    )


def test_the_newest_of_the_same_metric_and_variant_is_taken():
    others = [
        measured(1.0, date="2026-12-01", metric="loss", variant="200MF"),
        measured(2.0, date="2026-12-01", variant="400MF"),
    ]
    older, newer = measured(3.0, variant="200MF"), measured(4.0, date="2026-11-21", variant="200MF")
    assert newest(PUBLISHED, [*others, newer, older]) == newer
    assert newest(PUBLISHED, others) is None


def test_the_papers_own_dataset_goes_before_a_newer_date():
    same = measured(5.0, dataset="ImageNet", variant="200MF")
    assert newest(PUBLISHED, [same, measured(6.0, date="2027-01-01", variant="200MF")]) == same


def test_settings_that_name_no_variant_mean_the_default_one():
    plain = measured(7.0)
    assert newest(PUBLISHED, [plain], default_variant="200MF") == plain
    assert newest(PUBLISHED, [plain], default_variant="400MF") is None


def test_every_published_number_has_its_line():
    for model in model_names():
        assert reproductions(model)


def test_a_metric_of_ours_alone_has_a_row_for_each_dataset():
    old, new = (
        measured(v, f"2026-11-2{v}", metric="share", dataset="MNIST", unit="%") for v in (1, 2)
    )
    other = measured(9.0, metric="share", dataset="Fashion-MNIST")
    ours = measured(70.0, dataset="ImageNet", variant="200MF")
    rows = beside((PUBLISHED,), [new, ours, other, old])
    assert rows == [
        Reproduction(PUBLISHED, ours),
        Reproduction(None, new),
        Reproduction(None, other),
    ]
    first, second, third = rows
    assert (first.published_text, first.measured_text) == ("70.3 %", "70 %, ImageNet")
    assert (first.metric, first.variant, first.dataset) == ("accuracy", "200MF", "ImageNet")
    assert (second.published_text, second.measured_text) == ("–", "2 %, MNIST")
    assert (second.metric, second.unit, second.variant) == ("share", "%", "")
    assert (third.dataset, third.measured_text) == ("Fashion-MNIST", "9, Fashion-MNIST")


def test_measurements_of_other_variants_have_rows_of_their_own():
    one, two = (measured(1.0, metric="share", variant=v) for v in ("200MF", "400MF"))
    assert [row.variant for row in beside((), [one, two])] == ["200MF", "400MF"]


def test_what_is_not_measured_says_why():
    told = Result("error", 3.0, "MNIST", "Table 3", "%", not_measured="it is of another network")
    assert Reproduction(told, None).measured_text == "not measured: it is of another network"
    assert Reproduction(PUBLISHED, None).measured_text == "not yet run"


def test_a_row_of_nothing_is_a_mistake():
    with pytest.raises(ValueError, match="published"):
        Reproduction(None, None)
