import time
from collections.abc import Callable
from pathlib import Path

from pipelines.local.record import TaskStatus, read_run
from pipelines.local.report import write_report
from pipelines.local.report.conftest import Run, check, parsed

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"


def test_every_status_is_told_in_words(make: Callable[..., Run]) -> None:
    run = make("failed", exit_code=2, seconds=90.0, options={"jobs": 3})
    run.task("load", "cached", 0, 1, cache="taken from bench-0", cached_from="bench-0")
    run.task("train", "failed", 1, 61, attempts=3, exit_code=2, reason="It has no data.")
    run.task("evaluate", "cancelled", None, 61, reason="train failed.")
    run.task("branch", "skipped", None, 2, reason="Its condition did not hold: a == 'b'.")
    run.task("check", "succeeded", 1, 12.4, cache="parameter rate 0.1 → 0.2")
    run.task("import", "succeeded", None, 0.1, kind="importer")
    run.task("long", "running", 2)
    run.task("late", "waiting")
    run.record.log("train").write_text("".join(f"line {i}\n" for i in range(100)))
    text = parsed(run.page()).text
    for status in ("succeeded", "cached", "skipped", "failed", "cancelled", "running", "waiting"):
        assert f" {status}" in text
    assert "train failed after 60.0 s with exit code 2" in text and "It has no data." in text
    assert "line 70" in text and "line 69" not in text
    assert "paper2hub logs bench-1 train" in text and "paper2hub resume bench-1" in text
    assert "1 of 2 results were taken from the cache." in text
    assert "parameter rate 0.1 → 0.2" in text and "taken from bench-0" in text
    assert text.index("It has no data.") < text.rindex("Timeline")
    assert "1 min 30 s" in text and "subprocess, 3 at once" in text


def test_a_run_without_anything_is_shown(make: Callable[..., Run]) -> None:
    text = parsed(make("interrupted", exit_code=130).page()).text
    assert "No task has begun." in text and "paper2hub resume" in text


def test_a_run_whose_engine_was_killed_is_not_called_running(make: Callable[..., Run]) -> None:
    run = make("running")
    run.task("train", "running", 0)
    assert "▪ killed" in parsed(run.page()).text


def test_text_from_elsewhere_stays_text(make: Callable[..., Run]) -> None:
    run = make("failed", parameters={HOSTILE: HOSTILE, "settings": {HOSTILE: [HOSTILE, None]}})
    run.task(
        "train",
        "failed",
        0,
        1,
        reason=HOSTILE,
        cache=HOSTILE,
        cached_from=HOSTILE,
        image=HOSTILE,
        command=("sh", "-c", HOSTILE),
        input_parameters={HOSTILE: HOSTILE},
        input_artifacts={HOSTILE: [{"name": HOSTILE, "type": HOSTILE, "uri": HOSTILE}]},
        parameters={"n": HOSTILE},
        key={"inputs": {HOSTILE: [{"digest": HOSTILE}]}},
    )
    run.artifact("train", "metrics", "Metrics", **{HOSTILE: HOSTILE})
    matrix = {"annotationSpecs": [{"displayName": HOSTILE}], "rows": [{"row": [1]}]}
    run.artifact("train", "classes", "ClassificationMetrics", confusionMatrix=matrix, rest=HOSTILE)
    run.artifact("train", "slices", "SlicedClassificationMetrics", evaluationSlices=[HOSTILE])
    run.artifact("train", "page", "HTML", f"<p>{HOSTILE}</p>")
    run.artifact("train", "text", "Markdown", f"{HOSTILE}\n\n[a](javascript:alert) ![b](https://b)")
    run.record.log("train").write_bytes(
        b"\x1b[31mred\x1b[0m \x00\xff 1%\r 2%\r 3%\n" + HOSTILE.encode() + b"\n"
    )
    run.record.outputs = {"model": HOSTILE, "list": [HOSTILE]}
    page = run.page()
    parser = parsed(page)
    assert parser.text.count(HOSTILE) >= 12
    assert "red" not in parser.text and " 3%\n<script>" in parser.text
    assert not any("javascript" in str(named.get("href")) for _, named in parser.tags)
    (frame,) = (named for tag, named in parser.tags if tag == "iframe")
    assert frame["srcdoc"] == f"<p>{HOSTILE}</p>"
    assert "allow-scripts" not in str(frame["sandbox"])
    assert "default-src 'none'" in page  # nor may an embedded page load anything


def test_a_damaged_record_is_shown(make: Callable[..., Run]) -> None:
    run = make(outputs={"a": [{"uri": 3}], "b": {"uri": "/x", "type": None}})
    (Path(run.record.folder) / "pipeline.yaml").write_text("{")
    run.task("gone/train", began=5, ended=1, input_artifacts={"x": None}, key={"inputs": 3})
    run.record.change("gone/train", started="yesterday", artifacts={"a": None, "b": {}, "c": [3]})
    assert "gone/train" in parsed(run.page()).text


def test_thousands_of_tasks_share_rows(make: Callable[..., Run]) -> None:
    run = make("failed")
    run.record._summarised = time.monotonic() + 3600  # one summary at the end will do
    run.task("split", began=0, ended=5)
    run.task("loop", began=5, ended=900, kind="loop")
    long = {"command": ("sh", "-c", "x" * 3000), "cache": "not looked for: --no-cache"}
    for i in range(1000):
        run.task(f"loop/{i}", began=5 + i / 2, ended=9 + i / 2, kind="dag")
        run.task(f"loop/{i}/fit", "cached" if i % 3 else "succeeded", 5 + i / 2, 7 + i / 2, **long)
        status: TaskStatus = "failed" if i == 700 else "succeeded"
        run.task(f"loop/{i}/score", status, 7 + i / 2, 9 + i / 2, **long)
    run.record.write()
    record = read_run(run.record.folder)
    page = write_report(record).read_text(encoding="utf-8")
    assert len(page) < 3_000_000
    check(page)
    text = parsed(page).text
    assert "Of 2,001 tasks, iterations of one loop share a row." in text
    assert page.count("<li style=") == 4  # split, loop, fit, score
    assert "fit × 1,000" in text and "✓ 999 ✕ 1" in text
    assert "loop/700/score failed" in text and "loop/999/fit" in text
    assert 0 < page.count('height="14" rx="2"') < 2000
