"""DCGAN: two convolutional networks play against each other until one of them draws.

Paper: Radford, Metz and Chintala, ICLR 2016, https://arxiv.org/abs/1511.06434
Ours:  a third network, the judge, learns the classes; it moves no other and measures coverage.
"""

import itertools

import keras
from keras import layers, ops
from keras.initializers import RandomNormal

from trainer.generators.drawing import drawing, standardise
from trainer.layers.batch_normalization import BatchNormalization
from trainer.losses import adversarial
from trainer.losses.adversarial import as_float
from trainer.models.dcgan.config import Config
from trainer.recipe import Recipe, Update

SLOPE = 0.2  # section 4: of LeakyReLU
DEVIATION = 0.02  # section 4: of initial weights
MOMENTUM, EPSILON = 0.9, 1e-5  # the authors' code in Torch: batch normalisation


def recipe(config: Config) -> Recipe:
    """A generator and a discriminator, one update each, and a judge where there are classes."""
    generator, discriminator = build_generator(config), build_discriminator(config)
    networks = {"generator": generator, "discriminator": discriminator}

    def discriminator_loss(batch):
        # Apart from each other, so that batch normalisation does not mix real with generated.
        real = discriminator(standardise(batch["image"]), training=True)
        generated = discriminator(generator(batch["noise"], training=True), training=True)
        return adversarial.discriminator_loss(real, generated), {
            "real_score": ops.mean(ops.sigmoid(as_float(real))),
            "generated_score": ops.mean(ops.sigmoid(as_float(generated))),
        }

    def generator_loss(batch):
        drawn = generator(batch["generator_noise"], training=True)
        return adversarial.generator_loss(discriminator(drawn, training=True))

    def adam(learning_rate):
        return keras.optimizers.Adam(learning_rate, beta_1=config.momentum, epsilon=1e-8)

    def draw(noise):
        return (as_float(generator(noise, training=False)) + 1.0) / 2.0

    return drawing(
        config,
        networks,
        updates=[
            Update(discriminator_loss, {"discriminator": adam(config.discriminator_learning_rate)}),
            Update(generator_loss, {"generator": adam(config.learning_rate)}),
        ],
        draw=draw,
        noise={"noise": (config.noise_size,), "generator_noise": (config.noise_size,)},
        channels=config.channels,
    )


def build_generator(config: Config) -> keras.Model:
    """Maps noise [batch, noise_size] to pictures [batch, size, size, channels] in [-1, 1]."""
    seeds = itertools.count(config.seed * 10_000)
    first, widths = config.sides[0], config.widths

    def normalised(x, name):
        return layers.ReLU(name=f"{name}_relu")(_normalisation(next(seeds), name)(x))

    noise = keras.Input((config.noise_size,), name="noise")
    x = layers.Dense(
        first * first * widths[0],
        use_bias=False,
        kernel_initializer=RandomNormal(0.0, DEVIATION, seed=next(seeds)),
        name="project",
    )(noise)
    x = layers.Reshape((first, first, widths[0]), name="maps")(x)
    x = normalised(x, f"side_{first}")
    for side, width in zip(config.sides[1:], widths[1:], strict=True):
        x = _convolution(layers.Conv2DTranspose, width, config, next(seeds), f"up_{side}")(x)
        x = normalised(x, f"side_{side}")
    x = _convolution(
        layers.Conv2DTranspose, config.channels, config, next(seeds), "draw", use_bias=True
    )(x)
    return keras.Model(noise, layers.Activation("tanh", name="image")(x), name="generator")


def build_discriminator(config: Config) -> keras.Model:
    """Maps pictures [batch, size, size, channels] in [-1, 1] to logits [batch, 1]: is it real?"""
    seeds = itertools.count(config.seed * 10_000 + 5_000)
    image = x = keras.Input((config.image_size, config.image_size, config.channels), name="image")
    for side, width in zip(reversed(config.sides), reversed(config.widths), strict=True):
        first = x is image
        x = _convolution(layers.Conv2D, width, config, next(seeds), f"down_{side}", use_bias=first)(
            x
        )
        if not first:  # section 3: none at the picture, where it made samples oscillate
            x = _normalisation(next(seeds), f"side_{side}")(x)
        x = layers.LeakyReLU(negative_slope=SLOPE, name=f"side_{side}_relu")(x)
    x = layers.Flatten(name="values")(x)
    logit = layers.Dense(
        1, kernel_initializer=RandomNormal(0.0, DEVIATION, seed=next(seeds)), name="logit"
    )(x)
    return keras.Model(image, logit, name="discriminator")


def _convolution(kind, width, config, seed, name, use_bias=False):
    return kind(
        width,
        config.kernel_size,
        strides=2,
        padding="same",
        use_bias=use_bias,
        kernel_initializer=RandomNormal(0.0, DEVIATION, seed=seed),
        name=name,
    )


def _normalisation(seed, name):
    return BatchNormalization(
        momentum=MOMENTUM,
        epsilon=EPSILON,
        gamma_initializer=RandomNormal(1.0, DEVIATION, seed=seed),
        name=f"{name}_bn",
    )
