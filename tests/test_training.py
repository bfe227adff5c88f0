"""One training from beginning to end: what it keeps, how it stops, and how it goes on."""

from __future__ import annotations

import dataclasses
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tests.conftest import Prepared
from trainer.catalog import load_recipe, model_part
from trainer.config import with_settings
from trainer.engine import checkpoint
from trainer.engine import train as engine
from trainer.engine.train import train
from trainer.errors import TryAgain, UserError
from trainer.recipe import Recipe
from trainer.training import Training

Prepare = Callable[[str], Prepared]
MODEL = "autoencoder"


@pytest.fixture
def examples(prepared: Prepare) -> Path:
    return prepared(MODEL).transformed_examples


def config(**changes: Any) -> Any:
    return dataclasses.replace(model_part(MODEL, "config").TINY, **changes)


def tree(folder: Path) -> dict[str, bytes]:
    """All files of a checkpoint folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def after(monkeypatch: pytest.MonkeyPatch) -> dict[int, Callable[[], None]]:
    """What happens once after how many steps of a call of `train`."""
    wanted: dict[int, Callable[[], None]] = {}

    class Watched(engine.Progress):
        def __init__(self, *arguments: Any):
            self.taken = 0
            super().__init__(*arguments)

        def advance(self, *arguments: Any) -> None:
            super().advance(*arguments)
            self.taken += 1
            wanted.pop(self.taken, lambda: None)()

    monkeypatch.setattr(engine, "Progress", Watched)
    return wanted


class Killed(BaseException):
    """Stands for a kill: nobody catches it."""


def kill() -> None:
    raise Killed


def ask(number: int) -> Callable[[], None]:
    """Sends this process a signal."""
    return lambda: os.kill(os.getpid(), number)


@pytest.fixture
def whole(examples: Path, tmp_path: Path) -> Path:
    """The checkpoint of a training that nothing disturbed."""
    train(MODEL, config(), examples, tmp_path / "whole")
    return tmp_path / "whole"


def test_sigterm_saves_at_once_and_the_same_call_goes_on(
    examples: Path, whole: Path, tmp_path: Path, after: dict[int, Callable[[], None]]
) -> None:
    assert checkpoint.read_history(whole)[0]["step"] >= 2, "the epoch must be cut within"
    handler = signal.getsignal(signal.SIGTERM)
    parts = tmp_path / "parts"
    after[1] = ask(signal.SIGTERM)
    with pytest.raises(TryAgain, match=r"is saved at step 1; the same command goes on"):
        train(MODEL, config(), examples, parts)
    state = checkpoint.read_state(parts)
    assert (state.step, state.epoch) == (1, 0) and state.means
    assert signal.getsignal(signal.SIGTERM) is handler
    train(MODEL, config(), examples, parts)
    assert tree(parts) == tree(whole)


def test_sigterm_in_an_evaluation_is_heard(
    examples: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate, parts = engine.evaluate, tmp_path / "parts"

    def asked(*arguments: Any, **keywords: Any) -> Any:
        ask(signal.SIGTERM)()
        return evaluate(*arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(engine, "evaluate", asked)
        with pytest.raises(TryAgain):
            train(MODEL, config(), examples, parts)
    assert checkpoint.read_state(parts).epoch == 0
    train(MODEL, config(), examples, parts)
    assert tree(parts) == tree(whole)


def test_ctrl_c_saves_too(
    examples: Path,
    whole: Path,
    tmp_path: Path,
    after: dict[int, Callable[[], None]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        after[1] = ask(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            train(MODEL, config(), examples, tmp_path / "parts")
    finally:
        signal.signal(signal.SIGINT, before)
    assert "is saved at step 1" in capsys.readouterr().err
    train(MODEL, config(), examples, tmp_path / "parts")
    assert tree(tmp_path / "parts") == tree(whole)


def test_a_kill_costs_no_more_than_what_was_not_saved(
    examples: Path, whole: Path, tmp_path: Path, after: dict[int, Callable[[], None]]
) -> None:
    every_step = Training(save_seconds=0)
    parts = tmp_path / "parts"
    last = checkpoint.read_state(whole).step
    for _ in range(last - 1):
        after[2] = kill
        with pytest.raises(Killed):
            train(MODEL, config(), examples, parts, every_step)
    assert checkpoint.read_state(parts).step == last - 1
    train(MODEL, config(), examples, parts)
    assert tree(parts) == tree(whole)


def test_a_training_that_has_ended_stays_as_it_is(examples: Path, whole: Path) -> None:
    before = tree(whole)
    train(MODEL, config(), examples, whole)
    assert tree(whole) == before


def test_the_newest_and_the_best_are_kept(examples: Path, tmp_path: Path) -> None:
    # So high a rate that the last epoch is not the best.
    rough = config(epochs=6, learning_rate=0.5)
    state = train(MODEL, rough, examples, tmp_path, Training(keep=2))
    history = checkpoint.read_history(tmp_path)
    errors = [record["evaluation"]["squared_error"] for record in history]
    assert state.best is not None and state.best.value == min(errors)
    assert state.best.epoch == 1 + errors.index(min(errors)) < 5
    assert [kept.epoch for kept in state.kept] == [5, 6]
    found = {path.name for path in tmp_path.glob("*.safetensors")}
    assert found == state.files() and len(found) == 3


def network(folder: Path, **keywords: Any) -> list[np.ndarray]:
    """The weights that a checkpoint gives to those who evaluate or export it."""
    recipe = load_recipe(MODEL)(config())
    checkpoint.restore(folder, recipe, networks_only=True, **keywords)
    return values(recipe)


def values(recipe: Recipe) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(v) for v in recipe.networks[MODEL].variables]


def test_a_training_begins_with_the_networks_of_another(
    examples: Path, whole: Path, tmp_path: Path, after: dict[int, Callable[[], None]]
) -> None:
    second = config(learning_rate=1e-12)  # which moves nothing
    after[1] = ask(signal.SIGTERM)
    with pytest.raises(TryAgain):
        train(MODEL, second, examples, tmp_path / "second", initial=whole)
    state = train(MODEL, second, examples, tmp_path / "second", initial=whole)
    assert state.origin.endswith(
        f"It began with networks of {MODEL} after {checkpoint.read_state(whole).step} steps."
    )
    for ours, theirs in zip(network(tmp_path / "second"), network(whole), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    with pytest.raises(UserError, match=r"only with the checkpoint that it began with"):
        train(MODEL, second, examples, tmp_path / "second")


def test_what_cannot_begin_a_training_is_named_in_its_origin(
    examples: Path, whole: Path, tmp_path: Path
) -> None:
    state = train(MODEL, config(code_size=3), examples, tmp_path / "other", initial=whole)
    assert "steps, but for autoencoder/code/kernel, autoencoder/code/bias" in state.origin


def test_moving_averages_are_what_counts(examples: Path, tmp_path: Path) -> None:
    averaged = Training(moving_average=0.9)
    train(MODEL, config(), examples, tmp_path / "averaged", averaged)
    train(MODEL, config(), examples, tmp_path / "plain")
    with_averages = checkpoint.read_history(tmp_path / "averaged")
    without = checkpoint.read_history(tmp_path / "plain")
    for one, other in zip(with_averages, without, strict=True):
        assert one["reconstruction_loss"] == other["reconstruction_loss"]  # the steps are the same
        assert one["evaluation"] != other["evaluation"]
    assert any(
        not np.array_equal(a, b)
        for a, b in zip(network(tmp_path / "averaged"), network(tmp_path / "plain"), strict=True)
    )


@pytest.mark.parametrize(
    ("settings", "training", "told"),
    [
        ({"learning_rate": 0.5}, Training(), r"learning_rate 0.001 -> 0.5"),
        ({}, Training(accumulation=2), r"accumulation 1 -> 2"),
        ({}, Training(precision="mixed_bfloat16"), r"precision float32 -> mixed_bfloat16"),
    ],
)
def test_a_training_goes_on_only_as_it_began(
    examples: Path, whole: Path, settings: dict[str, Any], training: Training, told: str
) -> None:
    policy = keras.config.dtype_policy()
    try:
        with pytest.raises(UserError, match=told):
            train(MODEL, config(**settings), examples, whole, training)
    finally:
        keras.config.set_dtype_policy(policy)


def test_a_loss_that_explodes_is_named_and_the_last_good_checkpoint_stays(
    examples: Path, whole: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"at step \d+ reconstruction_loss became nan"):
        train(MODEL, config(learning_rate=1e30, epochs=3), examples, tmp_path / "bad")
    if (tmp_path / "bad" / "state.json").exists():
        assert all(np.isfinite(array).all() for array in network(tmp_path / "bad"))


def test_options_are_checked() -> None:
    for wrong, told in (
        ({"accumulation": 0}, "accumulation must be at least 1"),
        ({"moving_average": "1"}, "moving_average must be at least 0 and below 1"),
        ({"precision": "float8"}, "precision must be one of float32"),
        ({"keep": 0}, "keep must be at least 1"),
        ({"save_seconds": "-1"}, "save_seconds must not be negative"),
        ({"accumulaton": 2}, "Did you mean 'accumulation'"),
    ):
        with pytest.raises(UserError, match=told):
            with_settings(Training(), wrong)
