"""All that a run found, on one page that needs nothing else."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import jinja2
import matplotlib
from matplotlib.figure import Figure

from trainer.artifact import read_json, write_text
from trainer.catalog import load_paper
from trainer.data.manifest import QUARANTINE, read_manifest
from trainer.model_card import as_html, without_front_matter

LISTED_CLASSES = 30
"""Confusion matrices of more classes than this show the most frequent confusions instead (ours)."""

LISTED_ITEMS = 20
"""Refused items, and confusions, that the page lists (ours)."""

LINE_STYLES = ("-", "--", ":", "-.")


def report(
    model: str,
    examples: str,
    checkpoint: str,
    evaluation: str,
    export: str,
    report: str,
) -> None:
    """Writes one HTML file about a run: results beside the paper's, curves, pictures, model card.

    Args:
        model: Name of the model.
        examples: Folder of examples, as create_tfrecords writes it.
        checkpoint: Folder of the checkpoint.
        evaluation: Folder of the checkpoint's evaluation.
        export: Folder of the export.
        report: File to write the page to.
    """
    state = read_json(Path(checkpoint) / "state.json")
    history_file = Path(checkpoint) / "history.json"
    history = read_json(history_file) if history_file.is_file() else []
    measured = read_json(Path(evaluation) / "metrics.json")
    paper = load_paper(model)
    variant = state["config"].get("variant", "")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html").render(
        model=model,
        variant=variant,
        paper=paper,
        comparisons=paper.beside(measured["metrics"], variant),
        measured=measured,
        curves=[curve_picture(*curve) for curve in curves(history)],
        panels=read_panels(Path(evaluation)),
        confusion=confusion_view(read_json(Path(evaluation) / "confusion.json")),
        manifest=read_manifest(examples),
        quarantined=read_quarantine(Path(examples) / QUARANTINE),
        state=state,
        history=history,
        export=read_json(Path(export) / "export.json"),
        card=read_card(Path(export) / "README.md"),
    )
    write_text(report, page)


def curves(
    history: Sequence[Mapping[str, Any]],
) -> list[tuple[str, dict[str, tuple[list[float], list[float]]]]]:
    """What to plot over epochs: title -> line -> (epochs, values).

    A loss goes with the metric of the same name, so that training and evaluation share a picture.
    """
    lines: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
    skipped = {"epoch", "step", "evaluation"}
    for record in history:
        for name, value in record.items():
            if name not in skipped:
                xs, ys = lines.setdefault(name, {}).setdefault("training", ([], []))
                xs.append(record["epoch"])
                ys.append(value)
        for name, value in record.get("evaluation", {}).items():
            xs, ys = lines.setdefault(name, {}).setdefault("evaluation", ([], []))
            xs.append(record["epoch"])
            ys.append(value)
    return [(name.replace("_", " "), series) for name, series in lines.items()]


def curve_picture(title: str, series: Mapping[str, tuple[list[float], list[float]]]) -> str:
    """A line chart over epochs, as an SVG element; lines differ in dashes as well as in colour."""
    with matplotlib.rc_context({"svg.hashsalt": title, "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(4.2, 2.6), layout="constrained")
        axes = figure.add_subplot()
        for style, (name, (epochs, values)) in zip(LINE_STYLES, series.items(), strict=False):
            axes.plot(epochs, values, style, marker="." if len(epochs) < 30 else "", label=name)
        axes.set_title(title)
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        if len(series) > 1:
            axes.legend()
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Title": title})
    text = file.getvalue()
    return text[text.index("<svg") :]


def read_panels(folder: Path) -> list[dict[str, Any]]:
    """The evaluation's rows of pictures, each picture as a data URI with its caption."""
    panels = []
    for panel in read_json(folder / "panels.json"):
        captions = panel["captions"] or [""] * len(panel["files"])
        pictures = [
            {"uri": _data_uri(folder / file), "caption": caption}
            for file, caption in zip(panel["files"], captions, strict=True)
        ]
        panels.append({"title": panel["title"], "pictures": pictures})
    return panels


def confusion_view(matrix: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the page shows of a confusion matrix: the table if it is small, and the worst pairs."""
    if not matrix:
        return None
    names = [spec["displayName"] for spec in matrix["annotationSpecs"]]
    rows = [row["row"] for row in matrix["rows"]]
    pairs = sorted(
        (
            (int(count), names[i], names[j])
            for i, row in enumerate(rows)
            for j, count in enumerate(row)
            if i != j and count
        ),
        key=lambda pair: (-pair[0], pair[1], pair[2]),
    )
    table = []
    if len(names) <= LISTED_CLASSES:
        for name, row in zip(names, rows, strict=True):
            total = sum(row) or 1.0
            table.append((name, [(int(count), round(count / total, 3)) for count in row]))
    return {"names": names, "table": table, "pairs": pairs[:LISTED_ITEMS]}


def read_quarantine(path: Path) -> list[dict[str, Any]]:
    """The first refused items with their reasons."""

    if not path.is_file():
        return []
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in islice(lines, LISTED_ITEMS)]


def read_card(path: Path) -> Any:
    """A model card as HTML; HTML within it is shown as text, and a picture becomes a link."""
    if not path.is_file():
        return ""
    return as_html(without_front_matter(path.read_text(encoding="utf-8")))


def _data_uri(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
