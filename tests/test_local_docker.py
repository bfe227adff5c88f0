"""The main job in containers: the same pipeline, the same results as without them."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.local.record import read_run, run_folders

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module", autouse=True)
def images() -> None:
    """Skips where there is no Docker daemon, or where the images have not been built."""
    if shutil.which("docker") is None:
        pytest.skip("the command docker is not installed here")
    if subprocess.run(["docker", "info"], capture_output=True).returncode:
        pytest.skip("no Docker daemon answers here")
    for image in ("paper2hub/data", "paper2hub/trainer"):
        if subprocess.run(["docker", "image", "inspect", image], capture_output=True).returncode:
            pytest.skip(f"{image} has not been built here; run `make images`")


def paper2hub(*arguments: str) -> str:
    command = [sys.executable, "-m", "pipelines", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_model_goes_from_raw_files_to_an_export_in_containers(tmp_path: Path) -> None:
    arguments = ["autoencoder", "--set", "epochs=1", "--root", str(tmp_path)]
    shown = paper2hub("run", *arguments, "--docker")
    assert "reconstruct_encoded answers: code [1, 30]" in shown
    assert (Path(read_run(run_folders(tmp_path)[-1]).folder) / "report.html").is_file()
    paper2hub("run", *arguments, "--docker")
    again = read_run(run_folders(tmp_path)[-1])
    assert {task.status for task in again.tasks.values()} == {"cached"}


def test_containers_and_processes_give_the_same(tmp_path: Path) -> None:
    shown = paper2hub("parity", "autoencoder", "--set", "epochs=1", "--root", str(tmp_path))
    assert "all parameters, metrics and branches are the same." in shown
