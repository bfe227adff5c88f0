"""What happens to a picture and its mask before QUICKSAL sees them."""

import tensorflow as tf

from trainer.augmentation.crops import decode
from trainer.models.quicksal.config import Config

STORED_AS = {"image": "uint8", "mask": "uint8"}
"""TF Transform knows no bytes but strings; pixels leave it as int64 and are stored as bytes."""

OBJECT = 127
"""A mask's values above it are the object (MSRA10K's masks are 0 or 255, but for resized ones)."""

# All ours.
SMALLEST_PART = 0.7  # of each side, that a crop has
LIGHT = (0.7, 1.3)
CONTRAST = (0.7, 1.3)
SATURATION = (0.5, 1.5)


def preprocessing_fn(inputs, config: Config):
    """Encoded pictures and masks become squares of one size, whatever their shape was.

    Args:
        inputs: `image`, string [batch]: JPEG or PNG; `mask`, string [batch]: PNG of the same size.
        config: decides the size.

    Returns:
        `image`, int64 [batch, size, size, 3], RGB in 0 to 255; `mask`, int64 [batch, size, size], 1
        where the object is and 0 elsewhere.
    """
    size = config.image_size

    def square(encoded):
        image = tf.image.resize(decode(encoded), (size, size), antialias=True)
        return tf.cast(tf.round(tf.clip_by_value(image, 0.0, 255.0)), tf.uint8)

    def decode_mask(encoded):
        mask = tf.io.decode_image(encoded, channels=1, expand_animations=False)
        return tf.ensure_shape(mask, (None, None, 1))

    def mask_of(encoded):
        # A server has none, and gives an empty string.
        mask = tf.cond(
            tf.strings.length(encoded) > 0,
            lambda: decode_mask(encoded),
            lambda: tf.zeros((1, 1, 1), tf.uint8),
        )
        # Between pixels there is no half an object.
        mask = tf.image.resize(mask, (size, size), method="nearest")
        return tf.cast(mask[:, :, 0] > OBJECT, tf.uint8)

    image = tf.map_fn(square, inputs["image"], fn_output_signature=tf.uint8)
    mask = tf.map_fn(mask_of, inputs["mask"], fn_output_signature=tf.uint8)
    # Widened at the very end, where preprocess can leave it out again.
    return {
        "image": tf.cast(tf.ensure_shape(image, (None, size, size, 3)), tf.int64),
        "mask": tf.cast(tf.ensure_shape(mask, (None, size, size)), tf.int64),
    }


def augment(example, seed, config: Config):
    """A crop of picture and mask, both mirrored or neither, in another light.

    Args:
        example: `image`, uint8 [size, size, 3]; `mask`, uint8 [size, size].
        seed: int32 [2]; the same seed gives the same picture.
        config: decides the size.

    Returns:
        `image`, float32 [size, size, 3], RGB in [0, 255]; `mask`, uint8 [size, size].
    """
    size = config.image_size
    crop, mirror, colour = tf.unstack(tf.random.split(seed, 3))
    part, corner = tf.split(tf.random.stateless_uniform((4,), crop), 2)
    part = SMALLEST_PART + (1.0 - SMALLEST_PART) * part
    corner *= 1.0 - part
    box = tf.concat([corner, corner + part], axis=0)[None]
    boxes = {"boxes": box, "box_indices": [0], "crop_size": (size, size)}
    image = tf.image.crop_and_resize(example["image"][None], **boxes)[0]
    mask = tf.image.crop_and_resize(example["mask"][None, :, :, None], **boxes, method="nearest")
    both = tf.concat([image, mask[0]], axis=-1)
    both = tf.image.stateless_random_flip_left_right(both, mirror)
    image, mask = both[:, :, :3], tf.cast(both[:, :, 3], tf.uint8)
    lowest, highest = zip(LIGHT, CONTRAST, SATURATION, strict=True)
    light, contrast, saturation = tf.unstack(
        tf.random.stateless_uniform((3,), colour) * tf.subtract(highest, lowest) + lowest
    )
    grey = tf.reduce_mean(image, axis=-1, keepdims=True)
    image = grey + saturation * (image - grey)
    middle = tf.reduce_mean(image)
    image = light * (middle + contrast * (image - middle))
    return {
        "image": tf.ensure_shape(tf.clip_by_value(image, 0.0, 255.0), (size, size, 3)),
        "mask": tf.ensure_shape(mask, (size, size)),
    }
