"""What happens to a picture before the GAN sees it."""

import tensorflow as tf

from trainer.errors import UserError
from trainer.models.gan.config import Config

STORED_AS = {"image": "uint8"}
"""TF Transform knows no bytes but strings; pixels leave it as int64 and are stored as bytes."""


def preprocessing_fn(inputs, config: Config):
    """Encoded pictures of any size and colour become grey squares.

    Args:
        inputs: `image`, string [batch]: JPEG or PNG; `label`, int64 [batch], where there are
            classes.
        config: decides the size, and whether labels are kept.

    Returns:
        `image`, int64 [batch, size, size, 1] in 0 to 255; `label`, int64 [batch], if
        `config.num_classes`.

    Raises:
        UserError: there are classes, but no label for each picture.
    """
    size = config.image_size
    if config.num_classes and "label" not in inputs:
        raise UserError(
            f"Pictures of {config.num_classes} classes must have a label each for the classes to "
            f"be counted; these have {', '.join(sorted(inputs))}. Set num_classes=0."
        )

    def decode(encoded):
        image = tf.io.decode_image(encoded, channels=1, expand_animations=False)
        image = tf.ensure_shape(image, (None, None, 1))
        image = tf.image.resize(image, (size, size), antialias=True)
        return tf.cast(tf.round(tf.clip_by_value(image, 0.0, 255.0)), tf.uint8)

    image = tf.map_fn(decode, inputs["image"], fn_output_signature=tf.uint8)
    # Widened at the very end, where preprocess can leave it out again.
    outputs = {"image": tf.cast(tf.ensure_shape(image, (None, size, size, 1)), tf.int64)}
    return {**outputs, "label": inputs["label"]} if config.num_classes else outputs
