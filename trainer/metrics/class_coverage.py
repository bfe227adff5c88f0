"""Whether a generator draws all classes, by a small network that learns to tell them apart."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from trainer.recipe import ConfusionMatrix

COVERED = 1.0
"""Share in percent from which on a class counts as drawn (ours)."""

NAMED_CLASSES = 20
"""With more classes than these, only the smallest share is named (ours)."""

WIDTHS = (32, 64, 128)  # ours: channels of the judge's convolutions
SMALLEST_MAP = 4  # ours: a convolution halves the maps only while they stay this large


def build_judge(shape: tuple[int, int, int], classes: int, seed: int) -> keras.Model:
    """A convolutional classifier that learns the classes of real pictures beside the players.

    Args:
        shape: height, width and channels of the pictures.
        classes: number of classes.
        seed: decides initial weights.

    Returns:
        Maps pictures [batch, *shape] in [-1, 1] to logits [batch, classes].
    """
    seeds = itertools.count(seed * 10_000 + 9_000)
    image = x = keras.Input(shape, name="image")
    for number, width in enumerate(WIDTHS):
        halve = min(x.shape[1:3]) >= 2 * SMALLEST_MAP - 1
        x = layers.Conv2D(
            width,
            3,
            strides=2 if halve else 1,
            padding="same",
            activation="relu",
            kernel_initializer=keras.initializers.HeNormal(seed=next(seeds)),
            name=f"convolution_{number}",
        )(x)
    x = layers.Flatten(name="values")(x)
    logit = layers.Dense(
        classes,
        kernel_initializer=keras.initializers.GlorotUniform(seed=next(seeds)),
        name="logit",
    )(x)
    return keras.Model(image, logit, name="judge")


def cross_entropy(judge: keras.Model, image: Any, label: Any) -> Any:
    """Cross-entropy of the judge on real pictures in [-1, 1], a scalar in nats."""
    logit = ops.cast(judge(image, training=True), keras.config.floatx())
    return ops.mean(ops.sparse_categorical_crossentropy(label, logit, from_logits=True))


class ClassCoverage:
    """How often each class is drawn, in percent, and how far the judge can be trusted.

    Reads `label` of the batch, integer [batch], and of the outputs `generated_probability` and
    `real_probability`, [batch, classes].

    Args:
        class_names: name of each class, by number.
    """

    def __init__(self, class_names: Sequence[str]):
        self.class_names = tuple(class_names)
        self._drawn = np.zeros(len(class_names), np.int64)
        self._confusion = np.zeros((len(class_names), len(class_names)), np.int64)

    def update(self, batch: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]) -> None:
        """Takes in one batch."""
        drawn = np.asarray(outputs["generated_probability"]).argmax(axis=1)
        np.add.at(self._drawn, drawn, 1)
        label = np.asarray(batch["label"]).astype(np.int64)
        found = np.asarray(outputs["real_probability"]).argmax(axis=1)
        np.add.at(self._confusion, (label, found), 1)

    def result(self) -> dict[str, float | ConfusionMatrix]:
        """The numbers below; and the judge's confusion matrix, of real pictures.

        `smallest_class_share`, `classes_covered` (those with a share of 1 % or more),
        `class_share_<name>` of up to 20 classes, and `judge_accuracy` on real pictures; all in
        percent but for the number of classes.
        """
        share = 100.0 * self._drawn / max(int(self._drawn.sum()), 1)
        numbers: dict[str, float | ConfusionMatrix] = {
            "smallest_class_share": float(share.min()),
            "classes_covered": float((share >= COVERED).sum()),
        }
        if len(self.class_names) <= NAMED_CLASSES:
            named = zip(self.class_names, share, strict=True)
            numbers.update({f"class_share_{name}": float(value) for name, value in named})
        real = max(int(self._confusion.sum()), 1)
        numbers["judge_accuracy"] = 100.0 * float(np.trace(self._confusion)) / real
        numbers["confusion"] = ConfusionMatrix(self.class_names, self._confusion)
        return numbers
