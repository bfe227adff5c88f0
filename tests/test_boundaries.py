"""Who may import whom, read from the sources of every file."""

import ast
import dataclasses
import fnmatch
import functools
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("trainer", "components", "pipelines")
SOURCES = sorted(
    path.relative_to(ROOT)
    for package in PACKAGES
    for path in (ROOT / package).rglob("*.py")
    if not (
        path.name.endswith("_test.py") or path.name == "conftest.py" or "testdata" in path.parts
    )
)

# Standard library only, and so importable by everyone.
PLAIN = (
    *("trainer.artifact", "trainer.catalog", "trainer.config", "trainer.dataset"),
    *("trainer.errors", "trainer.imports", "trainer.paper", "trainer.progress"),
    *("trainer.data.manifest", "trainer.training"),
)

# Files -> what of our own they may import besides their own folder; the first pattern that fits
# counts. A name allows all that is below it.
DIRECTIONS: dict[str, tuple[str, ...]] = {
    "trainer/backend/*": ("trainer.errors", "trainer.recipe", "trainer.training"),
    "trainer/engine/*": (
        *(*PLAIN, "trainer.backend", "trainer.data", "trainer.recipe"),
        *("trainer.reproducible", "trainer.torch_checkpoint"),
    ),
    "trainer/augmentation/*": ("trainer.errors",),
    "trainer/backbones/*": ("trainer.errors", "trainer.layers", "trainer.torch_checkpoint"),
    "trainer/classifiers/*": ("trainer.metrics", "trainer.recipe"),
    "trainer/generators/*": ("trainer.losses", "trainer.metrics", "trainer.recipe"),
    "trainer/layers/*": ("trainer.backend", "trainer.errors"),
    "trainer/losses/*": ("trainer.backend", "trainer.errors"),
    "trainer/optimizers/*": (),
    "trainer/schedules/*": (),
    "trainer/metrics/*": ("trainer.backbones", "trainer.errors", "trainer.recipe"),
    "trainer/data/*": (*PLAIN, "trainer.data"),
    "trainer/models/*": (
        *("trainer.config", "trainer.errors", "trainer.paper", "trainer.recipe"),
        *("trainer.augmentation", "trainer.backbones", "trainer.classifiers"),
        *("trainer.generators", "trainer.layers", "trainer.losses", "trainer.metrics"),
        *("trainer.optimizers", "trainer.schedules"),
    ),
    "trainer/*": (*PLAIN, "trainer.data", "trainer.models"),
    "components/*/component.py": ("components.images",),
    "components/*/__main__.py": ("components.command",),
    "components/*/*": (
        *(*PLAIN, "trainer.data", "trainer.engine", "trainer.recipe"),
        *("trainer.model_card", "trainer.reproducible", "components.images"),
    ),
    "components/*": (*PLAIN, "components.secret_manager"),
    "pipelines/local/*": (*PLAIN, "trainer.model_card"),
    "pipelines/*": (
        *(*PLAIN, "pipelines"),
        *("components.*.component", "components.images", "components.secret_manager"),
    ),
}

# Imports against the direction, inside a function: (file, module) -> why.
LATE = {
    ("pipelines/cli.py", "trainer.engine.import_weights"): "the command import-weights is its face",
    ("pipelines/cli.py", "components.train.train"): "the command train is its face",
    ("pipelines/examples.py", "trainer.data.verification"): "`examples verify` is its face",
    ("pipelines/examples.py", "trainer.data.gallery"): "`examples show` is its face",
    ("pipelines/examples.py", "trainer.data.comparison"): "`examples diff` is its face",
}

# Package -> files that may import it, and why each must.
PLACES: dict[str, dict[str, str]] = {
    "tensorflow": {
        "trainer/backend/tensorflow.py": "the train step on TensorFlow",
        "trainer/engine/input.py": "tf.data feeds both backends",
        "trainer/engine/export.py": "writes the SavedModel",
        "trainer/reproducible.py": "knows the fingerprint of a SavedModel",
        "trainer/augmentation/*": "random and deterministic crops",
        "trainer/models/*/data.py": "deterministic and random preprocessing",
        "components/preprocess/*": "runs TF Transform",
        "components/export_hub/export_hub.py": "asks the export what it answers",
        "components/export_hub/answer.py": "loads an export as its users do",
    },
    "tensorflow_hub": {"components/export_hub/answer.py": "loads an export as its users do"},
    "tensorflow_transform": {
        "components/preprocess/*": "runs TF Transform",
        "trainer/models/*/data.py": "full passes over the data, such as vocabularies",
    },
    "tfx_bsl": {"components/preprocess/*": "feeds TF Transform"},
    "apache_beam": {"components/preprocess/*": "runs TF Transform"},
    "jax": {"trainer/backend/jax.py": "the train step on JAX"},
    "keras": {
        "trainer/recipe.py": "a recipe is made of Keras models",
        "trainer/backend/*": "differentiates Keras models",
        "trainer/engine/*": "trains, stores and exports Keras models",
        "trainer/backbones/*": "Keras models that others begin with",
        "trainer/layers/*": "Keras layers",
        "trainer/losses/*": "keras.ops",
        "trainer/classifiers/*": "parts of recipes",
        "trainer/generators/*": "parts of recipes",
        "trainer/optimizers/*": "Keras optimizers",
        "trainer/schedules/*": "schedules for Keras optimizers",
        "trainer/metrics/*": "keras.ops",
        "trainer/models/*": "recipes",
        "components/export_hub/export_hub.py": "writes model.keras",
    },
    "kfp": {
        "components/*/component.py": "the interface of a step",
        "pipelines/*.py": "pipelines are KFP pipelines",
        "pipelines/cloud/custom_job.py": "makes a component of a component",
        "pipelines/cloud/kubeflow.py": "speaks with Kubeflow Pipelines",
    },
    "kfp_server_api": {
        "pipelines/cloud/kubeflow.py": "speaks with Kubeflow Pipelines",
        "pipelines/cloud/refusal.py": "knows what it answers",
    },
    "google_cloud_pipeline_components": {
        "pipelines/cloud/custom_job.py": "wraps a step as a custom job",
    },
    "docker": {
        "pipelines/cloud/images.py": "knows the digests of what was pushed",
        "pipelines/local/containers.py": "runs steps in containers",
        "pipelines/local/reaper.py": "removes what a killed engine has left",
    },
    "torch": {},
}

HEAVY = ("tensorflow", "keras", "jax", "apache_beam", "tensorflow_transform", "tfx_bsl", "google")


@dataclasses.dataclass(frozen=True)
class Import:
    """One imported module; `late` if only a function, or a type checker, imports it."""

    module: str
    late: bool


def module_name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in SOURCES}


@functools.cache
def imports(path: Path, source: str | None = None) -> set[Import]:
    """Every module that a file imports, `from package import module` resolved to the module."""
    text = (ROOT / path).read_text(encoding="utf-8") if source is None else source
    return set(_imports(path, ast.parse(text), late=False))


def _imports(path: Path, node: ast.AST, late: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, late) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            folder = path.parts[: -child.level] if child.level else ()
            base = ".".join([*folder, *([child.module] if child.module else [])])
            for alias in child.names:
                below = f"{base}.{alias.name}"
                yield Import(below if below in MODULES else base, late)
        else:
            function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            # What only a type checker imports, no program does.
            types = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
            yield from _imports(path, child, late or function or types)


def within(module: str, allowed: str) -> bool:
    """Is the module the allowed one, or below it?"""
    return any(fnmatch.fnmatchcase(module, pattern) for pattern in (allowed, f"{allowed}.*"))


def own_folder(path: Path) -> str:
    """The package in which imports are free: a model, a dataset, a step, or the package itself."""
    nested = path.parts[:2] in (("trainer", "models"), ("trainer", "data"))
    return ".".join(path.parts[: 3 if nested and len(path.parts) > 3 else 2]).removesuffix(".py")


def against_direction(path: Path, found: set[Import]) -> list[str]:
    """Modules of ours that a file may not import."""
    pattern = next(p for p in DIRECTIONS if fnmatch.fnmatchcase(path.as_posix(), p))
    allowed = (*DIRECTIONS[pattern], own_folder(path))
    ours = [i for i in found if i.module.partition(".")[0] in (*PACKAGES, "tests")]
    return sorted(
        i.module
        for i in ours
        if not any(within(i.module, a) for a in allowed)
        and not (i.late and (path.as_posix(), i.module) in LATE)
    )


def reached(module: str) -> dict[str, str]:
    """Third-party packages that importing a module of ours imports -> the module that does."""
    packages: dict[str, str] = {}
    waiting, seen = [module], set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        if name not in MODULES:
            packages.setdefault(name.partition(".")[0], name)
            continue
        parents = name.split(".")
        waiting += [".".join(parents[:n]) for n in range(1, len(parents))]
        for found in imports(MODULES[name]):
            if not found.late:
                if found.module.partition(".")[0] in PACKAGES:
                    waiting.append(found.module)
                else:
                    packages.setdefault(found.module.partition(".")[0], name)
    return packages


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_imports_point_one_way(path: Path) -> None:
    assert against_direction(path, imports(path)) == []


def test_imports_against_the_direction_are_found() -> None:
    def wrong(path: str, source: str) -> list[str]:
        return against_direction(Path(path), imports(Path(path), source))

    assert wrong("trainer/engine/x.py", "import components.train.train") == [
        "components.train.train"
    ]
    assert wrong("trainer/backend/x.py", "def f():\n  from trainer import catalog") == [
        "trainer.catalog"
    ]
    assert wrong("trainer/models/dcgan/x.py", "from trainer.models.regnety import config") == [
        "trainer.models.regnety.config"
    ]
    assert wrong("trainer/models/dcgan/x.py", "from trainer.models.dcgan import config") == []
    assert wrong("trainer/models/dcgan/x.py", "from .config import Config") == []
    assert wrong("pipelines/cli.py", "import trainer.engine.import_weights") != []
    assert wrong("pipelines/cli.py", "def f():\n  import trainer.engine.import_weights") == []


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_frameworks_stay_in_their_places(path: Path) -> None:
    found = {i.module.partition(".")[0] for i in imports(path)} & set(PLACES)
    misplaced = {
        package
        for package in found
        if not any(fnmatch.fnmatchcase(path.as_posix(), place) for place in PLACES[package])
    }
    assert misplaced == set()


def test_every_exception_is_needed() -> None:
    unused = [
        f"{package} in {place}"
        for package, places in PLACES.items()
        for place in places
        if "*" not in place
        and package not in {i.module.partition(".")[0] for i in imports(Path(place))}
    ]
    unused += [f for f, module in LATE if Import(module, True) not in imports(Path(f))]
    assert unused == []


@pytest.mark.parametrize("module", PLAIN)
def test_plain_modules_need_the_standard_library_only(module: str) -> None:
    assert set(reached(module)) - set(sys.stdlib_module_names) == set()


@pytest.mark.parametrize("path", [p for p in SOURCES if p.name == "component.py"], ids=str)
def test_the_interface_of_a_step_is_light(path: Path) -> None:
    assert set(reached(module_name(path))) - set(sys.stdlib_module_names) == {"kfp"}


def test_the_command_starts_without_frameworks() -> None:
    found = reached("pipelines.cli")
    assert {package: found[package] for package in (*HEAVY, "kfp") if package in found} == {}


def test_compiling_imports_no_framework() -> None:
    compiled = [f"pipelines.{p.stem}" for p in SOURCES if p.parent == Path("pipelines")]
    found = {package for module in compiled for package in reached(module)}
    assert found & set(HEAVY) == set()


def test_the_local_runner_is_light() -> None:
    with_docker = {"pipelines.local.containers", "pipelines.local.reaper"}
    modules = {m for m in MODULES if within(m, "pipelines.local")}
    found = {p for m in modules - with_docker for p in reached(m)}
    assert found - set(sys.stdlib_module_names) <= {"rich", "yaml"}
    found = {p for m in with_docker for p in reached(m)}
    assert found - set(sys.stdlib_module_names) <= {"docker", "requests", "rich", "yaml"}


def test_the_spawner_is_a_program_by_itself() -> None:
    found = {
        found.module.partition(".")[0] for found in imports(MODULES["pipelines.local.spawner"])
    }
    assert found <= set(sys.stdlib_module_names)


def test_every_module_is_named_for_what_it_does() -> None:
    vague = {"utils", "util", "common", "misc", "helper", "helpers"}
    assert [str(p) for p in SOURCES if vague & {part.removesuffix(".py") for part in p.parts}] == []
