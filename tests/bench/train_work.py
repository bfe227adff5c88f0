"""What `make bench-train` measures, each in a process of its own: our engine, bare loops, Keras.

    python -m tests.bench.train_work KIND MODEL STEPS [EXAMPLES]

KERAS_BACKEND decides on the backend. Prints a line when it is ready; then reads a line for each
turn, takes STEPS training steps, and prints the seconds that they took, and the processor's.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import io
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from tests.bench import train_plain
from trainer import backend
from trainer.catalog import load_config, load_recipe, model_part
from trainer.engine import checkpoint
from trainer.recipe import Recipe

Turn = Callable[[], None]
"""Takes the steps of one turn, and returns when the last one has ended."""

MANY = 10**6  # epochs; no turn sees the last one


def config_of(model: str, **more: Any) -> Any:
    """The Config that a model is measured with."""
    return dataclasses.replace(
        load_config(model), **{**train_plain.players_of(model).SETTINGS, **more}
    )


def batch_of(model: str, config: Any, recipe: Recipe) -> dict[str, np.ndarray]:
    """One batch of invented examples, as a training gets it."""
    random = np.random.default_rng(0)
    noise = {
        name: random.standard_normal((config.batch_size, *shape), np.float32)
        for name, shape in recipe.noise.items()
    }
    return {**train_plain.players_of(model).examples(config, random), **noise}


def weights_of(recipe: Recipe) -> dict[str, np.ndarray]:
    """Where a recipe's networks begin, for loops that know no Keras."""
    named = checkpoint.named_variables(recipe, networks_only=True)
    return {
        name.removeprefix("networks/"): np.array(keras.ops.convert_to_numpy(variable))
        for name, variable in named.items()
    }


def on_device(batch: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """A batch in the form in which the engine gets it from tf.data."""
    if keras.backend.backend() == "tensorflow":
        return {name: tf.constant(value) for name, value in batch.items()}
    return dict(batch)


def ours(model: str, steps: int) -> Turn:
    """Our step, on one batch again and again."""
    config = config_of(model)
    recipe = load_recipe(model)(config)
    step = backend.current().TrainStep(recipe)
    batch = on_device(batch_of(model, config, recipe))
    taken = iter(range(MANY))

    def turn() -> None:
        for _ in range(steps):
            logs = step(next(taken), batch)
        finish(logs.values())

    return turn


def bare(model: str, steps: int, fused: bool = False) -> Turn:
    """A loop written by hand, on the same batch."""
    config = config_of(model)
    recipe = load_recipe(model)(config)
    step = bare_step(model, config, recipe, fused)
    batch = on_device(batch_of(model, config, recipe))

    def turn() -> None:
        for _ in range(steps):
            losses = step(batch)
        finish(losses)

    return turn


def bare_step(model: str, config: Any, recipe: Recipe, fused: bool = False) -> train_plain.Step:
    """The compiled step of a model's players, in plain TensorFlow or plain JAX."""
    name = f"tests.bench.train_plain_{keras.backend.backend()}"
    operations = importlib.import_module(name)
    players = train_plain.players_of(model).players(config)
    more = {"fused": fused} if keras.backend.backend() == "tensorflow" else {}
    step: train_plain.Step = operations.compile_step(
        players, weights_of(recipe), operations, **more
    )
    return step


def fit(model: str, steps: int, layers: str = "ours") -> Turn:
    """`keras.Model.fit` of the same network, on the same batch.

    Args:
        model: autoencoder or regnety.
        steps: in a turn.
        layers: of RegNetY: ours; "split", Keras's with a convolution for each group; or "keras".
    """
    from tests.bench import keras_regnety

    config = config_of(model)
    recipe = load_recipe(model)(config)
    batch = batch_of(model, config, recipe)
    (network,) = recipe.networks.values()
    (optimizer,) = recipe.updates[0].optimizers.values()
    if model == "autoencoder":
        network = keras.Model(network.input, network.output["logit"])
        pairs = (batch["image"], batch["image"])
        loss: Any = keras.losses.BinaryCrossentropy(from_logits=True)
    else:
        network = keras_regnety.with_layers(network, layers)
        optimizer = keras.optimizers.SGD(
            optimizer.learning_rate, momentum=config.momentum, nesterov=True, weight_decay=5e-5
        )
        pairs = (batch["image"] / 255.0, batch["label"])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(optimizer, loss)
    data = tf.data.Dataset.from_tensors(pairs).cache().repeat().prefetch(2)

    def turn() -> None:
        network.fit(data, epochs=1, steps_per_epoch=steps, verbose=0)

    return turn


def finish(values: Any) -> None:
    """Waits until numbers are there."""
    for value in values:
        float(value)


class Turns:
    """The turns of a training that goes on without knowing of them, taken where it takes a step.

    Args:
        name: what to say when it is ready.
        steps: in a turn.
    """

    def __init__(self, name: str, steps: int):
        self.steps = steps
        self._answers = sys.stdout
        sys.stdout = sys.stderr  # whatever a library may have to say
        self._tell(name)
        self._taken = 0
        self._last: Any = ()
        self._began, self._used = 0.0, 0.0

    def before(self) -> None:
        """A step is about to be taken; ends the turn, and waits for the next, if it is time."""
        if self._taken % self.steps == 0:
            if self._taken:
                finish(self._last)
                seconds = time.perf_counter() - self._began
                self._tell(f"{seconds} {time.process_time() - self._used}")
            if not sys.stdin.readline():
                raise SystemExit
            self._began, self._used = time.perf_counter(), time.process_time()
        self._taken += 1

    def after(self, results: Any) -> None:
        """The step has given its results, which need not be ready."""
        self._last = results

    def _tell(self, line: str) -> None:
        self._answers.write(f"{line}\n")
        self._answers.flush()


@contextlib.contextmanager
def in_turns(turns: Turns) -> Iterator[None]:
    """Makes every training take its steps in turns."""
    module = backend.current()
    original = module.TrainStep

    class InTurns(original):
        def __call__(self, step: int, batch: Any) -> Any:
            turns.before()
            logs = super().__call__(step, batch)
            turns.after(logs.values())
            return logs

    module.TrainStep = InTurns
    try:
        yield
    finally:
        module.TrainStep = original


def our_loop(model: str, steps: int, examples: Path) -> None:
    """Our whole loop: reading, augmenting, stepping, logging, saving every minute."""
    from trainer.engine.train import train

    config = config_of(model, epochs=MANY)
    turns = Turns(version(), steps)
    with tempfile.TemporaryDirectory(prefix="paper2hub-bench-") as folder, in_turns(turns):
        place = Path(folder)
        train(model, config, examples, place / "checkpoint", logs=place / "logs")


def bare_loop(model: str, steps: int, examples: Path) -> None:
    """A loop written by hand that reads the same records, and does nothing but step."""
    config = config_of(model, epochs=MANY)
    recipe = load_recipe(model)(config)
    step = bare_step(model, config, recipe)
    turns = Turns(version(), steps)
    batches = records(model, config, recipe, examples)
    native = keras.backend.backend() == "tensorflow"
    for batch in batches if native else batches.as_numpy_iterator():
        turns.before()
        turns.after(step(batch))


def records(model: str, config: Any, recipe: Recipe, examples: Path) -> tf.data.Dataset:
    """Batches of a model's records, in another order each epoch, as one would write it in a day."""
    from trainer.data.manifest import read_manifest

    manifest = read_manifest(examples)
    columns: dict[str, Any] = {}
    raw: dict[str, Any] = {}
    for name, feature in manifest.features_of("train").items():
        if feature.encoding == "raw":
            columns[name] = tf.io.FixedLenFeature((), tf.string)
            raw[name] = feature
        elif feature.dtype != "bytes" or name == "image":
            dtype = {"bytes": tf.string, "int64": tf.int64, "float32": tf.float32}[feature.dtype]
            columns[name] = tf.io.FixedLenFeature(feature.shape, dtype)
    augment = getattr(model_part(model, "data"), "augment", None)
    random = tf.random.Generator.from_seed(0)

    def parse(serialised: Any) -> dict[str, Any]:
        batch = dict(tf.io.parse_example(serialised, columns))
        for name, feature in raw.items():
            values = tf.io.decode_raw(batch[name], feature.dtype)
            batch[name] = tf.reshape(values, (config.batch_size, *feature.shape))
        return batch

    def augmented(number: Any, serialised: Any) -> dict[str, Any]:
        example = dict(tf.io.parse_single_example(serialised, columns))
        return dict(augment(example, tf.stack([0, tf.cast(number, tf.int32)]), config))

    def noisy(batch: dict[str, Any]) -> dict[str, Any]:
        noise = {n: random.normal((config.batch_size, *s)) for n, s in recipe.noise.items()}
        return {**batch, **noise}

    files = [str(path) for path in manifest.files(examples, "train")]
    data = tf.data.TFRecordDataset(files).cache().shuffle(16_384).repeat()
    if augment is None:
        data = data.batch(config.batch_size).map(parse, tf.data.AUTOTUNE)
    else:
        data = data.enumerate().map(augmented, tf.data.AUTOTUNE).batch(config.batch_size)
    if recipe.noise:
        data = data.map(noisy, tf.data.AUTOTUNE)
    return data.prefetch(tf.data.AUTOTUNE)


def version() -> str:
    """Who is at work."""
    on = {"tensorflow": f"TensorFlow {tf.__version__}"}
    name = keras.backend.backend()
    return on.get(name) or f"{name} {importlib.import_module(name).__version__}"


KINDS: dict[str, Callable[[str, int], Turn]] = {
    "ours": ours,
    "bare": bare,
    "bare_fused": functools.partial(bare, fused=True),
    "fit": fit,
    "fit_split": functools.partial(fit, layers="split"),
    "fit_keras": functools.partial(fit, layers="keras"),
}
LOOPS: dict[str, Callable[[str, int, Path], None]] = {
    "our_loop": our_loop,
    "bare_loop": bare_loop,
}


def main(kind: str, model: str, steps: str, examples: str = "") -> None:
    """Takes turns until there are no more."""
    if kind in LOOPS:
        LOOPS[kind](model, int(steps), Path(examples))
        return
    with contextlib.redirect_stdout(io.StringIO()):
        turn = KINDS[kind](model, int(steps))
    turns = Turns(version(), 1)
    while True:
        turns.before()
        turn()


if __name__ == "__main__":
    main(*sys.argv[1:])
