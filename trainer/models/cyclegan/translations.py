"""How good translations between two domains are, and the pictures that show it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from trainer.metrics.frechet import FrechetDistance, as_unit
from trainer.recipe import ConfusionMatrix, Panel

SHOWN = 16  # ours: pictures of a panel
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601: grey of RGB, as Pillow and TensorFlow have it
DOMAINS = ("a", "b")
DIRECTIONS = (("a_to_b", 0, "b"), ("b_to_a", 1, "a"))
"""Name, the domain that is translated, and the other."""


class Translations:
    """Distances from the other domain, errors of there and back again, and classes kept.

    Reads `image`, [batch, height, width, 3] in 0 to 255, and `domain`, 0 or 1, of the batch, and
    `label` where there are classes; and what `predict` makes of them.

    Args:
        class_names: name of each label; with classes, those of both domains, as in "A/7".
        num_classes: classes of each domain; 0 for none.
    """

    def __init__(self, class_names: Sequence[str], num_classes: int):
        self._class_names = tuple(n.partition("/")[2] for n in class_names[:num_classes])
        self._classes = num_classes
        self._distances = {name: FrechetDistance() for name, _, _ in DIRECTIONS}
        self._errors = {domain: [0.0, 0] for domain in DOMAINS}
        shape = (num_classes, num_classes)
        self._kept = {name: np.zeros(shape, np.int64) for name, _, _ in DIRECTIONS}
        self._known = {domain: np.zeros(shape, np.int64) for domain in DOMAINS}

    def update(self, batch: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]) -> None:
        """Takes in one batch."""
        domain = np.asarray(batch["domain"])
        image = as_unit(np.asarray(batch["image"]).astype(np.uint8))
        for name, number, other in DIRECTIONS:
            here, there = domain == number, domain != number
            self._distances[name].update(
                {"image": image[there]}, {"image": np.asarray(outputs[f"image_{other}"])[here]}
            )
            own = DOMAINS[number]
            back = np.asarray(outputs[f"back_in_{own}"], np.float64)[here]
            wanted = _like(image[here], back)
            error = self._errors[own]
            error[0] += float(np.abs(back - wanted).sum())
            error[1] += back.size
            if self._classes:
                label = np.asarray(batch["label"]).astype(np.int64)[here]
                for counts, probability in (
                    (self._kept[name], outputs[f"probability_{other}"]),
                    (self._known[own], outputs[f"real_probability_{own}"]),
                ):
                    np.add.at(counts, (label, np.asarray(probability)[here].argmax(axis=1)), 1)

    def result(self) -> dict[str, float | ConfusionMatrix]:
        """The numbers below, and where there are classes, which those of A become in B.

        `frechet_distance_mobilenetv2_a_to_b` and `kernel_distance_mobilenetv2_a_to_b`: from the
        pictures of A in B to those of B; `cycle_error_a`: mean difference between a picture of A
        and what it is after both translations, in [0, 1]; `class_kept_a_to_b`, in percent: pictures
        of A whose translation the judge of B takes for the same class; `judge_accuracy_a`, in
        percent: what the judge of A gets right of real pictures. All of them in the other direction
        too.
        """
        numbers: dict[str, float | ConfusionMatrix] = {}
        for name, number, _ in DIRECTIONS:
            found = self._distances[name].result()
            numbers |= {f"{metric}_{name}": value for metric, value in found.items()}
            own = DOMAINS[number]
            total, count = self._errors[own]
            numbers[f"cycle_error_{own}"] = total / max(count, 1)
            if self._classes:
                numbers[f"class_kept_{name}"] = _percent(self._kept[name])
                numbers[f"judge_accuracy_{own}"] = _percent(self._known[own])
        if self._classes:
            numbers["confusion"] = ConfusionMatrix(self._class_names, self._kept["a_to_b"])
        return numbers


def panels(
    batch: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray], class_names: Sequence[str]
) -> list[Panel]:
    """Pictures of each domain, what they are in the other, and what they are after both ways.

    Args:
        batch: an evaluation batch, see `Translations`.
        outputs: what `predict` makes of it.
        class_names: name of each label.
    """
    domain = np.asarray(batch["domain"])
    image = as_unit(np.asarray(batch["image"]).astype(np.uint8))
    shown = []
    for _, number, other in DIRECTIONS:
        here = np.flatnonzero(domain == number)[:SHOWN]
        own = DOMAINS[number]
        if not len(here):
            continue
        captions: tuple[str, ...] = ()
        if f"probability_{other}" in outputs:
            guesses = np.asarray(outputs[f"probability_{other}"])[here]
            names = [n.partition("/")[2] for n in class_names]
            captions = tuple(f"{names[int(g.argmax())]} {g.max():.0%}" for g in guesses)
        title = f"The same in domain {other.upper()}"
        if captions:
            title += ", with what the judge takes them for"
        shown += [
            Panel(f"Pictures of domain {own.upper()}", image[here]),
            Panel(title, np.asarray(outputs[f"image_{other}"])[here], captions),
            Panel(f"And back in domain {own.upper()}", np.asarray(outputs[f"back_in_{own}"])[here]),
        ]
    return shown


def _like(image: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Pictures with as many channels as others have."""
    if image.shape[-1] == other.shape[-1]:
        return image
    grey: np.ndarray = image @ np.array(LUMA, image.dtype)[:, None]
    return grey


def _percent(counts: np.ndarray) -> float:
    return 100.0 * float(np.trace(counts)) / max(int(counts.sum()), 1)
