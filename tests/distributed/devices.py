"""Trains a model on one device and on two, and prints the losses of both.

    KERAS_BACKEND=jax python -m tests.distributed.devices MODEL EXAMPLES

It computes in float32, or in float64 where the model's rounding errors grow from step to step. The
last line is a JSON list: the logs of each step on one device, and on two.
"""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path

import keras

from tests.battery import Subject, computing_in, in_precision, steps_that_agree
from trainer import backend
from trainer.training import Training

STEPS = 5
DEVICES = (1, 2)


def make_two_processors() -> None:
    """Lets TensorFlow take the processor for two devices; JAX is told so by XLA_FLAGS."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        processor = tf.config.list_physical_devices("CPU")[0]
        halves = [tf.config.LogicalDeviceConfiguration()] * max(DEVICES)
        tf.config.set_logical_device_configuration(processor, halves)


def course(subject: Subject, precision: str, devices: int) -> list[dict[str, float]]:
    """The logs of some steps of a training that begins with the model's seed."""
    training = Training(devices=devices)
    with computing_in(precision):
        distribution = backend.current().Distribution(training)
        with distribution.scope():
            config, recipe = subject.tiny(epochs=STEPS)
            step = backend.current().TrainStep(recipe, training, distribution)
        batches = itertools.islice(subject.batches(config, recipe), STEPS)
        logs = [step(i, in_precision(precision, batch)) for i, batch in enumerate(batches)]
        return [{name: float(value) for name, value in log.items()} for log in logs]


def main(model: str, examples: str) -> None:
    """Trains on one device and on two."""
    make_two_processors()
    subject = Subject(model, Path(examples), Path())
    precision = "float32" if steps_that_agree(model, "float32") >= STEPS else "float64"
    print(json.dumps([course(subject, precision, devices) for devices in DEVICES]))


if __name__ == "__main__":
    main(*sys.argv[1:])
