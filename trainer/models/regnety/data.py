"""What happens to a picture before RegNetY sees it: the evaluation crop, and the random one."""

import tensorflow as tf

from trainer.models.regnety.config import Config

RAW_FOR_TRAINING = ("image",)
"""The training split keeps the encoded picture, since its crops are drawn from the whole of it."""

STORED_AS = {"image": "uint8"}
"""TF Transform knows no bytes but strings; pixels leave it as int64 and are stored as bytes."""

JPEG = b"\xff\xd8\xff"  # how a JPEG begins: ITU-T T.81, B.1.1.3
PNG_SIDES = 16  # where a PNG says its width and height, four bytes each: ISO/IEC 15948, 11.2.2
SMALLEST_AREA = 0.08  # pycls: of the picture, in a training crop
ASPECT_RATIOS = (3 / 4, 4 / 3)  # pycls
CROP_TRIES = 10  # pycls
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

    def crop(encoded):
        image = centre_crop(decode(encoded), config.image_size)
        return tf.cast(tf.round(tf.clip_by_value(image, 0.0, 255.0)), tf.uint8)

    image = tf.map_fn(crop, inputs["image"], fn_output_signature=tf.uint8)
    image = tf.ensure_shape(image, (None, config.image_size, config.image_size, 3))
    # Widened at the very end, where preprocess can leave it out again.
    return {"image": tf.cast(image, tf.int64), "label": inputs["label"]}


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
    image = random_crop_of_encoded(example["image"], config.image_size, seeds[0])
    image = tf.image.stateless_random_flip_left_right(image, seeds[1])
    strength = tf.random.stateless_normal((3,), seeds[2], stddev=LIGHTING)
    shift = tf.linalg.matvec(tf.constant(EIGENVECTORS), strength * tf.constant(EIGENVALUES))
    # Row by row: adding three numbers at a time to so many pixels takes three times as long.
    size = config.image_size
    rows = tf.reshape(image, (size, size * 3)) + tf.tile(255.0 * shift, [size])
    return {**example, "image": tf.reshape(rows, (size, size, 3))}


def decode(encoded):
    """An encoded picture as RGB, uint8 [height, width, 3]."""
    image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    return tf.ensure_shape(image, (None, None, 3))


def centre_crop(image, size: int):
    """The centre of a picture whose shorter side was brought to 256/224 of `size`.

    Args:
        image: [height, width, 3].
        size: side of the result, in pixels.

    Returns:
        float32 [size, size, 3].
    """
    return _scaled_centre(image, round(size * 256 / 224), size)


def random_crop(image, size: int, seed):
    """A crop of random area and shape, resized to a square.

    Of ten drawn boxes the first that lies in the picture is taken; where none does, the centre.

    Args:
        image: [height, width, 3].
        size: side of the result, in pixels.
        seed: int32 [2].

    Returns:
        float32 [size, size, 3].
    """
    image = tf.convert_to_tensor(image)

    def cut(top, left, height, width):
        return image[top : top + height, left : left + width]

    return _random_crop(tf.shape(image)[:2], cut, lambda: image, size, seed)


def random_crop_of_encoded(encoded, size: int, seed):
    """The same of an encoded picture; of a JPEG, little more than the crop is decoded.

    Args:
        encoded: string: JPEG or PNG.
        size: side of the result, in pixels.
        seed: int32 [2].

    Returns:
        float32 [size, size, 3].
    """
    is_jpeg = tf.strings.substr(encoded, 0, len(JPEG)) == JPEG
    # What is not needed is small: TensorFlow touches each operation of a branch it does not take.
    shape = tf.cond(is_jpeg, lambda: tf.io.extract_jpeg_shape(encoded)[:2], lambda: _png(encoded))

    def cut(top, left, height, width):
        def of_jpeg():
            # The colours of a pixel may depend on its neighbours in the row, which are decoded too.
            first = tf.maximum(left - 1, 0)
            last = tf.minimum(left + width + 1, shape[1])
            window = [top, first, height, last - first]
            rows = tf.io.decode_and_crop_jpeg(encoded, window, channels=3)
            return rows[:, left - first : left - first + width]

        def of_png():
            return decode(encoded)[top : top + height, left : left + width]

        return tf.cond(is_jpeg, of_jpeg, of_png)

    return _random_crop(shape, cut, lambda: decode(encoded), size, seed)


def _png(encoded):
    """Height and width of a PNG, from its header."""
    sides = tf.strings.substr(encoded, PNG_SIDES, 8)
    return tf.reverse(tf.io.decode_raw(sides, tf.int32, little_endian=False), [0])


def _random_crop(shape, cut, whole, size: int, seed):
    """A random crop of a picture of which `cut(box)` is a part and `whole()` all."""
    height, width = shape[0], shape[1]
    seeds = tf.random.split(seed, 5)
    area = tf.random.stateless_uniform((CROP_TRIES,), seeds[0], SMALLEST_AREA, 1.0)
    area *= tf.cast(height * width, tf.float32)
    aspect = tf.random.stateless_uniform((CROP_TRIES,), seeds[1], *ASPECT_RATIOS)
    long = tf.cast(tf.round(tf.sqrt(area * aspect)), tf.int32)
    short = tf.cast(tf.round(tf.sqrt(area / aspect)), tf.int32)
    upright = tf.random.stateless_uniform((CROP_TRIES,), seeds[2]) < 0.5
    box_width = tf.where(upright, short, long)
    box_height = tf.where(upright, long, short)
    fits = (box_width <= width) & (box_height <= height) & (box_width > 0) & (box_height > 0)
    first = tf.argmax(tf.cast(fits, tf.int32))
    box_height, box_width = box_height[first], box_width[first]

    def take():
        top = _random_below(height - box_height + 1, seeds[3])
        left = _random_below(width - box_width + 1, seeds[4])
        box = cut(top, left, box_height, box_width)
        return tf.ensure_shape(tf.image.resize(box, (size, size)), (size, size, 3))

    return tf.cond(tf.reduce_any(fits), take, lambda: _scaled_centre(whole(), size, size))


def _scaled_centre(image, shorter_side: int, size: int):
    height, width = tf.shape(image)[0], tf.shape(image)[1]
    scale = shorter_side / tf.cast(tf.minimum(height, width), tf.float64)
    new = tf.cast(tf.floor(tf.cast([height, width], tf.float64) * scale + 1e-6), tf.int32)
    new = tf.maximum(new, shorter_side)
    image = tf.image.resize(image, new)
    top = tf.cast(tf.math.ceil((new[0] - size) / 2), tf.int32)
    left = tf.cast(tf.math.ceil((new[1] - size) / 2), tf.int32)
    return tf.ensure_shape(image[top : top + size, left : left + size], (size, size, 3))


def _random_below(bound, seed):
    return tf.random.stateless_uniform((), seed, maxval=bound, dtype=tf.int32)
