"""Pictures turned, sheared, zoomed and moved at random, inside tf.data."""

import math
from typing import Any

import tensorflow as tf

Tensor = Any


def random_affine(
    image: Tensor,
    seed: Tensor,
    *,
    rotation: float,
    zoom: float,
    shift: float,
    shear: float = 0.0,
    fill: str = "REFLECT",
) -> Tensor:
    """A picture turned, then sheared, zoomed and moved, each by a uniformly drawn amount.

    Args:
        image: [height, width, channels].
        seed: int32 [2]; the same seed gives the same picture.
        rotation: in degrees, at most, either way.
        zoom: change of height and of width, each at most by this part of it.
        shift: along each side, at most by this part of it.
        shear: in degrees, at most, either way.
        fill: what lies beyond the border: REFLECT or NEAREST.

    Returns:
        The same shape, float32; between pixels it is bilinear.
    """
    image = tf.cast(image, tf.float32)
    height, width, _ = image.shape
    bounds = (rotation, shear, zoom, shift)
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=image[None],
        transforms=[random_transform(height, width, seed, *bounds)],
        output_shape=(height, width),
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode=fill,
    )[0]


def random_transform(
    height: int, width: int, seed: Tensor, rotation: float, shear: float, zoom: float, shift: float
) -> Tensor:
    """Where each pixel of such a picture comes from.

    Args:
        height: of the picture, in pixels.
        width: of the picture, in pixels.
        seed: int32 [2].
        rotation: as in `random_affine`, like the others.
        shear: in degrees.
        zoom: part of height and width.
        shift: part of height and width.

    Returns:
        float32 [8]: column and row of the source are, for the column x and the row y,
        `t0 x + t1 y + t2` and `t3 x + t4 y + t5`; the others are 0.
    """
    drawn = tf.unstack(tf.random.stateless_uniform((6,), seed, -1.0, 1.0))
    angle, slant = math.radians(rotation) * drawn[0], math.radians(shear) * drawn[1]
    zoom_x, zoom_y = 1.0 + zoom * drawn[2], 1.0 + zoom * drawn[3]
    turned = ((tf.cos(angle), -tf.sin(angle)), (tf.sin(angle), tf.cos(angle)))
    (a, b), (c, d) = (
        (x * zoom_x, (y * tf.cos(slant) - x * tf.sin(slant)) * zoom_y) for x, y in turned
    )
    # About the centre of the picture.
    x, y = (width - 1) / 2, (height - 1) / 2
    left = x - a * x - b * y + shift * width * drawn[4]
    top = y - c * x - d * y + shift * height * drawn[5]
    nothing = tf.zeros(())
    return tf.stack([a, b, left, c, d, top, nothing, nothing])
