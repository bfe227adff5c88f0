"""RegNetY: a network whose widths and depths follow a straight line, with squeeze and excitation.

Paper: Radosavovic et al., CVPR 2020, https://arxiv.org/abs/2003.13678
Recipe: pycls's "dds baselines"; weights, parameter and operation counts equal pycls's.
"""

import itertools

import keras
from keras import layers, ops
from keras.initializers import RandomNormal, RandomUniform

from trainer.classifiers.classifying import classifying, weight_decay
from trainer.layers.batch_normalization import BatchNormalization
from trainer.layers.grouped_convolution import GroupedConv2D
from trainer.models.regnety.config import Config, stages
from trainer.models.regnety.schedule import EpochCosine
from trainer.recipe import Recipe

MEAN = (0.485, 0.456, 0.406)  # pycls: RGB, in [0, 1]
STANDARD_DEVIATION = (0.229, 0.224, 0.225)  # pycls
STEM_WIDTH = 32  # pycls
SQUEEZE_RATIO = 0.25  # pycls: relative to the width that comes into the block
EPSILON, MOMENTUM = 1e-5, 0.9  # pycls: batch normalisation (PyTorch's momentum 0.1)


def recipe(config: Config) -> Recipe:
    """One network, one loss: cross-entropy with L2 on everything."""
    network = build_regnety(config)
    rate = EpochCosine(
        config.learning_rate * config.batch_size / 1024,
        config.epochs,
        config.warmup_epochs,
        max(config.train_examples // config.batch_size, 1),
    )
    optimizer = keras.optimizers.SGD(rate, momentum=config.momentum, nesterov=True)
    return classifying(
        config,
        network,
        optimizer,
        normalise,
        lambda: weight_decay(network.trainable_variables, config.weight_decay),
        statistics_examples=config.statistics_examples,
    )


def normalise(image):
    """Pictures as pycls's networks expect them: standardised, blue first.

    Args:
        image: [batch, height, width, 3], RGB in [0, 255], any dtype.

    Returns:
        The same shape, BGR, in the precision that Keras is set to.
    """
    precision = keras.config.floatx()
    image = ops.cast(image, precision) / 255.0
    image = (image - ops.array(MEAN, precision)) / ops.array(STANDARD_DEVIATION, precision)
    return ops.flip(image, axis=-1)


def build_regnety(config: Config) -> keras.Model:
    """Maps normalised pictures [batch, size, size, 3], BGR, to logits [batch, num_classes].

    Layers carry pycls's names with underscores for dots, so that its weights find their place.
    """
    seeds = itertools.count(config.seed * 10_000)

    def convolution(width, kernel_size, stride, groups, name):
        # pycls: N(0, 2 / fan-out), where fan-out ignores the groups.
        deviation = (2.0 / (kernel_size**2 * width)) ** 0.5
        arguments = {
            "strides": stride,
            "padding": "same" if stride == 1 else "valid",
            "use_bias": False,
            "kernel_initializer": RandomNormal(0.0, deviation, seed=next(seeds)),
            "name": name,
        }

        def apply(x):
            # PyTorch pads both sides; Keras's "same" pads only one at stride 2 and even sizes.
            if kernel_size == 3 and stride == 2:
                x = layers.ZeroPadding2D(1, name=f"{name}_padding")(x)
            if groups == 1:
                return layers.Conv2D(width, kernel_size, **arguments)(x)
            return GroupedConv2D(width, kernel_size, groups=groups, **arguments)(x)

        return apply

    def normalisation(name):
        return BatchNormalization(momentum=MOMENTUM, epsilon=EPSILON, name=name)

    def squeeze_and_excitation(x, squeezed, name):
        width = x.shape[-1]
        scale = layers.GlobalAveragePooling2D(name=f"{name}_pool")(x)
        for i, units, activation in ((0, squeezed, "relu"), (2, width, "sigmoid")):
            bound = scale.shape[-1] ** -0.5  # PyTorch's default for biases
            scale = layers.Dense(
                units,
                activation=activation,
                kernel_initializer=RandomNormal(0.0, (2.0 / units) ** 0.5, seed=next(seeds)),
                bias_initializer=RandomUniform(-bound, bound, seed=next(seeds)),
                name=f"{name}_f_ex_{i}",
            )(scale)
        scale = layers.Reshape((1, 1, width), name=f"{name}_scale")(scale)
        return layers.Multiply(name=f"{name}_excite")([x, scale])

    def block(x, stage, stride, name):
        shortcut, width_in, width = x, x.shape[-1], stage.width
        if width_in != width or stride != 1:
            shortcut = convolution(width, 1, stride, 1, f"{name}_proj")(x)
            shortcut = normalisation(f"{name}_bn")(shortcut)
        groups = width // stage.group_width
        x = convolution(width, 1, 1, 1, f"{name}_f_a")(x)
        x = layers.ReLU(name=f"{name}_f_a_relu")(normalisation(f"{name}_f_a_bn")(x))
        x = convolution(width, 3, stride, groups, f"{name}_f_b")(x)
        x = layers.ReLU(name=f"{name}_f_b_relu")(normalisation(f"{name}_f_b_bn")(x))
        x = squeeze_and_excitation(x, round(SQUEEZE_RATIO * width_in), f"{name}_f_se")
        x = normalisation(f"{name}_f_c_bn")(convolution(width, 1, 1, 1, f"{name}_f_c")(x))
        return layers.ReLU(name=f"{name}_relu")(layers.Add(name=f"{name}_sum")([shortcut, x]))

    image = keras.Input((config.image_size, config.image_size, 3), name="image")
    x = convolution(STEM_WIDTH, 3, 2, 1, "stem_conv")(image)
    x = layers.ReLU(name="stem_relu")(normalisation("stem_bn")(x))
    for i, stage in enumerate(stages(config.variant), start=1):
        for j in range(1, stage.depth + 1):
            x = block(x, stage, stride=2 if j == 1 else 1, name=f"s{i}_b{j}")
    x = layers.GlobalAveragePooling2D(name="head_pool")(x)
    logit = layers.Dense(
        config.num_classes,
        kernel_initializer=RandomNormal(0.0, 0.01, seed=next(seeds)),
        name="head_fc",
    )(x)
    return keras.Model(image, logit, name="regnety")
