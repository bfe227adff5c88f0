"""GAN: one network draws digits from noise, another tells them from real ones, and both learn.

Paper: Goodfellow et al., NeurIPS 2014, https://arxiv.org/abs/1406.2661
Ours:  batch normalisation in the generator, and Adam; without them it drew one digit for all.
"""

import itertools
from statistics import NormalDist

import keras
from keras import layers, ops
from keras.initializers import HeNormal, RandomUniform

from trainer.generators.drawing import drawing
from trainer.layers.batch_normalization import BatchNormalization
from trainer.losses import adversarial
from trainer.losses.adversarial import as_float
from trainer.metrics.parzen import ParzenWindow
from trainer.models.gan.config import Config
from trainer.recipe import Recipe, Update

RANGE = 0.05  # mnist.yaml: of the generator's initial weights; the discriminator's are ours
MOMENTUM, EPSILON = 0.9, 1e-5  # ours: batch normalisation
SLOPE = 0.2  # ours: LeakyReLU


def recipe(config: Config) -> Recipe:
    """A generator and a discriminator, one update each, and a judge where there are classes."""
    generator, discriminator = build_generator(config), build_discriminator(config)
    networks = {"generator": generator, "discriminator": discriminator}
    dropped = config.image_size**2 + 2 * config.maxout_units

    def discriminate(image, noise):
        return discriminator([image, *kept(noise, config)], training=True)

    def discriminator_loss(batch):
        real = discriminate(unit(batch["image"]), batch["real_dropout"])
        drawn = generator(batch["noise"], training=True)
        generated = discriminate(drawn, batch["generated_dropout"])
        return adversarial.discriminator_loss(real, generated), {
            "real_score": ops.mean(ops.sigmoid(as_float(real))),
            "generated_score": ops.mean(ops.sigmoid(as_float(generated))),
        }

    def generator_loss(batch):
        drawn = generator(batch["generator_noise"], training=True)
        return adversarial.generator_loss(discriminate(drawn, batch["generator_dropout"]))

    def adam(learning_rate):
        return keras.optimizers.Adam(learning_rate, beta_1=config.momentum, epsilon=1e-8)

    return drawing(
        config,
        networks,
        updates=[
            Update(discriminator_loss, {"discriminator": adam(config.discriminator_learning_rate)}),
            Update(generator_loss, {"generator": adam(config.learning_rate)}),
        ],
        draw=lambda noise: generator(noise, training=False),
        noise={
            "noise": (config.noise_size,),
            "generator_noise": (config.noise_size,),
            "real_dropout": (dropped,),
            "generated_dropout": (dropped,),
            "generator_dropout": (dropped,),
        },
        metrics=(ParzenWindow,),
    )


def unit(image):
    """Pictures 0 to 255, any dtype, become [0, 1], the range of the generator's logistic units."""
    return as_float(image) / 255.0


def kept(noise, config: Config):
    """Dropout of the discriminator's pixels and hidden units, from normal noise in the batch.

    A number below the quantile of what is to be kept keeps its unit, which grows by as much as
    the others lose; so the same units are dropped on both backends and any number of devices.

    Args:
        noise: [batch, pixels + 2 * units], standard normal.
        config: decides how much is kept.

    Returns:
        Three factors: [batch, size, size, 1], [batch, units] and [batch, units].
    """
    pixels, units = config.image_size**2, config.maxout_units

    def factors(part, share):
        if share == 1.0:
            return ops.ones_like(part)
        return ops.cast(part < NormalDist().inv_cdf(share), part.dtype) / share

    shown = factors(noise[:, :pixels], config.kept_pixels)
    return (
        ops.reshape(shown, (-1, config.image_size, config.image_size, 1)),
        factors(noise[:, pixels : pixels + units], config.kept_units),
        factors(noise[:, pixels + units :], config.kept_units),
    )


def build_generator(config: Config) -> keras.Model:
    """Maps noise [batch, noise_size] to pictures [batch, size, size, 1] in [0, 1]."""
    seeds = itertools.count(config.seed * 10_000)
    noise = x = keras.Input((config.noise_size,), name="noise")
    for number, width in enumerate(config.widths):
        name = f"hidden_{number}"
        x = layers.Dense(
            width, use_bias=False, kernel_initializer=HeNormal(seed=next(seeds)), name=name
        )(x)
        x = BatchNormalization(momentum=MOMENTUM, epsilon=EPSILON, name=f"{name}_bn")(x)
        x = layers.LeakyReLU(negative_slope=SLOPE, name=f"{name}_relu")(x)
    x = layers.Dense(
        config.image_size**2,
        activation="sigmoid",
        kernel_initializer=RandomUniform(-RANGE, RANGE, seed=next(seeds)),
        name="draw",
    )(x)
    image = layers.Reshape((config.image_size, config.image_size, 1), name="image")(x)
    return keras.Model(noise, image, name="generator")


def build_discriminator(config: Config) -> keras.Model:
    """Two layers of maxout units: is the picture real?

    Returns:
        Maps pictures [batch, size, size, 1] in [0, 1], and the three factors of `kept`, to logits
        [batch, 1].
    """
    seeds = itertools.count(config.seed * 10_000 + 5_000)
    units, pieces = config.maxout_units, config.maxout_pieces
    shape = (config.image_size, config.image_size, 1)
    image, shown = keras.Input(shape, name="image"), keras.Input(shape, name="shown")
    hidden = [keras.Input((units,), name=f"kept_{number}") for number in range(2)]

    def dense(width, name):
        return layers.Dense(
            width, kernel_initializer=RandomUniform(-RANGE, RANGE, seed=next(seeds)), name=name
        )

    x = layers.Flatten(name="pixels")(layers.Multiply(name="shown_pixels")([image, shown]))
    for number, factor in enumerate(hidden):
        x = dense(units * pieces, f"maxout_{number}")(x)
        x = layers.Reshape((units, pieces), name=f"pieces_{number}")(x)
        x = layers.Multiply(name=f"kept_units_{number}")([ops.max(x, axis=-1), factor])
    return keras.Model([image, shown, *hidden], dense(1, "logit")(x), name="discriminator")
