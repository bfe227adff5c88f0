"""The training loop: step, log, evaluate, save, and go on where it was cut short."""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import itertools
import math
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import keras
import numpy as np

from trainer import backend
from trainer.catalog import load_paper, load_recipe, model_part
from trainer.data.manifest import read_manifest
from trainer.engine import averages, checkpoint
from trainer.engine.evaluate import Evaluation, compile_predict, evaluate, numbers_of, pad
from trainer.engine.guard import StillnessGuard, check_finite, not_finite
from trainer.engine.input import Split, training_split
from trainer.engine.logs import Logs
from trainer.engine.statistics import StatisticsMeter
from trainer.engine.strip import save_samples
from trainer.engine.waiting import Waiting
from trainer.errors import TryAgain, UserError
from trainer.progress import Progress
from trainer.recipe import Recipe
from trainer.training import Training

EVALUATIONS = 20
"""An evaluation after every epoch, but at most so many in a whole training (ours)."""

READ_EVERY = 20
"""Steps between two looks at what the device has logged (ours): each look waits for the device."""

SAMPLED_EXAMPLES = 64
"""Examples that a recipe's samples are drawn from, a grid of eight by eight (ours)."""

PACKAGES = ("keras", "tensorflow", "jax", "numpy")

DECISIVE = ("precision", "accumulation", "moving_average")
"""Fields of `Training` that change numbers by more than rounding."""


def train(
    model: str,
    config: Any,
    examples: str | Path,
    folder: str | Path,
    training: Training | None = None,
    initial: str | Path | None = None,
    logs: str | Path | None = None,
) -> checkpoint.State:
    """Trains a model on transformed examples, from scratch or from where `folder` stands.

    Order, augmentation and noise of an epoch follow from the seed and its number alone, and a
    checkpoint holds all the rest: a training that is cut short at any step and called again ends
    with the weights of one that was not, bit for bit on a processor and the same backend. Another
    backend may go on with it.

    Args:
        model: name of the model.
        config: its Config; `epochs`, `batch_size` and `seed` steer the loop.
        examples: transformed examples with a `train` split and an evaluation split.
        folder: where checkpoints are kept, with `history.json` and `samples/` beside them.
        training: how it is carried out.
        initial: a checkpoint with whose networks it begins, where names and shapes agree.
        logs: folder for TensorBoard's event files; None for none.

    Returns:
        The state of the last checkpoint.

    Raises:
        UserError: the folder holds a checkpoint of another model or configuration, or a loss became
            NaN or infinite.
        TryAgain: the process was asked to end (SIGTERM); all is saved.
    """
    training = training or Training()
    manifest = read_manifest(examples)
    keras.utils.set_random_seed(config.seed)
    distribution = backend.current().Distribution(training)
    with distribution.scope():
        recipe = load_recipe(model)(config)
        if training.moving_average:
            averages.keep_averages(recipe, training.moving_average)
        step = backend.current().TrainStep(recipe, training, distribution)
    state = checkpoint.State(
        model=model,
        config=dataclasses.asdict(config),
        class_names=manifest.class_names,
        step=0,
        epoch=0,
        file="",
        sha256="",
        origin=f"Trained on {manifest.title} with the {keras.backend.backend()} backend.",
        versions=installed_versions(),
        training=dataclasses.asdict(training),
    )
    if initial:
        state = _begin(state, initial, recipe)
    history: list[dict[str, Any]] = []
    if (Path(folder) / checkpoint.STATE).is_file():
        _check_same(checkpoint.read_state(folder), state)
        state = _gone_on(checkpoint.restore(folder, recipe, step_state=step.state), training)
        history = checkpoint.read_history(folder)[: state.epoch]
    step.read()
    with (
        distribution.guarded(),
        checkpoint.Writer(folder, functools.partial(check_finite, recipe, model)) as writer,
        Logs(logs if distribution.chief else None) as log,
        _Requests(distribution) as requests,
    ):
        loop = _Loop(
            recipe,
            config,
            training,
            distribution,
            step,
            state,
            history,
            examples,
            writer,
            log,
            requests,
        )
        loop.run()
        writer.wait()
    return writer.state or loop.state


def installed_versions() -> dict[str, str]:
    """Versions of the packages that decide what a training gives, as far as they are installed."""
    installed = {d.name: d.version for d in importlib.metadata.distributions()}
    return {name: installed[name] for name in PACKAGES if name in installed}


class _Stop(Exception):
    """The process was asked to end."""


class _Loop:
    """One training, from the step that `state` names to the last epoch."""

    def __init__(
        self,
        recipe: Recipe,
        config: Any,
        training: Training,
        distribution: Any,
        step: Any,
        state: checkpoint.State,
        history: list[dict[str, Any]],
        examples: str | Path,
        writer: checkpoint.Writer,
        log: Logs,
        requests: _Requests,
    ):
        self.recipe, self.config, self.training = recipe, config, training
        self.distribution, self.step, self.state = distribution, step, state
        self.history, self.writer, self.log, self.requests = history, writer, log, requests
        manifest = read_manifest(examples)
        self.class_names = manifest.class_names
        self.split = training_split(state.model, examples)
        self.evaluation = Split(examples, manifest.evaluation_split)
        self.predict = compile_predict(recipe)
        self.measure = StatisticsMeter(recipe) if recipe.statistics_examples else None
        augment = getattr(model_part(state.model, "data"), "augment", None)
        self.augment = functools.partial(augment, config=config) if augment else None
        self.criterion = _criterion(recipe, state.model)
        self.steps = self.split.examples // config.batch_size
        self.means = _Means(state.means)
        self.newest: dict[str, float] = {}
        self.pending: list[tuple[int, Mapping[str, Any]]] = []
        self.guard = StillnessGuard(recipe, training.still_steps, step.write)
        self.notes: list[str] = []
        self.draw = self._compile_samples()
        self.waiting = Waiting()
        self.saved = time.monotonic()

    def run(self) -> None:
        """Takes all epochs that are left; saves and raises TryAgain when asked to end."""
        left = self.config.epochs * self.steps - self.state.step
        self.progress = Progress(max(left, 0) * self.config.batch_size, "examples")
        try:
            for epoch in range(self.state.epoch, self.config.epochs):
                self._train_epoch(epoch)
                self._end_epoch(epoch)
        except _Stop:
            self._save(self.state)
            self.writer.wait()
            self.requests.answer(
                f"The training of {self.state.model} was asked to end and is saved at step "
                f"{self.state.step:,}; the same command goes on from there."
            )

    def _train_epoch(self, epoch: int) -> None:
        begin = self.state.step - epoch * self.steps
        batches = self.split.shuffled(
            self.config.batch_size,
            self.config.seed,
            epoch,
            self.augment,
            self.recipe.noise,
            begin,
            (self.distribution.process, self.distribution.processes),
        )
        batch: Mapping[str, Any] = {}
        for batch in self.waiting.batches(_batches(batches)):
            self.pending.append((self.state.step + 1, self.step(self.state.step, batch)))
            self.state = dataclasses.replace(self.state, step=self.state.step + 1)
            if len(self.pending) >= READ_EVERY:
                self._read(batch)
            self.progress.advance(self.config.batch_size, self.newest)
            self.requests.check(self.state.step)
            self._save_in_time()
        self._read(batch)

    def _end_epoch(self, epoch: int) -> None:
        """Evaluates, draws samples and saves."""
        every = math.ceil(self.config.epochs / EVALUATIONS)
        last = epoch + 1 == self.config.epochs
        record: dict[str, Any] = {
            "epoch": epoch + 1,
            "step": self.state.step,
            **self.means.result(),
        }
        self.step.write()
        scored = None
        if (epoch + 1) % every == 0 or last:
            if self.measure is not None:
                self._measure_statistics(self.measure)
            if self.distribution.chief:
                with averages.in_their_place(self.recipe):
                    scored = self._evaluate()
            if scored is not None:
                record["evaluation"] = scored.numbers
                self.log.scalars(self.state.step, scored.numbers)
        if self.draw is not None and self.distribution.chief:
            with averages.in_their_place(self.recipe):
                pictures = self.draw()
            save_samples(self.writer.folder, epoch + 1, pictures)
            self.log.pictures(self.state.step, pictures)
        if self.notes:
            record["notes"], self.notes = self.notes, []
        self.log.scalars(self.state.step, _learning_rates(self.recipe))
        self.requests.check()
        self.history.append(record)
        ended = checkpoint.Kept(self.state.step, epoch + 1, "", "")
        self.state = dataclasses.replace(
            self.state,
            epoch=epoch + 1,
            means={},
            kept=(*self.state.kept, ended)[-self.training.keep :],
            best=self._better(ended, scored),
        )
        self.means = _Means({})
        self._save(self.state, self.history)

    def _measure_statistics(self, measure: StatisticsMeter) -> None:
        # The same seed as no epoch has: measured on other crops than the next epoch's.
        count = math.ceil(self.recipe.statistics_examples / self.config.batch_size)
        unseen = self.split.shuffled(
            self.config.batch_size,
            self.config.seed,
            self.config.epochs,
            self.augment,
            self.recipe.noise,
        )
        # Averages of weights have other statistics than the weights, and it is they that count.
        with averages.in_their_place(self.recipe):
            measure(self._until_asked(itertools.islice(_batches(unseen), count)))
        self.step.read()

    def _evaluate(self) -> Evaluation:
        def predict(batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            self.requests.check()
            return self.predict(batch)

        size = min(self.config.batch_size, self.evaluation.examples)
        limit = self.recipe.examples_in_training
        return evaluate(self.recipe, predict, self.evaluation, size, self.class_names, limit=limit)

    def _until_asked(self, batches: Iterator[Any]) -> Iterator[Any]:
        for batch in batches:
            self.requests.check()
            yield batch

    def _compile_samples(self) -> Any:
        """A function that draws the recipe's samples; None where it has none."""
        if self.recipe.samples is None:
            return None
        stored = next(self.evaluation.in_order(SAMPLED_EXAMPLES, self.recipe.noise))
        batch = {n: pad(v, SAMPLED_EXAMPLES) for n, v in numbers_of(stored).items()}
        draw = backend.current().compile_predict(self.recipe, self.recipe.samples)
        return functools.partial(draw, batch)

    def _read(self, batch: Mapping[str, Any]) -> None:
        """Looks at what the device has logged since the last time."""
        numbers: dict[str, float] = {}
        for number, logged in self.pending:
            numbers = {name: float(np.asarray(tensor)) for name, tensor in logged.items()}
            if not all(map(math.isfinite, numbers.values())):
                self.pending.clear()
                raise not_finite(self.recipe, self.state.model, number, numbers, batch)
            self.means.add(numbers)
            found = self.guard.look(number, numbers, batch)
            if found:
                print("warning: " + " ".join(found), file=sys.stderr, flush=True)
                self.notes += found
        if self.pending:
            number = self.pending[-1][0]
            rates = self.waiting.rates(len(self.pending) * self.config.batch_size)
            self.newest = {**numbers, "waiting": rates["input_share"]}
            self.log.scalars(number, {**numbers, **rates})
        self.pending.clear()

    def _save_in_time(self) -> None:
        """Saves within an epoch, if that was not done for long and costs no waiting."""
        due = time.monotonic() - self.saved >= self.training.save_seconds
        if due and (self.writer.idle or not self.training.save_seconds):
            self._save(self.state)

    def _save(self, state: checkpoint.State, history: list[dict[str, Any]] | None = None) -> None:
        """Begins to write the variables as they are now."""
        self._read({})
        self.log.flush()
        self.saved = time.monotonic()
        if not self.distribution.chief:
            return
        self.step.write()
        variables = checkpoint.named_variables(self.recipe, step_state=self.step.state)
        # A copy: steps go on, and add to these, while the writer still writes.
        state = dataclasses.replace(state, means=dict(self.means.sums))
        self.writer.write(checkpoint.snapshot(variables), state, history)

    def _better(self, ended: checkpoint.Kept, scored: Evaluation | None) -> checkpoint.Kept | None:
        """The best checkpoint so far, by the metric that the recipe or the paper decides on."""
        best = self.state.best
        if scored is None or self.criterion is None:
            return best
        metric, lowest = self.criterion
        value = scored.numbers.get(metric)
        if value is None or not math.isfinite(value):
            return best
        if best is not None and not (value < best.value if lowest else value > best.value):
            return best
        return dataclasses.replace(ended, metric=metric, value=value)


def _criterion(recipe: Recipe, model: str) -> tuple[str, bool] | None:
    """The metric that says which checkpoint is the best, and whether less of it is better."""
    if recipe.best_by:
        return recipe.best_by, recipe.lowest_is_best
    published = load_paper(model).results
    return (published[0].metric, not published[0].higher_is_better) if published else None


class _Means:
    """Means of logged scalars over an epoch.

    Args:
        sums: logged scalar -> sum and count so far, of an epoch that was cut short.
    """

    def __init__(self, sums: Mapping[str, tuple[float, int]]):
        self.sums = dict(sums)

    def add(self, numbers: Mapping[str, float]) -> None:
        for name, value in numbers.items():
            total, count = self.sums.get(name, (0.0, 0))
            self.sums[name] = (total + value, count + 1)

    def result(self) -> dict[str, float]:
        return {name: total / count for name, (total, count) in self.sums.items()}


class _Requests:
    """Signals that ask the process to end: noted when they come, answered between two steps.

    SIGTERM ends with TryAgain, Ctrl-C with KeyboardInterrupt; a second Ctrl-C does not wait. Where
    several processes share the batches, all of them end at the same step.

    Args:
        distribution: knows the other processes.
    """

    AGREE_EVERY = 20
    """Steps between two questions to the other processes (ours): each waits for all of them."""

    def __init__(self, distribution: Any):
        self.distribution = distribution
        self.signal: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Requests:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                # Who was told to ignore a signal goes on ignoring it.
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.signal is not None:
            raise KeyboardInterrupt
        self.signal = number

    def check(self, step: int | None = None) -> None:
        """Raises if the process, or another one that trains with it, was asked to end.

        Args:
            step: how many steps were taken; None between steps, where the others do other things.
        """
        asked = self.signal is not None
        if self.distribution.processes > 1:
            if step is None or step % self.AGREE_EVERY:
                return
            asked = self.distribution.agree(asked)
        if asked:
            raise _Stop

    def answer(self, message: str) -> None:
        """Raises what the caller of the training is to see."""
        if self.signal == signal.SIGINT:
            print(message, file=sys.stderr, flush=True)
            raise KeyboardInterrupt
        raise TryAgain(message)


def _begin(state: checkpoint.State, initial: str | Path, recipe: Recipe) -> checkpoint.State:
    """Gives the recipe's networks their first values; returns the state that says so."""
    source, afresh = checkpoint.begin_from(initial, recipe)
    begun = f"It began with networks of {source.model} after {source.step:,} steps"
    if afresh:
        more = f" and {len(afresh) - 3} more" if len(afresh) > 3 else ""
        begun += f", but for {', '.join(afresh[:3])}{more}"
    print(f"{begun}.", file=sys.stderr, flush=True)
    return dataclasses.replace(state, origin=f"{state.origin} {begun}.", initial=source.sha256)


def _gone_on(state: checkpoint.State, training: Training) -> checkpoint.State:
    """The state of a training that was cut short, as it is carried out from now on."""
    used = f"the {keras.backend.backend()} backend"
    origin = state.origin
    if used not in origin:
        origin += f" After {state.step:,} steps it went on with {used}."
    return dataclasses.replace(state, origin=origin, training=dataclasses.asdict(training))


def _learning_rates(recipe: Recipe) -> dict[str, float]:
    return {
        f"learning_rate/{update.loss.__name__}/{name}": float(
            keras.ops.convert_to_numpy(optimizer.learning_rate)
        )
        for update in recipe.updates
        for name, optimizer in update.optimizers.items()
    }


def _batches(dataset: Any) -> Any:
    """Batches in the form the backend takes fastest: its own tensors, or NumPy arrays."""
    on_tensorflow = keras.backend.backend() == "tensorflow"
    return iter(dataset) if on_tensorflow else dataset.as_numpy_iterator()


def _check_same(old: checkpoint.State, new: checkpoint.State) -> None:
    if old.model != new.model:
        raise UserError(
            f"The folder's checkpoint must be of {new.model}; it is of {old.model}. Choose another "
            "folder."
        )
    if old.initial != new.initial:
        raise UserError(
            "A training goes on only with the checkpoint that it began with; that was "
            f"{old.initial[:12] or 'none'}, and now it is {new.initial[:12] or 'none'}. Choose "
            "another folder."
        )
    before = checkpoint.jsonable(old.config)
    now = checkpoint.jsonable(new.config)
    for name in DECISIVE:
        if name in old.training:
            before[name], now[name] = old.training[name], new.training[name]
    changed = [k for k in now if before.get(k) != now[k]]
    if changed:
        changes = ", ".join(f"{k} {before.get(k)} -> {now[k]}" for k in changed)
        raise UserError(
            f"A training goes on only with the settings it began with; changed: {changes}. "
            "Choose another folder."
        )
