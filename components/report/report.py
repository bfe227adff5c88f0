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
from trainer.engine.strip import Strip, read_samples
from trainer.model_card import as_html, without_front_matter

LISTED_CLASSES = 30
"""Confusion matrices of more classes than this show the most frequent confusions instead (ours)."""

LISTED_ITEMS = 20
"""Refused items, and confusions, that the page lists (ours)."""

GRIDS = 8
"""Most grids of samples that a strip shows (ours)."""

STRIP_BYTES = 8 * 2**20
"""Most bytes that the files of a strip may have (ours); with larger ones it shows fewer."""

NO_CURVES = ("epoch", "step", "evaluation", "notes")
"""What a record of the history has besides the means of its epoch."""

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
    histories = read_histories(Path(checkpoint))
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
        notes=notes_view(histories),
        strips=[strip_view(strip) for strip in read_samples(checkpoint)],
        curves=[curve_picture(*curve, beginnings(histories)) for curve in curves(histories)],
        stages=len(histories),
        panels=read_panels(Path(evaluation)),
        confusion=confusion_view(read_json(Path(evaluation) / "confusion.json")),
        manifest=read_manifest(examples),
        quarantined=read_quarantine(Path(examples) / QUARANTINE),
        state=state,
        export=read_json(Path(export) / "export.json"),
        card=read_card(Path(export) / "README.md"),
    )
    write_text(report, page)


def read_histories(checkpoint: Path) -> list[list[dict[str, Any]]]:
    """What was measured in each epoch, stage by stage, the checkpoint's own last."""
    earlier, own = checkpoint / "earlier.json", checkpoint / "history.json"
    histories = read_json(earlier) if earlier.is_file() else []
    return [*histories, read_json(own)] if own.is_file() else histories


def beginnings(histories: Sequence[Sequence[Mapping[str, Any]]]) -> list[int]:
    """How many epochs earlier stages had taken when each stage began, the first one at 0."""
    epochs = [history[-1]["epoch"] if history else 0 for history in histories]
    return [sum(epochs[:i]) for i in range(len(epochs))]


def curves(
    histories: Sequence[Sequence[Mapping[str, Any]]],
) -> list[tuple[str, dict[str, tuple[list[float], list[float]]]]]:
    """What to plot over the epochs of all stages: title -> line -> (epochs, values).

    A loss goes with the metric of the same name, so that training and evaluation share a picture.
    """
    lines: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
    for before, history in zip(beginnings(histories), histories, strict=True):
        for record in history:
            means = {k: v for k, v in record.items() if k not in NO_CURVES}
            for line, values in (("training", means), ("evaluation", record.get("evaluation", {}))):
                for name, value in values.items():
                    xs, ys = lines.setdefault(name, {}).setdefault(line, ([], []))
                    xs.append(before + record["epoch"])
                    ys.append(value)
    return [(name.replace("_", " "), series) for name, series in lines.items()]


def curve_picture(
    title: str,
    series: Mapping[str, tuple[list[float], list[float]]],
    beginnings: Sequence[int] = (),
) -> str:
    """A line chart over epochs, as an SVG element; lines differ in dashes as well as in colour.

    Args:
        title: what it shows.
        series: line -> (epochs, values).
        beginnings: epochs at which stages began; a line stands where one follows another.
    """
    with matplotlib.rc_context({"svg.hashsalt": title, "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(4.2, 2.6), layout="constrained")
        axes = figure.add_subplot()
        for style, (name, (epochs, values)) in zip(LINE_STYLES, series.items(), strict=False):
            axes.plot(epochs, values, style, marker="." if len(epochs) < 30 else "", label=name)
        for epoch in beginnings[1:]:
            axes.axvline(epoch + 0.5, color="#888", linewidth=0.8)
        axes.set_title(title)
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        if len(series) > 1:
            axes.legend()
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Title": title})
    text = file.getvalue()
    return text[text.index("<svg") :]


def notes_view(histories: Sequence[Sequence[Mapping[str, Any]]]) -> list[tuple[str, list[str]]]:
    """What guards noticed during the training: (when, sentences)."""
    return [
        (
            f"{f'Stage {number}, epoch' if len(histories) > 1 else 'Epoch'} {record['epoch']}",
            list(record["notes"]),
        )
        for number, history in enumerate(histories, start=1)
        for record in history
        if record.get("notes")
    ]


def strip_view(strip: Strip) -> dict[str, Any]:
    """What the page shows of a strip: its first grid, its last, and as many between as it takes."""
    count = GRIDS
    grids = strip.spread(count)
    while count > 2 and sum(path.stat().st_size for _, path in grids) > STRIP_BYTES:
        count -= 1
        grids = strip.spread(count)
    pictures = [{"uri": _data_uri(path), "caption": f"epoch {epoch:,}"} for epoch, path in grids]
    return {"title": strip.title, "grids": pictures}


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
