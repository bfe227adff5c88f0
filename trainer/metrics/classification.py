"""How well single-label classes are told apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from trainer.recipe import ConfusionMatrix, Panel


class Classification:
    """Top-1 and top-5 accuracy in percent, cross-entropy in nats, and the confusion matrix.

    Reads `label`, integer [batch], and `probability`, [batch, classes].

    Args:
        class_names: name of each class, by number.
    """

    def __init__(self, class_names: Sequence[str]):
        self.class_names = tuple(class_names)
        self.counts = np.zeros((len(class_names), len(class_names)), np.int64)
        self.top_5 = 0
        self.cross_entropy = 0.0

    def update(self, batch: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]) -> None:
        """Takes in one batch."""
        label = np.asarray(batch["label"]).astype(np.int64)
        probability = np.asarray(outputs["probability"], np.float64)
        of_label = probability[np.arange(len(label)), label]
        # A class ranks below all that are more probable, so ties count in the label's favour.
        self.top_5 += int(((probability > of_label[:, None]).sum(axis=1) < 5).sum())
        np.add.at(self.counts, (label, probability.argmax(axis=1)), 1)
        self.cross_entropy -= float(np.log(np.maximum(of_label, 1e-12)).sum())

    def result(self) -> dict[str, float | ConfusionMatrix]:
        """`top_1_accuracy`, `cross_entropy`, `confusion`; `top_5_accuracy` from six classes on."""
        total = max(int(self.counts.sum()), 1)
        numbers: dict[str, float | ConfusionMatrix] = {
            "top_1_accuracy": 100.0 * float(np.trace(self.counts)) / total,
            "cross_entropy": self.cross_entropy / total,
        }
        if len(self.class_names) > 5:
            numbers["top_5_accuracy"] = 100.0 * self.top_5 / total
        return {**numbers, "confusion": ConfusionMatrix(self.class_names, self.counts)}


def predictions(
    batch: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray], class_names: Sequence[str]
) -> list[Panel]:
    """Pictures with what they were taken for, and for what they are where that differs.

    Args:
        batch: with `image`, [batch, height, width, 3] in [0, 255], and `label`, integer [batch].
        outputs: with `probability`, [batch, classes].
        class_names: name of each class, by number.
    """
    images = np.clip(np.asarray(batch["image"][:16], np.float32) / 255.0, 0, 1)
    captions = []
    for label, probability in zip(batch["label"], outputs["probability"], strict=True):
        guess = int(np.argmax(probability))
        text = f"{class_names[guess]} {probability[guess]:.0%}"
        captions.append(text if guess == label else f"{text}, is {class_names[int(label)]}")
    return [Panel("Predictions on the evaluation split", images, tuple(captions[: len(images)]))]
