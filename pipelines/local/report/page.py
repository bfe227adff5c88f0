"""Puts the page together.

The page takes any pipeline and any end of a run. It loads nothing and lets nothing be loaded: its
security policy, which embedded pages inherit, allows no address but data.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from pathlib import Path
from typing import Any

from pipelines.local.history import status_of
from pipelines.local.record import REPORT_FILE, RunRecord
from pipelines.local.report import embedded, findings, head, table, timeline, words
from pipelines.local.report.artifacts import Artifacts
from pipelines.local.report.tasks import Tasks
from trainer.artifact import write_text

_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")

_FIT = """
for (const frame of document.querySelectorAll("iframe")) {
  const fit = () => {
    const page = frame.contentDocument && frame.contentDocument.documentElement;
    if (page && page.offsetHeight) frame.style.height = Math.ceil(page.offsetHeight) + 2 + "px";
  };
  const begin = () => {
    fit();
    frame.contentDocument.addEventListener("toggle", fit, true);
  };
  if (frame.contentDocument && frame.contentDocument.readyState === "complete") begin();
  frame.addEventListener("load", begin);
  window.addEventListener("resize", fit);
}
"""
"""Gives an embedded page the height that it needs; without it, the page has a scroll bar."""


@functools.cache
def template() -> Any:
    """The template of the page; made ready once, which takes longer than filling it in."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "duration": words.duration,
        "value": words.value_in_words,
        "number": words.number_in_words,
    }
    return environment.get_template("page.html")


def write_report(record: RunRecord) -> Path:
    """Writes the page of a run into its folder, whole or not at all; returns the file."""
    tasks = Tasks(record)
    found = Artifacts(record)
    views = table.task_views(tasks)
    page = template().render(
        run=record,
        symbols=words.SYMBOLS,
        title=status_of(record),
        facts=head.facts(record),
        failures=head.failures(record),
        timeline=timeline.chart(tasks, {view["path"]: view["anchor"] for view in views["shown"]}),
        parameters=[table.value_view(n, v) for n, v in record.parameters.items()],
        outputs=[o for n, v in record.outputs.items() for o in table.output_views(record, n, v)],
        metrics=findings.metrics(found, tasks),
        classifications=findings.classifications(found),
        pages=embedded.pages(found),
        texts=embedded.texts(found),
        pictures=embedded.pictures(found),
        cards=embedded.cards(found),
        tasks=views,
        cache=table.cache_in_words(record),
        script=_FIT,
        script_digest=base64.b64encode(hashlib.sha256(_FIT.encode()).digest()).decode(),
    )
    target = Path(record.folder) / REPORT_FILE
    write_text(target, _CONTROLS.sub("�", page))
    return target
