"""QUICKSAL: what stands out in a picture, found by MobileNetV2 and a decoder of inception blocks.

Paper: Ramanathan et al. 2020, https://mlanthology.org/wacv/2020/ramanathan2020wacv-quicksal/
Ours:  the widths of the decoder, so that the network has the paper's 3.3 million parameters; the
loss, since the paper's has a constant black map for a trap.
"""

import itertools
import math
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import layers, ops
from keras.initializers import HeNormal

from trainer.backbones.mobilenet_v2 import (
    CHANNELS,
    MEAN,
    STANDARD_DEVIATION,
    build_features,
    convert,
    torchvision_weights,
)
from trainer.layers.batch_normalization import BatchNormalization
from trainer.layers.up_sampling import BilinearUpSampling2D
from trainer.metrics.saliency import Saliency
from trainer.models.quicksal.config import Config
from trainer.optimizers.pruning import EVERY, PruningAdam, kept_weights
from trainer.recipe import Panel, Recipe, Signature, Update
from trainer.schedules.cycles import TriangularCycles

# Ours, from stride 32 to 2: channels of each branch of a block, and of what leaves it.
DECODER = ((288, 288), (160, 160), (96, 96), (48, 48), (8, 16))
EPSILON, MOMENTUM = 1e-5, 0.9  # as in the encoder
CHOICES = 20  # ours: how often the weights that stay are chosen, or more often
SHOWN = 16  # pictures of a row of the report


def recipe(config: Config) -> Recipe:
    """An encoder and a decoder, moved by one loss at rates of their own."""
    networks = {"encoder": build_encoder(config), "decoder": build_decoder(config)}
    if config.encoder == "imagenet":
        for name, value in convert(torchvision_weights()).items():
            layer, variable = name.split("/")
            getattr(networks["encoder"].get_layer(layer), variable).assign(value)
    loss_of = {
        "cross_entropy_and_overlap": cross_entropy_and_overlap,
        "mean_absolute_error": mean_absolute_error,
    }[config.loss]

    def logit_of(image, training):
        maps = networks["encoder"](normalise(image), training=training)
        logit = networks["decoder"](maps, training=training)
        # Whatever the networks compute in: the loss is a mean over many pixels.
        return ops.cast(logit, keras.config.floatx())

    def loss(batch):
        logit = logit_of(batch["image"], training=True)[..., 0]
        mask = ops.cast(batch["mask"], logit.dtype)
        # Beside the error, what it would be for a map that is black all over.
        error = ops.mean(ops.abs(ops.sigmoid(logit) - mask))
        return loss_of(logit, mask), {"absolute_error": error, "error_of_black": ops.mean(mask)}

    def segment(image):
        return {"saliency": ops.sigmoid(logit_of(image, training=False))[..., 0]}

    def samples(batch):
        return {"What stands out": segment(batch["image"])["saliency"][..., None]}

    size = config.image_size
    return Recipe(
        networks=networks,
        updates=[Update(loss, optimizers_of(config, networks))],
        predict=lambda batch: segment(batch["image"]),
        metrics=lambda class_names: [Saliency(), NonzeroParameters(*networks.values())],
        signatures={
            "segment": Signature(
                segment,
                {"image": keras.KerasTensor((None, size, size, 3))},
                "An RGB picture with values in [0, 255], squashed to a square, and out comes for "
                "each pixel how much it stands out, in [0, 1] (`saliency`).",
            )
        },
        panels=panels,
        samples=samples,
    )


def optimizers_of(config: Config, networks: Mapping[str, keras.Model]) -> dict[str, Any]:
    """Adam with a cyclic learning rate for each, which prunes where they are to be sparse."""
    of_an_epoch = max(config.train_examples // config.batch_size, 1)
    steps = config.epochs * of_an_epoch
    # A training ends at the lowest rate: whole cycles fill it.
    cycles = max(round(steps / (2 * config.half_cycle)), 1)

    def rate(name):
        factor = config.encoder_rate if name == "encoder" else 1.0
        return TriangularCycles(
            factor * config.lowest_learning_rate,
            factor * config.highest_learning_rate,
            max(steps // (2 * cycles), 1),
        )

    if not config.sparsity:
        return {name: keras.optimizers.Adam(rate(name)) for name in networks}
    until = min(config.pruning_epochs, config.epochs) * of_an_epoch
    every = max(min(until // CHOICES, EVERY), 1)
    until -= until % every
    kept = weights_left(config, networks)
    return {
        name: PruningAdam(rate(name), kept=kept[name], steps=until, every=every)
        for name in networks
    }


def weights_left(config: Config, networks: Mapping[str, keras.Model]) -> dict[str, dict[str, int]]:
    """How many weights pruning leaves of each kernel, by its path, of each network by its name."""
    sizes = {
        (name, v.path): tuple(v.shape)
        for name, network in networks.items()
        for v in network.trainable_variables
    }
    kernels = {key: shape for key, shape in sizes.items() if key[1].endswith("kernel")}
    total, prunable = (sum(map(math.prod, x.values())) for x in (sizes, kernels))
    left = round((1.0 - config.sparsity) * total) - (total - prunable)
    kept = kept_weights({"/".join(key): shape for key, shape in kernels.items()}, left)
    return {
        name: {path: kept[f"{name}/{path}"] for owner, path in kernels if owner == name}
        for name in networks
    }


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


def build_encoder(config: Config) -> keras.Model:
    """Maps standardised pictures [batch, size, size, 3] to MobileNetV2's maps at five strides."""
    image = keras.Input((config.image_size, config.image_size, 3), name="image")
    return keras.Model(image, build_features(image, config.seed, config.depth), name="encoder")


def build_decoder(config: Config) -> keras.Model:
    """Maps the encoder's maps to logits of the pixels, [batch, size, size, 1].

    They are above 0 for what stands out.
    """
    seeds = itertools.count(config.seed * 10_000 + 5_000)

    def active(x, name):
        x = BatchNormalization(momentum=MOMENTUM, epsilon=EPSILON, name=f"{name}_bn")(x)
        return layers.ReLU(6.0, name=f"{name}_relu6")(x)

    def pointwise(x, width, name):
        initial = HeNormal(next(seeds))
        layer = layers.Conv2D(width, 1, use_bias=False, kernel_initializer=initial, name=name)
        return active(layer(x), name)

    def depthwise(x, size, name):
        initial = HeNormal(next(seeds))
        layer = layers.DepthwiseConv2D(
            size, padding="same", use_bias=False, depthwise_initializer=initial, name=name
        )
        return active(layer(x), name)

    def inception(x, width, width_out, name):
        """A pixel, its neighbours to a distance of 1 and of 2, and what is large around it."""
        branches = [pointwise(x, width, f"{name}_pixel")]
        for size in (3, 5):
            y = pointwise(x, width, f"{name}_{size}_in")
            y = depthwise(y, size, f"{name}_{size}_around")
            branches.append(pointwise(y, width, f"{name}_{size}_out"))
        y = layers.MaxPooling2D(3, 1, "same", name=f"{name}_largest")(x)
        branches.append(pointwise(y, width, f"{name}_largest_out"))
        x = layers.Concatenate(name=f"{name}_branches")(branches)
        return pointwise(x, width_out, f"{name}_out")

    maps = [
        keras.Input((config.image_size // stride, config.image_size // stride, channels))
        for stride, channels in CHANNELS.items()
    ]
    x = None
    for level, (skipped, widths) in enumerate(zip(maps[::-1], DECODER, strict=True), start=1):
        name = f"level_{level}"
        if x is not None:
            x = BilinearUpSampling2D(name=f"{name}_enlarged")(x)
            skipped = layers.Concatenate(name=f"{name}_skip")([x, skipped])
        x = inception(skipped, *widths, name)
    # Small at first, so that no pixel is decided before anything is learnt.
    initial = keras.initializers.RandomNormal(0.0, 0.01, seed=next(seeds))
    x = layers.Conv2D(1, 3, padding="same", kernel_initializer=initial, name="logit")(x)
    logit = BilinearUpSampling2D(name="logit_enlarged")(x)
    return keras.Model(maps, logit, name="decoder")


def cross_entropy_and_overlap(logit, mask):
    """Binary cross-entropy of the pixels, and what the map lacks of the mask's overlap.

    The overlap is the soft intersection over union of each picture (Rahman and Wang 2016), with
    one pixel more in both parts for masks without an object.

    Args:
        logit: [batch, height, width].
        mask: [batch, height, width], 0 or 1, of the same dtype.
    """
    cross_entropy = ops.mean(ops.softplus(logit) - logit * mask)
    found = ops.sigmoid(logit)
    common = ops.sum(found * mask, axis=(1, 2))
    either = ops.sum(found + mask, axis=(1, 2)) - common
    return cross_entropy + ops.mean(1.0 - (common + 1.0) / (either + 1.0))


def mean_absolute_error(logit, mask):
    """The paper's loss: the mean difference of the map from the mask."""
    return ops.mean(ops.abs(ops.sigmoid(logit) - mask))


class NonzeroParameters:
    """How many trained parameters of networks differ from zero.

    Args:
        networks: whose they are.
    """

    def __init__(self, *networks: keras.Model):
        self._networks = networks

    def update(self, batch, outputs) -> None:
        """Batches say nothing about it."""

    def result(self) -> dict[str, float]:
        """`nonzero_parameters`, in millions; `sparsity`, the part that is zero."""
        values = [ops.convert_to_numpy(v) for n in self._networks for v in n.trainable_variables]
        count, total = sum(map(np.count_nonzero, values)), sum(v.size for v in values)
        return {"nonzero_parameters": count / 1e6, "sparsity": 1.0 - count / total}


def panels(batch, outputs, class_names):
    """Pictures, what the network finds in them, and the masks."""
    saliency, mask = (
        np.asarray(x[:SHOWN], np.float32)[..., None] for x in (outputs["saliency"], batch["mask"])
    )
    return [
        Panel("Pictures of the evaluation split", np.asarray(batch["image"][:SHOWN]) / 255.0),
        Panel("What stands out, as found", saliency),
        Panel("What stands out, by the masks", mask),
    ]
