import base64
import datetime
import hashlib
import html.parser
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.local.record import RunRecord, RunStatus, TaskRecord, TaskStatus, read_run
from pipelines.local.report import MOST_ROWS_UNFOLDED, duration, write_report

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
DAY = 86400.0
DOT = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)
VOID = {"area", "base", "br", "col", "hr", "img", "input", "link", "meta", "source", "wbr"}


class Run:
    """A run folder that is filled by hand; moments are seconds from its start."""

    def __init__(self, folder: Path, status: RunStatus = "succeeded", **changes: Any):
        folder.mkdir(parents=True)
        self.record = RunRecord(
            **{
                "run": folder.name,
                "pipeline": "bench",
                "folder": str(folder),
                "parameters": {},
                "launcher": "subprocess",
                "status": status,
                "started": self.at(0),
                **changes,
            }
        )

    def at(self, seconds: float) -> str:
        began = datetime.datetime(2026, 11, 20, 18, tzinfo=datetime.UTC)
        moment = began + datetime.timedelta(seconds=seconds)
        return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def task(
        self,
        path: str,
        status: TaskStatus = "succeeded",
        began: float | None = None,
        ended: float | None = None,
        **changes: Any,
    ) -> None:
        both = began is not None and ended is not None
        record = TaskRecord(
            status,
            started=None if began is None else self.at(began),
            ended=None if ended is None else self.at(ended),
            seconds=round(ended - began, 3) if both else None,  # type: ignore[operator]
            **changes,
        )
        self.record.set_task(path, record)

    def artifact(
        self, path: str, name: str, kind: str, content: Any = None, **metadata: Any
    ) -> None:
        """Adds an artifact to what a task gave."""
        place = self.record.task_folder(path) / "outputs" / name
        place.parent.mkdir(exist_ok=True)
        if isinstance(content, dict):
            place.mkdir()
            for file, text in content.items():
                (place / file).write_bytes(text if isinstance(text, bytes) else text.encode())
        elif content is not None:
            place.write_bytes(content if isinstance(content, bytes) else content.encode())
        artifact = {
            "name": name,
            "type": {"schemaTitle": f"system.{kind}", "schemaVersion": "0.0.1"},
            "uri": str(place),
            "metadata": metadata,
        }
        self.record.change(path, artifacts={**self.record.tasks[path].artifacts, name: artifact})

    def page(self) -> str:
        """The report; of what is on disk, as a command would show it."""
        self.record.write()
        text = write_report(read_run(self.record.folder)).read_text(encoding="utf-8")
        check(text)
        return text


class Parser(html.parser.HTMLParser):
    """Notes what does not fit, what is loaded, and what there is to read."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.problems: list[str] = []
        self.loaded: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        named = dict(attributes)
        self.tags.append((tag, named))
        if len(named) != len(attributes):
            self.problems.append(f"<{tag}> has an attribute twice")
        self.problems += [f"<{tag} {name}>" for name in named if name.startswith("on")]
        loading = ("src", "srcset", "data", "poster", "background", "xlink:href")
        self.loaded += [named[n] or "" for n in loading if n in named]
        if tag in ("link", "object", "embed"):
            self.loaded.append(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.problems.append(f"</{tag}> closes nothing")

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += data


def parsed(page: str) -> Parser:
    parser = Parser()
    parser.feed(page)
    parser.close()
    return parser


def check(page: str) -> None:
    """What holds for every page: well-formed, of one file, with no script but its own."""
    assert page.startswith("<!doctype html>")
    parser = parsed(page)
    assert parser.problems == []
    assert parser.open == []
    assert [
        address[:40] for address in parser.loaded if not address.startswith("data:image/")
    ] == []
    assert not re.search(r"@import|url\((?!#)", "".join(re.findall(r"<style>.*?</style>", page)))
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]
    assert len(re.findall("<script", page)) == len(scripts) <= 1
    assert all(f"'sha256-{digest}'" in page for digest in digests)
    names = [named["id"] for _, named in parser.tags if "id" in named]
    assert len(names) == len(set(names))
    anchors = {str(n["href"])[1:] for _, n in parser.tags if str(n.get("href")).startswith("#")}
    assert anchors <= set(names)


def bars(page: str) -> list[tuple[float, float]]:
    """Where the chart's bars are: from where and how wide, in percent."""
    chart = page[page.index('<svg class="gantt"') :]
    found = re.findall(r'<rect x="([\d.]+)%" y="\d+" width="([\d.]+)%" height="14"', chart)
    return [(float(x), float(width)) for x, width in found]


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Run]:
    return lambda status="succeeded", name="bench-1", **changes: Run(
        tmp_path / name, status, **changes
    )


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
    assert "▪ stopped" in parsed(run.page()).text


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


def test_results_are_shown(make: Callable[..., Run]) -> None:
    run = make(outputs={"n": 3})
    run.task("a", began=0, ended=1, parameters={"n": 3}, digests={"page": "0123456789abcdef"})
    run.artifact("a", "page", "HTML", "<h1>Of its own</h1><script>1</script>")
    run.artifact("a", "away", "HTML")
    run.artifact("a", "text", "Markdown", "# Said\n\n*so*\n\n| x |\n|---|\n| y |\n")
    run.artifact("a", "metrics", "Metrics", accuracy=0.912345678, count=12345, word="x", none=None)
    names = [{"displayName": n} for n in ("cat", "dog")]
    matrix = {"annotationSpecs": names, "rows": [{"row": [3, 1]}, {"row": [0, 2]}]}
    points = [(0, 0), (0.5, 1), (1, 1)]
    curve = [{"confidenceThreshold": 1.0, "falsePositiveRate": x, "recall": y} for x, y in points]
    run.artifact(
        "a", "both", "ClassificationMetrics", confusionMatrix=matrix, confidenceMetrics=curve
    )
    run.artifact("a", "odd", "ClassificationMetrics", confusionMatrix={"rows": [{"row": ["?"]}]})
    run.artifact("a", "picture", "Artifact", DOT)
    run.artifact("a", "few", "Artifact", {"1.png": DOT, "2.png": DOT, "3.png": "no picture"})
    run.artifact("a", "many", "Artifact", {f"{i}.png": DOT for i in range(13)})
    card = "---\nlicence: x\n---\n# A model\n\nIts limits."
    run.artifact("a", "export", "Model", {"README.md": card, "export.json": "{}"})
    page = run.page()
    parser = parsed(page)
    frames = [named["srcdoc"] for tag, named in parser.tags if tag == "iframe"]
    assert frames == ["<h1>Of its own</h1><script>1</script>"]
    assert "Its scripts do not run here" in parser.text
    assert "Not embedded" in parser.text and "away of a" in parser.text
    assert "<h3>Said</h3>" in page and "<em>so</em>" in page and "<td>y</td>" in page
    for text in ("0.912346", "12,345", "cat taken for dog (1)", "area 0.7500", '"?"'):
        assert text in parser.text
    assert sum(tag == "img" for tag, _ in parser.tags) == 3
    assert "13 pictures in many of a" in parser.text
    assert "<h3>A model</h3>" in page and "licence: x" not in page
    assert 'href="tasks/a/outputs/page"' in page and "0123456789ab" in page


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


def test_breaks_of_days_are_cut_short(make: Callable[..., Run]) -> None:
    run = make(seconds=180.0, resumed=2)
    run.task("all", began=2 * DAY, ended=9 * DAY + 60, kind="dag")  # its last session's own time
    for i, day in enumerate((0, 2, 9)):
        run.task(f"all/part-{i}", began=day * DAY, ended=day * DAY + 60)
    page = run.page()
    text = parsed(page).text
    assert "2 breaks (1 d 23 h, 6 d 23 h) are cut short" in text
    (first, width), (second, _), (third, last) = bars(page)
    assert first == 0 and 25 < width < 33 and second > width and third + last == pytest.approx(100)
    assert page.count('class="break"') == 2
    assert "3 min 00 s" in text and "in 3 sessions" in text  # the group: without its breaks


def test_a_short_wait_is_no_break(make: Callable[..., Run]) -> None:
    run = make()
    run.task("a", began=0, ended=50)
    run.task("b", began=55, ended=100)
    page = run.page()
    assert bars(page) == [(0.0, 50.0), (55.0, 45.0)] and 'class="break"' not in page
    labels = re.findall(r'class="tick"[^>]*>([^<]+)<', page)
    assert labels == ["0", "15 s", "30 s", "45 s", "60 s", "75 s", "90 s"]


def test_what_waits_for_what_is_drawn(
    make: Callable[..., Run], container: Any, compiled: Any
) -> None:
    run = make()
    text = compiled(
        a=container("", outputs=["x"]),
        b=container("", inputs={"x": "a.x"}, outputs=["y"]),
        c=container("", inputs={"x": "a.x", "y": "b.y"}),
        d=container(""),
    )
    (Path(run.record.folder) / "pipeline.yaml").write_text(text)
    run.task("a", began=0, ended=10)
    run.task("b", began=10, ended=20)
    run.task("c", began=20, ended=30)
    run.task("d", began=0, ended=5)
    page = run.page()
    # a > b > c; what c takes of a needs no line of its own.
    assert len(re.findall(r'marker-end="url\(#head\)"/>\n', page)) == 2
    assert re.findall(r'class=" critical" title="(\w+)"', page) == ["a", "b", "c"]
    assert "Waits for a, b." in page


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
    write_report(record)  # imports and reads the template
    began = time.monotonic()
    page = write_report(record).read_text(encoding="utf-8")
    assert time.monotonic() - began < 2
    assert len(page) < 3_000_000
    check(page)
    text = parsed(page).text
    assert "Of 2,001 tasks, iterations of one loop share a row." in text
    assert page.count("<li style=") == 4  # split, loop, fit, score
    assert "fit × 1,000" in text and "✓ 999 ✕ 1" in text
    assert "loop/700/score failed" in text and "loop/999/fit" in text
    assert 0 < len(bars(page)) < 2000


def test_many_different_tasks_are_cut_to_the_longest(make: Callable[..., Run]) -> None:
    run = make()
    for i in range(MOST_ROWS_UNFOLDED * 6):
        run.task(f"task-{i:03}", began=i, ended=i + (2 if i % 2 else 1))
    page = run.page()
    assert page.count("<li style=") == 300 and "60 rows of short tasks" in page


def test_the_values_of_variables_are_not_shown(
    make: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "hunter2hunter2")
    run = make(options={"jobs": 1, "variables": ["TOKEN"]})
    run.task("a", began=0, ended=1, key={"environment": {"TOKEN": "hunter2hunter2"}})
    assert "hunter2" not in run.page()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, ""),
        (0.0, "0.00 s"),
        (0.001, "< 0.01 s"),
        (0.064, "0.06 s"),
        (3.14, "3.1 s"),
        (59.6, "1 min 00 s"),
        (245.0, "4 min 05 s"),
        (3599.9, "1 h 00 min"),
        (2 * DAY + 4 * 3600, "2 d 4 h"),
    ],
)
def test_a_duration_is_read_at_a_glance(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_values_are_written_as_a_person_would(make: Callable[..., Run]) -> None:
    values = {"text": "a b", "empty": "", "whole": 3.0, "large": 10**400, "yes": True, "none": None}
    run = make(parameters={**values, "nan": float("nan"), "list": [1, {"a": "é"}]})
    text = parsed(run.page()).text
    for shown in ("a b", "empty", "1" + "0" * 400, "true", "none", "nan", '[1, {"a": "é"}]'):
        assert shown in text
    assert json.dumps("é") not in text
