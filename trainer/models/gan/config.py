"""The paper's facts and the settings of the first GAN (standard library only)."""

from __future__ import annotations

import dataclasses

from trainer.paper import Paper, Result

PAPER = Paper(
    title="Generative Adversarial Nets",
    authors="I. J. Goodfellow, J. Pouget-Abadie, M. Mirza, B. Xu, D. Warde-Farley, S. Ozair, "
    "A. Courville, Y. Bengio",
    year=2014,
    url="https://arxiv.org/abs/1406.2661",
    results=(
        Result(
            metric="parzen_log_likelihood",
            value=225.0,
            dataset="MNIST",
            where="Table 1, 225 ± 2",
            unit="nats",
        ),
    ),
)


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the GAN; networks as in the authors' `mnist.yaml`, trained our way.

    Attributes:
        noise_size: numbers that a picture is drawn from.
        image_size: side of the square grey picture, in pixels.
        widths: units of the generator's hidden layers.
        maxout_units: units of each of the discriminator's two hidden layers.
        maxout_pieces: linear functions of which a unit is the largest.
        kept_pixels: part of the pixels that dropout leaves to the discriminator.
        kept_units: part of its hidden units that dropout leaves.
        learning_rate: of Adam, for the generator.
        discriminator_learning_rate: of Adam, for the discriminator.
        momentum: Adam's first decay.
        num_classes: classes that the judge tells apart; 0 where pictures have no label.
        batch_size: pictures per step.
        epochs: passes over the training pictures.
        seed: decides initial weights, noise, and the order of the pictures.
    """

    noise_size: int = 100  # mnist.yaml
    image_size: int = 28
    widths: tuple[int, ...] = (1200, 1200)  # mnist.yaml
    maxout_units: int = 240  # mnist.yaml
    maxout_pieces: int = 5  # mnist.yaml
    kept_pixels: float = 0.8  # mnist.yaml
    kept_units: float = 0.5  # mnist.yaml
    learning_rate: float = 4e-4  # ours
    discriminator_learning_rate: float = 1e-4  # ours
    momentum: float = 0.5  # DCGAN, section 4
    num_classes: int = 0
    batch_size: int = 100  # mnist.yaml
    epochs: int = 40  # ours
    seed: int = 0

    def __post_init__(self):
        counts = ("noise_size", "image_size", "maxout_units", "maxout_pieces")
        for name, value in (*((n, getattr(self, n)) for n in counts), *enumerate(self.widths)):
            if value < 1:
                what = name if isinstance(name, str) else "Each of widths"
                raise ValueError(f"{what} must be at least 1; got {value}.")
        for name in ("kept_pixels", "kept_units"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(
                    f"{name} must be above 0 and at most 1; got {getattr(self, name)}."
                )

    def suited_to(self, facts):
        """What the dataset decides: the number of classes."""
        return {"num_classes": len(facts.class_names)}


TINY = Config(
    widths=(16, 16), maxout_units=4, maxout_pieces=2, num_classes=10, batch_size=4, epochs=2
)

TINY_TAKES_MINUTES = True
"""All checks of it together: each compiles three players, MobileNetV2 and a judge."""
