"""The workflows of GitHub and Cloud Build, and the ten commands: valid, pinned, and of our CLI."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from pipelines.cli import app

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yaml"))
BUILDS = sorted((ROOT / "infra" / "cloudbuild").glob("*.yaml"))
README = ROOT / "infra" / "README.md"
FILES = [*WORKFLOWS, *BUILDS, README]

# Whose code the workflows may run.
ACTIONS = {
    "actions/checkout",
    "actions/download-artifact",
    "actions/setup-python",
    "actions/upload-artifact",
    "docker/build-push-action",
    "docker/login-action",
    "docker/setup-buildx-action",
    "google-github-actions/auth",
    "hashicorp/setup-terraform",
}

ARGUMENT = r"""(?:"[^"]*"|'[^']*'|[^\s|&;`"'\\]+)"""
COMMAND = re.compile(rf"(?:(?<=[\s`/])|^)paper2hub((?: {ARGUMENT})+)", re.M)


def loaded(path: Path) -> dict[str, Any]:
    """A workflow; YAML 1.1 reads the key `on` as true."""
    workflow: dict[Any, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {"on" if key is True else str(key): value for key, value in workflow.items()}


def jobs() -> Iterator[tuple[str, dict[str, Any]]]:
    """All jobs of all workflows, by file and name."""
    for path in WORKFLOWS:
        for name, job in loaded(path)["jobs"].items():
            yield f"{path.stem}.{name}", job


def steps() -> Iterator[tuple[str, dict[str, Any]]]:
    """All steps of all jobs."""
    for name, job in jobs():
        for step in job.get("steps", []):
            yield name, step


def commands(path: Path) -> list[list[str]]:
    """The words after each `paper2hub` that a file would run."""
    lines = (line for line in path.read_text(encoding="utf-8").splitlines())
    text = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
    return [shlex.split(match[1]) for match in COMMAND.finditer(text)]


def called(words: list[str]) -> Any:
    """The command of the CLI that words begin with, taken away."""
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands"):
        name = words.pop(0)
        assert name in command.commands, f"paper2hub has no command {name}"
        command = command.commands[name]
    return command


def test_there_are_workflows() -> None:
    assert [path.stem for path in WORKFLOWS] == ["deploy", "test"]
    assert [path.stem for path in BUILDS] == ["images", "release", "test"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_our_commands_exist(path: Path) -> None:
    found = commands(path)
    assert found or path.stem in ("images",)
    for words in found:
        command = called(words)
        options = {option for parameter in command.params for option in parameter.opts}
        given = {word.partition("=")[0] for word in words if word.startswith("-")}
        assert given <= options, f"{command.name}: {given - options}"


def test_a_smoke_run_and_schedules_come_after_compiling_with_digests() -> None:
    for path in (ROOT / ".github/workflows/deploy.yaml", ROOT / "infra/cloudbuild/release.yaml"):
        found = commands(path)
        assert [words[0] for words in found] == ["compile", "submit", "schedules"], path
        assert "--images" in found[0]
        assert found[1][1] == "autoencoder" and "--watch" in found[1]


def test_pull_requests_only_look_at_schedules() -> None:
    for path in (ROOT / ".github/workflows/test.yaml", ROOT / "infra/cloudbuild/test.yaml"):
        (words,) = commands(path)
        assert words[:2] == ["schedules", "sync"] and "--dry-run" in words, path


def test_actions_are_pinned_by_commit() -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in WORKFLOWS)
    used = re.findall(r"uses: (\S+)(.*)", text)
    assert len(used) > len(ACTIONS)
    known: dict[str, str] = {}
    for action, comment in used:
        if action.startswith("./"):
            assert (ROOT / action).is_file()
            continue
        name, _, commit = action.partition("@")
        assert name in ACTIONS, name
        assert re.fullmatch(r"[0-9a-f]{40}", commit), action
        assert re.fullmatch(r" # v\d+\.\d+\.\d+", comment), f"{action} must tell its version"
        assert known.setdefault(name, commit) == commit, f"{name} is used in two versions"
    assert set(known) == ACTIONS


def test_permissions_are_the_least() -> None:
    for path in WORKFLOWS:
        assert loaded(path)["permissions"] == {}, path
    for name, job in jobs():
        wanted = {"contents": "read"}
        signs_in = any(
            "google-github-actions/auth" in s.get("uses", "") for s in job.get("steps", [])
        )
        if signs_in or "uses" in job:
            wanted["id-token"] = "write"
        assert job["permissions"] == wanted, name


def test_workflows_neither_pile_up_nor_hang() -> None:
    for path in WORKFLOWS:
        assert loaded(path)["concurrency"]["group"], path
    for name, job in jobs():
        assert "uses" in job or job["timeout-minutes"] <= 240, name


def test_no_secrets_and_no_text_of_others_in_scripts() -> None:
    for path in (*WORKFLOWS, *BUILDS):
        assert "secrets." not in path.read_text(encoding="utf-8"), path
    for name, step in steps():
        assert "${{" not in step.get("run", ""), f"{name}: pass it as a variable"
        if "actions/checkout" in step.get("uses", ""):
            assert step["with"]["persist-credentials"] is False, name


def test_all_that_signs_in_to_change_something_waits_for_its_environment() -> None:
    for name, job in jobs():
        signs_in = [s for s in job.get("steps", []) if "/auth@" in s.get("uses", "")]
        for step in signs_in:
            looks_only = step["with"]["service_account"] == "${{ vars.CI }}"
            assert looks_only == ("environment" not in job), name


def test_builds_run_as_identities_of_terraform() -> None:
    expected = {"images": "builder", "release": "scheduler", "test": "ci"}
    for path in BUILDS:
        build = loaded(path)
        account = build["serviceAccount"].rpartition("/")[2]
        part = expected[path.stem]
        assert account == f"paper2hub-${{_ENVIRONMENT}}-{part}@$PROJECT_ID.iam.gserviceaccount.com"
        assert build["options"]["logging"] == "CLOUD_LOGGING_ONLY"
        names = [step["id"] for step in build["steps"]]
        for step in build["steps"]:
            assert set(step.get("waitFor", [])) <= {"-", *names}


def test_all_images_are_built() -> None:
    from components import images

    names = {
        value.partition("/")[2].partition(":")[0]
        for value in vars(images).values()
        if isinstance(value, str) and value.startswith("paper2hub/")
    }
    deploy = loaded(ROOT / ".github/workflows/deploy.yaml")["jobs"]["images"]
    matrix = deploy["strategy"]["matrix"]["include"]
    build = loaded(ROOT / "infra/cloudbuild/images.yaml")["steps"]
    assert {entry["name"] for entry in matrix} == {step["id"] for step in build} >= names
    for entry in matrix:
        assert (ROOT / "docker" / f"{entry['file']}.Dockerfile").is_file()
        assert (ROOT / "requirements" / f"{entry['requirements']}.txt").is_file()


def test_workflows_read_the_variables_that_terraform_gives() -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in WORKFLOWS)
    outputs = (ROOT / "infra/outputs.tf").read_text(encoding="utf-8")
    assert set(re.findall(r"vars\.(\w+)", text)) == set(re.findall(r'"([A-Z_]+)=\'', outputs))


def test_the_way_to_the_first_schedule_is_ten_commands() -> None:
    text = README.read_text(encoding="utf-8")
    entries = re.findall(r"^(\d+)\. .*\n\n((?: {7,}\S.*\n)+)", text, re.M)
    assert [int(number) for number, _ in entries] == list(range(1, 11))
    assert re.findall(r"^\d+\.", text, re.M) == [f"{number}." for number in range(1, 11)]
    for number, command in entries:
        (line,) = command.strip().splitlines()
        assert not re.search(r"&&|;|\|", line), f"{number} is more than one command"
        for file in re.findall(r"infra/\S+\.\w+", line):
            assert (ROOT / file).is_file()
    assert commands(README)[1] == ["schedules", "sync", "--target", "dev"]


def test_checkov_is_locked() -> None:
    lock = (ROOT / "infra/requirements.txt").read_text(encoding="utf-8")
    (wanted,) = (ROOT / "infra/requirements.in").read_text(encoding="utf-8").split()
    assert f"\n{wanted} \\\n" in lock
    assert "://" not in lock and "--index" not in lock.replace("--no-emit-index-url", "")
    pins = re.findall(r"^([a-z0-9._-]+)==\S+.*\\\n    --hash=sha256:", lock, re.M | re.I)
    assert len(pins) == len(re.findall(r"^[a-z0-9._-]+==", lock, re.M | re.I))


def test_digests_pass_from_job_to_job_as_a_lock_file() -> None:
    release = loaded(ROOT / ".github/workflows/deploy.yaml")["jobs"]["release"]
    (script,) = [s["run"] for s in release["steps"] if s.get("name") == "Lock the images"]
    assert "jq --slurp add build/images/*.json >images.json" in script
    assert """jq '.[].images = "images.json"' >targets.yaml""" in script
