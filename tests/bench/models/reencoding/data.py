"""What happens to a picture."""

import tensorflow as tf


def preprocessing_fn(inputs, config):
    """Pictures become smaller pictures.

    Args:
        inputs: `image`, string [batch]: JPEG or PNG; `label`, int64 [batch].
        config: decides size and quality.

    Returns:
        `image`, string [batch]: JPEG; `label`, int64 [batch].
    """
    image = tf.map_fn(lambda encoded: reencode(encoded, config), inputs["image"])
    return {"image": image, "label": inputs["label"]}


def reencode(encoded, config):
    """One picture."""
    image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    image = tf.ensure_shape(image, (None, None, 3))
    image = tf.image.resize(image, (config.image_size, config.image_size))
    return tf.io.encode_jpeg(tf.cast(tf.round(image), tf.uint8), quality=config.quality)
