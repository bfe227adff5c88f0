"""preprocess on Dataflow: what is submitted, what is waited for, and what comes of it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import threading
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud.dataflow import JobType

from components.create_tfrecords.create_tfrecords import create_tfrecords
from components.images import DATA
from components.preprocess.preprocess import preprocess
from tests.dataflow.stand_in import Cloud, Job
from trainer.data.image_folder.sample import write_sample
from trainer.errors import TryAgain, UserError
from trainer.progress import PROGRESS_FILE

SETTINGS = {"image_size": 8}
EXAMPLES = 42
MINIMUM = (
    "--runner=DataflowRunner --project=project --region=region "
    "--temp_location=/gcs/bucket/temporary"
)


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_sample(folder / "data")
    create_tfrecords(str(folder / "examples"), str(folder / "data"), shards=3)
    return folder / "examples"


@contextlib.contextmanager
def serving(examples: Path) -> Iterator[Cloud]:
    """A cloud whose bucket has the examples, and which this process takes for Google's."""
    with Cloud() as cloud, pytest.MonkeyPatch.context() as patch:
        cloud.fill("bucket", "run/examples", examples)
        anonymous = (AnonymousCredentials(), "project")
        patch.setattr("google.auth.default", lambda **_: anonymous)
        patch.setenv("STORAGE_EMULATOR_HOST", cloud.url)
        # Beam keeps credentials for the life of a process, and looks at jobs every five seconds.
        patch.setattr("apache_beam.internal.gcp.auth._Credentials._credentials_init", False)
        quick = types.SimpleNamespace(time=time.time, sleep=lambda s: time.sleep(s / 100))
        patch.setattr("apache_beam.runners.dataflow.dataflow_runner.time", quick)
        yield cloud


@pytest.fixture
def cloud(examples: Path) -> Iterator[Cloud]:
    with serving(examples) as made:
        yield made


def run(cloud: Cloud, more: str = "", **arguments: Any) -> dict[str, dict[str, Any]]:
    """Preprocesses for RegNetY, with the paths that KFP gives to a step on Vertex AI."""
    return preprocess(
        "regnety",
        "/gcs/bucket/run/examples",
        "/gcs/bucket/run/transformed_examples",
        "/gcs/bucket/run/transform_graph",
        SETTINGS,
        f"{MINIMUM} --dataflow_endpoint={cloud.url} {more}",
        **arguments,
    )


def transformed(cloud: Cloud) -> dict[str, bytes]:
    return cloud.files("bucket", "run/transformed_examples")


def submitted(cloud: Cloud) -> Job:
    (job,) = cloud.jobs.values()
    return job


@pytest.fixture(scope="module")
def finished(examples: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """A cloud on which the step has run with as few options as it needs."""
    progress = tmp_path_factory.mktemp("progress") / "progress.json"
    with serving(examples) as cloud:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(PROGRESS_FILE, str(progress))
            cloud.result = run(cloud)
        cloud.progress = json.loads(progress.read_text(encoding="utf-8"))
        yield cloud


def test_what_comes_of_it_is_what_comes_of_it_here(
    finished: Cloud, examples: Path, tmp_path: Path
) -> None:
    here = preprocess(
        "regnety", str(examples), str(tmp_path / "transformed"), str(tmp_path / "graph"), SETTINGS
    )
    assert finished.result == here
    for name, folder in (("transformed_examples", "transformed"), ("transform_graph", "graph")):
        files = (path for path in (tmp_path / folder).rglob("*") if path.is_file())
        wanted = {str(p.relative_to(tmp_path / folder)): p.read_bytes() for p in files}
        assert finished.files("bucket", f"run/{name}") == wanted


def test_what_is_submitted(finished: Cloud) -> None:
    job = submitted(finished)
    assert job.images == {DATA}
    assert job.description["type"] == JobType.JOB_TYPE_BATCH
    assert re.fullmatch("preprocess-regnety-transform-[0-9a-f]{8}", job.description["name"])
    assert job.description["labels"] == {"step": "preprocess", "model": "regnety"}
    assert "use_runner_v2" in job.options["experiments"]
    assert not job.options.get("save_main_session")
    assert job.options["temp_location"].startswith("gs://bucket/temporary/")
    images = [
        image["containerImage"]
        for pool in job.description["environment"]["workerPools"]
        for image in pool["sdkHarnessContainerImages"]
    ]
    assert images == [DATA]
    assert {"Name", "Spread", "TransformShard"} <= set(job.steps)
    # Names of shards enter the pipeline and no pictures, and nothing of this machine goes along.
    assert len(job.graph.SerializeToString()) < 50_000
    staged = [name for name in finished.buckets["bucket"] if name.startswith("temporary/")]
    assert {Path(name).name for name in staged} == {
        "pipeline.pb",
        "submission_environment_dependencies.txt",  # Beam's list of packages
    }


def test_the_job_is_waited_for(finished: Cloud) -> None:
    assert submitted(finished).asked >= 2  # it had not ended when it was first asked for
    assert submitted(finished).state == "JOB_STATE_DONE"


def test_progress_comes_from_the_counters_of_the_job(finished: Cloud) -> None:
    (identity,) = finished.jobs
    jobs = "/v1b3/projects/project/locations/region/jobs"
    assert f"GET {jobs}/{identity}/metrics" in finished.requests
    assert submitted(finished).counters["preprocess/examples"] == EXAMPLES
    assert submitted(finished).counters["preprocess/bytes"] > 1000
    assert (finished.progress["done"], finished.progress["total"]) == (EXAMPLES, EXAMPLES)


def test_options_that_are_given_are_kept(cloud: Cloud) -> None:
    cloud.fate = "cancelled"
    with pytest.raises(UserError, match=r"job 2026.* must run to its end; it was cancelled\."):
        run(
            cloud,
            "--sdk_container_image=registry/data:1 --label=team=vision "
            "--experiments=shuffle_mode=x --worker_machine_type=n2-standard-8 "
            "--max_num_workers=7 --job_name=mine",
        )
    assert "manifest.json" not in transformed(cloud)
    job = submitted(cloud)
    assert job.images == {"registry/data:1"}
    assert job.description["name"] == "mine"
    assert job.description["labels"] == {
        "step": "preprocess",
        "model": "regnety",
        "team": "vision",
    }
    assert {"shuffle_mode=x", "use_runner_v2"} <= set(job.options["experiments"])
    for pool in job.description["environment"]["workerPools"]:
        assert pool["machineType"] == "n2-standard-8"
        assert pool["autoscalingSettings"]["maxNumWorkers"] == 7


def test_a_failed_job_fails_the_step_with_its_reason(cloud: Cloud) -> None:
    cloud.fate = "failed"
    cloud.reason = "Workflow failed. The zone does not have enough resources available."
    with pytest.raises(UserError, match=r"failed: Workflow failed. The zone does n.*goes on") as e:
        run(cloud)
    assert "\n" not in str(e.value)
    assert "manifest.json" not in transformed(cloud)


def test_an_attempt_goes_on_from_the_shards_that_are_finished(
    cloud: Cloud, finished: Cloud
) -> None:
    cloud.forbidden = "test-00001-of-00003"
    with pytest.raises(UserError, match=r"must run to its end; it failed: .*403"):
        run(cloud)
    there = transformed(cloud)
    assert "manifest.json" not in there
    notes = [json.loads(data) for name, data in there.items() if name.startswith("notes/")]
    done = sum(note["shard"]["records"] for note in notes)
    cloud.forbidden = ""
    cloud.jobs.clear()
    run(cloud)
    assert submitted(cloud).counters["preprocess/examples"] == EXAMPLES - done
    assert transformed(cloud) == transformed(finished)


def test_a_job_ends_with_the_step_that_waits_for_it(cloud: Cloud) -> None:
    cloud.fate = "endless"

    def end() -> None:
        while not cloud.jobs or not submitted(cloud).asked:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=end).start()
    with pytest.raises(TryAgain, match="SIGTERM came before the job had ended"):
        run(cloud)
    assert submitted(cloud).state == "JOB_STATE_CANCELLED"


def test_a_job_is_not_joined_by_another_of_its_name(cloud: Cloud) -> None:
    cloud.fate = "endless"

    def first() -> None:
        with pytest.raises(UserError, match="it was cancelled"):
            run(cloud)

    thread = threading.Thread(target=first)
    thread.start()
    while not cloud.jobs:
        time.sleep(0.01)
    with pytest.raises(TryAgain, match=r"DataflowRunner does not take the job now.*already active"):
        run(cloud)
    submitted(cloud).state = "JOB_STATE_CANCELLED"
    thread.join()


def test_folders_must_be_where_workers_see_them(cloud: Cloud) -> None:
    options = f"{MINIMUM} --dataflow_endpoint={cloud.url}"
    with pytest.raises(UserError, match=r"must be in buckets, as gs://.*; got 'graph'\."):
        preprocess("regnety", "gs://bucket/a", "/gcs/bucket/b", "graph", beam_options=options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("", "must have --project, --region, --temp_location for DataflowRunner"),
        ("--project=p --region=r", "must have --temp_location for"),
        ("--project=p --region=r --temp_location=/tmp", "starts with gs://; got '/tmp'"),
        ("--projct=p", r"got '--projct=p'\. Did you mean --project\?"),
        ("--num_workers=many", "invalid int value: 'many'"),
        ("--template_location=gs://b/t", r"have the pipeline run now.*got --template_location"),
    ],
)
def test_options_that_do_not_fit_are_told(options: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        preprocess(
            "regnety",
            "gs://b/e",
            "gs://b/t",
            "gs://b/g",
            beam_options=f"--runner=DataflowRunner {options}",
        )
