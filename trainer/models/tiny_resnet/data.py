"""What happens to a picture before the small ResNet sees it."""

import tensorflow as tf

from trainer.augmentation.affine import random_affine
from trainer.augmentation.crops import centre_crops
from trainer.models.tiny_resnet.config import Config

STORED_AS = {"image": "uint8"}
"""TF Transform knows no bytes but strings; pixels leave it as int64 and are stored as bytes."""

# All of the project's, in Keras's ImageDataGenerator: uniform within these bounds.
ROTATION = 18.0  # degrees
SHEAR = 0.15  # degrees
ZOOM = 0.15
SHIFT = 0.2  # of the side
BRIGHTNESS = (0.4, 1.6)


def preprocessing_fn(inputs, config: Config):
    """Encoded pictures become squares: the shorter side is brought to size, the centre cut out.

    Args:
        inputs: `image`, string [batch]: JPEG or PNG; `label`, int64 [batch].
        config: decides the size.

    Returns:
        `image`, int64 [batch, size, size, 3], RGB in 0 to 255; `label`, int64 [batch].
    """
    size = config.image_size
    return {"image": centre_crops(inputs["image"], size, size), "label": inputs["label"]}


def augment(example, seed, config: Config):
    """A picture at the size of training, turned, sheared, zoomed, moved, mirrored, and lit anew.

    Args:
        example: `image`, uint8 [image_size, image_size, 3]; `label`.
        seed: int32 [2]; the same seed gives the same picture.
        config: decides the size.

    Returns:
        `image`, float32 [training_size, training_size, 3], RGB in [0, 255]; `label`.
    """
    size = config.training_size
    seeds = tf.random.split(seed, 3)
    image = tf.image.resize(example["image"], (size, size), antialias=True)
    image = random_affine(image, seeds[0], rotation=ROTATION, shear=SHEAR, zoom=ZOOM, shift=SHIFT)
    image = tf.image.stateless_random_flip_left_right(image, seeds[1])
    light = tf.random.stateless_uniform((), seeds[2], *BRIGHTNESS)
    return {**example, "image": tf.clip_by_value(image * light, 0.0, 255.0)}
