from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import keras
import numpy as np
import pytest

from trainer.artifact import read_json
from trainer.engine import checkpoint
from trainer.engine.averages import in_their_place, keep_averages
from trainer.engine.checkpoint import Kept, State, Writer
from trainer.engine.guard import check_finite
from trainer.errors import UserError
from trainer.recipe import Recipe, Update


def recipe(width: int = 2, averaged: bool = False) -> Recipe:
    """One layer, `width` by 1, without a bias."""
    image = keras.Input((width,), name="image")
    layer = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros", name="layer")
    network = keras.Model(image, layer(image), name="network")

    def loss(batch):
        return keras.ops.mean(network(batch["image"]))

    optimizer = keras.optimizers.SGD(1.0)
    made = Recipe({"network": network}, [Update(loss, {"network": optimizer})], loss, {})
    if averaged:
        keep_averages(made, 0.75)
    optimizer.build(network.trainable_variables)
    return made


def state(step: int) -> State:
    return State("m", {"epochs": 3}, (), step, 0, "", "", "", {})


def kernel(made: Recipe) -> keras.Variable:
    return made.networks["network"].trainable_variables[0]


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    first, second = recipe(), recipe()
    kernel(first).assign([[1.0], [-2.0]])
    described = dataclasses.replace(
        state(7),
        means={"loss": (0.1 + 0.2, 3)},
        best=Kept(7, 2, "", "", "top_1_accuracy", 0.5),
    )
    written = checkpoint.save(tmp_path, first, described)
    assert checkpoint.read_state(tmp_path) == written
    assert written.best is not None and written.best.file == written.file
    assert checkpoint.restore(tmp_path, second) == written
    np.testing.assert_array_equal(kernel(second).numpy(), [[1.0], [-2.0]])
    assert files(tmp_path) == ["checkpoint-00000007.safetensors", "state.json"]


def test_only_what_the_state_keeps_stays(tmp_path: Path) -> None:
    made = recipe()
    (tmp_path / ".checkpoint-00000001.safetensors.unfinished").write_bytes(b"of a killed process")
    first = checkpoint.save(tmp_path, made, dataclasses.replace(state(1), best=Kept(1, 1, "", "")))
    second = checkpoint.save(tmp_path, made, dataclasses.replace(state(2), best=first.best))
    assert files(tmp_path) == [first.file, second.file, "state.json"]
    checkpoint.save(tmp_path, made, dataclasses.replace(state(3), best=first.best))
    assert second.file not in files(tmp_path) and first.file in files(tmp_path)
    third = checkpoint.save(tmp_path, made, state(4))
    assert files(tmp_path) == [third.file, "state.json"]


def test_the_best_is_restored_where_it_is_asked_for(tmp_path: Path) -> None:
    made = recipe()
    kernel(made).assign([[1.0], [1.0]])
    first = checkpoint.save(
        tmp_path, made, dataclasses.replace(state(1), best=Kept(1, 1, "", "", "accuracy", 0.9))
    )
    kernel(made).assign([[2.0], [2.0]])
    checkpoint.save(tmp_path, made, dataclasses.replace(state(2), best=first.best))
    got = checkpoint.restore(tmp_path, made, networks_only=True, choice="best")
    assert (got.step, got.epoch) == (1, 1)
    np.testing.assert_array_equal(kernel(made).numpy(), [[1.0], [1.0]])
    checkpoint.restore(tmp_path, made, networks_only=True)
    np.testing.assert_array_equal(kernel(made).numpy(), [[2.0], [2.0]])


def test_no_best_is_said_in_a_line(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, recipe(), state(1))
    with pytest.raises(UserError, match=r"weights=best needs a checkpoint that was evaluated"):
        checkpoint.restore(tmp_path, recipe(), choice="best")


def test_a_snapshot_stays_as_it_was() -> None:
    made = recipe()
    copies = checkpoint.snapshot(checkpoint.named_variables(made))
    name = "networks/network/layer/kernel"
    kernel(made).assign_add([[1.0], [1.0]])
    np.testing.assert_array_equal(copies[name], [[0.0], [0.0]])


def test_averages_are_what_is_evaluated_and_the_weights_what_is_trained(tmp_path: Path) -> None:
    made = recipe(averaged=True)
    optimizer = made.updates[0].optimizers["network"]
    # From 0 to -1 to -2; Keras's average takes over the first value and then a quarter of each.
    for _ in range(2):
        optimizer.apply([keras.ops.ones((2, 1))], [kernel(made)])
    checkpoint.save(tmp_path, made, state(2))
    names = checkpoint.named_variables(made)
    assert "averages/network/layer/kernel" in names
    served = recipe()
    checkpoint.restore(tmp_path, served, networks_only=True)
    np.testing.assert_allclose(kernel(served).numpy(), np.full((2, 1), 0.75 * -1 + 0.25 * -2))
    going_on = recipe(averaged=True)
    checkpoint.restore(tmp_path, going_on)
    np.testing.assert_array_equal(kernel(going_on).numpy(), np.full((2, 1), -2.0))
    with in_their_place(going_on):
        np.testing.assert_allclose(kernel(going_on).numpy(), np.full((2, 1), -1.25))
    np.testing.assert_array_equal(kernel(going_on).numpy(), np.full((2, 1), -2.0))


def test_networks_begin_with_what_agrees(tmp_path: Path) -> None:
    made = recipe()
    kernel(made).assign([[3.0], [4.0]])
    checkpoint.save(tmp_path, made, state(9))
    other = recipe()
    source, afresh = checkpoint.begin_from(tmp_path, other)
    assert source.step == 9 and afresh == ()
    np.testing.assert_array_equal(kernel(other).numpy(), [[3.0], [4.0]])
    with pytest.raises(UserError, match="no variable of the same name and shape as 'network/layer"):
        checkpoint.begin_from(tmp_path, recipe(width=3))


def test_the_writer_writes_while_its_caller_goes_on(tmp_path: Path) -> None:
    made = recipe()
    with Writer(tmp_path) as writer:
        for step in range(1, 4):
            arrays = checkpoint.snapshot(checkpoint.named_variables(made))
            writer.write(arrays, state(step), [{"epoch": step}])
    assert writer.state is not None and writer.state.step == 3
    assert checkpoint.read_state(tmp_path) == writer.state
    assert checkpoint.read_history(tmp_path) == [{"epoch": 3}]


def test_weights_that_are_not_finite_leave_the_last_good_checkpoint(tmp_path: Path) -> None:
    made = recipe()

    def twice() -> None:
        with Writer(tmp_path, functools.partial(check_finite, made, "m")) as writer:
            writer.write(checkpoint.snapshot(checkpoint.named_variables(made)), state(1))
            kernel(made).assign([[0.0], [np.inf]])
            writer.write(checkpoint.snapshot(checkpoint.named_variables(made)), state(2))

    with pytest.raises(UserError, match=r"by step 2 networks/network/layer/kernel"):
        twice()
    assert checkpoint.read_state(tmp_path).step == 1
    checkpoint.restore(tmp_path, made)
    assert np.isfinite(kernel(made).numpy()).all()


def test_an_error_of_the_caller_is_not_hidden_by_the_writers(tmp_path: Path) -> None:
    made = recipe()
    kernel(made).assign([[0.0], [np.nan]])
    check = functools.partial(check_finite, made, "m")
    with pytest.raises(ZeroDivisionError), Writer(tmp_path, check) as writer:
        writer.write(checkpoint.snapshot(checkpoint.named_variables(made)), state(1))
        raise ZeroDivisionError


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    written = checkpoint.save(tmp_path, recipe(), state(1))
    path = tmp_path / written.file
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(UserError, match="must have the SHA-256"):
        checkpoint.restore(tmp_path, recipe())
    assert read_json(tmp_path / "state.json")["file"] == written.file
