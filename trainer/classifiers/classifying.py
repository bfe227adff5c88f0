"""Recipes of networks that name the class of a picture."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
from keras import ops

from trainer.metrics.classification import Classification, predictions
from trainer.recipe import Metric, Recipe, Signature, Update


def classifying(
    config: Any,
    network: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    normalise: Callable[[Any], Any],
    penalty: Callable[[], Any],
    *,
    metrics: Sequence[Callable[[], Metric]] = (),
    statistics_examples: int = 0,
) -> Recipe:
    """The recipe of one network and one loss: cross-entropy, and a penalty on the weights.

    Args:
        config: with `image_size`.
        network: maps normalised pictures to logits [batch, classes]; its name is its key.
        optimizer: moves it.
        normalise: maps pictures [batch, height, width, 3], RGB in [0, 255], any dtype, to what the
            network expects.
        penalty: what joins the cross-entropy, a scalar.
        metrics: what is measured besides accuracy, after it.
        statistics_examples: see `trainer.recipe.Recipe`.
    """

    def logit_of(image, training):
        # Whatever the network computes in: a softmax of a thousand classes needs the precision.
        return ops.cast(network(normalise(image), training=training), keras.config.floatx())

    def loss(batch):
        logit = logit_of(batch["image"], training=True)
        label = batch["label"]
        cross_entropy = ops.mean(
            ops.sparse_categorical_crossentropy(label, logit, from_logits=True)
        )
        hit = ops.cast(ops.equal(ops.argmax(logit, axis=-1), label), "float32")
        return cross_entropy + penalty(), {
            "cross_entropy": cross_entropy,
            "training_accuracy": ops.mean(hit),
        }

    def classify(image):
        return {"probability": ops.softmax(logit_of(image, training=False))}

    size = config.image_size
    return Recipe(
        networks={network.name: network},
        updates=[Update(loss, {network.name: optimizer})],
        predict=lambda batch: classify(batch["image"]),
        metrics=lambda class_names: [
            Classification(class_names),
            *(metric() for metric in metrics),
        ],
        signatures={
            "classify": Signature(
                classify,
                {"image": keras.KerasTensor((None, size, size, 3))},
                "An RGB picture with values in [0, 255], and out comes the `probability` of each "
                "class, in the order of `class_names`.",
            )
        },
        panels=predictions,
        statistics_examples=statistics_examples,
    )


def weight_decay(values: Iterable[Any], decay: float) -> Any:
    """The loss that decays weights as PyTorch's optimizers do.

    They add a weight times the decay to its gradient, which is L2 with half of the decay.
    """
    squares = [ops.sum(ops.square(value)) for value in values]
    return 0.5 * decay * ops.sum(ops.stack(squares))
