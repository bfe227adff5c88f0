"""From a raw dataset in a bucket to finished artifacts in the cloud, by the commands alone.

Compile, plan, submit and watch, schedule, let time pass: as a user would, in processes of their
own, with Google's and Kubeflow's real clients, against the stand-in for both, which runs the steps.
"""

from __future__ import annotations

import dataclasses
import datetime
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.cloud import storage

from components.images import VERSION
from tests.cloud.cloud import Cloud
from trainer.catalog import model_part

ROOT = Path(__file__).parents[1]
QUICKEST = ("autoencoder", "vertex")
CASES = [
    pytest.param(model, target, marks=[] if (model, target) == QUICKEST else [pytest.mark.slow])
    for model in ("autoencoder", "dcgan", "regnety")
    for target in ("vertex", "kubeflow")
]
SUNDAY = datetime.datetime(2026, 11, 22, 12, tzinfo=datetime.UTC)
MONDAY_AFTER_THREE = datetime.timedelta(hours=16)


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    """A cloud with an account of Vertex AI and one of Kubeflow, which targets.yaml describes."""
    monkeypatch.chdir(tmp_path)
    with Cloud(tmp_path / "cloud", start=SUNDAY) as made:
        for name, value in made.environment().items():
            monkeypatch.setenv(name, value)
        names = ("data", "trainer", "trainer-gpu", "trainer-tpu")
        lock = {name: f"registry.example/{name}@sha256:{'0' * 64}" for name in names}
        (tmp_path / "images.json").write_text(json.dumps(lock))
        common = {"root": "gs://bucket/runs", "images": "images.json"}
        account = {"project": made.project, "region": made.location, "endpoint": made.url}
        targets = {"vertex": account | common, "kubeflow": {"host": made.url} | common}
        (tmp_path / "targets.yaml").write_text(yaml.safe_dump(targets))
        yield made


def paper2hub(*arguments: str) -> str:
    command = [sys.executable, "-m", "pipelines", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, timeout=1200
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def upload(model: str, folder: Path) -> str:
    """Puts a sample of the model's dataset into a bucket; its address."""
    spec = importlib.import_module(f"pipelines.{model}").pipeline.pipeline_spec
    dataset = spec.root.input_definitions.parameters["dataset"].default_value.string_value
    importlib.import_module(f"trainer.data.{dataset}.sample").write_sample(folder)
    client = storage.Client()
    for path in folder.rglob("*"):
        if path.is_file():
            name = f"data/{path.relative_to(folder)}"
            client.bucket("bucket").blob(name).upload_from_filename(path)
    client.close()
    return "gs://bucket/data"


def exports(cloud: Cloud) -> list[dict[str, Any]]:
    """What every export in the bucket says of itself."""
    return [
        json.loads(path.read_text()) for path in cloud.path("gs://bucket/runs").rglob("export.json")
    ]


def whole_way(cloud: Cloud, model: str, target: str, folder: Path) -> None:
    """Compiles, plans, submits, watches, schedules and waits for the schedule's first run."""
    data = upload(model, folder / "sample")
    settings = json.dumps(dataclasses.asdict(model_part(model, "config").TINY))
    asked = ["--target", target, "--data", data, "--param", f"settings={settings}"]

    file = paper2hub("compile", model, "--target", target, "--images", "images.json").strip()
    text = Path(file).read_text()
    assert "@sha256:" in text and f":{VERSION}" not in text.replace("pipeline-components", "")
    planned = json.loads(paper2hub("plan", model, *asked, "--json"))
    assert len(planned["steps"]) >= 6 and not any(step["cached"] for step in planned["steps"])

    shown = paper2hub("submit", model, *asked, "--watch")
    assert "report: succeeded" in shown and "State: succeeded" in shown
    assert len(exports(cloud)) == 1
    assert "State: succeeded; --again" in paper2hub("submit", model, *asked)

    schedule = {
        "weekly": {
            "model": model,
            "target": target,
            "cron": "0 3 * * 1",
            "settings": json.loads(settings),
            "parameters": {"data": data, "dataset": ""},
        }
    }
    Path("schedules.yaml").write_text(yaml.safe_dump(schedule))
    paper2hub("schedules", "sync", "--file", "schedules.yaml")
    before = len(json.loads(paper2hub("jobs", "--target", target, "--json")))
    cloud.clock.advance(MONDAY_AFTER_THREE)
    cloud.wait(1200)
    jobs = json.loads(paper2hub("jobs", "--target", target, "--json"))
    assert len(jobs) == before + 1 and {job["state"] for job in jobs} == {"succeeded"}
    found = exports(cloud)
    assert len(found) == 2 and found[0]["sha256"] == found[1]["sha256"]


@pytest.mark.parametrize(("model", "target"), CASES)
def test_from_a_bucket_to_finished_artifacts(
    cloud: Cloud, tmp_path: Path, model: str, target: str
) -> None:
    whole_way(cloud, model, target, tmp_path)


def test_the_ten_commands_lead_to_a_scheduled_run(
    cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of infra/README.md that are ours, in their order, in an account named dev."""
    cloud.execute = "instant"
    file = tmp_path / "targets.yaml"
    account = yaml.safe_load(file.read_text())["vertex"]
    dev = {**account, "kind": "vertex", "images": str(tmp_path / "images.json")}
    file.write_text(yaml.safe_dump({"dev": dev}))
    monkeypatch.setenv("PAPER2HUB_TARGETS", str(file))
    monkeypatch.chdir(ROOT)
    text = (ROOT / "infra" / "README.md").read_text(encoding="utf-8")
    ours = [line.split() for line in re.findall("^ {7,8}paper2hub (.*)$", text, re.MULTILINE)]
    assert [words[0] for words in ours] == ["submit", "schedules"]
    assert "State: succeeded" in paper2hub(*ours[0])
    assert "weekly-autoencoder-in-the-cloud" in paper2hub(*ours[1])
    cloud.clock.advance(MONDAY_AFTER_THREE)
    jobs = json.loads(paper2hub("jobs", "--target", "dev", "--json"))
    assert [job["state"] for job in jobs] == ["succeeded", "succeeded"]


@pytest.mark.docker
@pytest.mark.parametrize("model", ["dcgan", "regnety"])
def test_the_same_in_containers(cloud: Cloud, tmp_path: Path, model: str) -> None:
    if (
        shutil.which("docker") is None
        or subprocess.run(["docker", "info"], capture_output=True).returncode
    ):
        pytest.skip("no Docker daemon answers here")
    for image in ("data", "trainer"):
        name = f"paper2hub/{image}"
        if subprocess.run(["docker", "image", "inspect", name], capture_output=True).returncode:
            pytest.skip(f"{name} has not been built here; run `make images`")
        cloud.images[f"registry.example/{image}@sha256:{'0' * 64}"] = name
    # What a GPU would do, processors do here.
    cloud.images[f"registry.example/trainer-gpu@sha256:{'0' * 64}"] = "paper2hub/trainer"
    cloud.execution.launcher = "docker"
    whole_way(cloud, model, "vertex", tmp_path)
