"""What happens to a picture before RegNetY sees it: the evaluation crop, and the random one."""

import tensorflow as tf

from trainer.augmentation.crops import centre_crops, random_crop_of_encoded
from trainer.models.regnety.config import Config

RAW_FOR_TRAINING = ("image",)
"""The training split keeps the encoded picture, since its crops are drawn from the whole of it."""

STORED_AS = {"image": "uint8"}
"""TF Transform knows no bytes but strings; pixels leave it as int64 and are stored as bytes."""

SHORTER_SIDE = 256 / 224  # pycls: of the picture that evaluation crops, relative to the crop
SMALLEST_AREA = 0.08  # pycls: of the picture, in a training crop
ASPECT_RATIOS = (3 / 4, 4 / 3)  # pycls
LIGHTING = 0.1  # AlexNet, section 4.1: standard deviation of the colour shift
EIGENVALUES = (0.2175, 0.0188, 0.0045)  # of ImageNet's RGB covariance, as in pycls
EIGENVECTORS = (
    (-0.5675, 0.7192, 0.4009),
    (-0.5808, -0.0045, -0.8140),
    (-0.5836, -0.6948, 0.4203),
)


def preprocessing_fn(inputs, config: Config):
    """Encoded pictures become the centre crop that evaluation and serving use.

    The shorter side is brought to 256/224 of `config.image_size`, and the centre cut out (pycls).

    Args:
        inputs: `image`, string [batch]: JPEG or PNG; `label`, int64 [batch].
        config: decides the size.

    Returns:
        `image`, int64 [batch, size, size, 3], RGB in 0 to 255; `label`, int64 [batch].
    """
    size = config.image_size
    image = centre_crops(inputs["image"], round(size * SHORTER_SIDE), size)
    return {"image": image, "label": inputs["label"]}


def augment(example, seed, config: Config):
    """A random crop, mirrored or not, in slightly other light (pycls).

    Args:
        example: `image`, an encoded picture; `label`.
        seed: int32 [2]; the same seed gives the same crop.
        config: decides the size.

    Returns:
        `image`, float32 [size, size, 3], RGB in [0, 255] but for the light; `label`.
    """
    seeds = tf.random.split(seed, 3)
    image = random_crop_of_encoded(
        example["image"], config.image_size, seeds[0], SMALLEST_AREA, ASPECT_RATIOS
    )
    image = tf.image.stateless_random_flip_left_right(image, seeds[1])
    strength = tf.random.stateless_normal((3,), seeds[2], stddev=LIGHTING)
    shift = tf.linalg.matvec(tf.constant(EIGENVECTORS), strength * tf.constant(EIGENVALUES))
    # Row by row: adding three numbers at a time to so many pixels takes three times as long.
    size = config.image_size
    rows = tf.reshape(image, (size, size * 3)) + tf.tile(255.0 * shift, [size])
    return {**example, "image": tf.reshape(rows, (size, size, 3))}
