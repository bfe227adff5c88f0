"""Autoencoder: squeeze a digit through 30 numbers and draw it again.

Paper: Hinton and Salakhutdinov, Science 2006, https://doi.org/10.1126/science.1127647
Ours:  all layers learn together with Adam, where the paper first trains each as an RBM.
"""

import keras
import numpy as np
from keras import layers, ops

from trainer.models.autoencoder.config import Config
from trainer.recipe import Panel, Recipe, Signature, Update


def recipe(config: Config) -> Recipe:
    """The autoencoder's network, its one loss and what it exports."""
    autoencoder = build_autoencoder(config)

    def reconstruction_loss(batch):
        logit = in_full(autoencoder(batch["image"], training=True)["logit"])
        # The cross-entropy of logistic pixels. Keras's takes two logarithms per pixel on JAX.
        cost = ops.softplus(logit) - logit * batch["image"]
        redrawn = ops.sigmoid(logit)
        return ops.mean(cost), {"squared_error": ops.mean(squared_error(batch["image"], redrawn))}

    def reconstruct(image):
        outputs = autoencoder(image, training=False)
        return {
            "image": ops.sigmoid(in_full(outputs["logit"])),
            "code": in_full(outputs["code"]),
        }

    steps = config.epochs * max(config.train_examples // config.batch_size, 1)
    schedule = keras.optimizers.schedules.CosineDecay(config.learning_rate, steps)
    return Recipe(
        networks={"autoencoder": autoencoder},
        updates=[Update(reconstruction_loss, {"autoencoder": keras.optimizers.Adam(schedule)})],
        predict=lambda batch: reconstruct(batch["image"]),
        metrics=lambda class_names: [SquaredError()],
        signatures={
            "reconstruct": Signature(
                reconstruct,
                {"image": keras.KerasTensor((None, config.image_size, config.image_size, 1))},
                "A grey picture with values in [0, 1], and out comes its redrawing in the same "
                f"form (`image`) and the {config.code_size} numbers it was drawn from (`code`).",
            )
        },
        panels=panels,
    )


def build_autoencoder(config: Config) -> keras.Model:
    """Maps [batch, size, size, 1] in [0, 1] to its `code` and the `logit` of its redrawing."""
    shape = (config.image_size, config.image_size, 1)
    initializer = keras.initializers.HeNormal
    image = keras.Input(shape, name="image")
    x = layers.Flatten(name="pixels")(image)
    for i, width in enumerate(config.widths):
        x = layers.Dense(
            width,
            activation="relu",
            kernel_initializer=initializer(seed=config.seed + i),
            name=f"encoder_{i}",
        )(x)
    # The code is linear, as in the paper: its units may take any value.
    code = x = layers.Dense(
        config.code_size,
        kernel_initializer=keras.initializers.GlorotUniform(seed=config.seed + 100),
        name="code",
    )(x)
    for i, width in enumerate(reversed(config.widths)):
        x = layers.Dense(
            width,
            activation="relu",
            kernel_initializer=initializer(seed=config.seed + 200 + i),
            name=f"decoder_{i}",
        )(x)
    x = layers.Dense(
        config.image_size**2,
        kernel_initializer=keras.initializers.GlorotUniform(seed=config.seed + 300),
        name="redraw",
    )(x)
    logit = layers.Reshape(shape, name="logit")(x)
    return keras.Model(image, {"code": code, "logit": logit}, name="autoencoder")


def in_full(tensor):
    """What a network puts out, in the precision of the weights, whichever it computes in."""
    return ops.cast(tensor, keras.config.floatx())


def squared_error(image, redrawn):
    """Sum over the pixels of the squared difference, [batch]; the paper's measure."""
    return ops.sum(ops.square(image - redrawn), axis=(1, 2, 3))


class SquaredError:
    """Mean over the pictures of the summed squared error, and the same per pixel and as PSNR."""

    def __init__(self):
        self.total = 0.0
        self.images = 0
        self.pixels = 0

    def update(self, batch, outputs):
        """Takes in one batch of pictures and their redrawings."""
        difference = np.asarray(batch["image"], np.float64) - outputs["image"]
        self.total += float(np.square(difference).sum())
        self.images += len(difference)
        self.pixels += difference.size

    def result(self):
        """`squared_error` per image, `mean_squared_error` per pixel, `psnr` in dB (peak 1)."""
        mean = self.total / self.pixels
        return {
            "squared_error": self.total / self.images,
            "mean_squared_error": mean,
            "psnr": float(-10 * np.log10(max(mean, 1e-12))),
        }


def panels(batch, outputs, class_names):
    """Digits and, under them, what the network drew from their codes."""
    return [
        Panel("Digits of the evaluation split", np.asarray(batch["image"][:16])),
        Panel("Redrawn from their codes", np.asarray(outputs["image"][:16])),
    ]
