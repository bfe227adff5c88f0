"""The paper's facts and the settings of networks that learn by batch normalisation alone."""

from __future__ import annotations

import dataclasses
from typing import Literal

from trainer.paper import Paper, Result

Variant = Literal[
    "ResNet-14",
    "ResNet-32",
    "ResNet-56",
    "ResNet-110",
    "ResNet-218",
    "ResNet-434",
    "ResNet-866",
    "ResNet-18",
    "ResNet-34",
    "ResNet-50",
    "ResNet-101",
    "ResNet-152",
    "ResNet-200",
]

Group = Literal["batchnorm", "shortcut", "output", "convolution", "random"]

ABSTRACT = "abstract"
CIFAR, IMAGENET = "CIFAR-10", "ImageNet-1k"

PAPER = Paper(
    title="Training BatchNorm and Only BatchNorm: On the Expressive Power of Random Features in "
    "CNNs",
    authors="J. Frankle, D. J. Schwab, A. S. Morcos",
    year=2020,
    url="https://arxiv.org/abs/2003.00152",
    results=(
        Result("top_1_accuracy", 48.0, CIFAR, "section 3", "%", variant="ResNet-14"),
        Result("top_1_accuracy", 69.5, CIFAR, "section 3", "%", variant="ResNet-110"),
        Result("top_1_accuracy", 82.0, CIFAR, ABSTRACT, "%", variant="ResNet-866"),
        Result("top_5_accuracy", 32.0, IMAGENET, ABSTRACT, "%", variant="ResNet-200"),
    ),
)


@dataclasses.dataclass(frozen=True)
class Architecture:
    """What tells one of the networks from the others.

    Attributes:
        blocks: in each run of blocks of the same resolution.
        width: channels of the first run; each further one has twice as many.
        bottleneck: blocks of three convolutions, the last with four times the channels.
        large: made for pictures of 224 pixels: the stem halves them twice.
    """

    blocks: tuple[int, ...]
    width: int
    bottleneck: bool
    large: bool


LARGE = {  # He et al. 2015, table 1; ResNet-200: open_lth
    "ResNet-18": ((2, 2, 2, 2), False),
    "ResNet-34": ((3, 4, 6, 3), False),
    "ResNet-50": ((3, 4, 6, 3), True),
    "ResNet-101": ((3, 4, 23, 3), True),
    "ResNet-152": ((3, 8, 36, 3), True),
    "ResNet-200": ((3, 24, 36, 3), True),
}


def architecture(variant: str) -> Architecture:
    """The network of a variant: one of `LARGE`, or one for CIFAR-10 with 6 D + 2 layers."""
    if variant in LARGE:
        blocks, bottleneck = LARGE[variant]
        return Architecture(blocks, 64, bottleneck, large=True)
    depth = int(variant.removeprefix("ResNet-"))
    return Architecture(((depth - 2) // 6,) * 3, 16, bottleneck=False, large=False)


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of these networks; the defaults are the authors' for CIFAR-10.

    Attributes:
        variant: which network; those from ResNet-18 to 152 without 32, 56 and 110, and 200, are
            ImageNet's, the others CIFAR-10's.
        width: how many times the channels of the variant; the paper's WRN-14-k.
        trained: what is trained; all else stays as it was drawn. batchnorm: scales and offsets of
            batch normalisation; shortcut: convolutions of shortcuts; output: the last layer;
            convolution: all other convolutions; random: two weights of each filter, drawn once,
            as many as batch normalisation has.
        num_classes: number of labels.
        image_size: side of the square that the network sees, in pixels.
        learning_rate: of SGD, at the beginning.
        milestones: epochs after which the rate falls to a tenth.
        momentum: of SGD, not Nesterov's.
        weight_decay: L2 on what is trained.
        batch_size: pictures per step.
        epochs: passes over the training pictures.
        warmup_epochs: epochs during which the rate rises linearly from 0.
        train_examples: pictures in the training split; decides the length of an epoch.
        seed: decides initial weights, the order of the pictures and their augmentation.
    """

    variant: Variant = "ResNet-14"
    width: int = 1
    trained: tuple[Group, ...] = ("batchnorm",)
    num_classes: int = 10
    image_size: int = 32
    learning_rate: float = 0.1
    milestones: tuple[int, ...] = (80, 120)
    momentum: float = 0.9
    weight_decay: float = 1e-4
    batch_size: int = 128
    epochs: int = 160
    warmup_epochs: int = 0
    train_examples: int = 50_000
    seed: int = 0

    def __post_init__(self):
        if self.width < 1:
            raise ValueError(f"width must be at least 1; got {self.width}.")
        if not self.trained or len(set(self.trained)) != len(self.trained):
            raise ValueError(
                f"trained must name at least one group, and each once; got {list(self.trained)}."
            )
        if {"random", "convolution"} <= set(self.trained):
            raise ValueError("trained must not name random, which is a part, beside convolution.")
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones must rise; got {list(self.milestones)}.")

    def suited_to(self, facts):
        """What dataset and variant decide: classes, size, and the authors' schedule.

        Ours: smaller pictures are not blown up, and a dataset too small for 16 steps an epoch gets
        smaller batches, with the rate in proportion.
        """
        large = architecture(self.variant).large
        size, batch, rate = (224, 1024, 0.4) if large else (32, 128, 0.1)
        fitting = facts.batch_size_up_to(batch)
        decided = {
            "num_classes": len(facts.class_names),
            "train_examples": facts.train_examples,
            "image_size": min(size, facts.shorter_side or size),
            "batch_size": fitting,
            "learning_rate": rate * fitting / batch,
        }
        if large:
            decided |= {"epochs": 90, "milestones": (30, 60, 80), "warmup_epochs": 5}
        return decided


# Longer steps make for chaos: what two backends round differently grows with each of them.
TINY = Config(image_size=32, learning_rate=0.002, batch_size=8, epochs=2, train_examples=50)

STEPS_EQUAL_IN_FLOAT32 = 5
"""How many of TINY's losses two backends share in float32; in float64 they share them all.

Rounding carries a few of a million activations across the kink of their ReLU.
"""

TINY_TAKES_MINUTES = True
"""All checks of it together: XLA takes its time to compile 16 convolutions in float64."""
