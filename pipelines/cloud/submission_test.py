import dataclasses
from typing import Any

import pytest

from pipelines.cloud import submission
from pipelines.cloud.account import Account
from pipelines.cloud.job import Job, Request
from pipelines.cloud.submission import exit_code, request_for, submit, watch
from pipelines.compile import compile_model
from pipelines.local.record import TaskRecord
from trainer.errors import TryAgain, UserError


class Memory:
    """A cloud that keeps jobs and does nothing with them."""

    def __init__(self) -> None:
        self.kept: dict[str, Job] = {}
        self.creations = 0

    def create(self, request: Request, identifier: str) -> Job:
        self.creations += 1
        return self.kept.setdefault(identifier, Job(identifier, "waiting"))

    def find(self, identifier: str) -> Job | None:
        return self.kept.get(identifier)

    def becomes(self, identifier: str, state: Any) -> None:
        self.kept[identifier] = dataclasses.replace(self.kept[identifier], state=state)


def request(**changes: Any) -> Request:
    return dataclasses.replace(Request("tiny_resnet", "text", {"data": "gs://b"}), **changes)


def test_the_same_request_is_one_job() -> None:
    cloud = Memory()
    first, made = submit(request(), cloud)
    assert made and first.identifier.startswith("tiny-resnet-")
    for state in ("waiting", "running", "succeeded"):
        cloud.becomes(first.identifier, state)
        assert submit(request(), cloud) == (cloud.kept[first.identifier], False)
    assert cloud.creations == 1


@pytest.mark.parametrize(
    "changes",
    [{"text": "other"}, {"parameters": {}}, {"labels": {"a": "b"}}, {"cache": False}],
)
def test_another_request_is_another_job(changes: dict[str, Any]) -> None:
    assert request(**changes).identifier() != request().identifier()
    again = request(parameters={"b": 1, "a": 2})
    assert again.identifier() == request(parameters={"a": 2, "b": 1}).identifier()


def test_after_one_that_failed_comes_the_next() -> None:
    cloud = Memory()
    first, _ = submit(request(), cloud)
    for number, state in enumerate(("failed", "cancelled"), start=2):
        cloud.becomes(list(cloud.kept)[-1], state)
        job, made = submit(request(), cloud)
        assert made and job.identifier == f"{first.identifier}-{number}"
    assert submit(request(), cloud, again=True)[0].identifier == f"{first.identifier}-4"


def test_a_request_is_compiled_pinned_and_checked(monkeypatch) -> None:
    monkeypatch.setattr("pipelines.cloud.images._finder", lambda images: lambda n, t: f"r/{n}@d")
    account = Account("vertex", "vertex", "gs://b", images="r", project="p", region="e")
    made = request_for("autoencoder", account, {"settings": {"epochs": 2}})
    assert "r/trainer@d" in made.text and "paper2hub/trainer:" not in made.text
    on_dataflow = request_for("autoencoder", dataclasses.replace(account, beam="dataflow"))
    assert on_dataflow.parameters["beam_options"].endswith(" --sdk_container_image=r/data@d")
    assert made.all_labels() == {"paper2hub": "autoencoder"}
    assert list(made.record("x").tasks) == [
        *("create-tfrecords", "preprocess", "train", "evaluate", "export-hub", "report"),
    ]
    assert (
        made.identifier()
        == request_for("autoencoder", account, {"settings": {"epochs": 2}}).identifier()
    )
    with pytest.raises(UserError, match="shard"):
        request_for("autoencoder", account, {"shard": 2})
    with pytest.raises(UserError, match="must say where its images are"):
        request_for("autoencoder", dataclasses.replace(account, images=""), {})


class Shown:
    """A display that remembers."""

    def __init__(self) -> None:
        self.seen: list[dict[str, str]] = []

    def show(self, run: Any) -> None:
        self.seen.append({name: task.status for name, task in run.tasks.items()})


@pytest.mark.parametrize(("state", "code"), [("succeeded", 0), ("failed", 1), ("cancelled", 1)])
def test_a_job_is_watched_to_its_end(tmp_path, state: Any, code: int) -> None:
    text = compile_model("autoencoder", tmp_path / "p.yaml", "vertex").read_text()
    cloud, asked = Memory(), Request("autoencoder", text)
    job, _ = submit(asked, cloud)
    answers = iter(
        [
            {"train": TaskRecord("running"), "autoencoder": TaskRecord("running")},
            TryAgain("busy"),
            {"train": TaskRecord("succeeded")},
        ]
    )
    waited: list[float] = []

    class Changing(Memory):
        def find(self, identifier: str) -> Job | None:
            answer = next(answers)
            if isinstance(answer, TryAgain):
                raise answer
            now = state if answer["train"].status == "succeeded" else "running"
            return Job(identifier, now, tasks=answer)

    shown = Shown()
    ended, record = watch(
        job.identifier, asked.record(job.identifier), Changing(), shown, 7.0, waited.append
    )
    assert (ended.state, exit_code(ended)) == (state, code)
    assert [seen["train"] for seen in shown.seen] == ["running", "succeeded"]
    assert next(iter(shown.seen[0])) == "create-tfrecords"
    assert "autoencoder" not in shown.seen[0]  # the graph itself is no task
    assert waited == [7.0, 7.0]
    assert record.status == {"cancelled": "interrupted"}.get(state, state)


def test_a_job_that_is_gone_is_told() -> None:
    with pytest.raises(UserError, match="must be there"):
        watch("none-1", submission.unknown("none-1"), Memory(), Shown())
