from collections.abc import Callable

from pipelines.local.report.conftest import Run, parsed


def test_metrics_and_classifications_are_shown(make: Callable[..., Run]) -> None:
    run = make()
    run.task("a", began=0, ended=1)
    run.artifact("a", "metrics", "Metrics", accuracy=0.912345678, count=12345, word="x", none=None)
    names = [{"displayName": n} for n in ("cat", "dog")]
    matrix = {"annotationSpecs": names, "rows": [{"row": [3, 1]}, {"row": [0, 2]}]}
    points = [(0, 0), (0.5, 1), (1, 1)]
    curve = [{"confidenceThreshold": 1.0, "falsePositiveRate": x, "recall": y} for x, y in points]
    run.artifact(
        "a", "both", "ClassificationMetrics", confusionMatrix=matrix, confidenceMetrics=curve
    )
    run.artifact("a", "odd", "ClassificationMetrics", confusionMatrix={"rows": [{"row": ["?"]}]})
    text = parsed(run.page()).text
    for shown in ("0.912346", "12,345", "cat taken for dog (1)", "area 0.7500", '"?"'):
        assert shown in text


def test_metrics_of_a_loop_share_a_table(make: Callable[..., Run]) -> None:
    run = make()
    run.task("loop", began=0, ended=9, kind="loop")
    for i in range(3):
        run.task(f"loop/{i}", began=i, ended=i + 1, kind="dag")
        run.task(f"loop/{i}/score", began=i, ended=i + 1)
        run.artifact(f"loop/{i}/score", "metrics", "Metrics", **{"loss": i / 8, f"only_{i}": 1})
    text = parsed(run.page()).text
    assert "metrics of loop/*/score" in text
    assert all(value in text for value in ("0.125", "0.25", "only_0", "loop/2/score"))
