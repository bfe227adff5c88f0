"""What a command consists of on this machine: its own sources, and what is installed here.

Sources are followed from import to import without importing anything. A module that is loaded by a
name put together at run time, such as f"trainer.models.{model}.recipe", counts with those modules
below the fixed part that a parameter of the task names, and with all of them where it names none.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib.util
import re
import site
import sys
import sysconfig
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.local.digest import of_value
from trainer.artifact import sha256

PYTHON = re.compile(r"python(3(\.\d+)?)?")
"""Names under which a command calls Python, and gets the one that runs this."""

_PARSING = threading.Lock()
"""Python 3.11 counts how deep it is in a syntax tree once for all threads, and two at a time end
with "AST constructor recursion depth mismatch"."""

_TESTS = ("_test.py", "conftest.py")
_PLAIN_TEXT = (".md", ".pyc")
_NO_DATA = ("__pycache__", "testdata")


def module_of(command: Sequence[str]) -> str | None:
    """The module of `python -m module …`."""
    if len(command) > 2 and PYTHON.fullmatch(Path(command[0]).name) and command[1] == "-m":
        return command[2]
    return None


def identity(command: Sequence[str], values: Collection[str]) -> dict[str, Any]:
    """What a command's result depends on besides its inputs: label, files, environment.

    Args:
        command: as the file has it.
        values: texts among the values of the task's parameters.

    Returns:
        `label` (where its code is), `files` (source -> SHA-256), `environment` (a digest of
        `environment()`).
    """
    module = module_of(command)
    files: Mapping[str, str] = {}
    label = Path(command[0]).name if command else ""
    if module is not None:
        label = module.replace(".", "/")
        files = sources(module, frozenset(values))
    elif len(command) > 1 and PYTHON.fullmatch(label) and command[1].endswith(".py"):
        label = command[1]
        with contextlib.suppress(OSError):
            files = {command[1]: sha256(command[1])}
    elif command and "/" in command[0]:
        with contextlib.suppress(OSError):
            files = {command[0]: sha256(command[0])}
    return {"label": label, "files": dict(files), "environment": of_value(environment())}


@functools.cache
def environment() -> dict[str, str]:
    """The installed distributions and their versions, and Python's own."""
    found = {"python": sys.version.split()[0]}
    for folder in dict.fromkeys(sys.path):
        with contextlib.suppress(OSError):
            for info in Path(folder).glob("*.dist-info"):
                name, _, version = info.name.removesuffix(".dist-info").partition("-")
                if _root(name) is None:  # our own code counts by its sources
                    found.setdefault(name.lower(), version)
    return found


@functools.cache
def sources(module: str, values: frozenset[str]) -> Mapping[str, str]:
    """The sources that a module consists of: path below its root -> SHA-256.

    Only what is neither installed nor Python's own is followed.
    """
    root = _root(module.partition(".")[0])
    if root is None:
        return {}
    seen = _closure(root, module, values)
    beside = {path for folder in {f.parent for f in seen} - {root} for path in _data(folder)}
    files = sorted({*seen, *beside})
    return {str(file.relative_to(root)): sha256(file) for file in files}


def third_party(module: str) -> set[str]:
    """The top-level names of what is installed and that a module imports, sooner or later."""
    root = _root(module.partition(".")[0])
    if root is None:
        return set()
    names = {
        name.partition(".")[0]
        for file in _closure(root, module, None)
        for name in _names(file, root)[0]
    }
    return {name for name in names if _root(name) is None}


def _data(folder: Path) -> Iterator[Path]:
    """The files that a package has besides its sources, also in folders that hold no sources."""
    for path in folder.iterdir():
        if path.is_file():
            if path.suffix not in (".py", *_PLAIN_TEXT):
                yield path
        elif path.name not in _NO_DATA and next(path.rglob("*.py"), None) is None:
            yield from (file for file in path.rglob("*") if file.is_file())


def _closure(root: Path, module: str, values: frozenset[str] | None) -> list[Path]:
    """The files of a module and of all that it imports; None: without what is loaded by name."""
    seen: dict[Path, None] = {}
    waiting = [module, f"{module}.__main__"]
    while waiting:
        for file in _files(root, waiting.pop()):
            if file not in seen:
                seen[file] = None
                waiting += _imports(root, file, values)
    return list(seen)


@functools.cache
def _root(package: str) -> Path | None:
    """The folder that holds a package of the user's own; None for anything else."""
    if package in sys.stdlib_module_names:
        return None
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    file = spec.origin if spec.has_location else None  # a module that is one file
    places = list(spec.submodule_search_locations or ([file] if file else []))
    if not places:
        return None
    folder = Path(places[0]).resolve()
    installed = [*site.getsitepackages(), sysconfig.get_paths()["stdlib"]]
    if any(folder.is_relative_to(Path(place).resolve()) for place in installed):
        return None
    return folder.parent


def _files(root: Path, module: str) -> Iterator[Path]:
    """The file of a module, and those of the packages around it."""
    parts = module.split(".")
    for length in range(1, len(parts) + 1):
        path = root.joinpath(*parts[:length])
        for file in (path / "__init__.py", path.with_suffix(".py")):
            if file.is_file():
                yield file


def _imports(root: Path, file: Path, values: frozenset[str] | None) -> Iterator[str]:
    """The modules that a file imports, also those that it loads by name."""
    names, prefixes = _names(file, root)
    yield from names
    for prefix in prefixes if values is not None else ():
        folder = root.joinpath(*prefix.split("."))
        if not folder.is_dir():
            continue
        below = {p.stem for p in folder.iterdir() if p.is_dir() or p.suffix == ".py"}
        for name in sorted(below & (values or set()) or below):
            for path in sorted((folder / name).rglob("*.py")) or [folder / f"{name}.py"]:
                if path.is_file() and not path.name.endswith(_TESTS):
                    parts = path.relative_to(root).with_suffix("").parts
                    yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def _names(file: Path, root: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The modules that a file imports by name, and the fixed beginnings of those it loads."""
    try:
        text = file.read_bytes()
        with _PARSING:
            tree = ast.parse(text)
    except (OSError, SyntaxError, ValueError):
        return (), ()
    package = file.relative_to(root).parent.parts
    names, prefixes = [], []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*above, *([node.module] if node.module else [])])
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.JoinedStr) and node.values:
            first = node.values[0]
            if isinstance(first, ast.Constant) and re.fullmatch(r"[\w.]+\.", str(first.value)):
                prefixes.append(str(first.value).rstrip("."))
    return tuple(names), tuple(prefixes)
