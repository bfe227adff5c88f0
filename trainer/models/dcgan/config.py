"""The paper's facts and the settings of DCGAN (standard library only)."""

from __future__ import annotations

import dataclasses

from trainer.paper import Paper, Result

PAPER = Paper(
    title="Unsupervised Representation Learning with Deep Convolutional Generative Adversarial "
    "Networks",
    authors="A. Radford, L. Metz, S. Chintala",
    year=2015,
    url="https://arxiv.org/abs/1511.06434",
    results=(
        Result(
            metric="feature_accuracy",
            value=82.8,
            dataset="CIFAR-10",
            where="Table 1",
            unit="%",
            not_measured="it is of a discriminator trained on ImageNet-1k",
        ),
        Result(
            metric="nearest_neighbour_error",
            value=2.98,
            dataset="MNIST",
            where="Table 3",
            unit="%",
            higher_is_better=False,
            not_measured="it is of a generator that is told the class to draw",
        ),
    ),
)

SIDES = (4, 5, 6, 7)
"""Sides of the smallest maps, in pixels: the paper's 4, and those of 40, 48 and 28 pixels."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of DCGAN; the defaults are the paper's.

    Attributes:
        noise_size: numbers that a picture is drawn from.
        image_size: side of the square picture, in pixels: 4 to 7 times a power of two.
        channels: 1 for grey pictures, 3 for colour.
        width: channels of the largest maps; they double with each halving of the side.
        kernel_size: side of the convolutions' kernels.
        learning_rate: of Adam, for the generator.
        discriminator_learning_rate: of Adam, for the discriminator.
        momentum: Adam's first decay.
        num_classes: classes that the judge tells apart; 0 where pictures have no label.
        batch_size: pictures per step.
        epochs: passes over the training pictures.
        seed: decides initial weights, noise, and the order of the pictures.
    """

    noise_size: int = 100  # figure 1
    image_size: int = 64  # figure 1
    channels: int = 3
    width: int = 128  # figure 1: 128 maps of 32 x 32 up to 1024 of 4 x 4
    kernel_size: int = 4  # the authors' code in Torch; figure 1 shows 5
    learning_rate: float = 2e-4  # section 4
    discriminator_learning_rate: float = 2e-4  # section 4
    momentum: float = 0.5  # section 4
    num_classes: int = 0
    batch_size: int = 128  # section 4
    epochs: int = 25  # the authors' code in Torch
    seed: int = 0

    def __post_init__(self):
        for name in ("noise_size", "width", "kernel_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}.")
        if self.channels not in (1, 3):
            raise ValueError(f"channels must be 1 or 3; got {self.channels}.")
        if not self.sides or self.sides[0] not in SIDES:
            raise ValueError(
                "image_size must be 4, 5, 6 or 7 times a power of two, such as 28, 32 or 64; got "
                f"{self.image_size}."
            )

    @property
    def sides(self):
        """Sides of the maps from the smallest to half the picture's; empty if there are none."""
        sides, side = [], self.image_size
        while side % 2 == 0 and side // 2 >= min(SIDES):
            side //= 2
            sides.append(side)
        return tuple(reversed(sides))

    @property
    def widths(self):
        """Channels of the maps, in the order of their sides."""
        return tuple(self.width << doubling for doubling in reversed(range(len(self.sides))))

    def suited_to(self, facts):
        """What the dataset decides: size, colour and classes of the pictures.

        Ours: pictures of less than 64 pixels are drawn at 28 or 32, by maps half as wide, which two
        processor cores can train in minutes.
        """
        side = facts.shorter_side or 64
        size = next((size for size in (64, 32) if side >= size), 28)
        return {
            "image_size": size,
            "channels": facts.channels,
            "width": 128 if size == 64 else 64,
            "num_classes": len(facts.class_names),
        }


TINY = Config(image_size=28, channels=1, width=4, num_classes=10, batch_size=4, epochs=2)

STEPS_EQUAL_IN_FLOAT32 = 10
"""How many of TINY's losses two backends share in float32; in float64 they share them all.

Batch normalisation over four pictures magnifies what rounding makes of them.
"""
