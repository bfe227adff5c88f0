"""Planning against the stand-in of the clouds, with their own clients: what it finds and leaves."""

import dataclasses

import pytest

from pipelines.cloud.account import Account
from pipelines.cloud.job import Request
from pipelines.cloud.placement import Placement
from pipelines.cloud.plan import plan
from pipelines.cloud.submission import cloud_of
from pipelines.compile import compile_model
from tests.cloud.cloud import Cloud

DIGEST = "0123456789abcdef" * 4


@pytest.fixture
def cloud(tmp_path, monkeypatch):
    with Cloud(tmp_path / "cloud", execute="instant") as made:
        for name, value in made.environment().items():
            monkeypatch.setenv(name, value)
        yield made


def _account(kind, cloud):
    return Account(
        name=kind,
        kind=kind,
        root="gs://bucket/runs",
        project=cloud.project,
        region=cloud.location,
        endpoint=cloud.url,
        host=cloud.url,
    )


def _request(kind, folder, parameters=None, digest=DIGEST):
    text = compile_model("autoencoder", folder / "a.yaml", Placement(kind)).read_text()
    for image in ("data", "trainer"):
        text = text.replace(f"paper2hub/{image}:0.1.0\n", f"h.example/{image}@sha256:{digest}\n")
    return Request(model="autoencoder", text=text, parameters=parameters or {})


@pytest.mark.parametrize("kind", ["vertex", "kubeflow"])
def test_what_a_cloud_keeps_of_a_job_is_compared_with_what_is_asked_for(kind, cloud, tmp_path):
    account = _account(kind, cloud)
    client = cloud_of(account)
    settings = {"settings": {"epochs": 2, "learning_rate": 0.1}, "shards": 2}
    request = _request(kind, tmp_path, settings)
    made = plan(request, account, client)
    assert made.compared_with == ""
    assert cloud.count("POST", "/(pipelineJobs|runs|experiments)$") == 0  # planning makes nothing

    client.create(request, request.identifier())
    cloud.wait()
    job = client.find(request.identifier())
    assert job is not None
    assert job.state == "succeeded"
    again = plan(request, account, client)
    assert again.compared_with == request.identifier()
    assert [step.why for step in again.steps if not step.cached] == []

    changed = {**settings, "settings": {"epochs": 2, "learning_rate": 0.05}}
    steps = {s.step: s for s in plan(_request(kind, tmp_path, changed), account, client).steps}
    assert steps["create-tfrecords"].cached
    assert steps["preprocess"].why == "parameter settings.learning_rate 0.1 → 0.05"
    assert steps["evaluate"].why == "preprocess before it runs"

    other = plan(_request(kind, tmp_path, settings, "f" * 64), account, client)
    assert other.steps[0].why == "image digest changed (01234567 → ffffffff)"


def test_only_jobs_that_have_succeeded_are_compared(cloud, tmp_path):
    account = _account("vertex", cloud)
    client = cloud_of(account)
    request = _request("vertex", tmp_path)
    cloud.execute = "hold"
    client.create(request, request.identifier())
    cloud.finish(request.identifier(), succeeded=False)
    cloud.wait()
    assert client.earlier("autoencoder") == []
    first = plan(request, account, client).steps[0]
    assert first.why == "no earlier job of this pipeline has succeeded"


def test_times_of_earlier_jobs_make_a_cost(cloud, tmp_path):
    account = _account("vertex", cloud)
    client = cloud_of(account)
    request = _request("vertex", tmp_path)
    client.create(request, request.identifier())
    cloud.wait()
    (earlier,) = client.earlier("autoencoder")
    tasks = {
        name: dataclasses.replace(task, status="succeeded", seconds=3600.0)
        for name, task in earlier.job.tasks.items()
    }
    assert set(tasks) >= {"create-tfrecords", "train", "report"}

    class AnHourEach:
        def earlier(self, pipeline, most=5):
            return [dataclasses.replace(earlier, job=dataclasses.replace(earlier.job, tasks=tasks))]

    made = plan(_request("vertex", tmp_path, {"shards": 3}), account, AnHourEach())
    assert made.unknown == ()
    assert made.cost.low == pytest.approx(0.03 + sum(step.hour.low for step in made.steps))
