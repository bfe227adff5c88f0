"""What happens to a captioned picture: every kind of thing that TF Transform can do."""

import tensorflow as tf
import tensorflow_transform as tft

STORED_AS = {"thumbnail": "uint8"}


def preprocessing_fn(inputs, config):
    """Small pictures, boxes in parts of the picture, captions as numbers, and z-scores.

    Args:
        inputs: `image`, string [batch]; `label`, int64 [batch]; `box`, float32 [batch, None, 4];
            `text`, string [batch, None]; `weight`, float32 [batch, 3].
        config: decides the size.

    Returns:
        `image`, string [batch]: JPEG; `thumbnail`, int64 [batch, 4, 4, 3]; `brightness`, float32
        [batch]; `box`, float32 [batch, None, 4] in [0, 1]; `text`, int64 [batch, None]; `label`,
        int64 [batch]; `weight`, float32 [batch, 3].
    """
    size = config.image_size

    def decode(encoded):
        image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
        image = tf.ensure_shape(image, (None, None, 3))
        shape = tf.cast(tf.shape(image)[:2], tf.float32)
        brightest = tf.cast(tf.reduce_max(image), tf.int32)
        pixels = tf.cast(tf.round(tf.image.resize(image, (size, size), antialias=True)), tf.uint8)
        small = tf.cast(tf.round(tf.image.resize(image, (4, 4), antialias=True)), tf.uint8)
        mean = tf.reduce_mean(tf.cast(image, tf.float32))
        return tf.io.encode_jpeg(pixels, quality=95), small, mean, shape, brightest

    jpeg, small, mean, shape, brightest = tf.map_fn(
        decode,
        inputs["image"],
        fn_output_signature=(tf.string, tf.uint8, tf.float32, tf.float32, tf.int32),
    )
    tf.debugging.assert_less_equal(brightest, config.brightest, message="too bright")
    scale = tf.gather(tf.gather(shape, [1, 0, 1, 0], axis=1), inputs["box"].value_rowids())
    small = tf.ensure_shape(small, (None, 4, 4, 3))
    return {
        "image": jpeg,
        "thumbnail": tf.cast(small, tf.int64),
        "brightness": tft.scale_to_z_score(mean),
        "box": inputs["box"].with_values(inputs["box"].values / scale),
        "text": tft.compute_and_apply_vocabulary(inputs["text"], num_oov_buckets=1),
        "label": inputs["label"],
        "weight": tft.scale_to_0_1(inputs["weight"], elementwise=True),
    }
