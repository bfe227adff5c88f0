"""Networks whose convolutions stay random, and which learn by batch normalisation alone.

Paper: Frankle, Schwab and Morcos 2020, https://arxiv.org/abs/2003.00152; the networks and numbers
that it leaves open are those of the authors' code, open_lth.
"""

import itertools

import keras
import numpy as np
from keras import layers, ops
from keras.initializers import RandomNormal, RandomUniform
from keras.optimizers.schedules import PiecewiseConstantDecay

from trainer.classifiers.classifying import classifying, weight_decay
from trainer.layers.batch_normalization import BatchNormalization
from trainer.models.batchnorm_only.config import Config, architecture
from trainer.models.batchnorm_only.partial import PartlyTrainedConv2D
from trainer.recipe import Recipe
from trainer.schedules.warm_up import LinearWarmUp

MEAN = (0.485, 0.456, 0.406)  # open_lth: RGB, in [0, 1], for CIFAR-10 too
STANDARD_DEVIATION = (0.229, 0.224, 0.225)  # open_lth
EPSILON, MOMENTUM = 1e-5, 0.9  # PyTorch's batch normalisation (its momentum of 0.1)
EXPANSION = 4  # He et al. 2015, figure 5: channels that leave a bottleneck
WEIGHTS_OF_FILTER = 2  # section 4: as many as batch normalisation has for it
DISABLED = 0.01  # ours: a feature with a smaller scale adds nothing to the next layer


def recipe(config: Config) -> Recipe:
    """One network, one loss: cross-entropy with L2 on what is trained."""
    network = build_network(config)

    def penalty():
        trained = [value for layer in network.layers for value in trained_values(layer)]
        return weight_decay(trained, config.weight_decay)

    optimizer = keras.optimizers.SGD(rate(config), momentum=config.momentum)
    return classifying(
        config,
        network,
        optimizer,
        normalise,
        penalty,
        metrics=[lambda: DisabledFeatures(network)],
    )


def rate(config: Config):
    """The learning rate by step: a tenth after each milestone, and the warm-up where there is one.

    A milestone is reached with the first step of the epoch after it.
    """
    steps = max(config.train_examples // config.batch_size, 1)
    # Keras's schedule keeps its old value at the boundary itself.
    boundaries = [epoch * steps - 1 for epoch in config.milestones]
    values = [config.learning_rate * 0.1**i for i in range(len(boundaries) + 1)]
    schedule = PiecewiseConstantDecay(boundaries, values) if boundaries else values[0]
    if config.warmup_epochs:
        return LinearWarmUp(schedule, config.warmup_epochs * steps)
    return schedule


def normalise(image):
    """Standardised pictures.

    Args:
        image: [batch, height, width, 3], RGB in [0, 255], any dtype.

    Returns:
        The same shape, in the precision that Keras is set to.
    """
    precision = keras.config.floatx()
    image = ops.cast(image, precision) / 255.0
    return (image - ops.array(MEAN, precision)) / ops.array(STANDARD_DEVIATION, precision)


def build_network(config: Config) -> keras.Model:
    """Maps normalised pictures [batch, size, size, 3] to logits [batch, num_classes].

    What is not to be trained is frozen variable by variable: a whole layer of batch normalisation
    would stop measuring its batches too.
    """
    shape = architecture(config.variant)
    seeds = itertools.count(config.seed * 10_000)
    partly = WEIGHTS_OF_FILTER if "random" in config.trained else None

    def convolution(x, width, kernel_size, stride, name, group="convolution"):
        # Kaiming's normal by fan-in, which Keras would cut off at two standard deviations.
        deviation = (2.0 / (kernel_size**2 * x.shape[-1])) ** 0.5
        arguments = {
            "strides": stride,
            "padding": "same" if stride == 1 else "valid",
            "use_bias": False,
            "kernel_initializer": RandomNormal(0.0, deviation, seed=next(seeds)),
            "name": name,
        }
        # PyTorch pads both sides; Keras's "same" pads only one at stride 2 and even sizes.
        if kernel_size > 1 and stride == 2:
            x = layers.ZeroPadding2D(kernel_size // 2, name=f"{name}_padding")(x)
        if partly:
            layer = PartlyTrainedConv2D(
                width, kernel_size, **arguments, trained=partly, seed=next(seeds)
            )
        else:
            layer = layers.Conv2D(width, kernel_size, **arguments)
        x = layer(x)
        layer.kernel.trainable = bool(partly) or group in config.trained
        return x

    def normalisation(x, name):
        # Section 3: scales from U(0, 1), offsets 0.
        scales = RandomUniform(0.0, 1.0, seed=next(seeds))
        layer = BatchNormalization(
            momentum=MOMENTUM, epsilon=EPSILON, gamma_initializer=scales, name=name
        )
        x = layer(x)
        layer.gamma.trainable = layer.beta.trainable = "batchnorm" in config.trained
        return x

    def block(x, width, stride, name):
        width_out = width * EXPANSION if shape.bottleneck else width
        shortcut = x
        if stride != 1 or x.shape[-1] != width_out:
            shortcut = convolution(x, width_out, 1, stride, f"{name}_shortcut", "shortcut")
            shortcut = normalisation(shortcut, f"{name}_shortcut_bn")
        parts = [(width, 3, stride), (width, 3, 1)]
        if shape.bottleneck:
            parts = [(width, 1, 1), (width, 3, stride), (width_out, 1, 1)]
        for number, (filters, kernel_size, step) in enumerate(parts, start=1):
            if number > 1:
                x = layers.ReLU(name=f"{name}_relu_{number - 1}")(x)
            x = convolution(x, filters, kernel_size, step, f"{name}_conv_{number}")
            x = normalisation(x, f"{name}_bn_{number}")
        x = layers.Add(name=f"{name}_sum")([shortcut, x])
        return layers.ReLU(name=f"{name}_relu")(x)

    image = keras.Input((config.image_size, config.image_size, 3), name="image")
    width = shape.width * config.width
    stem = (7, 2) if shape.large else (3, 1)
    x = convolution(image, width, *stem, "stem_conv")
    x = layers.ReLU(name="stem_relu")(normalisation(x, "stem_bn"))
    if shape.large:
        # After a ReLU, the border of zeros never is the largest.
        x = layers.ZeroPadding2D(1, name="stem_pool_padding")(x)
        x = layers.MaxPooling2D(3, 2, name="stem_pool")(x)
    for i, blocks in enumerate(shape.blocks, start=1):
        for j in range(1, blocks + 1):
            x = block(x, width * 2 ** (i - 1), 2 if i > 1 and j == 1 else 1, f"s{i}_b{j}")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    features = x.shape[-1]
    bound = features**-0.5  # PyTorch's default for biases
    output = layers.Dense(
        config.num_classes,
        kernel_initializer=RandomNormal(0.0, (2.0 / features) ** 0.5, seed=next(seeds)),
        bias_initializer=RandomUniform(-bound, bound, seed=next(seeds)),
        name="output",
    )
    logit = output(x)
    output.kernel.trainable = output.bias.trainable = "output" in config.trained
    return keras.Model(image, logit, name="resnet")


def trained_values(layer: keras.Layer) -> list:
    """What of a layer is trained, as tensors."""
    if isinstance(layer, PartlyTrainedConv2D):
        return [layer.trained_weights()]
    return list(layer.trainable_variables)


def trained_parameters(network: keras.Model) -> int:
    """How many numbers of a network are trained."""
    return sum(
        layer.trained * layer.filters
        if isinstance(layer, PartlyTrainedConv2D)
        else sum(int(np.prod(v.shape)) for v in layer.trainable_variables)
        for layer in network.layers
    )


class DisabledFeatures:
    """How many features batch normalisation has switched off: its scale is below 0.01 (ours).

    Args:
        network: whose features they are.
    """

    def __init__(self, network: keras.Model):
        self._network = network

    def update(self, batch, outputs) -> None:
        """Batches say nothing about it."""

    def result(self) -> dict[str, float]:
        """`disabled_features`, in percent of all."""
        scales = np.concatenate(
            [
                keras.ops.convert_to_numpy(layer.gamma)
                for layer in self._network.layers
                if isinstance(layer, BatchNormalization)
            ]
        )
        return {"disabled_features": 100.0 * float((np.abs(scales) < DISABLED).mean())}
