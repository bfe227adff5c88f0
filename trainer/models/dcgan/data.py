"""What happens to a picture before DCGAN sees it."""

import tensorflow as tf

from trainer.errors import UserError
from trainer.models.dcgan.config import Config

STORED_AS = {"image": "uint8"}
"""TF Transform knows no bytes but strings; pixels leave it as int64 and are stored as bytes."""


def preprocessing_fn(inputs, config: Config):
    """Encoded pictures become squares: the largest in their centre, brought to the one size.

    Args:
        inputs: `image`, string [batch]: JPEG or PNG; `label`, int64 [batch], where there are
            classes.
        config: decides size and colour, and whether labels are kept.

    Returns:
        `image`, int64 [batch, size, size, channels] in 0 to 255; `label`, int64 [batch], if
        `config.num_classes`.

    Raises:
        UserError: there are classes, but no label for each picture.
    """
    size, channels = config.image_size, config.channels
    if config.num_classes and "label" not in inputs:
        raise UserError(
            f"Pictures of {config.num_classes} classes must have a label each for the classes to "
            f"be counted; these have {', '.join(sorted(inputs))}. Set num_classes=0."
        )

    def decode(encoded):
        image = tf.io.decode_image(encoded, channels=channels, expand_animations=False)
        image = central_square(tf.ensure_shape(image, (None, None, channels)))
        image = tf.image.resize(image, (size, size), antialias=True)
        return tf.cast(tf.round(tf.clip_by_value(image, 0.0, 255.0)), tf.uint8)

    image = tf.map_fn(decode, inputs["image"], fn_output_signature=tf.uint8)
    image = tf.ensure_shape(image, (None, size, size, channels))
    # Widened at the very end, where preprocess can leave it out again.
    outputs = {"image": tf.cast(image, tf.int64)}
    return {**outputs, "label": inputs["label"]} if config.num_classes else outputs


def central_square(image):
    """The largest square in the middle of a picture [height, width, channels]."""
    height, width = tf.shape(image)[0], tf.shape(image)[1]
    side = tf.minimum(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return image[top : top + side, left : left + side]
