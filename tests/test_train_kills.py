"""Trainings that are ended at random instants end up where undisturbed ones do."""

import sys

import pytest

from tests.bench.data_kills import Step
from tests.bench.train_kills import Victim, end_at_random, on_sample


@pytest.mark.slow
def test_a_training_survives_being_killed(tmp_path):
    counts = {"SIGKILL": 1, "SIGTERM": 1}
    toll = end_at_random(on_sample(tmp_path, "autoencoder", 12), counts, seed=1)
    assert "\n".join(toll.faults) == ""
    assert toll.signals == counts
    assert toll.saved == 1
    assert toll.resumed > 0
    assert toll.equal == toll.trainings  # one, or two where a run was faster than its signal


# A training of two hundred steps of a hundredth of a second, which goes on where it was.
SCRIPT = """
import json, os, pathlib, signal, sys, time
folder, forgets, exit_code = pathlib.Path(sys.argv[1]), sys.argv[2] == "forgets", int(sys.argv[3])
folder.mkdir(exist_ok=True)
asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
state = folder / "state.json"
first = json.loads(state.read_text())["step"] if state.exists() else 0
weight = folder / "weight"
value = 0 if forgets or not weight.exists() else int(weight.read_text())
def write(path, text):
    draft = path.with_name("draft")
    draft.write_text(text)
    draft.replace(path)
for step in range(first, 200):
    value += step
    time.sleep(0.01)
    write(weight, str(value))
    write(state, json.dumps({"step": step + 1}))
    write(pathlib.Path(os.environ["PAPER2HUB_PROGRESS"]), json.dumps({"done": step + 1 - first}))
    if asked:
        sys.exit(exit_code)
"""


def pretended(folder, *arguments):
    """A training that is none."""
    output = folder / "of a training" / "checkpoint"
    output.parent.mkdir()
    command = [sys.executable, "-c", SCRIPT, str(output), *arguments]
    progress = folder / "progress.json"
    return Victim(Step(command, [output]), progress, 1, {"PAPER2HUB_PROGRESS": str(progress)})


def test_a_training_that_forgets_is_found(tmp_path):
    toll = end_at_random(pretended(tmp_path, "forgets", "75"), {"SIGTERM": 2}, seed=1)
    assert toll.signals["SIGTERM"] == toll.saved == 2
    assert toll.equal == 0
    assert any("weight is another" in fault for fault in toll.faults)


def test_a_wrong_exit_code_is_found(tmp_path):
    toll = end_at_random(pretended(tmp_path, "remembers", "1"), {"SIGTERM": 2}, seed=1)
    assert toll.saved == 0
    assert [fault for fault in toll.faults if "asked to end, it gave exit code 1" in fault]


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_a_training_survives_being_ended_often(backend, tmp_path):
    counts = {"SIGKILL": 3, "SIGTERM": 2}
    toll = end_at_random(on_sample(tmp_path, "dcgan", 6, backend), counts, seed=2)
    assert "\n".join(toll.faults) == ""
    assert toll.signals == counts
    assert toll.saved == 2
    assert toll.equal == toll.trainings
