from pipelines.results import Measurement, newest, reproductions
from trainer.catalog import model_names
from trainer.paper import Result

PUBLISHED = Result("accuracy", 70.3, "ImageNet", "Table 1", "%", variant="200MF")


def measured(value, date="2026-11-20", dataset="CIFAR-10", metric="accuracy", **settings):
    return Measurement(metric, value, dataset, settings, "2 cores", date, "abc", "paper2hub run")


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
