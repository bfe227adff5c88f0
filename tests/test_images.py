"""The Dockerfiles: packages below code, an ordinary user, and all that the steps import."""

import ast
import importlib.metadata
import re
import sys
from pathlib import Path

import pytest

from tests.test_boundaries import MODULES, PACKAGES, ROOT, imports
from tests.test_requirements import pins

IMAGES = sorted(p for p in (ROOT / "docker").glob("*.Dockerfile") if p.stem != "base")
STEPS = {
    "data": ("create_tfrecords", "preprocess"),
    "trainer": ("evaluate", "export_hub", "report", "train"),
    "trainer-tpu": ("train",),
}
# Distributions that hold a package under another name than the one installed here.
ALSO_HELD_BY = {"tensorflow": {"tensorflow-cpu"}}


def instructions(path: Path) -> list[str]:
    """The instructions of a Dockerfile, one line each, without comments."""
    text = re.sub(r"^#.*\n", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return [line for line in text.replace("\\\n", " ").splitlines() if line]


def needed(step: str) -> set[str]:
    """Third-party packages that a step may import, through any model, dataset or backend."""
    own = imports(MODULES[f"components.{step}.{step}"])
    computes = any(found.module.startswith("trainer.engine") for found in own)
    # Only the engine loads recipes; without it, a step has to do with a model's data alone.
    of_models = r"trainer\.models\." if computes else r"trainer\.models\.\w+\.(config|data)$"
    waiting = [f"components.{step}.__main__", f"components.{step}.{step}"]
    waiting += [m for m in MODULES if re.match(rf"trainer\.data\.|{of_models}", m)]
    seen: set[str] = set()
    packages: set[str] = set()
    while waiting:
        module = waiting.pop()
        if module.partition(".")[0] not in PACKAGES:
            packages.add(module.partition(".")[0])
        elif module not in seen and module in MODULES:
            seen.add(module)
            waiting += [found.module for found in imports(MODULES[module])]
            if module == "trainer.backend":  # it imports the one that Keras runs on
                waiting += [m for m in MODULES if m.startswith("trainer.backend.")]
    return packages - set(sys.stdlib_module_names)


def test_every_step_has_an_image() -> None:
    components = {p.parent.name for p in (ROOT / "components").glob("*/component.py")}
    assert components == {step for steps in STEPS.values() for step in steps}
    assert {p.stem for p in IMAGES} == set(STEPS)


def test_components_name_the_image_that_holds_their_packages() -> None:
    for path in (ROOT / "components").glob("*/component.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        imported = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
        names = [a.name for n in imported if n.module == "components.images" for a in n.names]
        assert len(names) == 1, path
        assert path.parent.name in STEPS[names[0].lower().replace("_", "-")]


@pytest.mark.parametrize("image", STEPS)
def test_an_image_holds_what_its_steps_import(image: str) -> None:
    locked = set(pins(ROOT / "requirements" / f"{image}.txt"))
    distributions = importlib.metadata.packages_distributions()
    missing = set()
    for package in set().union(*(needed(step) for step in STEPS[image])):
        holders = {re.sub(r"[._-]+", "-", name).lower() for name in distributions[package]}
        if not (holders | ALSO_HELD_BY.get(package, set())) & locked:
            missing.add(package)
    assert missing == set()


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.stem)
def test_an_image_is_built_for_reuse_and_run_without_privileges(path: Path) -> None:
    lines = instructions(path)
    packages = next(n for n, line in enumerate(lines) if "--require-hashes" in line)
    code = next(n for n, line in enumerate(lines) if line.startswith("COPY trainer"))
    assert lines[0] == "ARG BASE=python:3.11-slim-bookworm"
    assert packages < code
    assert f"requirements/{path.stem}.txt" in " ".join(lines)
    assert "ENTRYPOINT []" in lines
    assert lines.index("USER paper2hub") > code
    assert lines[-1].startswith("CMD [")
    for step in STEPS[path.stem]:
        assert step in lines[-1]


def test_the_tpu_image_trains_on_jax() -> None:
    text = (ROOT / "docker" / "trainer-tpu.Dockerfile").read_text(encoding="utf-8")
    assert re.search(r"\bKERAS_BACKEND=jax\b", text)
