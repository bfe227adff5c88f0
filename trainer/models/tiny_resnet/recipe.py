"""A ResNet of 0.8 million parameters for Tiny ImageNet, trained at changing sizes.

Source: https://github.com/Vishal-V/GSoC, tiny_imagenet_custom_resnet, the notebook's network.
"""

import itertools

import keras
from keras import layers, ops
from keras.optimizers.schedules import PolynomialDecay

from trainer.classifiers.classifying import classifying
from trainer.layers.batch_normalization import BatchNormalization
from trainer.models.tiny_resnet.config import BLOCKS, STEM, Config
from trainer.recipe import Recipe

EPSILON, MOMENTUM = 2e-5, 0.9  # the notebook's batch normalisation
NARROWING = 4  # a block's channels over those of its middle convolution


def recipe(config: Config) -> Recipe:
    """One network, one loss: cross-entropy with L2 on the convolutions."""
    network = build_network(config)
    decays = [(v, decay_of(v.path, config)) for v in network.trainable_variables]

    def penalty():
        squares = [decay * ops.sum(ops.square(v)) for v, decay in decays if decay]
        return ops.sum(ops.stack(squares))

    optimizer = keras.optimizers.Adam(rate(config), epsilon=config.epsilon)
    return classifying(config, network, optimizer, normalise, penalty)


def normalise(image):
    """Pictures [batch, height, width, 3] in [0, 255] become [0, 1] in Keras's precision."""
    return ops.cast(image, keras.config.floatx()) / 255.0


def rate(config: Config):
    """The learning rate by step: a straight line down, or what it is."""
    if not config.decay_epochs:
        return config.learning_rate
    steps = config.decay_epochs * max(config.train_examples // config.batch_size, 1)
    return PolynomialDecay(config.learning_rate, steps, end_learning_rate=0.0)


def decay_of(path: str, config: Config) -> float:
    """The weight of a variable's sum of squares in the loss, as the notebook has it.

    Of separable convolutions it is the depthwise part alone that has one; shortcuts have none.
    """
    name, kind = path.split("/")[-2:]
    if kind == "depthwise_kernel":
        return config.outer_weight_decay if name.startswith("stem") else config.weight_decay
    if kind != "kernel" or name.endswith("shortcut"):
        return 0.0
    return config.outer_weight_decay if name == "output" else config.weight_decay


def build_network(config: Config) -> keras.Model:
    """Maps pictures [batch, height, width, 3] of any size, in [0, 1], to [batch, num_classes]."""
    seeds = itertools.count(config.seed * 10_000, 2)

    def active(x, name):
        x = BatchNormalization(epsilon=EPSILON, momentum=MOMENTUM, name=f"{name}_bn")(x)
        return x, layers.ReLU(name=f"{name}_relu")(x)

    def convolution(x, width, name, stride=1, use_bias=False):
        initial = keras.initializers.GlorotUniform(next(seeds))
        return layers.Conv2D(
            width, 1, stride, use_bias=use_bias, kernel_initializer=initial, name=name
        )(x)

    def separable(x, width, name, stride=1):
        seed = next(seeds)
        return layers.SeparableConv2D(
            width,
            3,
            stride,
            padding="same",
            use_bias=False,
            depthwise_initializer=keras.initializers.GlorotUniform(seed),
            pointwise_initializer=keras.initializers.GlorotUniform(seed + 1),
            name=name,
        )(x)

    def block(x, width, stride, name):
        shortcut = x
        normalised, x = active(x, f"{name}_1")
        if stride != 1:
            shortcut = layers.AveragePooling2D(stride, name=f"{name}_pool")(normalised)
        shortcut = convolution(shortcut, width, f"{name}_shortcut", use_bias=True)
        x = convolution(x, width // NARROWING, f"{name}_conv_1")
        x = separable(active(x, f"{name}_2")[1], width // NARROWING, f"{name}_conv_2", stride)
        x = convolution(active(x, f"{name}_3")[1], width, f"{name}_conv_3")
        return layers.Add(name=f"{name}_sum")([x, shortcut])

    image = keras.Input((None, None, 3), name="image")
    _, x = active(image, "input")
    for number, width in enumerate(STEM, start=1):
        x = separable(x, width, f"stem_conv_{number}")
    _, x = active(x, "stem")
    # After a ReLU, the border of zeros never is the largest.
    x = layers.ZeroPadding2D(1, name="stem_padding")(x)
    x = layers.MaxPooling2D(3, 2, name="stem_pool")(x)
    for i, (blocks, width) in enumerate(BLOCKS, start=1):
        for j in range(1, blocks + 1):
            x = block(x, width, 2 if i > 1 and j == 1 else 1, f"s{i}_b{j}")
    _, x = active(x, "output")
    x = convolution(x, config.num_classes, "output", use_bias=True)
    logit = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(image, logit, name="tiny_resnet")
