"""Recipes of networks that draw pictures from noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
from keras import ops

from trainer.losses.adversarial import as_float
from trainer.metrics.class_coverage import ClassCoverage, build_judge, cross_entropy
from trainer.metrics.frechet import FrechetDistance
from trainer.metrics.nearest import panels
from trainer.recipe import Metric, Recipe, Signature, Update

JUDGE_RATE = 1e-3  # ours: Adam's


def drawing(
    config: Any,
    networks: Mapping[str, keras.Model],
    updates: Sequence[Update],
    draw: Callable[[Any], Any],
    *,
    noise: Mapping[str, tuple[int, ...]],
    channels: int = 1,
    metrics: Sequence[Callable[[], Metric]] = (),
) -> Recipe:
    """The recipe of players of whom one draws; a judge joins them where there are classes.

    The judge learns the labels of real pictures in an update of its own and moves no other network.

    Args:
        config: with `noise_size`, `image_size`, `num_classes` and `seed`.
        networks: the players.
        updates: theirs, in their order.
        draw: maps noise [batch, noise_size] to pictures [batch, size, size, channels] in [0, 1].
        noise: what joins a training's batches; `noise` is what pictures are drawn from.
        channels: of the pictures.
        metrics: what is measured besides distance and coverage, before them.
    """
    networks, updates = dict(networks), list(updates)

    def generate(noise):
        return {"image": as_float(draw(noise))}

    def predict(batch):
        outputs = generate(batch["noise"])
        if config.num_classes:
            outputs["generated_probability"] = judged(2.0 * outputs["image"] - 1.0)
            outputs["real_probability"] = judged(standardise(batch["image"]))
        return outputs

    if config.num_classes:
        shape = (config.image_size, config.image_size, channels)
        judge = networks["judge"] = build_judge(shape, config.num_classes, config.seed)

        def judge_loss(batch):
            return cross_entropy(judge, standardise(batch["image"]), batch["label"])

        def judged(image):
            return ops.softmax(as_float(judge(image, training=False)))

        updates.append(Update(judge_loss, {"judge": keras.optimizers.Adam(JUDGE_RATE)}))
    kind = "grey picture" if channels == 1 else "picture"
    return Recipe(
        networks=networks,
        updates=updates,
        predict=predict,
        metrics=lambda class_names: [
            *(metric() for metric in metrics),
            FrechetDistance(),
            *([ClassCoverage(class_names)] if config.num_classes else []),
        ],
        signatures={
            "generate": Signature(
                generate,
                {"noise": keras.KerasTensor((None, config.noise_size))},
                f"{config.noise_size} numbers drawn from a standard normal distribution, and out "
                f"comes a {kind} (`image`) of {config.image_size} x {config.image_size} pixels "
                "with values in [0, 1].",
            )
        },
        panels=panels,
        noise=noise,
        samples=lambda batch: {"Samples": generate(batch["noise"])["image"]},
        examples_in_training=1_000,
        statistics_examples=2_000,
        best_by="frechet_distance_mobilenetv2",
        lowest_is_best=True,
    )


def standardise(image):
    """Pictures 0 to 255, any dtype, become [-1, 1], the range of tanh."""
    return as_float(image) / 127.5 - 1.0
