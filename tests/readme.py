"""Writes the generated part of README.md: every published number beside ours.

python -m tests.readme
"""

from __future__ import annotations

from pathlib import Path

from pipelines import catalog, results
from trainer.artifact import write_text
from trainer.catalog import load_paper

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- models: written by `make readme` -->\n", "<!-- /models -->\n"


def table() -> str:
    """The table of models, in Markdown."""
    lines = ["| model | paper | metric | published | ours |", "|---|---|---|---|---|"]
    for name in catalog.names():
        paper = load_paper(name)
        for row in results.reproductions(name):
            model = f"[{' '.join(filter(None, (name, row.variant)))}](trainer/models/{name})"
            metric = row.metric.replace("_", " ")
            published = row.published_text
            if row.published:
                published += f", {row.dataset}"
            lines.append(
                f"| {model} | [{paper.title}]({paper.url}) | {metric} | {published} "
                f"| {row.measured_text} |"
            )
    return "\n".join(lines) + "\n"


def generated(text: str) -> str:
    """The README with its table as it is now."""
    before, _, rest = text.partition(BEGIN)
    return before + BEGIN + table() + END + rest.partition(END)[2]


if __name__ == "__main__":
    write_text(README, generated(README.read_text(encoding="utf-8")))
