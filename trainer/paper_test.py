from trainer.paper import Comparison, Paper, Result


def test_published_metrics_come_first_and_those_of_other_variants_not_at_all() -> None:
    small, large = (
        Result("accuracy", v, "ImageNet", "", variant=n) for v, n in ((70, "S"), (80, "L"))
    )
    error = Result("error", 1.0, "ImageNet", "")
    paper = Paper("", "", 2020, "", (small, large, error))
    assert paper.beside({"loss": 0.1, "accuracy": 69.0}, "S") == [
        Comparison("accuracy", 69.0, small),
        Comparison("error", None, error),
        Comparison("loss", 0.1, None),
    ]
