"""Every public name is explained, and no file speaks of one machine or one registry."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(
    path
    for package in ("trainer", "components", "pipelines")
    for path in (ROOT / package).rglob("*.py")
    if not path.name.endswith("_test.py") and "testdata" not in path.parts
)

# The hosts are put together here, so that this file does not hold what it forbids.
# The path of this checkout may begin another path that is meant, hence the end of the word.
FORBIDDEN = [
    *(rf"{host}\.org" for host in ("pypi", "pythonhosted", "npmjs", r"deb\.debian")),
    *(rf"{re.escape(str(path))}(?!\w)" for path in (ROOT, ROOT.parent / "shared")),
]


def undocumented(node: ast.AST, name: str) -> Iterator[str]:
    """Public names at and below a module or class whose docstring is missing or begins empty."""
    first_line = (ast.get_docstring(node) or "").partition("\n")[0]  # type: ignore[arg-type]
    if not first_line.strip():
        yield name
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            decorators = {ast.unparse(d).rpartition(".")[2] for d in child.decorator_list}
            # A property's setter and an override are explained where they begin.
            if not child.name.startswith("_") and not decorators & {"setter", "override"}:
                yield from undocumented(child, f"{name}.{child.name}")


def public_files() -> list[Path]:
    """Files that git tracks or would track."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_public_name_has_a_docstring(path: Path) -> None:
    assert list(undocumented(ast.parse(path.read_text(encoding="utf-8")), path.stem)) == []


def test_a_missing_docstring_is_found() -> None:
    source = '"""Module."""\nclass A:\n    """A."""\n    def b(self): ...\n    def _c(self): ...\n'
    assert list(undocumented(ast.parse(source), "m")) == ["m.A.b"]


def test_no_file_names_a_registry_or_a_place_on_one_machine() -> None:
    found = []
    for path in public_files():
        text = path.read_bytes().decode("utf-8", errors="ignore")
        found += [
            f"{path.relative_to(ROOT)}: {word}" for word in FORBIDDEN if re.search(word, text)
        ]
    assert found == []
