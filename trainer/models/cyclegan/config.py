"""The paper's facts and the settings of CycleGAN."""

from __future__ import annotations

import dataclasses
from typing import Literal

from trainer.errors import UserError
from trainer.paper import Paper, Result

Variant = Literal["photos", "digits"]

PAPER = Paper(
    title="Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks",
    authors="J.-Y. Zhu, T. Park, P. Isola, A. A. Efros",
    year=2017,
    url="https://arxiv.org/abs/1703.10593",
    results=(
        Result(
            "class_kept_a_to_b",
            25.0,
            "MNIST and SVHN",
            "about, by issue 3 of yunjey/mnist-svhn-transfer",
            "%",
            variant="digits",
        ),
        Result(
            "per_pixel_accuracy",
            0.52,
            "Cityscapes",
            "Table 2, labels to photo",
            not_measured="it needs the weights of a network that segments streets",
        ),
        Result(
            "real_or_fake_study",
            26.8,
            "aerial photos and maps",
            "Table 1, map to photo",
            "%",
            not_measured="it asks people",
        ),
    ),
)

DIGITS_SIZE = 32
"""Side of the pictures that the networks for digits are made for, in pixels."""

LOAD_SCALE = 286 / 256  # the authors' code: pictures are this much larger than the crops of them


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of CycleGAN; the defaults are the paper's.

    Attributes:
        variant: photos, the paper's networks with residual blocks and discriminators of patches; or
            digits, the small ones of yunjey/mnist-svhn-transfer, with batch normalisation.
        num_classes: number of classes of each domain; 0 where pictures have none.
        channels_a: 1 for grey pictures in domain A, 3 for colour.
        channels_b: the same of domain B.
        image_size: side of the squares that the networks see, in pixels; a multiple of 4, and of 8
            for digits.
        load_size: side of the squares that those are cut out of in training.
        mirror: whether one picture in two is mirrored in training.
        width: maps of the first layer of each network.
        blocks: residual blocks of a generator for photos.
        cycle_loss: of a picture and what it is after both translations; l1, the paper's mean of
            differences, or l2, of their squares.
        cycle_weight: weight of the cycle losses beside the adversarial ones.
        identity_weight: weight, times the cycle losses', of what a picture of the target domain
            changes by; 0 for none. It needs equal channels.
        pool_size: generated pictures of each domain that discriminators learn from; 0 for the
            newest alone.
        learning_rate: of all four networks.
        momentum: Adam's first decay.
        batch_size: pictures of each domain per step.
        epochs: passes over the training pictures, counted by half of those of both domains.
        decay_share: part of the epochs, the last ones, in which the rate falls to nearly 0 in a
            straight line.
        train_examples: half of the pictures of both domains; decides the length of an epoch.
        seed: decides initial weights, the order of the pictures and their augmentation.
    """

    variant: Variant = "photos"
    num_classes: int = 0
    channels_a: int = 3
    channels_b: int = 3
    image_size: int = 256
    load_size: int = 286
    mirror: bool = True
    width: int = 64
    blocks: int = 9
    cycle_loss: Literal["l1", "l2"] = "l1"
    cycle_weight: float = 10.0
    identity_weight: float = 0.5
    pool_size: int = 50
    learning_rate: float = 0.0002
    momentum: float = 0.5
    batch_size: int = 1
    epochs: int = 200
    decay_share: float = 0.5
    train_examples: int = 1200
    seed: int = 0

    def __post_init__(self):
        least = 4 if self.variant == "photos" else 8
        if self.image_size % least or self.image_size < DIGITS_SIZE:
            raise ValueError(
                f"image_size must be a multiple of {least}, and {DIGITS_SIZE} or more; got "
                f"{self.image_size}."
            )
        if self.load_size < self.image_size:
            raise ValueError(
                f"load_size must be at least image_size, {self.image_size}; got {self.load_size}."
            )
        for name in ("channels_a", "channels_b"):
            if getattr(self, name) not in (1, 3):
                raise ValueError(f"{name} must be 1 or 3; got {getattr(self, name)}.")
        if not 0 <= self.decay_share <= 1:
            raise ValueError(f"decay_share must be from 0 to 1; got {self.decay_share}.")

    @property
    def identity(self) -> bool:
        """Whether there is an identity loss: the grey and the coloured have none."""
        return self.identity_weight > 0 and self.channels_a == self.channels_b

    def suited_to(self, facts):
        """What the dataset decides, and, for digits, the smaller implementation's schedule.

        Ours: pictures smaller than 256 are not blown up to it, and a dataset of digits too small
        for 16 steps an epoch gets smaller batches.

        Raises:
            UserError: the dataset is none of two domains.
        """
        names = facts.class_names
        classes = [n.partition("/")[2] for n in names]
        half = len(names) // 2
        if names != ("A", "B") and not (half and all(classes) and classes[:half] == classes[half:]):
            raise UserError(
                "CycleGAN needs pictures of two domains: {trainA,trainB,testA,testB}/<image>, or "
                "A/ and B/ with a dataset with the same classes in each; the classes of this "
                f"dataset are {', '.join(names[:4]) or 'none'}."
            )
        examples = max(facts.train_examples // 2, 1)
        decided = {
            "num_classes": half if all(classes) else 0,
            "train_examples": examples,
        }
        if self.variant == "photos":
            side = max(min(256, (facts.shorter_side or 256) // 4 * 4), DIGITS_SIZE)
            return decided | {"image_size": side, "load_size": round(side * LOAD_SCALE)}
        one_domain = dataclasses.replace(facts, train_examples=examples)
        return decided | {
            "image_size": DIGITS_SIZE,
            "load_size": DIGITS_SIZE,
            "mirror": False,
            "pool_size": 0,
            "batch_size": one_domain.batch_size_up_to(64),
            "epochs": 38,  # 40,000 steps on MNIST and SVHN, as in its code
            "decay_share": 0.0,
        }


# Batch normalisation over few pictures, and networks that play against each other, make for chaos:
# what is rounded differently grows with every step at the usual rate.
TINY = Config(
    variant="digits",
    image_size=32,
    load_size=36,
    width=8,
    pool_size=3,
    learning_rate=1e-5,
    batch_size=4,
    epochs=2,
    train_examples=9,
)

TINY_TAKES_MINUTES = True
"""All checks of it together: XLA takes its time to compile a step of six networks."""
