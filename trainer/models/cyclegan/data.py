"""What happens to a picture before CycleGAN sees it."""

import tensorflow as tf

from trainer.augmentation.crops import decode
from trainer.augmentation.squares import central_square, labelled_squares
from trainer.models.cyclegan.config import Config

SIDES = {"domain": ("_a", "_b")}
"""A step of training sees pictures of both domains."""

RAW_FOR_TRAINING = ("image",)
"""The training split keeps the encoded picture, since crops are drawn from more of it."""

STORED_AS = {"image": "uint8"}
"""TF Transform knows no bytes but strings; pixels leave it as int64 and are stored as bytes."""


def preprocessing_fn(inputs, config: Config):
    """Encoded pictures become what evaluation and serving use: the square in their middle.

    Args:
        inputs: `image`, string [batch]: JPEG or PNG; `label`, int64 [batch]: the domain, or, where
            there are classes, the class and `config.num_classes` more in domain B.
        config: decides size and classes.

    Returns:
        `image`, int64 [batch, size, size, 3], RGB in 0 to 255; `domain`, int64 [batch], 0 for A and
        1 for B; `label`, int64 [batch], the class, if `config.num_classes`.
    """
    classes = config.num_classes
    outputs = labelled_squares(inputs, config.image_size, 3, num_classes=0)
    if not classes:
        return {**outputs, "domain": inputs["label"]}
    label = inputs["label"]
    return {**outputs, "domain": label // classes, "label": label % classes}


def augment(example, seed, config: Config):
    """A random crop of the square in the middle, mirrored or not.

    Args:
        example: `image`, an encoded picture; the rest stays as it is.
        seed: int32 [2]; the same seed gives the same crop.
        config: decides the sizes, and whether pictures are mirrored.

    Returns:
        `image`, float32 [size, size, 3], RGB in [0, 255], and the rest.
    """
    size, load_size = config.image_size, config.load_size
    image = central_square(decode(example["image"]))
    image = tf.image.resize(image, (load_size, load_size), antialias=True)
    image = tf.clip_by_value(image, 0.0, 255.0)
    seeds = tf.random.split(seed, 2)
    if load_size > size:
        image = tf.image.stateless_random_crop(image, (size, size, 3), seeds[0])
    if config.mirror:
        image = tf.image.stateless_random_flip_left_right(image, seeds[1])
    return {**example, "image": tf.ensure_shape(image, (size, size, 3))}
