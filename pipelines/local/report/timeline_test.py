import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.local.report.conftest import DAY, Run, parsed
from pipelines.local.report.tasks import MOST_ROWS_UNFOLDED


def bars(page: str) -> list[tuple[float, float]]:
    """Where the chart's bars are: from where and how wide, in percent."""
    chart = page[page.index('<svg class="gantt"') :]
    found = re.findall(r'<rect x="([\d.]+)%" y="\d+" width="([\d.]+)%" height="14"', chart)
    return [(float(x), float(width)) for x, width in found]


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


def test_many_different_tasks_are_cut_to_the_longest(make: Callable[..., Run]) -> None:
    run = make()
    for i in range(MOST_ROWS_UNFOLDED * 6):
        run.task(f"task-{i:03}", began=i, ended=i + (2 if i % 2 else 1))
    page = run.page()
    assert page.count("<li style=") == 300 and "60 rows of short tasks" in page
