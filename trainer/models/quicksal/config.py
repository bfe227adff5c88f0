"""The paper's facts and the settings of QUICKSAL."""

from __future__ import annotations

import dataclasses
from typing import Literal

from trainer.paper import Paper, Result

PAPER = Paper(
    title="QUICKSAL: A small and sparse visual saliency model for efficient inference in resource "
    "constrained hardware",
    authors="V. Ramanathan, P. Dwivedi, B. Katabathuni, A. Chakraborty, C. S. Thakur",
    year=2020,
    url="https://mlanthology.org/wacv/2020/ramanathan2020wacv-quicksal/",
    results=(
        Result(
            "mean_absolute_error",
            0.091,
            "cut-outs on photos",
            "U2-Net-P, a network of 1.13 million parameters, on 20 of them; the paper has MSRA10K",
            higher_is_better=False,
        ),
        Result(
            "nonzero_parameters",
            0.14,
            "MSRA10K",
            "abstract: the sparsest",
            "million",
            higher_is_better=False,
        ),
    ),
)

STRIDE = 32
"""Pixels of a picture that share one of the encoder's smallest maps' values, along a side."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of QUICKSAL; the defaults train a dense network.

    Attributes:
        encoder: begin with imagenet, MobileNetV2 as torchvision trained it, or random weights.
        depth: most repetitions of a row of MobileNetV2's blocks; 4 are all, as imagenet's weights
            want them.
        image_size: side of the squares that the network sees, in pixels; a multiple of 32.
        loss: cross_entropy_and_overlap, or the paper's mean_absolute_error.
        lowest_learning_rate: of Adam, at the beginning and at the end of each cycle.
        highest_learning_rate: of Adam, in the middle of each cycle.
        encoder_rate: the encoder's learning rate as a part of the decoder's.
        half_cycle: steps from one to the other, or as near as whole cycles can fill the training.
        sparsity: part of all trained parameters that is zero in the end; 0 for a dense network.
        pruning_epochs: until then the sparsity grows; at most `epochs`.
        batch_size: pictures per step.
        epochs: passes over the training pictures.
        train_examples: pictures in the training split; decides the length of an epoch.
        seed: decides initial weights, the order of the pictures and their augmentation.
    """

    encoder: Literal["imagenet", "random"] = "imagenet"
    depth: int = 4
    image_size: int = 224
    loss: Literal["cross_entropy_and_overlap", "mean_absolute_error"] = "cross_entropy_and_overlap"
    lowest_learning_rate: float = 1e-4
    highest_learning_rate: float = 1e-3
    encoder_rate: float = 0.1  # ours
    half_cycle: int = 2_000  # the paper's step size
    sparsity: float = 0.0
    pruning_epochs: int = 8  # ours
    batch_size: int = 16  # ours
    epochs: int = 16  # ours: 8,000 pictures then take two cycles
    train_examples: int = 8_000
    seed: int = 0

    def __post_init__(self):
        if self.image_size < STRIDE or self.image_size % STRIDE:
            raise ValueError(
                f"image_size must be a multiple of {STRIDE}, by which the encoder divides it; got "
                f"{self.image_size}."
            )
        if self.depth < 1 or (self.encoder == "imagenet" and self.depth < 4):
            raise ValueError(
                f"depth must be at least 1, and 4 where encoder is imagenet; got {self.depth}."
            )
        if not 0.0 <= self.sparsity < 1.0:
            raise ValueError(f"sparsity must be from 0 to below 1; got {self.sparsity}.")
        if not 0 < self.lowest_learning_rate <= self.highest_learning_rate:
            raise ValueError(
                "The learning rates must be above 0, the highest not below the lowest; got "
                f"{self.lowest_learning_rate} and {self.highest_learning_rate}."
            )
        if self.encoder_rate < 0:
            raise ValueError(f"encoder_rate must be at least 0; got {self.encoder_rate}.")
        if self.pruning_epochs < 1:
            raise ValueError(f"pruning_epochs must be at least 1; got {self.pruning_epochs}.")

    def suited_to(self, facts):
        """What the dataset decides; a small one gets smaller batches, for 16 steps an epoch."""
        return {
            "train_examples": facts.train_examples,
            "batch_size": facts.batch_size_up_to(16),
        }


# Batch normalisation over few values makes for chaos: what is rounded differently grows with every
# step at the usual rate.
TINY = Config(
    encoder="random",
    depth=1,
    image_size=64,
    lowest_learning_rate=1e-6,
    highest_learning_rate=1e-6,
    batch_size=8,
    epochs=2,
    train_examples=16,
)

STEPS_EQUAL_IN_FLOAT32 = 2
"""How many of TINY's losses two backends share in float32; in float64 they share them all.

Rounding carries a few of a million activations across the kink of their ReLU.
"""

TINY_TAKES_MINUTES = True
"""All checks of it together: XLA takes its time to compile 67 convolutions."""
