"""Crops of pictures, centred and random, inside tf.data and TF Transform."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

JPEG = b"\xff\xd8\xff"  # how a JPEG begins: ITU-T T.81, B.1.1.3
PNG_SIDES = 16  # where a PNG says its width and height, four bytes each: ISO/IEC 15948, 11.2.2
Tensor = Any

TRIES = 10  # Inception's, as in pycls and torchvision


def decode(encoded: Tensor) -> Tensor:
    """An encoded picture as RGB, uint8 [height, width, 3]."""
    image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    return tf.ensure_shape(image, (None, None, 3))


def centre_crop(image: Tensor, shorter_side: int, size: int) -> Tensor:
    """The centre of a picture whose shorter side was brought to `shorter_side`.

    Args:
        image: [height, width, 3].
        shorter_side: in pixels, at least `size`.
        size: side of the result, in pixels.

    Returns:
        float32 [size, size, 3].
    """
    height, width = tf.shape(image)[0], tf.shape(image)[1]
    scale = shorter_side / tf.cast(tf.minimum(height, width), tf.float64)
    new = tf.cast(tf.floor(tf.cast([height, width], tf.float64) * scale + 1e-6), tf.int32)
    new = tf.maximum(new, shorter_side)
    image = tf.image.resize(image, new)
    top = tf.cast(tf.math.ceil((new[0] - size) / 2), tf.int32)
    left = tf.cast(tf.math.ceil((new[1] - size) / 2), tf.int32)
    return tf.ensure_shape(image[top : top + size, left : left + size], (size, size, 3))


def centre_crops(encoded: Tensor, shorter_side: int, size: int) -> Tensor:
    """Encoded pictures as centre crops, rounded to 8 bits: what evaluation and serving use.

    Args:
        encoded: string [batch]: JPEG or PNG.
        shorter_side: to which each is brought first, in pixels, at least `size`.
        size: side of the results, in pixels.

    Returns:
        int64 [batch, size, size, 3], RGB in 0 to 255.
    """

    def crop(picture: Tensor) -> Tensor:
        image = centre_crop(decode(picture), shorter_side, size)
        return tf.cast(tf.round(tf.clip_by_value(image, 0.0, 255.0)), tf.uint8)

    images = tf.map_fn(crop, encoded, fn_output_signature=tf.uint8)
    # Widened at the very end, where preprocess can leave it out again.
    return tf.cast(tf.ensure_shape(images, (None, size, size, 3)), tf.int64)


def random_crop(
    image: Tensor,
    size: int,
    seed: Tensor,
    smallest_area: float,
    aspect_ratios: tuple[float, float],
) -> Tensor:
    """A crop of random area and shape, resized to a square (Szegedy et al. 2015, section 6).

    Of ten drawn boxes the first that lies in the picture is taken; where none does, the centre.

    Args:
        image: [height, width, 3].
        size: side of the result, in pixels.
        seed: int32 [2]; the same seed gives the same crop.
        smallest_area: of a box, as a part of the picture; the largest is all of it.
        aspect_ratios: the lowest and the highest of a box.

    Returns:
        float32 [size, size, 3].
    """
    image = tf.convert_to_tensor(image)

    def cut(top: Tensor, left: Tensor, height: Tensor, width: Tensor) -> Tensor:
        return image[top : top + height, left : left + width]

    shape = tf.shape(image)[:2]
    return _random_crop(shape, cut, lambda: image, size, seed, smallest_area, aspect_ratios)


def random_crop_of_encoded(
    encoded: Tensor,
    size: int,
    seed: Tensor,
    smallest_area: float,
    aspect_ratios: tuple[float, float],
) -> Tensor:
    """The same of an encoded picture; of a JPEG, little more than the crop is decoded.

    Args:
        encoded: string: JPEG or PNG.
        size: side of the result, in pixels.
        seed: int32 [2]; the same seed gives the same crop.
        smallest_area: of a box, as a part of the picture; the largest is all of it.
        aspect_ratios: the lowest and the highest of a box.

    Returns:
        float32 [size, size, 3].
    """
    is_jpeg = tf.strings.substr(encoded, 0, len(JPEG)) == JPEG
    # What is not needed is small: TensorFlow touches each operation of a branch it does not take.
    shape = tf.cond(is_jpeg, lambda: tf.io.extract_jpeg_shape(encoded)[:2], lambda: _png(encoded))

    def cut(top: Tensor, left: Tensor, height: Tensor, width: Tensor) -> Tensor:
        def of_jpeg() -> Tensor:
            # The colours of a pixel may depend on its neighbours in the row, which are decoded too.
            first = tf.maximum(left - 1, 0)
            last = tf.minimum(left + width + 1, shape[1])
            window = [top, first, height, last - first]
            rows = tf.io.decode_and_crop_jpeg(encoded, window, channels=3)
            return rows[:, left - first : left - first + width]

        def of_png() -> Tensor:
            return decode(encoded)[top : top + height, left : left + width]

        return tf.cond(is_jpeg, of_jpeg, of_png)

    def whole() -> Tensor:
        return decode(encoded)

    return _random_crop(shape, cut, whole, size, seed, smallest_area, aspect_ratios)


def _png(encoded: Tensor) -> Tensor:
    """Height and width of a PNG, from its header."""
    sides = tf.strings.substr(encoded, PNG_SIDES, 8)
    return tf.reverse(tf.io.decode_raw(sides, tf.int32, little_endian=False), [0])


def _random_crop(
    shape: Tensor,
    cut: Callable[..., Tensor],
    whole: Callable[[], Tensor],
    size: int,
    seed: Tensor,
    smallest_area: float,
    aspect_ratios: tuple[float, float],
) -> Tensor:
    """A random crop of a picture of which `cut(box)` is a part and `whole()` all."""
    height, width = shape[0], shape[1]
    seeds = tf.random.split(seed, 5)
    area = tf.random.stateless_uniform((TRIES,), seeds[0], smallest_area, 1.0)
    area *= tf.cast(height * width, tf.float32)
    aspect = tf.random.stateless_uniform((TRIES,), seeds[1], *aspect_ratios)
    long = tf.cast(tf.round(tf.sqrt(area * aspect)), tf.int32)
    short = tf.cast(tf.round(tf.sqrt(area / aspect)), tf.int32)
    upright = tf.random.stateless_uniform((TRIES,), seeds[2]) < 0.5
    box_width = tf.where(upright, short, long)
    box_height = tf.where(upright, long, short)
    fits = (box_width <= width) & (box_height <= height) & (box_width > 0) & (box_height > 0)
    first = tf.argmax(tf.cast(fits, tf.int32))
    box_height, box_width = box_height[first], box_width[first]

    def take() -> Tensor:
        top = _random_below(height - box_height + 1, seeds[3])
        left = _random_below(width - box_width + 1, seeds[4])
        box = cut(top, left, box_height, box_width)
        return tf.ensure_shape(tf.image.resize(box, (size, size)), (size, size, 3))

    return tf.cond(tf.reduce_any(fits), take, lambda: centre_crop(whole(), size, size))


def _random_below(bound: Tensor, seed: Tensor) -> Tensor:
    return tf.random.stateless_uniform((), seed, maxval=bound, dtype=tf.int32)


def padded_crop(image: Tensor, padding: int, seed: Tensor) -> Tensor:
    """A crop as large as the picture itself, of the picture with black around it.

    He et al. 2016, section 4.2: 4 pixels on each side of CIFAR-10's pictures.

    Args:
        image: [height, width, 3].
        padding: pixels on each side.
        seed: int32 [2]; the same seed gives the same crop.

    Returns:
        The same shape and dtype.
    """
    shape = image.shape
    image = tf.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    return tf.image.stateless_random_crop(image, shape, seed)
