"""What every model promises, whichever paper it comes from."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tests import losses
from tests.conftest import Prepared, model_cases
from trainer import backend
from trainer.artifact import read_json
from trainer.catalog import (
    load_config,
    load_paper,
    load_recipe,
    model_folder,
    model_part,
)
from trainer.engine import checkpoint
from trainer.engine.evaluate import compile_predict
from trainer.engine.input import Split
from trainer.engine.train import train
from trainer.recipe import Recipe

MODELS = model_cases()
Prepare = Callable[[str], Prepared]


def tiny(model: str, **changes: Any) -> tuple[Any, Recipe]:
    config = dataclasses.replace(model_part(model, "config").TINY, **changes)
    return config, load_recipe(model)(config)


def batches(prepared: Prepared, config: Any, epoch: int = 0) -> list[dict[str, Any]]:
    augment = getattr(model_part(prepared.model, "data"), "augment", None)
    split = Split(prepared.transformed_examples, "train")
    shuffled = split.shuffled(
        config.batch_size,
        config.seed,
        epoch,
        augment and (lambda example, seed: augment(example, seed, config)),
    )
    return list(shuffled.as_numpy_iterator())


def in_precision(precision: str, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {k: v.astype(precision) if v.dtype.kind == "f" else v for k, v in batch.items()}


def values(network: keras.Model) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(v) for v in network.trainable_variables]


@pytest.fixture(params=["float32", "float64"])
def precision(request: pytest.FixtureRequest) -> Iterator[str]:
    """What Keras computes with while the test runs."""
    before = keras.config.floatx()
    losses.compute_in(request.param)
    yield request.param
    losses.compute_in(before)


@pytest.mark.parametrize("model", MODELS)
def test_the_folder_says_what_a_model_must_say(model: str) -> None:
    paper, folder = load_paper(model), model_folder(model)
    assert paper.results and paper.url.startswith("https://")
    config = load_config(model)
    assert dataclasses.is_dataclass(config)
    assert config.epochs > 0 and config.batch_size > 0 and isinstance(config.seed, int)
    readme = (folder / "README.md").read_text(encoding="utf-8")
    assert paper.url in readme and "## Deviations" in readme
    for field in dataclasses.fields(config):
        assert f"{field.name}:" in type(config).__doc__, f"{field.name} is not documented"
    if (folder / "results.json").exists():
        known = {r.metric for r in paper.results}
        for entry in read_json(folder / "results.json"):
            keys = {"metric", "value", "dataset", "settings", "hardware", "date", "command"}
            assert keys <= set(entry)
            assert entry["metric"] in known


@pytest.mark.parametrize("model", MODELS)
def test_two_builds_have_the_same_variables(model: str) -> None:
    first, second = (
        {n: tuple(v.shape) for n, v in checkpoint.named_variables(tiny(model)[1], True).items()}
        for _ in range(2)
    )
    assert first == second


@pytest.mark.parametrize("precision", ["float64"], indirect=True)  # small moves show, too
@pytest.mark.parametrize("model", MODELS)
def test_each_update_moves_just_the_networks_it_names(
    model: str, prepared: Prepare, precision: str
) -> None:
    config, recipe = tiny(model)
    batch = in_precision(precision, batches(prepared(model), config)[0])
    for update in recipe.updates:
        alone = dataclasses.replace(recipe, updates=[update])
        step = backend.current().TrainStep(alone)
        before = {name: values(network) for name, network in recipe.networks.items()}
        # The warm-up of a schedule may begin at 0, where nothing moves.
        for number in range(3):
            logs = step(number * update.every, batch)
        step.write()
        assert all(np.isfinite(float(value)) for value in logs.values())
        for name, network in recipe.networks.items():
            moved = [
                not np.array_equal(a, b) for a, b in zip(before[name], values(network), strict=True)
            ]
            if name in update.optimizers:
                assert all(moved), f"{update.loss.__name__} leaves parts of {name} still"
            else:
                assert not any(moved), f"{update.loss.__name__} moves {name}"


@pytest.mark.parametrize("model", MODELS)
def test_a_repeated_batch_is_learnt(model: str, prepared: Prepare) -> None:
    # So many epochs that no schedule of the learning rate is over before the last step.
    steps = epochs = 30
    config, recipe = tiny(model, epochs=epochs)
    if len(recipe.updates) > 1:
        pytest.skip("the losses of several players need not fall")
    batch = batches(prepared(model), config)[0]
    step = backend.current().TrainStep(recipe)
    name = recipe.updates[0].loss.__name__
    course = [float(step(number, batch)[name]) for number in range(steps)]
    assert np.mean(course[-5:]) < np.mean(course[:5])


@pytest.mark.parametrize("model", MODELS)
def test_losses_are_equal_on_both_backends(
    model: str, prepared: Prepare, precision: str, tmp_path: Path
) -> None:
    """In float64 whatever the network; in float32 as long as its rounding errors stay small."""
    steps = 20
    if precision == "float32":
        steps = getattr(model_part(model, "config"), "STEPS_EQUAL_IN_FLOAT32", steps)
    config, recipe = tiny(model, epochs=steps)  # no schedule of the learning rate ends earlier
    ready = prepared(model)
    epochs = (batches(ready, config, epoch) for epoch in itertools.count())
    first = itertools.islice(itertools.chain.from_iterable(epochs), steps)
    stream = [in_precision(precision, batch) for batch in first]
    arrays = {f"{i}/{k}": v for i, batch in enumerate(stream) for k, v in batch.items()}
    np.savez(tmp_path / "batches.npz", **arrays)
    step = backend.current().TrainStep(recipe)
    state = checkpoint.State(model, dataclasses.asdict(config), (), 0, 0, "", "", "", {})
    checkpoint.save(tmp_path, recipe, state)
    here = [{k: float(v) for k, v in step(i, batch).items()} for i, batch in enumerate(stream)]
    step.write()
    there = subprocess.run(
        [sys.executable, "-m", "tests.losses", str(tmp_path), precision],
        env={
            **os.environ,
            "KERAS_BACKEND": "jax",
            "JAX_PLATFORMS": "cpu",
            "JAX_ENABLE_X64": str(int(precision == "float64")),
        },
        capture_output=True,
        text=True,
    )
    assert there.returncode == 0, there.stderr[-2000:]
    for ours, theirs in zip(here, json.loads(there.stdout.splitlines()[-1]), strict=True):
        assert theirs == pytest.approx(ours, rel=1e-5, abs=1e-5)
    # What JAX trained and saved is read here, and answers as what was trained here does.
    restored = load_recipe(model)(config)
    backend.current().TrainStep(restored)
    checkpoint.restore(tmp_path / "jax", restored)
    batch = next(Split(ready.transformed_examples, "train").in_order(4))
    if set(batch) >= set(stream[0]) and batch["image"].dtype != object:
        numeric = {k: v for k, v in batch.items() if v.dtype != object}
        wanted, got = compile_predict(recipe)(numeric), compile_predict(restored)(numeric)
        for name, value in wanted.items():
            np.testing.assert_allclose(got[name], value, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("model", MODELS)
def test_training_cut_short_ends_with_the_same_weights(
    model: str, prepared: Prepare, tmp_path: Path
) -> None:
    config = model_part(model, "config").TINY
    examples = prepared(model).transformed_examples
    train(model, config, examples, tmp_path / "whole")

    class CutShort(Exception):
        pass

    save = checkpoint.save

    def save_and_stop(*arguments: Any, **keywords: Any) -> Any:
        save(*arguments, **keywords)
        raise CutShort

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trainer.engine.train.checkpoint.save", save_and_stop)
        with pytest.raises(CutShort):
            train(model, config, examples, tmp_path / "parts")
    assert checkpoint.read_state(tmp_path / "parts").epoch == 1
    train(model, config, examples, tmp_path / "parts")

    whole, parts = (checkpoint.read_state(tmp_path / name) for name in ("whole", "parts"))
    assert whole.epoch == parts.epoch == config.epochs
    assert whole.sha256 == parts.sha256
    histories = [checkpoint.read_history(tmp_path / name) for name in ("whole", "parts")]
    assert len(histories[0]) == config.epochs
    assert histories[0] == histories[1]
