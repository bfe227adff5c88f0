"""Submissions to a cloud that is in trouble: as many jobs as requests, none twice, none lost."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.cloud import refusal
from pipelines.cloud.account import Account
from pipelines.cloud.job import Request
from pipelines.cloud.submission import cloud_of, submit
from pipelines.compile import compile_model
from tests.cloud.cloud import Cloud

pytest_plugins = ["tests.cloud.plugin"]

FAULTS = {"429": 0.1, "503": 0.1, "500": 0.05, "lost": 0.15, "slow": 0.02, "expired": 0.05}
AT_ONCE = 8


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Waits between attempts are for clouds with other customers."""
    monkeypatch.setattr(refusal, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(refusal, "LONGEST_WAIT", 0.05)
    yield


def account(cloud: Cloud, kind: Any) -> Account:
    return Account(
        kind,
        kind,
        "gs://bucket/runs",
        project=cloud.project,
        region=cloud.location,
        host=cloud.url,
        endpoint=cloud.url,
    )


@pytest.mark.parametrize("kind", ["vertex", "kubeflow"])
@pytest.mark.parametrize("count", [40, pytest.param(500, marks=pytest.mark.slow)])
def test_as_many_jobs_as_requests_whatever_goes_wrong(
    cloud: Cloud, tmp_path: Path, kind: str, count: int
) -> None:
    """Each is asked for twice, by several at once, while two in five answers are bad."""
    cloud.execute = "instant"
    text = compile_model("autoencoder", tmp_path / "p.yaml", kind).read_text()
    first = Request("autoencoder", text)
    requests = [dataclasses.replace(first, parameters={"shards": n}) for n in range(count)]
    mine = cloud_of(account(cloud, kind))
    mine.jobs()  # what a first call sets up is not what is tried
    # Kubeflow asks for no token here.
    faults = {name: p for name, p in FAULTS.items() if kind == "vertex" or name != "expired"}
    cloud.faults.random(count, faults, seconds=0.05)

    def ask(request: Request) -> str:
        return submit(request, mine)[0].identifier

    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        once = list(pool.map(ask, requests))
        again = list(pool.map(ask, requests))
    injected = {name: cloud.faults.count(name) for name in faults}
    cloud.faults.clear()
    assert once == again == [request.identifier() for request in requests]
    assert len(set(once)) == count
    there = [job.identifier for job in mine.jobs(2 * count)]
    assert sorted(there) == sorted(once)
    if kind == "kubeflow":  # nor was any made twice and one of them ended
        assert len(cloud.kubeflow.works) == count
    # The trouble was real.
    assert min(injected.values()) > 0 and sum(injected.values()) > count / 2, injected


def test_two_who_ask_for_the_same_at_once_get_one_job(cloud: Cloud, tmp_path: Path) -> None:
    cloud.execute = "hold"
    for kind in ("vertex", "kubeflow"):
        text = compile_model("autoencoder", tmp_path / "p.yaml", kind).read_text()
        mine = [cloud_of(account(cloud, kind)) for _ in range(AT_ONCE)]
        request = Request("autoencoder", text)
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            found = list(pool.map(lambda c, r=request: submit(r, c)[0].identifier, mine))
        assert set(found) == {request.identifier()}
        at_work = [job for job in mine[0].jobs() if job.state in ("waiting", "running")]
        assert len(at_work) == 1, (kind, at_work)


def test_a_lost_answer_is_no_second_job(cloud: Cloud, tmp_path: Path) -> None:
    """Hand-computable: of one creation the answer is lost, and there is one job."""
    cloud.execute = "hold"
    for kind, path in (("vertex", "pipelineJobs"), ("kubeflow", "/runs")):
        text = compile_model("autoencoder", tmp_path / "p.yaml", kind).read_text()
        mine = cloud_of(account(cloud, kind))
        mine.jobs()
        cloud.faults.next("lost", path, method="POST")
        job, made = submit(Request("autoencoder", text), mine)
        assert made and mine.find(job.identifier) is not None
        assert len(mine.jobs()) == 1
    assert len(cloud.kubeflow.works) == 1
    assert cloud.faults.count("lost") == 2


def test_cancelled_is_cancelled(cloud: Cloud, tmp_path: Path) -> None:
    cloud.execute = "hold"
    for kind in ("vertex", "kubeflow"):
        text = compile_model("autoencoder", tmp_path / "p.yaml", kind).read_text()
        mine = cloud_of(account(cloud, kind))
        job, _ = submit(Request("autoencoder", text), mine)
        cloud.faults.next("503", times=2)
        mine.cancel(job.identifier)
        for _ in itertools.repeat(None, 100):
            found = mine.find(job.identifier)
            if found is not None and found.state == "cancelled":
                break
        assert found is not None and found.state == "cancelled"
        mine.cancel(job.identifier)  # nothing left to end
        # What was cancelled may be asked for again.
        after, made = submit(Request("autoencoder", text), mine)
        assert made and after.identifier == f"{job.identifier}-2"


def test_everything_of_ours_is_labelled(cloud: Cloud, tmp_path: Path) -> None:
    cloud.execute = "instant"
    text = compile_model("tiny_resnet", tmp_path / "p.yaml", "vertex").read_text()
    labelled = dataclasses.replace(account(cloud, "vertex"), labels={"team": "vision"})
    submit(Request("tiny_resnet", text, labels={"suite": "weekly"}), cloud_of(labelled))
    (created,) = [r for r in cloud.requests if r.method == "POST" and "pipelineJobs" in r.path]
    body = json.loads(created.body)
    assert body["labels"] == {"paper2hub": "tiny-resnet", "suite": "weekly", "team": "vision"}
