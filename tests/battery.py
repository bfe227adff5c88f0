"""What every model must do on either backend: checks that a test runs here and on the other one.

    KERAS_BACKEND=jax python -m tests.battery MODEL EXAMPLES FOLDER

MODEL is tried with its TINY config on EXAMPLES, transformed ones. FOLDER holds what `store` has
written; `findings.json` joins it, and for each precision the checkpoint that was trained there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras.src.backend.common import dtypes

from trainer import backend
from trainer.artifact import read_json, write_json
from trainer.catalog import load_recipe, model_part
from trainer.data.manifest import read_manifest
from trainer.engine import checkpoint
from trainer.engine.evaluate import compile_predict
from trainer.engine.input import Split, training_split
from trainer.engine.train import train
from trainer.recipe import Recipe, Update
from trainer.training import Training

PRECISIONS = ("float32", "float64")
STEPS = 20
"""How many losses of a model are compared between backends."""

LEARNING_STEPS = 30
HALF_PRECISION = 0.05
"""How far losses may be apart, relative to the loss or 1: bfloat16 keeps 8 bits, 0.4 %, of each
number (IEEE 754's single precision cut to 16 bits), and networks have a dozen layers."""

STANDARD_NORMAL = 5.0
"""Standard errors that a mean of noise may be from 0, and a mean of its squares from 1."""


@dataclasses.dataclass(frozen=True)
class Subject:
    """A model that is tried.

    Attributes:
        model: its name.
        examples: folder of transformed examples.
        folder: for what checks write.
    """

    model: str
    examples: Path
    folder: Path

    def tiny(self, **changes: Any) -> tuple[Any, Recipe]:
        """The model's TINY config with changes, and its recipe."""
        config = dataclasses.replace(model_part(self.model, "config").TINY, **changes)
        return config, load_recipe(self.model)(config)

    def batches(self, config: Any, recipe: Recipe) -> Iterator[dict[str, np.ndarray]]:
        """The batches that a training sees, epoch after epoch, without end."""
        augment = getattr(model_part(self.model, "data"), "augment", None)
        split = training_split(self.model, self.examples)
        for epoch in itertools.count():
            yield from split.shuffled(
                config.batch_size,
                config.seed,
                epoch,
                augment and (lambda example, seed: augment(example, seed, config)),
                recipe.noise,
            ).as_numpy_iterator()

    def evaluated(self, recipe: Recipe, count: int) -> dict[str, np.ndarray]:
        """The first examples of the evaluation split, numbers only, with noise."""
        split = Split(self.examples, read_manifest(self.examples).evaluation_split)
        first = next(split.in_order(count, recipe.noise))
        return {name: value for name, value in first.items() if value.dtype != object}


Check = Callable[[Subject], list[str]]


def three_steps_move_what_they_name(subject: Subject) -> list[str]:
    """Each update alone, in float64, where small moves show; losses stay finite."""
    faults = []
    with computing_in("float64"):
        config, recipe = subject.tiny()
        batch = in_precision("float64", next(subject.batches(config, recipe)))
        for update in recipe.updates:
            name = update.loss.__name__
            step, seen = alone(recipe, update, batch)
            before = {n: values(network) for n, network in recipe.networks.items()}
            # The warm-up of a schedule may begin at 0, where nothing moves.
            for number in range(3):
                faults += not_finite(step(number * update.every, seen), f"{name} alone")
            step.write()
            for network, old in before.items():
                new = values(recipe.networks[network])
                moved = [not np.array_equal(old[path], new[path]) for path in old]
                if network in update.optimizers and not all(moved):
                    still = [path for path, m in zip(old, moved, strict=True) if not m]
                    faults.append(f"{name} leaves {', '.join(still)} of {network} still")
                if network not in update.optimizers and any(moved):
                    faults.append(f"{name} moves {network}")
    return faults


def three_steps_are_finite_and_move_seeds(subject: Subject) -> list[str]:
    """The updates together, each with what those before it hand on; every seed moves each time."""
    faults = []
    config, recipe = subject.tiny()
    step = backend.current().TrainStep(recipe)
    for number, batch in enumerate(itertools.islice(subject.batches(config, recipe), 3)):
        before = seeds(recipe)
        logs = step(number, batch)
        step.write()
        faults += not_finite(logs, f"step {number}")
        due = {u.loss.__name__ for u in recipe.updates if number % u.every == 0}
        faults += [f"step {number} does not log {name}" for name in sorted(due - set(logs))]
        for i, (old, new) in enumerate(zip(before, seeds(recipe), strict=True)):
            if np.array_equal(old, new):
                faults.append(f"step {number} leaves seed {i} still")
    return faults


def half_the_precision_gives_nearly_the_same(subject: Subject) -> list[str]:
    """Networks that compute in bfloat16: weights and losses stay float32, and losses come close."""
    faults = []
    first = []
    for precision in ("float32", "mixed_bfloat16"):
        training = Training(precision=precision)
        distribution = backend.current().Distribution(training)
        with distribution.scope():
            config, recipe = subject.tiny()
            step = backend.current().TrainStep(recipe, training, distribution)
        logs = step(0, next(subject.batches(config, recipe)))
        faults += not_finite(logs, precision)
        named = checkpoint.named_variables(recipe, networks_only=True)
        dtypes_of = {**logs, **{name: variable.value for name, variable in named.items()}}
        for name, value in dtypes_of.items():
            dtype = keras.backend.standardize_dtype(value.dtype)
            if "float" in dtype and dtype != "float32":
                faults.append(f"{name} is {dtype} in {precision}")
        first.append(
            {update.loss.__name__: logs[update.loss.__name__] for update in recipe.updates}
        )
    for name, whole in first[0].items():
        gap = abs(float(first[1][name]) - float(whole))
        if gap > HALF_PRECISION * max(1.0, abs(float(whole))):
            faults.append(f"{name} differs by {gap} from {float(whole)} in bfloat16")
    return faults


def a_repeated_batch_is_learnt(subject: Subject) -> list[str]:
    """Each update alone lowers its loss on one batch; the networks it does not move hold still.

    Several players may drive each other's losses up, but none may fail to learn from others that
    wait.
    """
    faults = []
    # So many epochs that no schedule of the learning rate is over before the last step.
    config, recipe = subject.tiny(epochs=LEARNING_STEPS)
    batch = next(subject.batches(config, recipe))
    for update in recipe.updates:
        name = update.loss.__name__
        step, seen = alone(recipe, update, batch)
        course = [float(step(n * update.every, seen)[name]) for n in range(LEARNING_STEPS)]
        first, last = course[:5], course[-5:]
        if not np.mean(last) < np.mean(first):
            faults.append(f"{name} went from {first} to {last} on one batch")
    return faults


def successive_steps_draw_different_noise(subject: Subject) -> list[str]:
    """It is standard normal, and never the same: not in two steps, examples or names."""
    config, recipe = subject.tiny()
    first, second = itertools.islice(subject.batches(config, recipe), 2)
    drawn: dict[str, np.ndarray] = {}
    faults = []
    for name, shape in recipe.noise.items():
        wanted = (config.batch_size, *shape)
        for which, batch in (("first", first), ("second", second)):
            noise = drawn[f"{name} of the {which} step"] = batch[name]
            if noise.shape != wanted or noise.dtype != np.float32:
                faults.append(f"{name} must be float32 {wanted}; it is {noise.dtype} {noise.shape}")
            for example, other in itertools.pairwise(noise):
                if np.array_equal(example, other):
                    faults.append(f"two examples of the {which} step have the same {name}")
        both = np.stack([first[name], second[name]]).astype(np.float64)
        error = STANDARD_NORMAL / np.sqrt(both.size)
        # The variance of the square of a standard normal variable is 2.
        if abs(both.mean()) > error or abs(np.square(both).mean() - 1.0) > np.sqrt(2.0) * error:
            faults.append(f"{name} is not standard normal: {both.mean()}, {both.std()}")
    for (one, a), (other, b) in itertools.combinations(drawn.items(), 2):
        if a.shape == b.shape and np.array_equal(a, b):
            faults.append(f"{one} is also {other}")
    return faults


def predictions_depend_on_noise(subject: Subject) -> list[str]:
    """Noise that an evaluation draws is fixed; what is predicted follows from it."""
    _, recipe = subject.tiny()
    batch, again = (subject.evaluated(recipe, 4) for _ in range(2))
    faults = [f"{name} differs" for name in batch if not np.array_equal(batch[name], again[name])]
    if faults or "noise" not in recipe.noise:
        return faults
    predict = compile_predict(recipe)
    other = {**batch, "noise": batch["noise"][::-1]}
    wanted, got = predict(batch), predict(other)
    if all(np.array_equal(wanted[name], got[name]) for name in wanted):
        faults.append("other noise predicts the same")
    return faults


def a_training_cut_short_within_an_epoch_ends_as_if_it_were_not(subject: Subject) -> list[str]:
    """Stopped in the middle of its last epoch and called again, it leaves the same files."""
    config = model_part(subject.model, "config").TINY
    of_an_epoch = training_split(subject.model, subject.examples).examples // config.batch_size
    steps = config.epochs * of_an_epoch
    stop = steps - (of_an_epoch + 1) // 2
    training = Training(save_seconds=0.0)
    whole, parts = subject.folder / "whole", subject.folder / "parts"
    with stopped_at(stop), contextlib.suppress(Stopped):
        train(subject.model, config, subject.examples, parts, training)
        return [f"it must have been stopped at step {stop}"]
    reached = checkpoint.read_state(parts).step
    faults = []
    if not steps - of_an_epoch < reached <= stop:
        faults.append(f"stopped at step {stop}, it went back to step {reached}")
    for folder in (parts, whole):
        state = train(subject.model, config, subject.examples, folder, training)
        if state.step != steps:
            faults.append(f"a training must take {steps} steps; it took {state.step}")
    wanted, found = digests(whole), digests(parts)
    return faults + [
        f"{name} differs" for name in sorted(wanted | found) if wanted.get(name) != found.get(name)
    ]


CHECKS: dict[str, Check] = {
    check.__name__: check
    for check in (
        three_steps_move_what_they_name,
        three_steps_are_finite_and_move_seeds,
        half_the_precision_gives_nearly_the_same,
        a_repeated_batch_is_learnt,
        successive_steps_draw_different_noise,
        predictions_depend_on_noise,
        a_training_cut_short_within_an_epoch_ends_as_if_it_were_not,
    )
}


class Stopped(Exception):
    """A training was stopped."""


@contextlib.contextmanager
def stopped_at(stop: int) -> Iterator[None]:
    """Lets no training take step `stop`, counted from 0."""
    module = backend.current()
    original = module.TrainStep

    class Stopping(original):
        def __call__(self, step: int, batch: Any) -> Any:
            if step == stop:
                raise Stopped
            return super().__call__(step, batch)

    module.TrainStep = Stopping
    try:
        yield
    finally:
        module.TrainStep = original


def alone(recipe: Recipe, update: Update, batch: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """A step of one update, and a batch with the extras that those before it hand on."""
    seen = dict(batch)
    for earlier in itertools.takewhile(lambda u: u is not update, recipe.updates):
        result = earlier.loss(seen)
        if isinstance(result, tuple):
            seen |= {k: keras.ops.convert_to_numpy(v) for k, v in result[1].items()}
    return backend.current().TrainStep(dataclasses.replace(recipe, updates=[update])), seen


def values(network: keras.Model) -> dict[str, np.ndarray]:
    """Every trainable variable of a network by its path."""
    return {v.path: keras.ops.convert_to_numpy(v) for v in network.trainable_variables}


def seeds(recipe: Recipe) -> list[np.ndarray]:
    """The states of a recipe's seeds."""
    return [np.array(keras.ops.convert_to_numpy(seed.state)) for seed in recipe.seeds]


def not_finite(logs: Mapping[str, Any], where: str) -> list[str]:
    """A fault for each log that is NaN or infinite."""
    numbers = {name: float(value) for name, value in logs.items()}
    return [f"{where}: {name} is {n}" for name, n in numbers.items() if not np.isfinite(n)]


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, by its path in it."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def in_precision(precision: str, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A batch whose fractions have a precision."""
    return {k: v.astype(precision) if v.dtype.kind == "f" else v for k, v in batch.items()}


@contextlib.contextmanager
def computing_in(precision: str) -> Iterator[None]:
    """Makes Keras compute in float32 or float64; layers and constants made before keep theirs."""
    before = keras.config.floatx()
    _compute_in(precision)
    try:
        yield
    finally:
        _compute_in(before)


def _compute_in(precision: str) -> None:
    keras.config.set_floatx(precision)
    keras.config.set_dtype_policy(precision)
    if keras.backend.backend() == "jax":
        import jax

        jax.config.update("jax_enable_x64", precision == "float64")
        # On JAX, Keras promotes to float32 whatever it meets, JAX's own x64 notwithstanding.
        dtypes.BIT64_TO_BIT32_DTYPE["float64"] = precision


def steps_that_agree(model: str, precision: str) -> int:
    """How many losses of a model are equal on both backends.

    In float64 it is as many as are compared, whatever the network; in float32, as long as rounding
    errors stay small.
    """
    config = model_part(model, "config")
    if precision == "float32":
        return int(getattr(config, "STEPS_EQUAL_IN_FLOAT32", STEPS))
    return STEPS


def store(subject: Subject) -> dict[str, list[dict[str, float]]]:
    """Writes where a training begins and what batches it sees, and takes its steps here.

    Returns:
        Precision -> the logs of each step.
    """
    logs = {}
    for precision in PRECISIONS:
        folder = subject.folder / precision
        folder.mkdir()
        with computing_in(precision):
            count = steps_that_agree(subject.model, precision)
            # No schedule of the learning rate ends earlier.
            config, recipe = subject.tiny(epochs=STEPS)
            _round(recipe)
            stream = [
                in_precision(precision, batch)
                for batch in itertools.islice(subject.batches(config, recipe), count)
            ]
            arrays = {f"{i}/{k}": v for i, batch in enumerate(stream) for k, v in batch.items()}
            np.savez(folder / "batches.npz", **arrays)
            step = backend.current().TrainStep(recipe)
            state = checkpoint.State(
                subject.model, dataclasses.asdict(config), (), 0, 0, "", "", "", {}
            )
            checkpoint.save(folder, recipe, state)
            logs[precision] = _train(step, stream)
            checkpoint.save(folder / "here", recipe, dataclasses.replace(state, step=count))
    return logs


def retrace(subject: Subject) -> dict[str, list[dict[str, float]]]:
    """Begins where `store` began, takes the same steps, and saves what came of them.

    Beside the checkpoint, `predicted.npz` holds what the trained networks predict, and from what.

    Returns:
        Precision -> the logs of each step.
    """
    logs = {}
    for precision in PRECISIONS:
        folder = subject.folder / precision
        stored = np.load(folder / "batches.npz")
        numbers = sorted({int(name.partition("/")[0]) for name in stored.files})
        stream: list[dict[str, np.ndarray]] = [{} for _ in numbers]
        for name in stored.files:
            number, _, key = name.partition("/")
            stream[int(number)][key] = stored[name]
        with computing_in(precision):
            state = checkpoint.read_state(folder)
            recipe = load_recipe(subject.model)(state.load_config())
            _round(recipe)
            step = backend.current().TrainStep(recipe)
            checkpoint.restore(folder, recipe)
            step.read()
            logs[precision] = _train(step, stream)
            there = dataclasses.replace(state, step=len(stream))
            checkpoint.save(folder / "there", recipe, there)
            seen = in_precision(precision, subject.evaluated(recipe, 4))
            predicted = compile_predict(recipe)(seen)
        arrays = {f"batch/{k}": v for k, v in seen.items()}
        arrays |= {f"predicted/{k}": v for k, v in predicted.items()}
        np.savez(folder / "there" / "predicted.npz", **arrays)
    return logs


def _round(recipe: Recipe) -> None:
    """Gives optimizers numbers that float32 can hold.

    On TensorFlow, Keras rounds them to it before it widens them to float64; on JAX it does not, and
    1 - 0.999 would not be the same.
    """
    for update in recipe.updates:
        for optimizer in update.optimizers.values():
            for name in ("beta_1", "beta_2", "epsilon", "momentum", "rho", "weight_decay"):
                if isinstance(getattr(optimizer, name, None), float):
                    setattr(optimizer, name, float(np.float32(getattr(optimizer, name))))


def _train(step: Any, stream: list[dict[str, np.ndarray]]) -> list[dict[str, float]]:
    logs = [{k: float(v) for k, v in step(i, batch).items()} for i, batch in enumerate(stream)]
    step.write()
    return logs


def run(check: Check, subject: Subject) -> list[str]:
    """The faults that a check finds; an error is one."""
    try:
        return check(subject)
    except Exception:
        return [traceback.format_exc()]


def main(model: str, examples: str, folder: str) -> None:
    """Runs all checks and retraces what was stored."""
    subject = Subject(model, Path(examples), Path(folder))
    findings: dict[str, Any] = {"logs": retrace(subject)}
    for name, check in CHECKS.items():
        place = subject.folder / name
        place.mkdir()
        findings[name] = run(check, dataclasses.replace(subject, folder=place))
    write_json(subject.folder / "findings.json", findings)


def read_findings(folder: Path) -> dict[str, Any]:
    """What `main` has found."""
    findings: dict[str, Any] = read_json(folder / "findings.json")
    return findings


if __name__ == "__main__":
    main(*sys.argv[1:])
