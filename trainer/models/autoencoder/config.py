"""The paper's facts and the settings of the autoencoder (standard library only)."""

from __future__ import annotations

import dataclasses

from trainer.paper import Paper, Result

PAPER = Paper(
    title="Reducing the Dimensionality of Data with Neural Networks",
    authors="G. E. Hinton, R. R. Salakhutdinov",
    year=2006,
    url="https://doi.org/10.1126/science.1127647",
    results=(
        Result(
            metric="squared_error",
            value=3.00,
            dataset="MNIST",
            where="Figure 2B",
            unit="per image",
            higher_is_better=False,
        ),
    ),
)


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the autoencoder; the defaults are the paper's network, trained our way.

    Attributes:
        widths: units of the encoder's hidden layers; the decoder mirrors them.
        code_size: numbers that a picture is squeezed into.
        image_size: side of the square grey picture, in pixels.
        learning_rate: first learning rate of Adam; falls to 0 along half a cosine.
        batch_size: pictures per step.
        epochs: passes over the training pictures.
        distortion: how far half of the training pictures, others in each epoch, are turned, zoomed
            and moved at random: by up to 5 degrees, a twentieth and half a pixel where it is 1; 0
            for not at all.
        train_examples: pictures in the training split; decides the length of the schedule.
        seed: decides initial weights and the order of the pictures.
    """

    widths: tuple[int, ...] = (1000, 500, 250)  # Figure 1
    code_size: int = 30  # Figure 1
    image_size: int = 28
    learning_rate: float = 1e-3  # ours
    batch_size: int = 128  # ours
    epochs: int = 40  # ours
    distortion: float = 1.0  # ours
    train_examples: int = 60_000
    seed: int = 0

    def suited_to(self, facts):
        """What the dataset decides: the number of training pictures."""
        return {"train_examples": facts.train_examples}


TINY = Config(widths=(8,), code_size=2, batch_size=4, epochs=2, train_examples=8)
