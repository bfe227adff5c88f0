"""Our RegNetY-200MF on TensorFlow, with our layers or others.

python -m tests.bench.keras_regnety ours|grouped|split|keras
"""

from __future__ import annotations

import os
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from tests.bench import workload
from trainer import backend
from trainer.layers.grouped_convolution import GroupedConv2D
from trainer.models.regnety.config import Config
from trainer.models.regnety.recipe import build_regnety
from trainer.recipe import Recipe, Update


class SplitConv2D(GroupedConv2D):
    """One convolution per group, whatever the shape."""

    def convolution_op(self, inputs, kernel):
        """The grouped convolution alone."""
        parts = zip(
            ops.split(inputs, self.groups, axis=-1),
            ops.split(kernel, self.groups, axis=-1),
            strict=True,
        )
        convolution_op = keras.layers.Conv2D.convolution_op
        return ops.concatenate([convolution_op(self, *part) for part in parts], axis=-1)


def with_layers(network: keras.Model, layers: str) -> keras.Model:
    """A network like RegNetY's with other layers.

    Args:
        network: with our layers.
        layers: "ours"; "grouped", with one convolution for each group instead of ours; "split",
            the same and otherwise Keras's own layers; or "keras", nothing but Keras's own.
    """

    def replace(layer):
        if layers in ("grouped", "split") and isinstance(layer, GroupedConv2D):
            return SplitConv2D.from_config(layer.get_config())
        if layers in ("split", "keras") and hasattr(layer, "as_keras_layer"):
            return layer.as_keras_layer()
        return layer.__class__.from_config(layer.get_config())

    return keras.models.clone_model(network, clone_function=replace)


def build_recipe(layers: str) -> Recipe:
    """RegNetY-200MF trained as the PyTorch peer is: cross-entropy, SGD with Nesterov momentum."""
    config = Config(variant="200MF", image_size=workload.IMAGE_SIZE, num_classes=workload.CLASSES)
    network = with_layers(build_regnety(config), layers)

    def loss(batch):
        logit = network(batch["image"], training=True)
        label = batch["label"]
        return ops.mean(ops.sparse_categorical_crossentropy(label, logit, from_logits=True))

    optimizer = keras.optimizers.SGD(
        workload.LEARNING_RATE,
        momentum=workload.MOMENTUM,
        nesterov=True,
        weight_decay=workload.WEIGHT_DECAY,
    )
    return Recipe(
        networks={"regnety": network},
        updates=[Update(loss, {"regnety": optimizer})],
        predict=lambda batch: {"logit": network(batch["image"], training=False)},
        signatures={},
    )


def main(layers: str) -> None:
    """Trains on random pictures as often as it is asked to."""
    tf.config.threading.set_intra_op_parallelism_threads(workload.THREADS)
    tf.config.threading.set_inter_op_parallelism_threads(workload.THREADS)
    step = backend.current().TrainStep(build_recipe(layers))
    random = np.random.default_rng(0)
    shape = (workload.BATCH_SIZE, workload.IMAGE_SIZE, workload.IMAGE_SIZE, 3)
    batch = {
        "image": tf.constant(random.random(shape, np.float32)),
        "label": tf.constant(random.integers(0, workload.CLASSES, workload.BATCH_SIZE)),
    }

    def train(steps: int) -> None:
        for i in range(steps):
            logs = step(i, batch)
        for value in logs.values():
            float(value)  # wait for the last step

    workload.answer(f"Keras {keras.__version__} on TensorFlow {tf.__version__}", train)


if __name__ == "__main__":
    main(sys.argv[1])
