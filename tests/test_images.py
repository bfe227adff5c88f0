"""The Dockerfiles: packages below code, an ordinary user, and all that the steps import.

What was built is looked at in test_containers.py.
"""

import ast
import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest

from components.images import VERSION
from tests.test_boundaries import MODULES, PACKAGES, ROOT, imports
from tests.test_requirements import pins

IMAGES = sorted((ROOT / "docker").glob("*.Dockerfile"))
README = ROOT / "docker" / "README.md"
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


def stages(path: Path) -> dict[str, list[str]]:
    """Stage -> its instructions; the last one, which becomes the image, is named "image"."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in instructions(path):
        if line.startswith("FROM "):
            name = line.partition(" AS ")[2] or "image"
        found.setdefault(name, []).append(line)
    return found


def shell_blocks(path: Path) -> list[str]:
    """What a page tells its reader to type into a shell."""
    return re.findall(
        r"^```sh\n(.*?)^```$", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )


def needed(step: str) -> set[str]:
    """Third-party packages that a step may import, through any model, dataset or backend."""
    own = imports(MODULES[f"components.{step}.{step}"])
    computes = any(found.module.startswith("trainer.engine") for found in own)
    # Only the engine loads recipes; without it, a step has to do with a model's data alone.
    of_models = r"trainer\.models\." if computes else r"trainer\.models\.\w+\.(config|data)$"
    waiting = [f"components.{step}.__main__", f"components.{step}.{step}"]
    # Datasets are opened where examples are made of them, and nowhere else.
    of_data = r"trainer\.data\.\w+\.dataset$|" if step == "create_tfrecords" else ""
    waiting += [m for m in MODULES if re.match(of_data + of_models, m)]
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
    assert lines[0] == "ARG BASE=debian:trixie-slim"
    assert packages < code
    requirements = re.search(r"requirements/(\S+)\.txt", " ".join(lines))
    assert requirements
    assert requirements[1] == path.stem or f"ARG REQUIREMENTS={path.stem}" in lines
    # Runners of Beam start their workers without a command; nobody else has need of an entrypoint.
    beam = 'ENTRYPOINT ["sh", "/usr/local/bin/entrypoint"]'
    assert (beam if path.stem == "data" else "ENTRYPOINT []") in lines
    assert lines.index("USER paper2hub") > code
    assert lines[-1].startswith("CMD [")
    for step in STEPS[path.stem]:
        assert step in lines[-1]


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.stem)
def test_what_builds_an_image_stays_out_of_it(path: Path) -> None:
    found = stages(path)
    assert [line for line in found["image"] if line.startswith(("RUN", "ADD"))] == []
    assert found["image"][0] == "FROM python"
    # The same for all, so that it is built and stored once.
    assert found["python"] == stages(IMAGES[0])["python"]
    (installs,) = [line for line in found["python"] if "apt-get install" in line]
    assert re.findall(r"(?<= )[a-z][a-z0-9+-]*(?= )", installs.partition("recommends")[2])[:2] == [
        "ca-certificates",
        "python3",
    ]
    assert "/var/lib/apt/lists/*" in installs


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.stem)
def test_an_image_tells_what_it_is(path: Path) -> None:
    lines = instructions(path)
    assert f"ARG VERSION={VERSION}" in lines
    label = next(line for line in lines if line.startswith("LABEL "))
    titles = set(re.findall(r"org\.opencontainers\.image\.(\w+)=", label))
    assert titles == {"title", "version", "source", "revision"}


@pytest.mark.parametrize(
    ("given", "run"),
    [
        (["echo", "a b", "--c"], "a b --c"),
        (["--id=1", "a b"], "-m components.preprocess.worker --id=1 a b"),
    ],
)
def test_the_entrypoint_runs_commands_and_makes_flags_a_worker(tmp_path, given, run) -> None:
    (tmp_path / "python").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "python").chmod(0o755)
    told = subprocess.run(
        ["sh", ROOT / "docker" / "entrypoint.sh", *given],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout == f"{run}\n"


def test_little_goes_to_the_builder() -> None:
    rules = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert next(rule for rule in rules if not rule.startswith("#")) == "*"
    assert {"**/__pycache__", "**/*_test.py", "**/testdata"} <= set(rules)


def test_a_site_keeps_its_own_things_to_itself() -> None:
    own = ["docker/certificates/authority.crt", "docker/pip.conf"]
    command = ["git", "check-ignore", *own]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == own


@pytest.mark.parametrize("name", [".ci/run", "docker/base.sh", "requirements/lock.sh"])
def test_a_script_stops_at_the_first_error_and_any_shell_reads_it(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert text.startswith("#!/bin/sh\n")
    assert "\nset -eu\n" in text
    subprocess.run(["sh", "-n", str(ROOT / name)], check=True)


def test_every_step_has_a_documented_line() -> None:
    lines = " ".join(shell_blocks(README)).replace("\\\n", " ")
    documented = re.findall(
        r"docker run .* paper2hub/([a-z-]+)\s+python -m components\.(\w+)", lines
    )
    steps = [step for _, step in documented]
    assert sorted(steps) == sorted({step for steps in STEPS.values() for step in steps})
    for image, step in documented:
        assert step in STEPS[image]


def test_the_tpu_image_trains_on_jax() -> None:
    text = (ROOT / "docker" / "trainer-tpu.Dockerfile").read_text(encoding="utf-8")
    assert re.search(r"\bKERAS_BACKEND=jax\b", text)
