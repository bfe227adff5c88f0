"""The facts of the project and the settings of the small ResNet for Tiny ImageNet."""

from __future__ import annotations

import dataclasses

from trainer.paper import Paper, Result

PAPER = Paper(
    title="Tiny ImageNet Custom ResNet",
    authors="V. Vinod (Google Summer of Code)",
    year=2019,
    url="https://github.com/Vishal-V/GSoC/tree/master/tiny_imagenet_custom_resnet",
    results=(
        Result(
            metric="top_1_accuracy",
            value=65.5,
            dataset="Tiny-ImageNet-200",
            where="giung2's ResNet-18 with 11 million parameters; the project published no number",
            unit="%",
        ),
    ),
)

BLOCKS = ((3, 64), (4, 128), (6, 256))
"""Blocks of each resolution, and their channels."""

STEM = (64, 128, 256)
"""Channels of the three separable convolutions before the blocks."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the small ResNet; the defaults are those of one of the project's first stages.

    Attributes:
        num_classes: number of labels.
        image_size: side of the square that evaluation and serving see, in pixels.
        training_size: side of the square that training sees, in pixels.
        learning_rate: of Adam, at the beginning.
        decay_epochs: after so many epochs the rate, falling in a straight line, would be 0; 0 for a
            rate that stays.
        epsilon: of Adam. It is large against most gradients, which makes it a gradient descent with
            a tenfold rate.
        weight_decay: L2 on the convolutions of blocks, but for shortcuts and pointwise parts.
        outer_weight_decay: L2 on the depthwise convolutions of the stem, and on the last one.
        batch_size: pictures per step.
        epochs: passes over the training pictures.
        train_examples: pictures in the training split; decides the length of an epoch.
        seed: decides initial weights, the order of the pictures and their augmentation.
    """

    num_classes: int = 200
    image_size: int = 64
    training_size: int = 64
    learning_rate: float = 0.01
    decay_epochs: int = 30
    epsilon: float = 0.1
    weight_decay: float = 1e-4
    outer_weight_decay: float = 5e-4
    batch_size: int = 64
    epochs: int = 20
    train_examples: int = 100_000
    seed: int = 0

    def __post_init__(self):
        for name in ("image_size", "training_size"):
            if getattr(self, name) < 8:
                raise ValueError(
                    f"{name} must be at least 8, for the last maps to have a pixel; got "
                    f"{getattr(self, name)}."
                )
        if self.decay_epochs and self.decay_epochs < self.epochs:
            raise ValueError(
                f"decay_epochs must be 0 or at least epochs, {self.epochs}, or the rate would be "
                f"below 0; got {self.decay_epochs}."
            )

    def suited_to(self, facts):
        """What the dataset decides; a small one gets smaller batches, for 16 steps an epoch."""
        return {
            "num_classes": len(facts.class_names),
            "train_examples": facts.train_examples,
            "batch_size": facts.batch_size_up_to(64),
        }


# Batch normalisation over eight pictures makes for chaos: what is rounded differently grows tenfold
# with every step at the usual rate.
TINY = Config(
    num_classes=3,
    image_size=32,
    training_size=32,
    learning_rate=1e-5,
    batch_size=8,
    epochs=2,
    train_examples=18,
)

STEPS_EQUAL_IN_FLOAT32 = 2
"""How many of TINY's losses two backends share in float32; in float64 they share them all.

Rounding carries a few of a million activations across the kink of their ReLU.
"""

TINY_TAKES_MINUTES = True
"""All checks of it together: it has all its 13 blocks, and XLA takes its time to compile them."""
