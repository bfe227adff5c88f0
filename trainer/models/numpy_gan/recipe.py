"""GAN in plain NumPy: both passes of both players are written by hand.

Paper: Goodfellow et al., NeurIPS 2014, https://arxiv.org/abs/1406.2661
Ours:  the passes (`passes.py`); Keras holds the weights, moves them by Adam, draws and exports.
"""

import keras
from keras import layers, ops
from keras.initializers import GlorotNormal, RandomNormal

from trainer.generators.drawing import drawing, standardise
from trainer.losses.adversarial import as_float
from trainer.losses.by_hand import by_hand
from trainer.metrics.parzen import ParzenWindow
from trainer.models.numpy_gan import passes
from trainer.models.numpy_gan.config import Config
from trainer.recipe import Recipe, Update


def recipe(config: Config) -> Recipe:
    """A generator and a discriminator, one update each, and a judge where there are classes."""
    pixels = config.image_size**2
    generator = build_network(
        "generator", config.noise_size, (*config.generator_widths, pixels), config.seed
    )
    discriminator = build_network(
        "discriminator", pixels, (*config.discriminator_widths, 1), config.seed + 1
    )

    def discriminator_loss(batch):
        image = ops.reshape(standardise(batch["image"]), (-1, pixels))
        loss, real, generated = ops.unstack(
            by_hand(
                passes.discriminator,
                discriminator.trainable_variables,
                [*generator.trainable_variables, image, as_float(batch["noise"])],
                numbers=3,
            )
        )
        return loss, {"real_score": real, "generated_score": generated}

    def generator_loss(batch):
        numbers = by_hand(
            passes.generator,
            generator.trainable_variables,
            [*discriminator.trainable_variables, as_float(batch["generator_noise"])],
            numbers=1,
        )
        return numbers[0]

    def adam():
        return keras.optimizers.Adam(config.learning_rate, beta_1=config.momentum, epsilon=1e-8)

    def draw(noise):
        image = (ops.tanh(as_float(generator(noise, training=False))) + 1.0) / 2.0
        return ops.reshape(image, (-1, config.image_size, config.image_size, 1))

    return drawing(
        config,
        {"generator": generator, "discriminator": discriminator},
        updates=[
            Update(discriminator_loss, {"discriminator": adam()}, clip_norm=config.clip_norm),
            Update(generator_loss, {"generator": adam()}, clip_norm=config.clip_norm),
        ],
        draw=draw,
        noise={"noise": (config.noise_size,), "generator_noise": (config.noise_size,)},
        metrics=(ParzenWindow,),
    )


def build_network(name: str, inputs: int, widths: tuple[int, ...], seed: int) -> keras.Model:
    """Maps [batch, inputs] to the sums of the last layer, [batch, widths[-1]].

    Its weights are those that `passes.forward` takes, in the same order.
    """
    given = x = keras.Input((inputs,), name="input")
    for number, width in enumerate(widths):
        last = number + 1 == len(widths)
        # He's for LeakyReLU (He et al. 2015, section 2.2); Glorot's where none follows.
        deviation = (2.0 / ((1.0 + passes.SLOPE**2) * x.shape[-1])) ** 0.5
        seeded = seed * 10_000 + number
        x = layers.Dense(
            width,
            kernel_initializer=GlorotNormal(seeded)
            if last
            else RandomNormal(0.0, deviation, seeded),
            name="sums" if last else f"hidden_{number}",
        )(x)
        if not last:
            x = layers.LeakyReLU(passes.SLOPE, name=f"hidden_{number}_relu")(x)
    return keras.Model(given, x, name=name)
