"""Run folders filled by hand, and what their pages hold."""

import base64
import datetime
import hashlib
import html.parser
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.local.record import RunRecord, RunStatus, TaskRecord, TaskStatus, read_run
from pipelines.local.report import write_report

DAY = 86400.0
_VOID = {"area", "base", "br", "col", "hr", "img", "input", "link", "meta", "source", "wbr"}


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
        """A moment, as a record has it."""
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
        """Adds a task."""
        record = TaskRecord(
            status,
            started=None if began is None else self.at(began),
            ended=None if ended is None else self.at(ended),
            seconds=None if began is None or ended is None else round(ended - began, 3),
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
        """The report of what is on disk, as a command would show it; checked as any page is."""
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

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes an element, its attrs and what they load."""
        named = dict(attrs)
        self.tags.append((tag, named))
        if len(named) != len(attrs):
            self.problems.append(f"<{tag}> has an attribute twice")
        self.problems += [f"<{tag} {name}>" for name in named if name.startswith("on")]
        loading = ("src", "srcset", "data", "poster", "background", "xlink:href")
        self.loaded += [named[n] or "" for n in loading if n in named]
        if tag in ("link", "object", "embed"):
            self.loaded.append(tag)
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes an element that holds nothing."""
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        """Notes an end that ends nothing."""
        if not self.open or self.open.pop() != tag:
            self.problems.append(f"</{tag}> closes nothing")

    def handle_data(self, data: str) -> None:
        """Notes what a person reads."""
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += data


def parsed(page: str) -> Parser:
    """A page as it was read."""
    parser = Parser()
    parser.feed(page)
    parser.close()
    return parser


def check(page: str) -> None:
    """What holds for every page: well-formed, of one file, with no script but its own."""
    parser = parsed(page)
    styles = "".join(re.findall(r"<style>.*?</style>", page, re.DOTALL))
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]
    names = [named["id"] for _, named in parser.tags if "id" in named]
    anchors = {str(n["href"])[1:] for _, n in parser.tags if str(n.get("href")).startswith("#")}
    found = {
        "no beginning of a page": not page.startswith("<!doctype html>"),
        "elements that do not fit": parser.problems,
        "elements without an end": parser.open,
        "what is loaded": [a[:40] for a in parser.loaded if not a.startswith("data:image/")],
        "what the style loads": re.findall(r"@import|url\((?!#)", styles),
        "scripts": scripts[1:] or page.count("<script") != len(scripts),
        "scripts that it forbids": [d for d in digests if f"'sha256-{d}'" not in page],
        "names used twice": len(names) - len(set(names)),
        "links to nowhere": anchors - set(names),
    }
    if wrong := {what: each for what, each in found.items() if each}:
        pytest.fail(str(wrong))


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Run]:
    """Makes a run by its status and name."""
    return lambda status="succeeded", name="bench-1", **changes: Run(
        tmp_path / name, status, **changes
    )
