"""Pictures of any size as squares of one size, inside TF Transform."""

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from trainer.errors import UserError

Tensor = Any


def labelled_squares(
    inputs: Mapping[str, Tensor], size: int, channels: int, num_classes: int
) -> dict[str, Tensor]:
    """Encoded pictures become squares: the largest in their centre, brought to the one size.

    Args:
        inputs: `image`, string [batch]: JPEG or PNG; `label`, int64 [batch], where there are
            classes.
        size: side of the squares, in pixels.
        channels: 1 for grey pictures, 3 for colour.
        num_classes: whether labels are kept: 0 for no.

    Returns:
        `image`, int64 [batch, size, size, channels] in 0 to 255; `label`, int64 [batch], if
        `num_classes`.

    Raises:
        UserError: there are classes, but no label for each picture.
    """
    if num_classes and "label" not in inputs:
        raise UserError(
            f"Pictures of {num_classes} classes must have a label each for the classes to be "
            f"counted; these have {', '.join(sorted(inputs))}. Set num_classes=0."
        )

    def decode(encoded: Tensor) -> Tensor:
        image = tf.io.decode_image(encoded, channels=channels, expand_animations=False)
        image = central_square(tf.ensure_shape(image, (None, None, channels)))
        image = tf.image.resize(image, (size, size), antialias=True)
        return tf.cast(tf.round(tf.clip_by_value(image, 0.0, 255.0)), tf.uint8)

    image = tf.map_fn(decode, inputs["image"], fn_output_signature=tf.uint8)
    image = tf.ensure_shape(image, (None, size, size, channels))
    # Widened at the very end, where preprocess can leave it out again.
    outputs = {"image": tf.cast(image, tf.int64)}
    return {**outputs, "label": inputs["label"]} if num_classes else outputs


def central_square(image: Tensor) -> Tensor:
    """The largest square in the middle of a picture [height, width, channels]."""
    height, width = tf.shape(image)[0], tf.shape(image)[1]
    side = tf.minimum(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return image[top : top + side, left : left + side]
