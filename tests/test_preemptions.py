"""Machines are taken away from trainings in a cloud; what comes of it is as if they were not."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from pipelines.cloud.account import Account
from pipelines.cloud.job import ENDED, Cloud, Request
from pipelines.cloud.submission import cloud_of, submit
from pipelines.compile import compile_model
from tests.cloud.cloud import Cloud as StandIn
from trainer.artifact import read_json, sha256

pytest_plugins = ["tests.cloud.plugin"]

SETTINGS = {"epochs": 6, "batch_size": 32, "widths": [64], "code_size": 8}
TRAININGS = 10  # of each seed
AFTER_TRAINING = ("evaluate", "export-hub", "report")


def training_only(folder: Path) -> str:
    """The autoencoder's pipeline for Vertex AI up to its training, which no cache answers."""
    text = compile_model("autoencoder", folder / "p.yaml", "vertex").read_text()
    spec = yaml.safe_load(text)
    tasks = spec["root"]["dag"]["tasks"]
    for name in AFTER_TRAINING:
        del tasks[name]
    tasks["train"]["cachingOptions"] = {"enableCache": False}
    return yaml.safe_dump(spec)


def checkpoint(cloud: StandIn, job: str) -> dict[str, Any]:
    """The trained networks of a job, by their bytes, and what its training has noted."""
    record = cloud.pipeline_jobs.work(job).record
    folder = Path(record.tasks["train"].artifacts["checkpoint"]["uri"])
    state = read_json(folder / "state.json")
    return {
        "networks": sha256(folder / state["file"]),
        "step": state["step"],
        "history": read_json(folder / "history.json"),
        "attempts": record.tasks["train"].attempts,
    }


def train(mine: Cloud, request: Request, cloud: StandIn) -> dict[str, Any]:
    job, _ = submit(request, mine, again=True)
    cloud.wait()
    found = mine.find(job.identifier)
    assert found is not None and found.state in ENDED
    assert found.state == "succeeded", found.reason
    return checkpoint(cloud, job.identifier)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_preempted_trainings_end_with_the_undisturbed_result(
    cloud: StandIn, tmp_path: Path, seed: int
) -> None:
    """By SIGTERM, at any moment of a training, once to three times; fifty of them in all."""
    mine = cloud_of(
        Account(
            "vertex",
            "vertex",
            "gs://bucket/runs",
            project=cloud.project,
            region=cloud.location,
            endpoint=cloud.url,
        )
    )
    request = Request("autoencoder", training_only(tmp_path), {"settings": SETTINGS})
    undisturbed = train(mine, request, cloud)
    assert undisturbed.pop("attempts") == 1
    chance = np.random.default_rng(seed)
    for _ in range(TRAININGS):
        times = int(chance.integers(1, 4))
        for _ in range(times):
            cloud.faults.preempt("train", after=float(chance.uniform(0.5, 4.0)), grace=20.0)
        before = cloud.faults.count("preempt")
        disturbed = train(mine, dataclasses.replace(request), cloud)
        hits = cloud.faults.count("preempt") - before
        cloud.faults.clear()
        assert disturbed.pop("attempts") == 1 + hits
        assert disturbed == undisturbed
    assert cloud.faults.count("preempt") >= TRAININGS
