"""What happens to a picture."""

import tensorflow as tf
import tensorflow_transform as tft


def preprocessing_fn(inputs, config):
    """How bright a picture is, compared with those of the training split.

    Args:
        inputs: `image`, string [batch].
        config: says how bright a pixel may be.

    Returns:
        `brightness`, float32 [batch]: the mean pixel, as a z-score.
    """

    def measure(encoded):
        image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
        return tf.reduce_mean(tf.cast(image, tf.float32)), tf.reduce_max(image)

    mean, brightest = tf.map_fn(
        measure, inputs["image"], fn_output_signature=(tf.float32, tf.uint8)
    )
    brightest = tf.cast(brightest, tf.int32)
    tf.debugging.assert_less_equal(brightest, config.brightest, message="too bright")
    return {"brightness": tft.scale_to_z_score(mean)}
