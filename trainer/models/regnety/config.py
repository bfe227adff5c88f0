"""The paper's facts and the settings of RegNetY (standard library only)."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from trainer.paper import Paper, Result

Variant = Literal["200MF", "400MF", "600MF", "800MF"]

PAPER = Paper(
    title="Designing Network Design Spaces",
    authors="I. Radosavovic, R. P. Kosaraju, R. Girshick, K. He, P. Dollár",
    year=2020,
    url="https://arxiv.org/abs/2003.13678",
    results=tuple(
        Result(
            metric="top_1_accuracy",
            value=accuracy,
            dataset="ImageNet-1k",
            where="pycls model zoo, 100 epochs",
            unit="%",
            variant=variant,
        )
        for variant, accuracy in (
            ("200MF", 70.3),
            ("400MF", 74.1),
            ("600MF", 75.5),
            ("800MF", 76.3),
        )
    ),
)


@dataclasses.dataclass(frozen=True)
class DesignSpacePoint:
    """One RegNet: the numbers from which its stages follow (pycls, dds baselines)."""

    depth: int
    initial_width: int
    slope: float
    quantization: float
    group_width: int


DESIGN = {
    "200MF": DesignSpacePoint(13, 24, 36.44, 2.49, 8),
    "400MF": DesignSpacePoint(16, 48, 27.89, 2.09, 8),
    "600MF": DesignSpacePoint(15, 48, 32.54, 2.32, 16),
    "800MF": DesignSpacePoint(14, 56, 38.84, 2.40, 16),
}


@dataclasses.dataclass(frozen=True)
class Stage:
    """Blocks of one resolution: how many, how wide, and how wide their groups."""

    depth: int
    width: int
    group_width: int


def stages(variant: str) -> tuple[Stage, ...]:
    """The stages of a variant, by the paper's equations 2 to 4.

    Equation 2 gives each block a width on a straight line, equation 3 its power of the
    quantization, equation 4 the width that this power stands for, here rounded to a multiple of 8
    as in pycls. Blocks of equal width are a stage; its width becomes a multiple of its group width.
    Python rounds halves to even, as NumPy does in pycls: 600MF's 600 becomes 608 by that rule.
    """
    point = DESIGN[variant]
    widths = []
    for block in range(point.depth):
        linear = point.initial_width + point.slope * block
        power = round(math.log(linear / point.initial_width) / math.log(point.quantization))
        widths.append(8 * round(point.initial_width * point.quantization**power / 8))
    result = []
    for width in sorted(set(widths)):
        group = min(point.group_width, width)
        result.append(Stage(widths.count(width), round(width / group) * group, group))
    return tuple(result)


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of RegNetY; the defaults are pycls's recipe for its "dds baselines".

    Attributes:
        variant: which of the four networks.
        num_classes: number of labels.
        image_size: side of the square that the network sees, in pixels. At evaluation the shorter
            side is brought to 256/224 of it and the centre cut out.
        learning_rate: peak learning rate for a batch of 1,024; scales with the batch.
        momentum: of Nesterov's SGD.
        weight_decay: L2 on all parameters, batch normalisation and biases included.
        batch_size: pictures per step.
        epochs: passes over the training pictures.
        warmup_epochs: epochs during which the rate rises linearly from a tenth.
        train_examples: pictures in the training split; decides the length of an epoch.
        statistics_examples: pictures over which batch normalisation's statistics are measured
            again before each evaluation.
        seed: decides initial weights, the order of the pictures and their augmentation.
    """

    variant: Variant = "200MF"
    num_classes: int = 1000
    image_size: int = 224
    learning_rate: float = 0.8  # per 1,024 pictures
    momentum: float = 0.9
    weight_decay: float = 5e-5
    batch_size: int = 1024
    epochs: int = 100
    warmup_epochs: int = 5
    train_examples: int = 1_281_167
    statistics_examples: int = 8192
    seed: int = 0

    def suited_to(self, facts):
        """What the dataset decides; for ImageNet itself, nothing changes.

        Ours: pictures smaller than 224 are not blown up to it, and a dataset too small for 16 steps
        an epoch at 1,024 gets smaller batches (the learning rate follows the batch).
        """
        size = min(224, facts.shorter_side or 224)
        return {
            "num_classes": len(facts.class_names),
            "train_examples": facts.train_examples,
            "image_size": size,
            "batch_size": facts.batch_size_up_to(1024),
        }


# At pycls's rate, eight small pictures a step make for chaos: gradients are some 60 long, and what
# differs between two machines by rounding grows tenfold with every step.
TINY = Config(
    num_classes=3,
    image_size=64,
    batch_size=8,
    epochs=2,
    warmup_epochs=1,
    learning_rate=0.0008,
    train_examples=24,
)

STEPS_EQUAL_IN_FLOAT32 = 2
"""How many of TINY's losses two backends share in float32; in float64 they share them all.

Rounding carries a few of a million activations across the kink of their ReLU, and gradients differ
by thousandths, from each other and from float64's.
"""

TINY_TAKES_MINUTES = True
"""Every variant has all its blocks, and TensorFlow and XLA take their time to compile them."""
