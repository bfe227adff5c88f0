import json
from pathlib import Path

from components.report.report import (
    confusion_view,
    curve_picture,
    curves,
    read_card,
    read_quarantine,
)


def test_a_curve_has_the_training_and_the_evaluation_of_one_name() -> None:
    history = [
        {"epoch": 1, "step": 10, "cost": 3.0},
        {"epoch": 2, "step": 20, "cost": 2.0, "evaluation": {"cost": 2.5, "top_1": 40.0}},
    ]
    assert curves(history) == [
        ("cost", {"training": ([1, 2], [3.0, 2.0]), "evaluation": ([2], [2.5])}),
        ("top 1", {"evaluation": ([2], [40.0])}),
    ]


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
