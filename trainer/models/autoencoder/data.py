"""What happens to a digit before the autoencoder sees it."""

import tensorflow as tf

from trainer.augmentation.affine import random_affine
from trainer.models.autoencoder.config import Config

# Ours, for a distortion of 1.
ROTATION = 5.0  # degrees
ZOOM = 0.05
SHIFT = 0.5  # pixels


def preprocessing_fn(inputs, config: Config):
    """Encoded pictures of any size and colour become grey squares.

    Args:
        inputs: `image`, string [batch]: JPEG or PNG.
        config: decides the size.

    Returns:
        `image`, float32 [batch, size, size, 1] in [0, 1].
    """
    size = config.image_size

    def decode(encoded):
        image = tf.io.decode_image(encoded, channels=1, expand_animations=False)
        image = tf.ensure_shape(image, (None, None, 1))
        image = tf.image.resize(image, (size, size), antialias=True)
        return tf.clip_by_value(image / 255.0, 0.0, 1.0)

    image = tf.map_fn(decode, inputs["image"], fn_output_signature=tf.float32)
    return {"image": tf.ensure_shape(image, (None, size, size, 1))}


def augment(example, seed, config: Config):
    """A digit slightly turned, zoomed and moved, or, one time in two, as it is.

    What lies between pixels is smoother than they are, and an autoencoder that never saw sharp
    pictures redraws them worse.

    Args:
        example: `image`, float32 [size, size, 1] in [0, 1].
        seed: int32 [2]; the same seed gives the same picture.
        config: decides how far.

    Returns:
        `image`, of the same form.
    """
    if not config.distortion:
        return example
    seeds = tf.random.split(seed, 2)
    image = random_affine(
        example["image"],
        seeds[0],
        rotation=ROTATION * config.distortion,
        zoom=ZOOM * config.distortion,
        shift=SHIFT * config.distortion / config.image_size,
        fill="NEAREST",
    )
    distorted = tf.random.stateless_uniform((), seeds[1]) < 0.5
    return {**example, "image": tf.where(distorted, image, example["image"])}
