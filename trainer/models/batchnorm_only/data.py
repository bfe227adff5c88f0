"""What happens to a picture before these networks see it."""

import tensorflow as tf

from trainer.augmentation.crops import (
    centre_crop,
    centre_crops,
    decode,
    padded_crop,
    random_crop_of_encoded,
)
from trainer.models.batchnorm_only.config import Config, architecture

RAW_FOR_TRAINING = ("image",)
"""The training split keeps the encoded picture, since ImageNet's crops are drawn from all of it."""

STORED_AS = {"image": "uint8"}
"""TF Transform knows no bytes but strings; pixels leave it as int64 and are stored as bytes."""

SHORTER_SIDE = 256 / 224  # open_lth, ImageNet: of the picture that evaluation crops
SMALLEST_AREA = 0.1  # open_lth, ImageNet: of the picture, in a training crop
ASPECT_RATIOS = (0.8, 1.25)  # open_lth, ImageNet
PADDING = 4  # open_lth, CIFAR-10: pixels


def preprocessing_fn(inputs, config: Config):
    """Encoded pictures become what evaluation and serving use.

    For ImageNet's networks the centre crop of a picture whose shorter side was brought to 256/224
    of `config.image_size`; for CIFAR-10's, the whole of a square picture.

    Args:
        inputs: `image`, string [batch]: JPEG or PNG; `label`, int64 [batch].
        config: decides the size.

    Returns:
        `image`, int64 [batch, size, size, 3], RGB in 0 to 255; `label`, int64 [batch].
    """
    size = config.image_size
    shorter_side = round(size * SHORTER_SIDE) if architecture(config.variant).large else size
    return {"image": centre_crops(inputs["image"], shorter_side, size), "label": inputs["label"]}


def augment(example, seed, config: Config):
    """A random crop, mirrored or not: for CIFAR-10's networks of the picture within 4 black pixels.

    Args:
        example: `image`, an encoded picture; `label`.
        seed: int32 [2]; the same seed gives the same crop.
        config: decides the size, and which crop.

    Returns:
        `image`, float32 [size, size, 3], RGB in [0, 255]; `label`.
    """
    size = config.image_size
    seeds = tf.random.split(seed, 2)
    if architecture(config.variant).large:
        image = random_crop_of_encoded(
            example["image"], size, seeds[0], SMALLEST_AREA, ASPECT_RATIOS
        )
    else:
        image = centre_crop(decode(example["image"]), size, size)
        image = padded_crop(image, PADDING, seeds[0])
    return {**example, "image": tf.image.stateless_random_flip_left_right(image, seeds[1])}
