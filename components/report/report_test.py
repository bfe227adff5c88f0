import base64
import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from components.report import report as report_module
from components.report.report import (
    beginnings,
    confusion_view,
    curve_picture,
    curves,
    notes_view,
    read_card,
    read_histories,
    read_quarantine,
    report,
    strip_view,
)
from trainer.artifact import write_json
from trainer.data.manifest import Manifest, Split, write_manifest
from trainer.dataset import Feature
from trainer.engine.strip import read_samples, save_samples


def test_a_curve_has_the_training_and_the_evaluation_of_one_name() -> None:
    history = [
        {"epoch": 1, "step": 10, "cost": 3.0},
        {"epoch": 2, "step": 20, "cost": 2.0, "evaluation": {"cost": 2.5, "top_1": 40.0}},
    ]
    assert curves([history]) == [
        ("cost", {"training": ([1, 2], [3.0, 2.0]), "evaluation": ([2], [2.5])}),
        ("top 1", {"evaluation": ([2], [40.0])}),
    ]


def test_curves_go_on_over_stages(tmp_path: Path) -> None:
    first = [{"epoch": 1, "step": 5, "loss": 4.0}, {"epoch": 2, "step": 10, "loss": 3.0}]
    second = [{"epoch": 1, "step": 5, "loss": 2.0, "evaluation": {"loss": 2.5}}]
    assert read_histories(tmp_path) == []
    write_json(tmp_path / "history.json", second)
    assert read_histories(tmp_path) == [second]
    write_json(tmp_path / "earlier.json", [first])
    histories = read_histories(tmp_path)
    assert histories == [first, second]
    assert beginnings(histories) == [0, 2]
    assert curves(histories) == [
        ("loss", {"training": ([1, 2, 3], [4.0, 3.0, 2.0]), "evaluation": ([3], [2.5])})
    ]
    (curve,) = curves(histories)
    assert len(curve_picture(*curve, (0, 2))) > len(curve_picture(*curve, (0,)))


def test_notes_say_when(tmp_path: Path) -> None:
    noticed = [
        {"epoch": 1, "step": 5, "loss": 1.0},
        {"epoch": 2, "step": 10, "loss": 1.0, "notes": ["loss has not moved.", "Look."]},
    ]
    assert notes_view([noticed]) == [("Epoch 2", ["loss has not moved.", "Look."])]
    assert notes_view([[], noticed]) == [("Stage 2, epoch 2", ["loss has not moved.", "Look."])]
    assert curves([noticed]) == [("loss", {"training": ([1, 2], [1.0, 1.0])})]


def test_a_strip_has_the_first_grid_and_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for epoch in range(1, 41):
        save_samples(tmp_path, epoch, {"Fakes": np.full((4, 2, 2, 1), epoch / 40)})
    (strip,) = read_samples(tmp_path)
    view = strip_view(strip)
    assert view["title"] == "Fakes"
    captions = [grid["caption"] for grid in view["grids"]]
    assert len(captions) == 8 and (captions[0], captions[-1]) == ("epoch 1", "epoch 40")
    last = base64.b64decode(view["grids"][-1]["uri"].removeprefix("data:image/png;base64,"))
    assert last == strip.grids[-1][1].read_bytes()
    monkeypatch.setattr(report_module, "STRIP_BYTES", 3.5 * len(last))
    assert len(strip_view(strip)["grids"]) == 3
    monkeypatch.setattr(report_module, "STRIP_BYTES", 1)
    assert [grid["caption"] for grid in strip_view(strip)["grids"]] == ["epoch 1", "epoch 40"]


class Page(HTMLParser):
    """The order of headings and notes of a page, and all that it would fetch."""

    def __init__(self, text: str):
        super().__init__()
        self.order: list[str] = []
        self.sources: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.sources += [value or "" for name, value in attributes if name == "src"]

    def handle_data(self, data: str) -> None:
        if self.lasttag in ("h2", "h3", "dd", "figcaption") and data.strip():
            self.order.append(data.strip())


def write_run(folder: Path) -> dict[str, str]:
    """What the report of a small run reads."""
    checkpoint, evaluation, export = (folder / n for n in ("checkpoint", "evaluation", "export"))
    state = {
        "config": {"epochs": 2},
        "origin": "Trained on Digits.",
        "epoch": 2,
        "step": 20,
        "versions": {"keras": "3.15"},
        "sha256": "00ff",
    }
    history = [
        {"epoch": 1, "step": 10, "generator_loss": 1.0},
        {"epoch": 2, "step": 20, "generator_loss": 1.0, "notes": ["<b>It</b> has not moved."]},
    ]
    write_json(checkpoint / "state.json", state)
    write_json(checkpoint / "history.json", history)
    for epoch in (1, 2):
        pictures = np.random.default_rng(epoch).random((64, 28, 28, 1))
        save_samples(checkpoint, epoch, {"Drawn from noise": pictures, "Again": pictures})
    measured = {"split": "test", "examples": 10, "dataset": "Digits", "metrics": {"loss": 1.0}}
    write_json(evaluation / "metrics.json", measured)
    write_json(evaluation / "confusion.json", {})
    write_json(evaluation / "panels.json", [])
    parity = {"compared_examples": 2, "tolerance": 1e-4, "largest_difference": {"keras": 0.0}}
    write_json(export / "export.json", {"parity": parity, "signatures": {}})
    features, splits = {"key": Feature("bytes")}, {"test": Split(())}
    manifest = Manifest("digits", "Digits", "", "CC0", "00", (), "test", features, splits)
    write_manifest(folder / "examples", manifest)
    names = ("checkpoint", "evaluation", "export", "examples")
    return {name: str(folder / name) for name in names}


def test_the_page_needs_nothing_else_and_is_the_same_every_time(tmp_path: Path) -> None:
    arguments = write_run(tmp_path)
    report("autoencoder", **arguments, report=str(tmp_path / "a.html"))
    report("autoencoder", **arguments, report=str(tmp_path / "b.html"))
    text = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert text == (tmp_path / "b.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.order[:2] == ["Noticed while training", "<b>It</b> has not moved."]
    begin = page.order.index("Samples over the training")
    assert page.order[begin + 1 : begin + 7] == [
        *("Again", "epoch 1", "epoch 2"),
        *("Drawn from noise", "epoch 1", "epoch 2"),
    ]
    assert page.order[begin + 7] == "Learning curves"
    assert len(page.sources) == 4
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert not page.tags & {"script", "link", "iframe"}


def test_a_picture_is_one_element_and_the_same_every_time() -> None:
    series = {"training": ([1.0, 2.0], [3.0, 2.0]), "evaluation": ([2.0], [2.5])}
    picture = curve_picture("cost", series)
    assert picture.startswith("<svg") and picture.rstrip().endswith("</svg>")
    assert picture == curve_picture("cost", series)


def test_confusions_are_shown_as_a_table_and_the_worst_first() -> None:
    matrix = {
        "annotationSpecs": [{"displayName": "cat"}, {"displayName": "dog"}],
        "rows": [{"row": [3.0, 1.0]}, {"row": [2.0, 0.0]}],
    }
    view = confusion_view(matrix)
    assert view is not None
    assert view["table"] == [("cat", [(3, 0.75), (1, 0.25)]), ("dog", [(2, 1.0), (0, 0.0)])]
    assert view["pairs"] == [(2, "dog", "cat"), (1, "cat", "dog")]
    assert confusion_view({}) is None


def test_only_the_first_refused_items_are_listed(tmp_path: Path) -> None:
    items = [{"key": str(i), "reason": "empty"} for i in range(30)]
    (tmp_path / "quarantine.jsonl").write_text("".join(json.dumps(i) + "\n" for i in items))
    assert read_quarantine(tmp_path / "quarantine.jsonl") == items[:20]
    assert read_quarantine(tmp_path / "missing") == []


def test_a_model_card_is_shown_as_text_of_its_own(tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    assert not read_card(card)
    card.write_text(
        "---\nlibrary_name: keras\n---\n# digits\n\n"
        "| a | b |\n|---|---|\n| 1 | <script>2</script> |\n\n"
        "![picture](https://example.com/x.png) [bad](javascript:alert)\n",
        encoding="utf-8",
    )
    page = read_card(card)
    assert "<h1>digits</h1>" in page and "<td>1</td>" in page and "library_name" not in page
    assert "<script" not in page and "<img" not in page and 'href="javascript' not in page
