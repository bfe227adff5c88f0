"""What the benchmarks of training stand on: bare loops that train as the engine does, turns."""

import importlib
import sys

import numpy as np
import pytest

from tests.bench import train_plain, train_work
from tests.bench.data_contest import Contestant, compete
from tests.bench.train import MODELS, milliseconds, prefix
from trainer import backend
from trainer.catalog import load_recipe

BARE = (("tensorflow", {"fused": False}), ("tensorflow", {"fused": True}), ("jax", {}))
CASES = [pytest.param(m, marks=[pytest.mark.slow] if m != "autoencoder" else []) for m in MODELS]


@pytest.mark.parametrize("model", CASES)
def test_bare_loops_train_as_our_engine_does(model):
    config = train_work.config_of(model, **train_plain.players_of(model).SMALL)
    recipe = load_recipe(model)(config)
    batch = train_work.batch_of(model, config, recipe)
    weights = train_work.weights_of(recipe)
    ours = backend.current().TrainStep(recipe)
    names = [update.loss.__name__ for update in recipe.updates]
    wanted = []
    for number in range(3):
        logs = ours(number, train_work.on_device(batch))
        wanted.append([float(logs[name]) for name in names])
    for library, more in BARE:
        operations = importlib.import_module(f"tests.bench.train_plain_{library}")
        players = train_plain.players_of(model).players(config)
        step = operations.compile_step(players, weights, operations, **more)
        found = [[float(loss) for loss in step(batch)] for _ in range(3)]
        np.testing.assert_allclose(found, wanted, rtol=5e-4, err_msg=f"{library} {more}")


@pytest.mark.parametrize("kind", ["ours", pytest.param("fit", marks=[pytest.mark.slow])])
def test_a_contestant_takes_turns(kind):
    command = [*prefix("tensorflow"), "-m", "tests.bench.train_work", kind, "autoencoder", "2"]
    entry = Contestant("ours", command)
    (seconds,) = compete([entry], 2).values()
    assert len(seconds) == len(entry.processor_seconds) == 2
    assert all(0 < s < 60 for s in seconds)
    assert entry.version.startswith("TensorFlow 2.")


# A training that goes on and on, and counts its steps where the test sees it.
ENDLESS = """
import sys, time
from tests.bench.train_work import Turns
turns = Turns("ready", 3)
for step in range(1000):
    turns.before()
    print(step, file=open(sys.argv[1], "w"))
    time.sleep(0.01)
    turns.after([1.0])
"""


def test_a_training_is_cut_into_turns(tmp_path):
    command = [sys.executable, "-c", ENDLESS, str(tmp_path / "step")]
    (seconds,) = compete([Contestant("endless", command)], 4).values()
    assert len(seconds) == 4
    assert all(0.03 <= s < 10 for s in seconds)
    # A turn that is not measured, four that are, and nothing beyond.
    assert int((tmp_path / "step").read_text()) == 5 * 3 - 1


def test_times_of_steps_come_with_their_range():
    assert milliseconds([0.4, 0.2, 1.0], 4) == "100.0 ms (50.0 to 250.0)"
