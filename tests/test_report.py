"""A person can look at the report of a run: a browser shows it, without a complaint."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from rich.console import Console

from pipelines.local.conftest import compiled, container
from pipelines.local.display import Lines
from pipelines.local.report import write_report
from pipelines.local.run import run_pipeline

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
SUCCEEDED = (46, 125, 107)
FAILED = (192, 57, 43)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")

PAGE = """
import pathlib, sys
pathlib.Path(sys.argv[1]).write_text(
    "<!doctype html><h1>Of a task</h1><p style='height: 900px'>tall</p>"
    "<details><summary>more</summary>hidden</details>"
)
"""
FAIL = "import sys, time; time.sleep(0.3); print('no <b>data</b>'); sys.exit(2)"
WAIT = "import time; time.sleep(0.4)"

Browse = Callable[..., tuple[str, list[str]]]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run of which one task makes a page and one fails."""
    text = compiled(
        {"settings": "<script>alert(1)</script>"},
        page=container(PAGE, "{{$.outputs.artifacts['page'].path}}", artifacts=["page"]),
        wait=container(WAIT, after=["page"]),
        fail=container(FAIL, after=["page"]),
        never=container("", after=["fail"]),
    )
    spec = yaml.safe_load(text)
    (page,) = spec["components"]["comp-page"]["outputDefinitions"]["artifacts"].values()
    page["artifactType"] = {"schemaTitle": "system.HTML", "schemaVersion": "0.0.1"}
    root = tmp_path_factory.mktemp("runs")
    with Lines(Console(quiet=True)) as display:
        record = run_pipeline(yaml.safe_dump(spec), {}, root, display)
    assert {name: task.status for name, task in record.tasks.items()} == {
        "page": "succeeded",
        "wait": "succeeded",
        "fail": "failed",
        "never": "cancelled",
    }
    return write_report(record)


@pytest.fixture
def browse(tmp_path: Path) -> Browse:
    """Opens a page: what its document has become, and what the console said."""

    def run(page: Path, *options: str) -> tuple[str, list[str]]:
        done = subprocess.run(
            [
                str(CHROMIUM),
                *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
                *(f"--user-data-dir={tmp_path / 'browser'}", "--enable-logging=stderr"),
                *options,
                page.as_uri(),
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        return done.stdout, re.findall(r".*\bCONSOLE\b.*", done.stderr)

    return run


def test_a_browser_shows_the_report_and_complains_of_nothing(report: Path, browse: Browse) -> None:
    document, console = browse(report, "--dump-dom")
    assert console == []
    bars = re.findall(
        r'<g class="bar (\w+)[^>]*><rect x="[\d.]+%" y="\d+" width="([\d.]+)%"', document
    )
    assert sorted(status for status, _ in bars) == ["failed", "succeeded", "succeeded"]
    assert all(float(width) > 0 for _, width in bars)
    assert re.search(r'<g class="bar cancelled[^>]*><circle', document)
    (frame,) = re.findall(r"<iframe[^>]*>", document)
    assert "Of a task" in html.unescape(frame)
    # Its height was measured from what it shows, and so it is shown.
    height = re.search(r'style="height: (\d+)px;"', frame)
    assert height and 950 < int(height[1]) < 1100
    assert "no &lt;b&gt;data&lt;/b&gt;" in document
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in document


def test_a_complaint_would_be_heard(tmp_path: Path, browse: Browse) -> None:
    page = tmp_path / "page.html"
    page.write_text("<!doctype html><script>null.length</script>")
    _, console = browse(page, "--dump-dom")
    assert len(console) == 1 and "TypeError" in console[0]


def test_the_bars_are_seen(report: Path, browse: Browse, tmp_path: Path) -> None:
    picture = tmp_path / "report.png"
    _, console = browse(report, f"--screenshot={picture}", "--window-size=1200,1600")
    assert console == []
    with Image.open(picture) as opened:
        pixels = np.asarray(opened.convert("RGB"), dtype=int)
    for colour in (SUCCEEDED, FAILED):
        near = (abs(pixels - colour) < 12).all(axis=-1).sum()
        assert near > 500, colour


def around(report: Path, tmp_path: Path, width: int, script: str) -> Path:
    """A page that shows the report and may look into it, which the report lets nobody else do."""
    page = html.escape(report.read_text(encoding="utf-8"))
    outer = tmp_path / "around.html"
    outer.write_text(
        f"""<!doctype html><meta charset="utf-8"><title>not measured</title>
        <iframe style="width: {width}px; height: 900px; border: 0" srcdoc="{page}"></iframe>
        <script>
        addEventListener("load", () => {{
          const inside = document.querySelector("iframe").contentDocument;
          {script}
        }});
        </script>""",
        encoding="utf-8",
    )
    return outer


@pytest.mark.parametrize("width", [400, 1200])
def test_the_report_is_no_wider_than_its_window(
    report: Path, browse: Browse, tmp_path: Path, width: int
) -> None:
    script = """
        const page = inside.documentElement;
        document.title = `${page.clientWidth} ${page.scrollWidth}`;
    """
    outer = around(report, tmp_path, width, script)
    document, _ = browse(outer, "--dump-dom", f"--window-size={width + 100},1000")
    assert f"<title>{width} {width}</title>" in document


def test_an_embedded_page_gets_the_room_that_it_needs(
    report: Path, browse: Browse, tmp_path: Path
) -> None:
    script = """
        const frame = inside.querySelector("iframe");
        const before = frame.offsetHeight;
        frame.contentDocument.querySelector("details").open = true;
        setTimeout(() => {
          const page = frame.contentDocument.documentElement;
          const fits = frame.clientHeight >= page.scrollHeight;
          document.title = `${frame.offsetHeight > before} ${fits}`;
        }, 500);
    """
    outer = around(report, tmp_path, 1000, script)
    document, _ = browse(outer, "--dump-dom", "--virtual-time-budget=5000")
    assert "<title>true true</title>" in document
