"""The networks of both variants of CycleGAN; layers are named as in their authors' code."""

import itertools

import keras
from keras import layers, ops
from keras.initializers import RandomNormal, RandomUniform

from trainer.layers.batch_normalization import BatchNormalization
from trainer.models.cyclegan.config import Config

EPSILON, MOMENTUM = 1e-5, 0.9  # PyTorch's normalisations (its momentum of 0.1)
DIGITS_SLOPE = 0.05  # yunjey/mnist-svhn-transfer: of LeakyReLU
PHOTOS_SLOPE = 0.2  # the authors' code: of LeakyReLU
DEVIATION = 0.02  # the authors' code: of initial weights


def build_generator(config: Config, channels_in: int, channels_out: int, number: int, name: str):
    """Maps pictures [batch, size, size, channels_in] in [-1, 1] to as many with `channels_out`.

    Args:
        config: decides which network.
        channels_in: of the pictures it translates.
        channels_out: of those it makes of them.
        number: makes its first weights others than those of another network.
        name: of the network.
    """
    build = _digits_generator if config.variant == "digits" else _photos_generator
    return build(config, channels_in, channels_out, itertools.count(_seed(config, number)), name)


def build_discriminator(config: Config, channels: int, number: int, name: str):
    """Maps pictures [batch, size, size, channels] in [-1, 1] to scores [batch, rows, columns, 1].

    Each score is of a patch, near 1 if it seems real and near 0 if not: 70 pixels for photos, and
    all of a picture of 32 pixels for digits. The arguments are those of `build_generator`.
    """
    build = _digits_discriminator if config.variant == "digits" else _photos_discriminator
    return build(config, channels, itertools.count(_seed(config, number)), name)


def _seed(config, number):
    return config.seed * 10_000 + number * 1_000


def _uniform(fan_in, seed):
    # PyTorch's default: Kaiming's uniform with a slope of the square root of 5.
    return RandomUniform(-(fan_in**-0.5), fan_in**-0.5, seed=seed)


def _digits_convolution(x, width, kernel_size, stride, name, seeds, padding="same"):
    initial = _uniform(kernel_size**2 * x.shape[-1], next(seeds))
    # Of even sizes, "same" is PyTorch's padding of 1 here.
    return layers.Conv2D(
        width,
        kernel_size,
        stride,
        padding,
        use_bias=False,
        kernel_initializer=initial,
        name=f"{name}_0",
    )(x)


def _digits_spread(x, width, name, seeds):
    # PyTorch takes the outputs for the inputs of a transposed convolution.
    return layers.Conv2DTranspose(
        width,
        4,
        2,
        padding="same",
        use_bias=False,
        kernel_initializer=_uniform(16 * width, next(seeds)),
        name=f"{name}_0",
    )(x)


def _digits_active(x, name, normalised=True):
    if normalised:
        x = BatchNormalization(momentum=MOMENTUM, epsilon=EPSILON, name=f"{name}_1")(x)
    return layers.LeakyReLU(negative_slope=DIGITS_SLOPE, name=f"{name}_relu")(x)


def _digits_generator(config, channels_in, channels_out, seeds, name):
    width = config.width
    image = x = keras.Input((config.image_size, config.image_size, channels_in), name="image")
    for part, maps, kernel_size, stride in (
        ("conv1", width, 4, 2),
        ("conv2", 2 * width, 4, 2),
        ("conv3", 2 * width, 3, 1),
        ("conv4", 2 * width, 3, 1),
    ):
        x = _digits_active(_digits_convolution(x, maps, kernel_size, stride, part, seeds), part)
    x = _digits_active(_digits_spread(x, width, "deconv1", seeds), "deconv1")
    x = _digits_spread(x, channels_out, "deconv2", seeds)
    return keras.Model(image, layers.Activation("tanh", name="translation")(x), name=name)


def _digits_discriminator(config, channels, seeds, name):
    image = x = keras.Input((config.image_size, config.image_size, channels), name="image")
    for number in (1, 2, 3):
        width = config.width * 2 ** (number - 1)
        x = _digits_convolution(x, width, 4, 2, f"conv{number}", seeds)
        x = _digits_active(x, f"conv{number}", normalised=number > 1)
    score = _digits_convolution(x, 1, 4, 1, "fc", seeds, padding="valid")
    return keras.Model(image, score, name=name)


def _reflected(x, pixels):
    sides = (pixels, pixels)
    return ops.pad(x, ((0, 0), sides, sides, (0, 0)), mode="reflect")


def _instance_normalised(x, name):
    return layers.GroupNormalization(
        groups=-1, epsilon=EPSILON, center=False, scale=False, name=f"{name}_norm"
    )(x)


def _photos_convolution(x, width, kernel_size, stride, name, seeds):
    initial = RandomNormal(0.0, DEVIATION, seed=next(seeds))
    return layers.Conv2D(width, kernel_size, stride, kernel_initializer=initial, name=name)(x)


def _photos_generator(config, channels_in, channels_out, seeds, name):
    width = config.width

    def active(x, name):
        return layers.ReLU(name=f"{name}_relu")(_instance_normalised(x, name))

    image = keras.Input((config.image_size, config.image_size, channels_in), name="image")
    x = _photos_convolution(_reflected(image, 3), width, 7, 1, "first", seeds)
    x = active(x, "first")
    for factor in (2, 4):
        x = layers.ZeroPadding2D(1, name=f"down_{factor}_padding")(x)
        x = active(
            _photos_convolution(x, factor * width, 3, 2, f"down_{factor}", seeds), f"down_{factor}"
        )
    for number in range(config.blocks):
        before, block = x, f"block_{number}"
        x = _photos_convolution(_reflected(x, 1), 4 * width, 3, 1, f"{block}_a", seeds)
        x = active(x, f"{block}_a")
        x = _photos_convolution(_reflected(x, 1), 4 * width, 3, 1, f"{block}_b", seeds)
        x = layers.Add(name=f"{block}_sum")([before, _instance_normalised(x, f"{block}_b")])
    for factor in (2, 1):
        x = layers.Conv2DTranspose(
            factor * width,
            3,
            2,
            kernel_initializer=RandomNormal(0.0, DEVIATION, seed=next(seeds)),
            name=f"up_{factor}",
        )(x)
        # PyTorch's padding of 1 and output padding of 1.
        x = layers.Cropping2D(((1, 0), (1, 0)), name=f"up_{factor}_cropping")(x)
        x = active(x, f"up_{factor}")
    x = _photos_convolution(_reflected(x, 3), channels_out, 7, 1, "last", seeds)
    return keras.Model(image, layers.Activation("tanh", name="translation")(x), name=name)


def _photos_discriminator(config, channels, seeds, name):
    image = x = keras.Input((config.image_size, config.image_size, channels), name="image")
    for number, (factor, stride) in enumerate(((1, 2), (2, 2), (4, 2), (8, 1))):
        x = layers.ZeroPadding2D(1, name=f"part_{number}_padding")(x)
        x = _photos_convolution(x, factor * config.width, 4, stride, f"part_{number}", seeds)
        if number:
            x = _instance_normalised(x, f"part_{number}")
        x = layers.LeakyReLU(negative_slope=PHOTOS_SLOPE, name=f"part_{number}_relu")(x)
    x = layers.ZeroPadding2D(1, name="score_padding")(x)
    score = _photos_convolution(x, 1, 4, 1, "score", seeds)
    return keras.Model(image, score, name=name)
