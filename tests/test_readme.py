"""The README is true: its table is current and its commands run."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipelines.training import Stage, training_pipeline
from tests.readme import README, generated
from trainer.catalog import dataset_names

ROOT = README.parent
TEXT = README.read_text(encoding="utf-8")
COMMANDS = [
    line.removeprefix("$ ")
    for block in re.findall(r"```console\n(.*?)```", TEXT, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("$ ")
]
NEEDS = {
    # Commands that stand for the reader's own data are run with what they name replaced by --help,
    # after a check that every option they use is one that the help lists.
    "paper2hub run": "the reader's ImageNet",
    "paper2hub train": "the reader's ImageNet: tests/test_train_command.py has its own",
    "paper2hub resume": "a run of the reader's",
    "paper2hub why": "a run of the reader's",
    "paper2hub parity": "Docker, and minutes: tests/test_local_docker.py does it",
    "paper2hub import-weights": "a checkpoint of the reader's",
    "paper2hub plan": "an account: tests/test_cloud_pipelines.py has a stand-in for one",
    "paper2hub submit": "an account",
    "paper2hub schedules sync": "an account",
    "paper2hub examples verify": "examples of the reader's: pipelines/examples_test.py has its own",
    "paper2hub examples show": "examples of the reader's",
    "paper2hub examples diff": "examples of the reader's",
}


def test_the_table_is_what_the_results_say() -> None:
    assert generated(TEXT) == TEXT, "run `make readme`"


def test_the_two_commands_are_targets_of_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"^make ([a-z-]+)$", TEXT, re.MULTILINE))
    assert {"demo", "test"} <= named <= targets


def test_every_path_it_names_exists() -> None:
    for path in re.findall(
        r"`((?:pipelines|components|trainer|docker|infra|tests)/[\w/.]*)`", TEXT
    ):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_run(command: str, tmp_path: Path) -> None:
    words = shlex.split(command)
    if words[0] == "make":
        execute(["make", "--dry-run", *words[1:]], ROOT)  # it takes minutes
        return
    if words[0] == "docker":
        image = next(word for word in words if word.startswith("paper2hub/"))
        if shutil.which("docker") is None:
            pytest.skip("the command docker is not installed here")
        if subprocess.run(["docker", "image", "inspect", image], capture_output=True).returncode:
            pytest.skip(f"no Docker daemon answers here, or {image} has not been built")
        execute(words, ROOT)
        return
    environment = Path(sys.executable).parent
    program = [sys.executable] if words[0] == "python" else [str(environment / words[0])]
    options = [word for word in words if word.startswith("-") and word != "-m"]
    for start in (start for start in NEEDS if command.startswith(start)):
        shown = execute([*program, *start.split()[1:], "--help"], ROOT)
        for option in options:
            assert option in shown, f"{option} is no option of {start}"
        return
    if "-o" in words:
        words[words.index("-o") + 1] = str(tmp_path / "out.yaml")
    if "--output" in words:
        words[words.index("--output") + 1] = str(tmp_path / "out.yaml")
    execute([*program, *words[1:]], ROOT)
    if {"-o", "--output"} & set(words):
        assert (tmp_path / "out.yaml").stat().st_size > 1000


def test_its_stages_make_a_pipeline() -> None:
    (block,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    names: dict[str, Any] = {"Stage": Stage}
    exec(block, names)  # noqa: S102  it is our own
    assert [stage.name for stage in names["stages"]] == ["train", "fine_tune"]
    training_pipeline("regnety", dataset="", description="", stages=names["stages"])


def test_the_local_runners_page_names_commands_and_options_that_exist() -> None:
    page = (ROOT / "pipelines" / "local" / "README.md").read_text(encoding="utf-8")
    program = str(Path(sys.executable).parent / "paper2hub")
    commands = set(re.findall(r"^\$ paper2hub ([a-z]+)", page, re.MULTILINE))
    assert commands == {"run", "resume", "runs", "logs", "why", "parity"}
    shown = " ".join(execute([program, command, "--help"], ROOT) for command in sorted(commands))
    options = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", page)) - {"-m"}
    assert len(options) > 8
    for option in options:
        assert option in shown, f"{option} is no option of any command"


def test_the_page_of_the_data_names_every_dataset_and_options_that_exist() -> None:
    page = (ROOT / "trainer" / "data" / "README.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| \[`(\w+)`\]\((\w+)\) \|", page, re.MULTILINE)
    assert named == [(name, name) for name in dataset_names()]
    lines = re.findall(r"^\$ paper2hub examples (\w+) (.*)$", page, re.MULTILINE)
    assert [command for command, _ in lines] == ["verify", "show", "diff"]
    program = str(Path(sys.executable).parent / "paper2hub")
    for command, rest in lines:
        shown = execute([program, "examples", command, "--help"], ROOT)
        for option in re.findall(r"--?[a-z][a-z-]*", rest):
            assert option in shown, f"{option} is no option of {command}"


def test_the_page_of_the_clouds_names_commands_and_options_that_exist() -> None:
    page = (ROOT / "pipelines" / "cloud" / "README.md").read_text(encoding="utf-8")
    program = str(Path(sys.executable).parent / "paper2hub")
    lines = re.findall(r"^\$ paper2hub (schedules [a-z-]+|[a-z]+)(.*)$", page, re.MULTILINE)
    assert {"submit", "plan", "compile", "lock", "watch", "cancel", "jobs"} < {c for c, _ in lines}
    for command, rest in lines:
        shown = execute([program, *command.split(), "--help"], ROOT)
        for option in re.findall(r"(?<![\w-])--?[a-z][a-z-]*", rest):
            assert option in shown, f"{option} is no option of {command}"


def execute(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout
