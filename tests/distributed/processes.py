"""One process of a training that TF_CONFIG spreads over several, or the only one.

    TF_CONFIG=… KERAS_BACKEND=jax python -m tests.distributed.processes STEPS

The last line it prints is a JSON object: the logs of each step, the votes and the values of all
variables at the end. It ends as a step of a pipeline does, with 75 where another attempt may help.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable

import keras
import numpy as np
from keras import ops

from trainer import backend
from trainer.errors import TryAgain, UserError
from trainer.layers.batch_normalization import BatchNormalization
from trainer.recipe import Recipe, Update
from trainer.training import Training

EXAMPLES = 8


def recipe() -> Recipe:
    """Two players with statistics of the batch, clipped gradients and moving averages."""
    seeds = iter(range(100))

    def dense(units: int, name: str) -> keras.layers.Layer:
        initializer = keras.initializers.HeNormal(next(seeds))
        return keras.layers.Dense(units, kernel_initializer=initializer, name=name)

    picture = keras.layers.Reshape((2, 2, 3), name="picture")
    maker = keras.Sequential(
        [
            keras.Input((3,)),
            dense(12, "spread"),
            picture,
            BatchNormalization(name="norm"),
            keras.layers.Flatten(name="flat"),
            dense(3, "make"),
        ],
        name="maker",
    )
    judge = keras.Sequential([keras.Input((3,)), dense(8, "look"), dense(1, "say")], name="judge")

    def maker_loss(batch):
        made = maker(batch["x"], training=True)
        return ops.mean(ops.square(made - batch["x"])), {"made": ops.stop_gradient(made)}

    def judge_loss(batch):
        return ops.mean(ops.square(judge(batch["made"]) - batch["y"]))

    def adam() -> keras.optimizers.Optimizer:
        return keras.optimizers.Adam(0.05, use_ema=True, ema_momentum=0.9)

    return Recipe(
        {"maker": maker, "judge": judge},
        [
            Update(maker_loss, {"maker": adam()}, clip_norm=0.5),
            Update(judge_loss, {"judge": adam()}, clip_norm=0.5),
        ],
        lambda batch: batch,
        {},
    )


def batch(number: int, process: int, processes: int) -> dict[str, np.ndarray]:
    """This process's examples of a batch."""
    random = np.random.default_rng(number)
    x = random.standard_normal((EXAMPLES, 3)).astype("float32")
    size = EXAMPLES // processes
    own = slice(process * size, (process + 1) * size)
    return {"x": x[own], "y": x[own].sum(axis=1, keepdims=True)}


def train(steps: int, wait: float, accident: Callable[[int, int], None]) -> dict[str, object]:
    """Takes the steps; says what came of them."""
    training = Training()
    keras.utils.set_random_seed(0)  # as the engine does, before the processes meet
    distribution = backend.current().Distribution(training)
    with distribution.scope():
        made = recipe()
        step = backend.current().TrainStep(made, training, distribution)
    logs, votes = [], []
    with distribution.guarded():
        for number in range(steps):
            accident(number, distribution.process)
            if number == 1 and distribution.chief:
                time.sleep(wait)
            part = batch(number, distribution.process, distribution.processes)
            logs.append({name: float(value) for name, value in step(number, part).items()})
            votes.append(distribution.agree(number == distribution.process))
        step.write()
    owners = [*made.networks.values(), *(o for u in made.updates for o in u.optimizers.values())]
    values = [np.asarray(ops.convert_to_numpy(v)) for owner in owners for v in owner.variables]
    return {"logs": logs, "votes": votes, "values": [value.tolist() for value in values]}


def main() -> int:
    """Trains; its result is the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("steps", type=int)
    parser.add_argument("--wait", type=float, default=0.0, help="the chief's pause after a step, s")
    parser.add_argument("--killed", type=int, help="process that is killed before step 2")
    parser.add_argument("--mistaken", type=int, help="process that ends with an error there")
    arguments = parser.parse_args()

    def accident(number: int, process: int) -> None:
        if number == 2 and process == arguments.killed:
            os.kill(os.getpid(), signal.SIGKILL)
        if number == 2 and process == arguments.mistaken:
            raise UserError("It must not be so.")

    with contextlib.redirect_stdout(sys.stderr):
        try:
            result = train(arguments.steps, arguments.wait, accident)
        except (TryAgain, UserError) as error:
            print(error)
            return error.exit_code
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
