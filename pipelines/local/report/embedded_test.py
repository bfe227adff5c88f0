import base64
from collections.abc import Callable

from pipelines.local.report.conftest import Run, parsed

DOT = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)


def test_what_was_made_to_be_looked_at_is_shown(make: Callable[..., Run]) -> None:
    run = make()
    run.task("a", began=0, ended=1)
    run.artifact("a", "page", "HTML", "<h1>Of its own</h1><script>1</script>")
    run.artifact("a", "away", "HTML")
    run.artifact("a", "text", "Markdown", "# Said\n\n*so*\n\n| x |\n|---|\n| y |\n")
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
    assert sum(tag == "img" for tag, _ in parser.tags) == 3
    assert "13 pictures in many of a" in parser.text
    assert "<h3>A model</h3>" in page and "licence: x" not in page
