"""Checkpoints: all variables as safetensors, and `state.json`, which says what they are.

A checkpoint folder holds one or several `checkpoint-<step>.safetensors` and, written after them,
`state.json`; a folder without `state.json` is no checkpoint. Either backend reads what the other
wrote.
"""

from __future__ import annotations

import dataclasses
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
from safetensors import numpy as safetensors

from trainer.artifact import read_json, sha256, write_json
from trainer.catalog import load_config
from trainer.config import with_settings
from trainer.engine.averages import averaged_variables
from trainer.errors import UserError
from trainer.recipe import Recipe

STATE = "state.json"
HISTORY = "history.json"

Choice = Literal["newest", "best"]
"""Which of a folder's checkpoints: the newest, or the best of those that were evaluated."""

Check = Callable[[int, Mapping[str, np.ndarray]], None]

_NETWORKS, _AVERAGES = "networks/", "averages/"


@dataclasses.dataclass(frozen=True)
class Kept:
    """One of the files of a checkpoint folder.

    Attributes:
        step: optimizer steps taken.
        epoch: epochs completed.
        file: its name.
        sha256: of the file.
        metric: what it is the best by; empty where it is not kept for that.
        value: of that metric.
    """

    step: int
    epoch: int
    file: str
    sha256: str
    metric: str = ""
    value: float = 0.0


@dataclasses.dataclass(frozen=True)
class State:
    """What a checkpoint is.

    Attributes:
        model: name of the model.
        config: the model's Config, field by field.
        class_names: name of each label; empty where there are none.
        step: optimizer steps taken.
        epoch: epochs completed.
        file: the safetensors file beside it.
        sha256: of that file.
        origin: how the weights came about, in a sentence.
        versions: package -> version.
        training: how the training was carried out, field by field; empty for imported weights.
        initial: SHA-256 of the checkpoint whose networks the training began with, or empty.
        means: of the epoch that is not complete: logged scalar -> its sum and its count so far.
        kept: the checkpoints of ended epochs that are still there, the oldest first.
        best: the best of those that were evaluated during the training, if any.
    """

    model: str
    config: Mapping[str, Any]
    class_names: tuple[str, ...]
    step: int
    epoch: int
    file: str
    sha256: str
    origin: str
    versions: Mapping[str, str]
    training: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    initial: str = ""
    means: Mapping[str, tuple[float, int]] = dataclasses.field(default_factory=dict)
    kept: tuple[Kept, ...] = ()
    best: Kept | None = None

    def load_config(self) -> Any:
        """The Config that the checkpoint was made with."""
        return with_settings(load_config(self.model), self.config)

    def entries(self) -> list[Kept]:
        """All checkpoints that are kept, the best among them."""
        return [*self.kept, *([self.best] if self.best else [])]

    def files(self) -> set[str]:
        """Names of all safetensors files that belong to it."""
        return {self.file, *(kept.file for kept in self.entries())}


def named_variables(
    recipe: Recipe,
    networks_only: bool = False,
    step_state: Mapping[str, keras.Variable] | None = None,
) -> dict[str, keras.Variable]:
    """Every variable of a recipe by its name in checkpoints.

    Names are `networks/<network>/<layer>/<variable>`, `averages/<network>/<layer>/<variable>`,
    `optimizers/<loss>/<network>/<number>`, `seeds/<number>` and `step/<name>`; optimizers must
    have been built.

    Args:
        recipe: the recipe.
        networks_only: leave out what only training needs.
        step_state: further variables of the train step.
    """
    named = {
        f"{_NETWORKS}{name}/{variable.path}": variable
        for name, network in recipe.networks.items()
        for variable in network.variables
    }
    if networks_only:
        return named
    averages = {
        f"{_AVERAGES}{name}": average for name, (_, average) in averaged_variables(recipe).items()
    }
    named.update(averages)
    known = {id(average) for average in averages.values()}
    for update in recipe.updates:
        for name, optimizer in update.optimizers.items():
            for i, variable in enumerate(optimizer.variables):
                if id(variable) not in known:
                    named[f"optimizers/{update.loss.__name__}/{name}/{i:04d}"] = variable
    for i, seed in enumerate(recipe.seeds):
        named[f"seeds/{i}"] = seed.state
    for name, variable in (step_state or {}).items():
        named[f"step/{name}"] = variable
    return named


def snapshot(variables: Mapping[str, keras.Variable]) -> dict[str, np.ndarray]:
    """Copies of the values of variables on the host, which later steps leave alone."""
    return {
        name: np.array(keras.ops.convert_to_numpy(variable.value), order="C", copy=True)
        for name, variable in variables.items()
    }


class Writer:
    """Writes checkpoints of a folder in a thread of its own, one at a time, while steps go on.

    Close it, or use it as a context manager, so that the last one is whole.

    Args:
        folder: made where it is missing.
        check: looks at step and variables before they are written, and raises if they must not be.
    """

    def __init__(self, folder: str | Path, check: Check = lambda step, arrays: None):
        self.folder = Path(folder)
        self._check = check
        self._waiting: queue.Queue[tuple[dict[str, np.ndarray], State, Any] | None] = queue.Queue(1)
        self._idle = threading.Event()
        self._idle.set()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="checkpoints", daemon=True)
        self._thread.start()
        self.state: State | None = None

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        self.close(raising=error is None)

    @property
    def idle(self) -> bool:
        """Whether nothing is being written."""
        return self._idle.is_set()

    def write(
        self,
        arrays: dict[str, np.ndarray],
        state: State,
        history: list[dict[str, Any]] | None = None,
    ) -> None:
        """Begins to write a checkpoint, once the one before is written.

        Args:
            arrays: its variables; nobody may change them any more.
            state: what to say of it; `file` and `sha256` are filled in, also of entries of `kept`
                and `best` that this writer has written before.
            history: the measurements of ended epochs, where there are new ones.

        Raises:
            Exception: what came in the way of an earlier one, or what its check said; the one
                before that stays.
        """
        self.wait()
        if self.state is not None:
            state = _filled(state, self.state.entries())
        self._idle.clear()
        self._waiting.put((arrays, state, None if history is None else list(history)))

    def wait(self) -> None:
        """Waits until all is written; raises what came in the way."""
        self._idle.wait()
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def close(self, raising: bool = True) -> None:
        """Waits until all is written and ends the thread."""
        try:
            if raising:
                self.wait()
        finally:
            self._idle.wait()
            self._waiting.put(None)
            self._thread.join()

    def _work(self) -> None:
        while (job := self._waiting.get()) is not None:
            arrays, state, history = job
            try:
                self._check(state.step, arrays)
                if history is not None:
                    write_json(self.folder / HISTORY, history)
                self.state = write(self.folder, arrays, state)
            except BaseException as error:
                self._error = error
            finally:
                self._idle.set()


def save(folder: str | Path, recipe: Recipe, state: State, networks_only: bool = False) -> State:
    """Writes a checkpoint of a recipe's variables, see `write`.

    Args:
        folder: made where it is missing.
        recipe: whose variables to save.
        state: what to say of them; `file` and `sha256` are filled in.
        networks_only: leave out what only training needs.

    Returns:
        The state as written.
    """
    return write(folder, snapshot(named_variables(recipe, networks_only)), state)


def write(folder: str | Path, arrays: Mapping[str, np.ndarray], state: State) -> State:
    """Writes a checkpoint, and removes files of earlier ones that `state` does not keep.

    A kill at any instant leaves the one before or this one, whole.

    Args:
        folder: made where it is missing.
        arrays: name -> value of each variable.
        state: what to say of them. `file` and `sha256` are filled in, also in those entries of
            `kept` and `best` that are of this step.

    Returns:
        The state as written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    file = f"checkpoint-{state.step:08d}.safetensors"
    draft = folder / f".{file}.unfinished"
    # Not save_file, whose files only their owner may read.
    draft.write_bytes(safetensors.save(dict(arrays)))
    digest = sha256(draft)
    draft.replace(folder / file)

    newest = Kept(state.step, state.epoch, file, digest)
    state = _filled(dataclasses.replace(state, file=file, sha256=digest), [newest])
    write_json(folder / STATE, dataclasses.asdict(state))
    wanted = state.files()
    for path in (*folder.glob("checkpoint-*.safetensors"), *folder.glob(".checkpoint-*")):
        if path.name not in wanted:
            path.unlink()
    return state


def read_state(folder: str | Path) -> State:
    """What the checkpoint in a folder is.

    Raises:
        UserError: the folder holds no finished checkpoint.
    """
    path = Path(folder) / STATE
    if not path.is_file():
        raise UserError(
            f"A checkpoint must be a folder with a {STATE}, as train or import-weights writes it; "
            f"{str(folder)!r} has none."
        )
    values = read_json(path)
    best = values.get("best")
    return State(
        **{
            **values,
            "class_names": tuple(values["class_names"]),
            "means": {n: (total, count) for n, (total, count) in values.get("means", {}).items()},
            "kept": tuple(Kept(**kept) for kept in values.get("kept", ())),
            "best": Kept(**best) if best else None,
        }
    )


def chosen(state: State, choice: Choice) -> State:
    """The state of one of a folder's checkpoints.

    Raises:
        UserError: the best is asked for, and none was evaluated during the training.
    """
    if choice == "newest":
        return state
    if state.best is None:
        raise UserError(
            f"weights=best needs a checkpoint that was evaluated while it was trained; this one of "
            f"{state.model} was not. Use weights=newest."
        )
    best = state.best
    return dataclasses.replace(
        state, step=best.step, epoch=best.epoch, file=best.file, sha256=best.sha256
    )


def restore(
    folder: str | Path,
    recipe: Recipe,
    networks_only: bool = False,
    choice: Choice = "newest",
    step_state: Mapping[str, keras.Variable] | None = None,
) -> State:
    """Assigns the values of a checkpoint to the variables of a recipe.

    Args:
        folder: the checkpoint.
        recipe: whose variables to set.
        networks_only: leave optimizers and seeds as they are; where the checkpoint has moving
            averages of weights, the networks get these.
        choice: which of the folder's checkpoints.
        step_state: further variables of the train step.

    Returns:
        What the checkpoint is.

    Raises:
        UserError: the file is damaged, or does not fit the recipe.
    """
    state = chosen(read_state(folder), choice)
    arrays = _read(Path(folder), state)
    for name, variable in named_variables(recipe, networks_only, step_state).items():
        value = _value(arrays, name, averaged=networks_only)
        if value is None or value.shape != tuple(variable.shape):
            came = "is missing" if value is None else f"has shape {list(value.shape)}"
            raise UserError(
                f"The checkpoint must hold {name!r} with shape {list(variable.shape)}; it {came}. "
                f"It was made by {state.model} with {dict(state.config)}."
            )
        variable.assign(value)
    return state


def begin_from(folder: str | Path, recipe: Recipe) -> tuple[State, tuple[str, ...]]:
    """Gives a recipe's networks the values of another training's, where names and shapes agree.

    Networks of pictures of another size, or of other classes but for their last layer, agree.

    Args:
        folder: the checkpoint; moving averages go before the weights themselves.
        recipe: whose networks are to begin with them.

    Returns:
        What the checkpoint is, and the names of the variables that begin afresh.

    Raises:
        UserError: the file is damaged, or nothing agrees.
    """
    state = read_state(folder)
    arrays = _read(Path(folder), state)
    variables = named_variables(recipe, networks_only=True)
    afresh = []
    for name, variable in variables.items():
        value = _value(arrays, name, averaged=True)
        if value is not None and value.shape == tuple(variable.shape):
            variable.assign(value)
        else:
            afresh.append(name.removeprefix(_NETWORKS))
    if len(afresh) == len(variables):
        raise UserError(
            f"A training must share networks with the checkpoint that it begins with; the one of "
            f"{state.model} in {str(folder)!r} has no variable of the same name and shape as "
            f"{afresh[0]!r} or any other."
        )
    return state, tuple(afresh)


def _read(folder: Path, state: State) -> dict[str, np.ndarray]:
    path = folder / state.file
    if not path.is_file() or sha256(path) != state.sha256:
        raise UserError(
            f"The checkpoint {path} must have the SHA-256 that {STATE} names; it is damaged or "
            "missing. Train again, or copy the folder again."
        )
    arrays: dict[str, np.ndarray] = safetensors.load_file(path)
    return arrays


def _value(arrays: Mapping[str, np.ndarray], name: str, averaged: bool) -> np.ndarray | None:
    if averaged and name.startswith(_NETWORKS):
        average = arrays.get(_AVERAGES + name.removeprefix(_NETWORKS))
        if average is not None:
            return average
    return arrays.get(name)


def _filled(state: State, known: Sequence[Kept]) -> State:
    """The state with the files of those entries that have none yet, as far as they are known."""
    files = {kept.step: kept for kept in known if kept.file}

    def fill(kept: Kept) -> Kept:
        if kept.file or kept.step not in files:
            return kept
        found = files[kept.step]
        return dataclasses.replace(kept, file=found.file, sha256=found.sha256)

    best = fill(state.best) if state.best else None
    return dataclasses.replace(state, kept=tuple(map(fill, state.kept)), best=best)


def jsonable(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config as `state.json` gives it back: tuples as lists."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in config.items()}


def read_history(folder: str | Path) -> list[dict[str, Any]]:
    """What was measured in each epoch of the checkpoint's training; empty if it was imported."""
    path = Path(folder) / HISTORY
    history: list[dict[str, Any]] = read_json(path) if path.is_file() else []
    return history
