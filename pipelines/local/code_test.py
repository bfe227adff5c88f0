import concurrent.futures
import gc
import hashlib
import itertools
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.local import code
from trainer.catalog import model_names

COUNTER = itertools.count()


def forget():
    for function in (code.environment, code.sources, code._root, code._names):
        function.cache_clear()


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes sources of the user's own: paths with `/` -> content, below a new package `@`.

    Every module says so if it is imported.
    """
    root = tmp_path / "own"
    root.mkdir()
    monkeypatch.syspath_prepend(root)
    package = f"own_package_{next(COUNTER)}"
    alarm = f"open({str(tmp_path / 'imported')!r}, 'a').write(__name__)\n"

    def write_files(files):
        for name, content in files.items():
            file = root / name.replace("@", package)
            file.parent.mkdir(parents=True, exist_ok=True)
            text = content.replace("@", package)
            file.write_text(text + ("\n" + alarm if file.suffix == ".py" else ""))
        forget()
        return package

    yield write_files
    forget()
    assert not (tmp_path / "imported").exists(), "finding out must not import"
    assert package not in sys.modules


def names(module, *values):
    package = module.partition(".")[0]
    found = code.sources(module, frozenset(values))
    return {name.removeprefix(f"{package}/") for name in found}


@pytest.mark.parametrize(
    ("command", "module"),
    [
        (("python", "-m", "a.b", "--x"), "a.b"),
        (("python3", "-m", "a"), "a"),
        (("/usr/bin/python3.11", "-m", "a"), "a"),
        (("python", "-c", "a"), None),
        (("python", "-m"), None),
        (("pythonic", "-m", "a"), None),
        (("sh", "-m", "a"), None),
        ((), None),
    ],
)
def test_the_module_of_a_command_is_found(command, module):
    assert code.module_of(command) == module


def test_a_module_consists_of_what_it_imports_directly_or_not(write):
    package = write(
        {
            "@/__init__.py": "from @ import always",
            "@/always.py": "",
            "@/step/__init__.py": "",
            "@/step/__main__.py": "import os, json\nfrom . import step\nimport @.other.deep",
            "@/step/step.py": "from ..relative import name",
            "@/relative.py": "def f():\n    from @ import late",
            "@/late.py": "",
            "@/other/__init__.py": "",
            "@/other/deep.py": "import not_installed_anywhere",
            "@/unused.py": "",
            "@/other/unused.py": "",
        }
    )
    assert names(f"{package}.step") == {
        *("__init__.py", "always.py", "relative.py", "late.py"),
        *("step/__init__.py", "step/__main__.py", "step/step.py"),
        *("other/__init__.py", "other/deep.py"),
    }
    found = code.sources(f"{package}.step", frozenset())
    for name, digest in found.items():
        file = next(Path(p) / name for p in sys.path if (Path(p) / name).is_file())
        assert digest == hashlib.sha256(file.read_bytes()).hexdigest()


def test_modules_that_import_each_other_are_no_obstacle(write):
    package = write({"@/__init__.py": "", "@/a.py": "from @ import b", "@/b.py": "from @ import a"})
    assert names(f"{package}.a") == {"__init__.py", "a.py", "b.py"}


def test_files_beside_the_sources_count_and_documentation_does_not(write):
    package = write(
        {
            "@/__init__.py": "",
            "@/a/__init__.py": "",
            "@/a/page.html": "x",
            "@/a/README.md": "x",
            "@/a/templates/deep/other.html": "x",
            "@/a/testdata/sample.html": "x",
            "@/b/__init__.py": "",
            "@/b/other.html": "x",
        }
    )
    assert names(f"{package}.a") == {
        *("__init__.py", "a/__init__.py", "a/page.html", "a/templates/deep/other.html"),
    }


def test_a_module_of_one_file_counts(write):
    package = write({"@.py": "import @_other", "@_other.py": "", "unused.py": ""})
    assert names(package) == {f"{package}.py", f"{package}_other.py"}
    assert {f"{package}.py"} <= set(code.identity(["python", "-m", package], ())["files"])


def test_a_file_with_an_error_counts_as_it_is(write):
    package = write({"@/__init__.py": "", "@/a.py": "def (:", "@/b.py": "\0"})
    assert names(f"{package}.a") == {"__init__.py", "a.py"}
    assert names(f"{package}.b") == {"__init__.py", "b.py"}


def test_what_is_installed_or_pythons_own_is_not_followed():
    assert code.sources("json", frozenset()) == {}
    assert code.sources("pytest", frozenset()) == {}
    assert code.sources("nowhere_to_be_found", frozenset()) == {}


LOADING = {
    "@/__init__.py": "",
    "@/load.py": 'def load(name):\n    return f"@.models.{name}.recipe"',
    "@/models/__init__.py": "",
    "@/models/one/__init__.py": "",
    "@/models/one/recipe.py": "from @ import helper",
    "@/models/one/recipe_test.py": "",
    "@/models/two/__init__.py": "",
    "@/models/two/recipe.py": "",
    "@/models/three.py": "",
    "@/helper.py": "",
}
EVERY = {"__init__.py", "load.py", "models/__init__.py"}
ONE = {"models/one/__init__.py", "models/one/recipe.py", "helper.py"}
TWO = {"models/two/__init__.py", "models/two/recipe.py"}
THREE = {"models/three.py"}


def test_what_is_loaded_by_name_counts_as_far_as_the_values_name_it(write):
    module = f"{write(LOADING)}.load"
    assert names(module, "one") == EVERY | ONE
    assert names(module, "two", "something else") == EVERY | TWO
    assert names(module, "three") == EVERY | THREE
    assert names(module, "one", "three") == EVERY | ONE | THREE


def test_all_that_may_be_loaded_counts_where_no_value_names_it(write):
    module = f"{write(LOADING)}.load"
    assert names(module) == EVERY | ONE | TWO | THREE
    assert names(module, "four") == EVERY | ONE | TWO | THREE


def test_a_text_that_is_no_beginning_of_a_module_is_none(write):
    package = write(
        {
            **LOADING,
            "@/load.py": 'x = 1\na = f"{x}.models.{x}"\nb = f"see @.models: {x}"\nc = "@.models."',
        }
    )
    assert names(f"{package}.load", "one") == {"__init__.py", "load.py"}


def test_a_change_of_one_file_changes_only_what_imports_it(write):
    files = {
        "@/__init__.py": "",
        "@/a.py": "from @ import shared, mine",
        "@/b.py": "from @ import shared",
        "@/shared.py": "",
        "@/mine.py": "",
    }
    package = write(files)

    def identities():
        forget()
        return [code.identity(["python", "-m", f"{package}.{m}"], ()) for m in ("a", "b")]

    first = identities()
    assert identities() == first
    write({"@/mine.py": "changed = True"})
    second = identities()
    assert second[0] != first[0]
    assert second[1] == first[1]
    write({"@/shared.py": "changed = True"})
    third = identities()
    assert third[0] != second[0]
    assert third[1] != second[1]
    assert third[0]["label"] == f"{package}/a"


def test_a_script_counts_with_its_content(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("1")
    first = code.identity(["python", str(script), "x"], ())
    assert first["files"] == {str(script): hashlib.sha256(b"1").hexdigest()}
    script.write_text("2")
    assert code.identity(["python", str(script), "x"], ()) != first
    program = code.identity([str(script), "x"], ())
    assert program["files"] == {str(script): hashlib.sha256(b"2").hexdigest()}
    assert code.identity(["sh", "-c", "true"], ())["files"] == {}
    assert code.identity([], ())["files"] == {}
    assert code.identity([str(tmp_path / "nothing")], ())["files"] == {}


def test_the_environment_is_the_installed_distributions(tmp_path, monkeypatch):
    forget()
    first = dict(code.environment())
    assert first["python"] == sys.version.split()[0]
    assert first["kfp"]
    (tmp_path / "Some_Thing-1.5.dist-info").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    forget()
    assert code.environment() == {**first, "some_thing": "1.5"}
    forget()


def test_what_is_installed_is_known_as_far_as_it_is_imported(write):
    package = write(
        {
            "@/__init__.py": "",
            "@/a.py": "import os.path\nfrom @ import b\nfrom @ import c",
            "@/b.py": "def f():\n    import tensorflow.keras as k",
            "@/c.py": "from yaml import safe_load",
            "@/d.py": "import jax",
        }
    )
    found = code.third_party(f"{package}.a")
    assert {"os", "tensorflow", "yaml"} <= found
    assert not found & {"jax", package}
    assert code.third_party("nowhere_to_be_found") == set()


def test_the_steps_of_this_project_depend_on_the_model_that_they_are_given():
    every = set(model_names())
    for model in sorted(every):
        found = set(code.sources("components.train", frozenset({model, "unrelated"})))
        assert "components/train/train.py" in found
        assert f"trainer/models/{model}/recipe.py" in found
        for other in every - {model}:
            assert not [name for name in found if name.startswith(f"trainer/models/{other}/")]
        assert not [name for name in found if name.startswith("components/report/")]
        assert not [name for name in found if name.endswith("_test.py")]


def test_finding_out_imports_nothing():
    program = (
        "import sys; from pipelines.local import code; before = set(sys.modules);"
        "code.identity(['python', '-m', 'components.train'], ());"
        "code.third_party('components.train');"
        "print(sorted({m for m in set(sys.modules) - before if not m.startswith('encodings')}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(code.__file__).parents[2],
    )
    assert "components" not in done.stdout
    assert "keras" not in done.stdout
    assert "tensorflow" not in done.stdout


@pytest.fixture
def yielding() -> Iterator[None]:
    """Other threads get their turn again and again, also while a syntax tree is made."""
    before = gc.get_threshold()

    def give_way(*_: object) -> None:
        time.sleep(0)

    gc.set_threshold(20)
    gc.callbacks.append(give_way)
    yield
    gc.callbacks.remove(give_way)
    gc.set_threshold(*before)


def test_tasks_that_start_at_once_read_sources_at_once(tmp_path: Path, yielding: None) -> None:
    file = tmp_path / "nested.py"
    file.write_text(f"import os\nnumbers = {'[' * 60}{']' * 60}\n" * 20)
    read = code._names.__wrapped__
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: read(file, tmp_path), range(40)))
    assert found == [(("os",) * 20, ())] * 40
