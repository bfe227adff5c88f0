"""What happens to a digit before the autoencoder sees it."""

import tensorflow as tf

from trainer.models.autoencoder.config import Config


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
