"""The paper's facts and the settings of the GAN in plain NumPy (standard library only)."""

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
    """Settings of the GAN in plain NumPy; all but Adam's are ours.

    Attributes:
        noise_size: numbers that a picture is drawn from.
        image_size: side of the square grey picture, in pixels.
        generator_widths: units of the generator's hidden layers.
        discriminator_widths: units of the discriminator's hidden layers.
        learning_rate: of Adam, for both players.
        momentum: Adam's first decay.
        clip_norm: bound on the norm of all gradients of a player together.
        num_classes: classes that the judge tells apart; 0 where pictures have no label.
        batch_size: pictures per step.
        epochs: passes over the training pictures.
        seed: decides initial weights, noise, and the order of the pictures.
    """

    noise_size: int = 64
    image_size: int = 28
    generator_widths: tuple[int, ...] = (128, 256)
    discriminator_widths: tuple[int, ...] = (256, 128)
    learning_rate: float = 2e-4  # DCGAN, section 4
    momentum: float = 0.5  # DCGAN, section 4
    clip_norm: float = 5.0
    num_classes: int = 0
    batch_size: int = 64
    epochs: int = 22  # 20,614 steps on all of MNIST
    seed: int = 0

    def __post_init__(self):
        for name in ("generator_widths", "discriminator_widths"):
            if min(getattr(self, name), default=1) < 1:
                raise ValueError(
                    f"Each of {name} must be at least 1; got {list(getattr(self, name))}."
                )
        if self.clip_norm <= 0:
            raise ValueError(f"clip_norm must be above 0; got {self.clip_norm}.")

    def suited_to(self, facts):
        """What the dataset decides: the number of classes."""
        return {"num_classes": len(facts.class_names)}


TINY = Config(
    generator_widths=(16,),
    discriminator_widths=(16,),
    num_classes=10,
    batch_size=4,
    epochs=2,
)

TINY_TAKES_MINUTES = True
"""All checks of it together: each compiles a judge and MobileNetV2."""
