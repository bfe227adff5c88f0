"""The stand-in for the cloud, through the clients that talk to the real one."""

import concurrent.futures
import datetime
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
import warnings
from pathlib import Path
from typing import Any

import google.auth
import google.auth.transport.requests
import kfp
import pytest
import requests
from google.api_core import exceptions
from google.cloud import storage
from google.oauth2 import service_account

from pipelines.local.conftest import compiled, container
from tests.cloud.cloud import Cloud

pytest_plugins = ["tests.cloud.plugin"]

# Google's client for schedules logs by a method with an old name.
pytestmark = pytest.mark.filterwarnings("ignore:The 'warn' method:DeprecationWarning")

UTC = datetime.UTC
WRITE = "import pathlib,sys; pathlib.Path(sys.argv[1]).write_text(sys.argv[2])"
WAIT = "import pathlib,sys,time; print('at work', flush=True); time.sleep(60)"
TRAIN = """
import pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1])
folder.mkdir(exist_ok=True)
step = len(list(folder.iterdir()))
signal.signal(signal.SIGTERM, signal.SIG_IGN if sys.argv[2] == "deaf" else signal.SIG_DFL)
while step < 8:
    step += 1
    (folder / f"checkpoint-{step}").write_text(str(step))
    time.sleep(0.1)
print("done after", step)
"""


def two_tasks(tmp_path: Path) -> str:
    """A pipeline that writes a word into an artifact, and reads it."""
    text = compiled(
        parameters={"word": "hello"},
        make=container(
            WRITE,
            "{{$.outputs.artifacts['out'].path}}",
            "{{$.inputs.parameters['word']}}",
            inputs={"word": "pipeline:word"},
            artifacts=["out"],
        ),
        use=container(
            WRITE,
            "{{$.outputs.parameters['read'].output_file}}",
            "{{$.inputs.artifacts['given'].path}}",
            inputs={"given": "make/out"},
            outputs=["read"],
        ),
    )
    file = tmp_path / "two.yaml"
    file.write_text(text, encoding="utf-8")
    return str(file)


def one_task(tmp_path: Path, script: str, *arguments: str, retries: int = 0) -> str:
    """A pipeline with the one task `train`, which may be tried again after a minute."""
    import yaml

    spec = yaml.safe_load(compiled(train=container(script, *arguments, artifacts=["model"])))
    if retries:
        spec["root"]["dag"]["tasks"]["train"]["retryPolicy"] = {
            "maxRetryCount": retries,
            "backoffDuration": "60s",
        }
    resources = {"cpuLimit": 208.0, "memoryLimit": 4000.0, "resourceMemoryLimit": "4000G"}
    spec["deploymentSpec"]["executors"]["exec-train"]["container"]["resources"] = resources
    file = tmp_path / "one.yaml"
    file.write_text(yaml.safe_dump(spec), encoding="utf-8")
    return str(file)


def job_of(vertex: Any, template: str, identity: str | None = None, **options: Any) -> Any:
    return vertex.PipelineJob(
        display_name="a job",
        template_path=template,
        job_id=identity,
        pipeline_root="gs://bucket/root",
        **options,
    )


def until(what: Any, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.02)


def tasks_of(job: Any) -> dict[str, Any]:
    return {task.task_name: task for task in job.gca_resource.job_detail.task_details}


# Vertex AI: pipeline jobs


def test_a_pipeline_runs_to_artifacts_in_the_bucket(
    cloud: Cloud, vertex: Any, tmp_path: Path
) -> None:
    template = two_tasks(tmp_path)
    values = {"word": "gs://bucket/data/x"}
    job_of(vertex, template, "job-1", labels={"model": "dcgan"}, parameter_values=values).submit()
    cloud.wait()

    job = vertex.PipelineJob.get("job-1")
    assert job.state.name == "PIPELINE_STATE_SUCCEEDED"
    tasks = tasks_of(job)
    assert list(tasks) == ["job-1", "make", "use"]
    assert {task.state.name for task in tasks.values()} == {"SUCCEEDED"}
    assert tasks["make"].start_time and tasks["make"].end_time >= tasks["make"].start_time
    (artifact,) = tasks["make"].outputs["out"].artifacts
    assert artifact.uri.startswith("gs://bucket/root/123456789012/job-1/make_")
    blob = storage.Blob.from_uri(artifact.uri, client=storage.Client())
    assert blob.download_as_text() == str(cloud.path("gs://bucket/data/x"))


def test_a_second_job_of_the_same_id_is_refused(cloud: Cloud, vertex: Any, tmp_path: Path) -> None:
    cloud.execute = "instant"
    template = two_tasks(tmp_path)
    job_of(vertex, template, "job-1").submit()
    with pytest.raises(exceptions.Conflict, match="already exists"):
        job_of(vertex, template, "job-1").submit()
    assert cloud.count("POST", "/pipelineJobs$") == 2
    assert len(vertex.PipelineJob.list()) == 1


def test_what_the_api_does_not_know_is_refused(cloud: Cloud, vertex: Any, tmp_path: Path) -> None:
    token = _token()
    address = f"{cloud.url}/v1/{cloud.parent}/pipelineJobs?pipelineJobId="
    body = {"displayName": "x", "pipeline": {}}
    headers = {"Authorization": f"Bearer {token}"}
    answer = requests.post(f"{address}a", json=body, headers=headers, timeout=10)
    assert answer.status_code == 400
    assert answer.json()["error"]["status"] == "INVALID_ARGUMENT"
    template = two_tasks(tmp_path)
    job = job_of(vertex, template, "job-1")
    job._gca_resource.runtime_config.parameter_values = {"wrod": "x"}
    with pytest.raises(exceptions.BadRequest, match="wrod"):
        job.submit()
    with pytest.raises(exceptions.BadRequest, match="label"):
        job_of(vertex, template, "job-1", labels={"Model": "DCGAN"}).submit()
    job = job_of(vertex, template, "job-1")
    job.job_id = "9-is-no-letter"
    with pytest.raises(exceptions.BadRequest, match="pipeline_job_id"):
        job.submit()


def test_jobs_are_listed_by_labels_and_state(cloud: Cloud, vertex: Any, tmp_path: Path) -> None:
    template = two_tasks(tmp_path)
    cloud.execute = "instant"
    for number in range(5):
        job_of(vertex, template, f"job-{number}", labels={"seed": str(number % 2)}).submit()
    cloud.execute = "hold"
    job_of(vertex, template, "job-5", labels={"seed": "1", "other": ""}).submit()

    def found(text: str) -> list[str]:
        return [job.name for job in vertex.PipelineJob.list(filter=text, order_by="create_time")]

    assert found("labels.seed=1") == ["job-1", "job-3", "job-5"]
    assert found('labels.seed="1" AND state="PIPELINE_STATE_RUNNING"') == ["job-5"]
    assert found('labels."other":*') == ["job-5"]
    assert found('display_name="a job" AND NOT labels.seed=1') == ["job-0", "job-2", "job-4"]
    with pytest.raises(exceptions.BadRequest, match="unknown field"):
        found("colour=red")
    cloud.finish("job-5", succeeded=False, reason="The machine burnt.")
    job = vertex.PipelineJob.get("job-5")
    assert (job.state.name, "burnt" in job.gca_resource.error.message) == (
        "PIPELINE_STATE_FAILED",
        True,
    )


def test_lists_have_pages(cloud: Cloud, vertex: Any, tmp_path: Path) -> None:
    from google.cloud.aiplatform_v1 import PipelineServiceClient

    cloud.execute = "instant"
    for number in range(5):
        job_of(vertex, two_tasks(tmp_path), f"job-{number}").submit()
    client = PipelineServiceClient(
        transport="rest", client_options={"api_endpoint": cloud.url}, credentials=_credentials()
    )
    pages = client.list_pipeline_jobs(request={"parent": cloud.parent, "page_size": 2}).pages
    sizes = [len(page.pipeline_jobs) for page in pages]
    assert sizes == [2, 2, 1]


def test_a_job_that_is_cancelled_leaves_no_process(
    cloud: Cloud, vertex: Any, tmp_path: Path
) -> None:
    job = job_of(vertex, one_task(tmp_path, WAIT), "job-1")
    job.submit()
    until(lambda: tasks_of(vertex.PipelineJob.get("job-1"))["train"].state.name == "RUNNING")
    work = cloud.pipeline_jobs.work("job-1")
    until(lambda: work.running)
    job.cancel()
    cloud.wait(20)
    job = vertex.PipelineJob.get("job-1")
    assert job.state.name == "PIPELINE_STATE_CANCELLED"
    assert tasks_of(job)["train"].state.name == "CANCELLED"
    assert not work.running
    with pytest.raises(exceptions.BadRequest, match="has ended"):
        job.cancel()


def test_a_task_that_fails_says_so(cloud: Cloud, vertex: Any, tmp_path: Path) -> None:
    job_of(vertex, one_task(tmp_path, "raise SystemExit(3)", retries=2), "job-1").submit()
    cloud.wait(20)
    job = vertex.PipelineJob.get("job-1")
    task = tasks_of(job)["train"]
    assert task.state.name == "FAILED" and "status of 3" in task.error.message
    assert len(task.executor_detail.container_detail.failed_main_jobs) == 2
    assert "failed tasks are: [train]" in job.gca_resource.error.message


def test_a_second_run_takes_what_is_known(cloud: Cloud, vertex: Any, tmp_path: Path) -> None:
    import yaml

    spec = yaml.safe_load(Path(two_tasks(tmp_path)).read_text(encoding="utf-8"))
    for task in spec["root"]["dag"]["tasks"].values():
        task["cachingOptions"] = {"enableCache": True}
    template = tmp_path / "cached.yaml"
    template.write_text(yaml.safe_dump(spec), encoding="utf-8")
    for number in (1, 2):
        job_of(vertex, str(template), f"job-{number}").submit()
        cloud.wait(20)
    task = tasks_of(vertex.PipelineJob.get("job-2"))["make"]
    assert task.state.name == "SKIPPED"
    assert cloud.path(task.outputs["out"].artifacts[0].uri).read_text() == "hello"


def test_five_hundred_jobs_are_taken_on_at_once(cloud: Cloud, vertex: Any, tmp_path: Path) -> None:
    from google.cloud.aiplatform_v1 import PipelineServiceClient

    cloud.execute = "instant"
    resource = job_of(vertex, two_tasks(tmp_path), "job-1")._gca_resource
    client = PipelineServiceClient(
        transport="rest", client_options={"api_endpoint": cloud.url}, credentials=_credentials()
    )

    def create(number: int) -> None:
        client.create_pipeline_job(
            parent=cloud.parent, pipeline_job=resource, pipeline_job_id=f"job-{number}"
        )

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(create, range(500)))
    assert len(cloud.pipeline_jobs.works) == 500


# Vertex AI: custom jobs


def test_a_custom_job_keeps_its_topology(cloud: Cloud, vertex: Any) -> None:
    def job(**machine: Any) -> Any:
        pool = {
            "machine_spec": machine,
            "replica_count": 1,
            "container_spec": {"image_uri": "image", "command": [sys.executable, "-c", "print(1)"]},
        }
        return vertex.CustomJob(display_name="tpu", worker_pool_specs=[pool])

    right = job(machine_type="ct5lp-hightpu-4t", tpu_topology="2x2")
    right.submit()
    cloud.wait(20)
    (found,) = vertex.CustomJob.list()
    assert found.state.name == "JOB_STATE_SUCCEEDED"
    assert found.gca_resource.job_spec.worker_pool_specs[0].machine_spec.tpu_topology == "2x2"
    with pytest.raises(exceptions.BadRequest, match="tpu_topology must be one of"):
        job(machine_type="ct5lp-hightpu-4t", tpu_topology="3x3").submit()
    with pytest.raises(exceptions.BadRequest, match="hyperdisk-balanced"):
        job(machine_type="ct6e-standard-4t", tpu_topology="2x2").submit()
    with pytest.raises(exceptions.BadRequest, match="not supported"):
        job(machine_type="abacus-4").submit()


def test_a_component_wrapped_into_a_custom_job_runs(
    cloud: Cloud, vertex: Any, tmp_path: Path
) -> None:
    from google_cloud_pipeline_components.v1.custom_job import (
        create_custom_training_job_from_component,
    )
    from kfp import compiler, dsl

    python = sys.executable

    @dsl.container_component
    def train(steps: int, model: dsl.Output[dsl.Model], metrics: dsl.Output[dsl.Metrics]):
        return dsl.ContainerSpec(
            image="trainer",
            command=[python, "-c", WRAPPED],
            args=["--steps", steps, "--model", model.path, "--executor_input", "{{$}}"],
        )

    wrapped = create_custom_training_job_from_component(
        train, display_name="trained", machine_type="g2-standard-12", labels={"part": "training"}
    )

    @dsl.pipeline(name="wrapped")
    def pipeline(steps: int = 3):
        wrapped(steps=steps).set_retry(2)

    template = str(tmp_path / "wrapped.yaml")
    compiler.Compiler().compile(pipeline, template)
    job_of(vertex, template, "job-1", parameter_values={"steps": 5}).submit()
    cloud.wait(20)
    job = vertex.PipelineJob.get("job-1")
    task = tasks_of(job)["train"]
    assert task.state.name == "SUCCEEDED", job.gca_resource.error
    assert cloud.path(task.outputs["model"].artifacts[0].uri).read_text() == "5"
    assert task.outputs["metrics"].artifacts[0].metadata["accuracy"] == 0.5
    (custom,) = vertex.CustomJob.list(filter="labels.part=training")
    assert task.executor_detail.custom_job_detail.job == custom.resource_name
    assert custom.resource_name in task.execution.metadata["output:gcp_resources"]
    pool = custom.gca_resource.job_spec.worker_pool_specs[0]
    assert pool.machine_spec.machine_type == "g2-standard-12"
    assert pool.container_spec.args[:2] == ["--steps", "5"]
    assert custom.state.name == "JOB_STATE_SUCCEEDED"


WRAPPED = """
import json, pathlib, sys
values = dict(zip(sys.argv[1::2], sys.argv[2::2]))
pathlib.Path(values["--model"]).write_text(values["--steps"])
announced = json.loads(values["--executor_input"])["outputs"]
artifact = announced["artifacts"]["metrics"]["artifacts"][0] | {"metadata": {"accuracy": 0.5}}
output = {"artifacts": {"metrics": {"artifacts": [artifact]}}}
pathlib.Path(announced["outputFile"]).write_text(json.dumps(output))
"""


# Vertex AI: schedules


def test_a_schedule_fires_by_virtual_time_in_its_zone(tmp_path: Path, vertex: Any) -> None:
    started = datetime.datetime(2026, 10, 23, 12, tzinfo=UTC)  # the clocks change on the 25th
    with Cloud(tmp_path / "other", start=started, execute="instant") as cloud:
        vertex.init(api_endpoint=cloud.url, credentials=cloud_credentials(cloud))
        job = job_of(vertex, two_tasks(tmp_path), labels={"weekly": "yes"})
        schedule = job.create_schedule(
            cron="TZ=Europe/Paris 0 4 * * *", display_name="daily", max_run_count=5
        )
        cloud.clock.advance(datetime.timedelta(days=4))
        jobs = schedule.list_jobs(order_by="create_time")
        fired = [
            response.strftime("%d %H:%M") for response in (j.gca_resource.create_time for j in jobs)
        ]
        assert fired == ["24 02:00", "25 03:00", "26 03:00", "27 03:00"]
        assert all(j.labels["weekly"] == "yes" for j in vertex.PipelineJob.list())
        found = vertex.PipelineJobSchedule.get(schedule.name)
        assert found.gca_resource.started_run_count == 4
        response = found.gca_resource.last_scheduled_run_response
        assert response.scheduled_run_time.strftime("%d %H") == "27 03"
        cloud.clock.advance(datetime.timedelta(days=4))
        found = vertex.PipelineJobSchedule.get(schedule.name)
        assert (found.state.name, found.gca_resource.started_run_count) == ("COMPLETED", 5)
        assert len(schedule.list_jobs()) == 5


def test_a_schedule_is_paused_resumed_changed_and_deleted(
    cloud: Cloud, vertex: Any, tmp_path: Path
) -> None:
    cloud.execute = "instant"
    day = datetime.timedelta(days=1)
    schedule = job_of(vertex, two_tasks(tmp_path)).create_schedule("0 3 * * *", "nightly")
    schedule.pause()
    cloud.clock.advance(2 * day)
    assert schedule.list_jobs() == []
    schedule.resume(catch_up=False)
    assert schedule.list_jobs() == []
    schedule.pause()
    cloud.clock.advance(2 * day)
    # `schedule.resume(catch_up=True)` of Google's client does not send what it is told.
    asked = {"name": schedule.resource_name, "catch_up": True}
    schedule.api_client.resume_schedule(request=asked)
    assert len(schedule.list_jobs()) == 2
    schedule.update(cron="0 */12 * * *", display_name="twice a day")
    assert schedule.gca_resource.display_name == "twice a day"
    cloud.clock.advance(day)
    assert len(schedule.list_jobs()) == 4
    with pytest.raises(exceptions.BadRequest, match="cannot be updated"):
        schedule.api_client.update_schedule(
            schedule=schedule.gca_resource, update_mask={"paths": ["create_pipeline_job_request"]}
        )
    with pytest.raises(exceptions.BadRequest, match="cron"):
        schedule.update(cron="every day")
    schedule.delete()
    cloud.clock.advance(day)
    assert len(vertex.PipelineJob.list()) == 4
    assert vertex.PipelineJobSchedule.list() == []


@pytest.mark.parametrize(("queueing", "started"), [(False, 1), (True, 3)])
def test_a_schedule_holds_to_its_limit(
    cloud: Cloud, vertex: Any, tmp_path: Path, queueing: bool, started: int
) -> None:
    cloud.execute = "hold"
    schedule = job_of(vertex, two_tasks(tmp_path)).create_schedule(
        "0 * * * *", "hourly", max_concurrent_run_count=1, allow_queueing=queueing
    )
    cloud.clock.advance(datetime.timedelta(hours=3))
    (job,) = schedule.list_jobs()
    resource = vertex.PipelineJobSchedule.get(schedule.name).gca_resource
    if not queueing:
        assert "Skipped" in resource.last_scheduled_run_response.run_response
    cloud.execute = "instant"
    cloud.finish(job.name)
    assert len(schedule.list_jobs()) == started


def test_steps_see_when_they_were_scheduled(cloud: Cloud, vertex: Any, tmp_path: Path) -> None:
    template = one_task(
        tmp_path,
        WRITE,
        "{{$.outputs.artifacts['model'].path}}",
        "{{$.pipeline_job_schedule_time_utc}} {{$.pipeline_job_name}}",
    )
    job_of(vertex, template).create_schedule("30 6 * * *", "daily")
    cloud.clock.advance(datetime.timedelta(days=1))
    cloud.wait(20)
    (job,) = vertex.PipelineJob.list()
    job = vertex.PipelineJob.get(job.name)
    text = cloud.path(tasks_of(job)["train"].outputs["model"].artifacts[0].uri).read_text()
    assert text.endswith(f"T06:30:00.000000Z {job.name}")


# Cloud Storage


def test_objects_are_files(cloud: Cloud) -> None:
    client = storage.Client()
    bucket = client.create_bucket("other-bucket")
    with pytest.raises(exceptions.Conflict):
        client.create_bucket("other-bucket")
    small = bucket.blob("a/small.txt")
    small.metadata = {"kind": "small"}
    small.upload_from_string("one", content_type="text/plain")
    assert cloud.path("gs://other-bucket/a/small.txt").read_text() == "one"
    data = os.urandom(700_000)
    large = bucket.blob("a/b/large", chunk_size=256 * 1024)
    large.upload_from_string(data)
    assert large.download_as_bytes() == data
    assert large.download_as_bytes(start=10, end=19) == data[10:20]
    with pytest.raises(exceptions.RequestRangeNotSatisfiable):
        large.download_as_bytes(start=10**6)
    cloud.path("gs://other-bucket/c").write_text("by a step")
    assert [b.name for b in client.list_blobs(bucket)] == ["a/b/large", "a/small.txt", "c"]
    assert [b.name for b in client.list_blobs(bucket, page_size=1)] == [
        "a/b/large",
        "a/small.txt",
        "c",
    ]
    found = client.list_blobs(bucket, prefix="a/", delimiter="/")
    assert [b.name for b in found] == ["a/small.txt"]
    assert found.prefixes == {"a/b/"}
    assert bucket.get_blob("a/small.txt").metadata == {"kind": "small"}
    bucket.copy_blob(small, bucket, "copy")
    bucket.blob("whole").compose([small, bucket.blob("c")])
    assert bucket.blob("whole").download_as_text() == "oneby a step"
    with client.batch():
        bucket.blob("copy").delete()
        bucket.blob("whole").delete()
    assert bucket.get_blob("copy") is None
    with pytest.raises(exceptions.NotFound):
        bucket.blob("absent").download_as_bytes()


def test_conditions_hold_for_one_writer_alone(cloud: Cloud) -> None:
    bucket = storage.Client().bucket("bucket")
    blob = bucket.blob("ledger.json")
    blob.upload_from_string("1", if_generation_match=0)
    generation = blob.generation
    with pytest.raises(exceptions.PreconditionFailed):
        bucket.blob("ledger.json").upload_from_string("2", if_generation_match=0)
    blob.upload_from_string("3", if_generation_match=generation)
    assert blob.generation > generation

    def write(number: int) -> bool:
        try:
            storage.Client().bucket("bucket").blob("ledger.json").upload_from_string(
                str(number), if_generation_match=blob.generation
            )
        except exceptions.PreconditionFailed:
            return False
        return True

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(write, range(8))) == 1


def test_no_object_lies_outside_its_bucket(cloud: Cloud) -> None:
    with pytest.raises(exceptions.BadRequest):
        storage.Client().bucket("bucket").blob("../../x").upload_from_string("x")


# Kubeflow Pipelines


def test_a_run_of_kubeflow(cloud: Cloud, tmp_path: Path) -> None:
    client = _kubeflow()
    run = client.create_run_from_pipeline_package(
        two_tasks(tmp_path),
        arguments={"word": "there"},
        run_name="a run",
        experiment_name="paper2hub",
        pipeline_root="gs://bucket/kubeflow",
    )
    cloud.wait(20)
    found = client.wait_for_run_completion(run.run_id, timeout=10)
    assert found.state == "SUCCEEDED"
    tasks = {task.display_name: task for task in found.run_details.task_details}
    assert {"root", "make", "make-driver", "use"} <= set(tasks)
    assert tasks["use"].state == "SUCCEEDED"
    assert tasks["use"].end_time >= tasks["use"].start_time
    predicate = {"operation": "EQUALS", "key": "name", "stringValue": "a run"}
    listed = client.list_runs(filter=json.dumps({"predicates": [predicate]}))
    assert [r.run_id for r in listed.runs] == [run.run_id]
    (file,) = cloud.path("gs://bucket/kubeflow").rglob("make/out")
    assert file.read_text() == "there"
    with pytest.raises(kfp.client.client.kfp_server_api.ApiException) as error:
        client.get_run("absent")
    assert error.value.status == 404


def test_a_run_of_kubeflow_is_terminated(cloud: Cloud, tmp_path: Path) -> None:
    client = _kubeflow()
    run = client.create_run_from_pipeline_package(one_task(tmp_path, WAIT))
    until(lambda: cloud.kubeflow.works[run.run_id].running)
    client.terminate_run(run.run_id)
    cloud.wait(20)
    found = client.get_run(run.run_id)
    assert found.state == "CANCELED"
    assert {t.display_name: t.state for t in found.run_details.task_details}["train"] == "CANCELED"


def test_recurring_runs_of_kubeflow(cloud: Cloud, tmp_path: Path) -> None:
    cloud.execute = "instant"
    client = _kubeflow()
    experiment = client.create_experiment("paper2hub").experiment_id
    made = client.create_recurring_run(
        experiment,
        "weekly",
        cron_expression="0 0 4 * * 1",
        pipeline_package_path=two_tasks(tmp_path),
        params={"word": "at [[ScheduledTime]]"},
        no_catchup=True,
    )
    week = datetime.timedelta(weeks=1)
    cloud.clock.advance(2 * week)
    runs = client.list_runs(sort_by="created_at desc").runs
    assert len(runs) == 2
    assert {run.recurring_run_id for run in runs} == {made.recurring_run_id}
    assert runs[0].scheduled_at.strftime("%a %H:%M") == "Mon 04:00"
    assert runs[0].runtime_config.parameters["word"].endswith("040000")
    client.disable_recurring_run(made.recurring_run_id)
    cloud.clock.advance(3 * week)
    assert client.list_runs().total_size == 2
    client.enable_recurring_run(made.recurring_run_id)
    assert client.list_runs().total_size == 3
    client.delete_recurring_run(made.recurring_run_id)
    cloud.clock.advance(week)
    assert client.list_runs().total_size == 3
    with pytest.raises(kfp.client.client.kfp_server_api.ApiException):
        client.create_recurring_run(
            experiment,
            "wrong",
            cron_expression="0 4 * * 1",
            pipeline_package_path=two_tasks(tmp_path),
        )


# Dataflow


def test_a_job_of_dataflow(cloud: Cloud) -> None:
    session = google.auth.transport.requests.AuthorizedSession(_credentials())
    address = f"{cloud.url}/v1b3/{cloud.parent}/jobs"
    with session:
        made = session.post(address, json={"name": "preprocess"}).json()
        assert made["currentState"] == "JOB_STATE_PENDING"
        states = [session.get(f"{address}/{made['id']}").json()["currentState"] for _ in range(3)]
        assert states == ["JOB_STATE_PENDING", "JOB_STATE_RUNNING", "JOB_STATE_DONE"]
        assert session.get(f"{address}/{made['id']}/messages").json()["jobMessages"]
        assert len(session.get(address).json()["jobs"]) == 1
        cloud.execute = "hold"
        other = session.post(address, json={"name": "other"}).json()
        again = session.post(address, json={"name": "other"})
        assert again.status_code == 409
        asked = {"requestedState": "JOB_STATE_CANCELLED"}
        ended = session.put(f"{address}/{other['id']}", json=asked).json()
        assert ended["currentState"] == "JOB_STATE_CANCELLED"


# Who may talk to it


def test_nobody_gets_in_without_a_token(cloud: Cloud) -> None:
    address = f"{cloud.url}/v1/{cloud.parent}/pipelineJobs"
    answer = requests.get(address, timeout=10)
    assert answer.status_code == 401
    assert answer.json()["error"]["status"] == "UNAUTHENTICATED"
    wrong = requests.get(address, headers={"Authorization": "Bearer guessed"}, timeout=10)
    assert wrong.json()["error"]["details"][0]["reason"] == "ACCESS_TOKEN_EXPIRED"


def test_tokens_expire_and_are_asked_for_again(cloud: Cloud) -> None:
    address = f"{cloud.url}/v1/{cloud.parent}/pipelineJobs"
    with google.auth.transport.requests.AuthorizedSession(_credentials()) as session:
        assert session.get(address).status_code == 200
        cloud.credentials.expire_all()
        assert session.get(address).status_code == 200
        cloud.faults.next("expired", path="pipelineJobs")
        assert session.get(address).status_code == 200
    assert cloud.credentials.granted["assertion"] == 3
    assert cloud.faults.count("expired") == 1


def test_a_user_s_login_is_known_too(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(cloud.credentials.user_file))
    credentials, _ = google.auth.default()
    credentials._token_uri = f"{cloud.url}/token"  # a user's file has no address of its own
    with google.auth.transport.requests.AuthorizedSession(credentials) as session:
        assert session.get(f"{cloud.url}/v1/{cloud.parent}/schedules").status_code == 200
    assert cloud.credentials.granted["refresh_token"] == 1


# Faults


@pytest.mark.parametrize(
    ("kind", "error", "reason"),
    [
        ("403", exceptions.Forbidden, "aiplatform.pipelineJobs.create"),
        ("disabled", exceptions.Forbidden, "SERVICE_DISABLED"),
        ("429", exceptions.TooManyRequests, "RATE_LIMIT_EXCEEDED"),
        ("500", exceptions.InternalServerError, "Internal"),
        ("503", exceptions.ServiceUnavailable, "unavailable"),
    ],
)
def test_a_call_is_refused_once(
    cloud: Cloud, vertex: Any, tmp_path: Path, kind: str, error: Any, reason: str
) -> None:
    cloud.execute = "instant"
    cloud.faults.next(kind, path="pipelineJobs", method="POST")
    template = two_tasks(tmp_path)
    with pytest.raises(error) as caught:
        job_of(vertex, template, "job-1").submit()
    assert reason in f"{caught.value.message} {caught.value.details} {caught.value.reason}"
    job_of(vertex, template, "job-1").submit()
    assert [fault.kind for fault in cloud.faults.injected] == [kind]


def test_an_answer_is_lost_and_the_job_is_there(cloud: Cloud, vertex: Any, tmp_path: Path) -> None:
    cloud.execute = "instant"
    cloud.faults.next("lost", path="pipelineJobs", method="POST")
    with pytest.raises(requests.exceptions.ConnectionError):
        job_of(vertex, two_tasks(tmp_path), "job-1").submit()
    assert vertex.PipelineJob.get("job-1").state.name == "PIPELINE_STATE_SUCCEEDED"
    assert cloud.count("POST", "/pipelineJobs$") == 1


def test_an_answer_takes_its_time(cloud: Cloud) -> None:
    cloud.faults.next("slow", path="/b/bucket", seconds=0.3)
    began = time.monotonic()
    assert storage.Client().bucket("bucket").exists()
    assert time.monotonic() - began > 0.3


def test_storage_refuses_in_its_own_words(cloud: Cloud) -> None:
    cloud.faults.next("403", path="/b/bucket", times=None)
    for _ in range(2):
        with pytest.raises(exceptions.Forbidden, match=r"storage\.objects\.get"):
            storage.Client().bucket("bucket").blob("x").download_as_bytes()
    cloud.faults.clear()
    with pytest.raises(exceptions.NotFound):
        storage.Client().bucket("bucket").blob("x").download_as_bytes()


def test_the_same_seed_gives_the_same_faults(cloud: Cloud) -> None:
    def statuses(seed: int) -> list[int]:
        cloud.faults.random(seed, {"429": 0.2, "503": 0.2}, paths="/b/")
        with requests.Session() as session:
            address = f"{cloud.url}/storage/v1/b/bucket"
            return [session.get(address, timeout=10).status_code for _ in range(30)]

    first = statuses(1)
    assert set(first) == {200, 429, 503}
    assert statuses(1) == first
    assert statuses(2) != first


def test_forty_jobs_are_made_once_each_in_bad_weather(
    cloud: Cloud, vertex: Any, tmp_path: Path
) -> None:
    from google.cloud.aiplatform_v1 import PipelineServiceClient

    cloud.execute = "instant"
    rates = {"429": 0.1, "503": 0.1, "lost": 0.1, "expired": 0.1}
    cloud.faults.random("weather", rates, paths="/pipelineJobs")
    resource = job_of(vertex, two_tasks(tmp_path), "job-1")._gca_resource
    client = PipelineServiceClient(
        transport="rest", client_options={"api_endpoint": cloud.url}, credentials=_credentials()
    )
    passing = (
        exceptions.TooManyRequests,
        exceptions.ServiceUnavailable,
        exceptions.Unauthorized,
        requests.exceptions.ConnectionError,
    )

    def create(number: int) -> None:
        for _ in range(20):
            try:
                client.create_pipeline_job(
                    parent=cloud.parent, pipeline_job=resource, pipeline_job_id=f"job-{number}"
                )
            except passing:
                continue
            except exceptions.Conflict:
                assert cloud.faults.count("lost")
            return
        raise AssertionError("it never got through")

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(create, range(40)))
    assert len(cloud.pipeline_jobs.works) == 40
    assert {fault.kind for fault in cloud.faults.injected} == set(rates)


def test_machines_go_by_chance(cloud: Cloud, vertex: Any, tmp_path: Path) -> None:
    cloud.faults.random(3, {"preempt": 1.0}, within=0.1)
    job_of(vertex, one_task(tmp_path, WAIT, retries=2), "job-1").submit()
    cloud.wait(30)
    assert vertex.PipelineJob.get("job-1").state.name == "PIPELINE_STATE_FAILED"
    assert cloud.faults.count("preempt") == 3


@pytest.mark.parametrize("hearing", ["", "deaf"])
def test_a_machine_is_taken_away_and_another_goes_on(
    cloud: Cloud, vertex: Any, tmp_path: Path, hearing: str
) -> None:
    model = "{{$.outputs.artifacts['model'].path}}"
    template = one_task(tmp_path, TRAIN, model, hearing, retries=3)
    cloud.faults.preempt("train", times=2, found="outputs/model/checkpoint-2", grace=0.1)
    job_of(vertex, template, "job-1").submit()
    cloud.wait(30)
    job = vertex.PipelineJob.get("job-1")
    assert job.state.name == "PIPELINE_STATE_SUCCEEDED", job.gca_resource.error
    assert cloud.faults.count("preempt") == 2
    task = tasks_of(job)["train"]
    assert len(task.executor_detail.container_detail.failed_main_jobs) == 2
    folder = cloud.path(task.outputs["model"].artifacts[0].uri)
    assert len(list(folder.iterdir())) == 8
    record = cloud.pipeline_jobs.work("job-1").record
    assert record is not None
    assert "done after 8" in record.log("train").read_text(encoding="utf-8")
    first, last = folder / "checkpoint-1", folder / "checkpoint-8"
    assert first.stat().st_mtime < last.stat().st_mtime - 0.5  # it was written by the first


def test_kubeflow_begins_anew(cloud: Cloud, tmp_path: Path) -> None:
    script = TRAIN.replace("step = len", "print('found', len(list(folder.iterdir())));step = len")
    model = "{{$.outputs.artifacts['model'].path}}"
    cloud.faults.preempt("train", found="outputs/model/checkpoint-2", grace=0.1)
    run = _kubeflow().create_run_from_pipeline_package(
        one_task(tmp_path, script, model, "", retries=3)
    )
    cloud.wait(30)
    record = cloud.kubeflow.works[run.run_id].record
    assert record is not None and record.status == "succeeded"
    log = record.log("train").read_text(encoding="utf-8")
    assert log.count("found 0") == 2


# In a process of its own


def test_it_stands_alone(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.cloud", "--folder", str(tmp_path), "--execute", "hold"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        url = told["url"]
        assert told["environment"]["STORAGE_EMULATOR_HOST"] == url

        def control(action: str, **asked: Any) -> Any:
            request = urllib.request.Request(  # noqa: S310
                f"{url}/_control/{action}", json.dumps(asked).encode(), method="POST"
            )
            with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
                return json.load(answer)

        assert "now" in control("advance", days=3)
        control("faults/next", kind="503", path="/b/bucket")
        assert requests.get(f"{url}/storage/v1/b/bucket", timeout=10).status_code == 503
        found = requests.get(f"{url}/_control/faults", timeout=10).json()["injected"]
        assert found[0]["kind"] == "503"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def _kubeflow() -> Any:
    """KFP's client, which says of itself that it is a beta."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return kfp.Client()


def _credentials() -> Any:
    scopes = ["https://www.googleapis.com/auth/cloud-platform"]
    credentials, _ = google.auth.default(scopes=scopes)
    return credentials


def cloud_credentials(cloud: Cloud) -> Any:
    scopes = ["https://www.googleapis.com/auth/cloud-platform"]
    file = str(cloud.credentials.key_file)
    return service_account.Credentials.from_service_account_file(file, scopes=scopes)


def _token() -> str:
    credentials = _credentials()
    with requests.Session() as session:
        credentials.refresh(google.auth.transport.requests.Request(session))
    return str(credentials.token)
