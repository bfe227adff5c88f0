"""A history of generated pictures, from which a discriminator learns."""

from __future__ import annotations

import math

import keras
from keras import ops

from trainer import backend


class ImagePool(keras.layers.Layer):
    """Gives back some of the pictures that it was given earlier.

    While there is room, a picture is kept and given back. From then on it is given back in one of
    two cases; in the other it takes the place of a random one of those kept, which is given back
    instead (Shrivastava et al. 2017, section 2.3, in the form of Zhu et al. 2017, section 4). The
    pictures of a batch come one after another.

    Called with `image`, [batch, height, width, channels], and `draw`, standard normal noise
    [batch, 2], which decides. What it keeps is not trained and goes into checkpoints.

    Args:
        size: pictures that there is room for.
    """

    def __init__(self, size: int, **arguments):
        super().__init__(**arguments)
        if size < 1:
            raise ValueError(f"size must be at least 1; got {size}.")
        self.size = size

    def build(self, image_shape, draw_shape=None):
        """Makes room."""
        # Every device keeps the same pictures, those of the whole batch.
        once = {"trainable": False, "aggregation": "only_first_replica", "initializer": "zeros"}
        self.kept = self.add_weight((self.size, *image_shape[1:]), name="kept", **once)
        self.count = self.add_weight((), dtype="int32", name="count", **once)

    def compute_output_shape(self, image_shape, draw_shape=None):
        """That of the pictures."""
        return image_shape

    def call(self, image, draw):
        """As many pictures as were given."""
        whole = backend.current().all_rows(ops.cast(image, self.kept.dtype))
        draw = backend.current().all_rows(draw)
        uniform = 0.5 * (1.0 + ops.erf(draw[:, 0] / math.sqrt(2.0)))
        place = ops.cast(ops.minimum(ops.floor(uniform * self.size), self.size - 1), "int32")
        swaps = draw[:, 1] < 0.0

        rows = ops.shape(whole)[0]

        def at(number, count):
            """Which of so many pictures is the one of a number, [count, 1, 1, 1]."""
            return ops.reshape(ops.equal(ops.arange(count, dtype="int32"), number), (-1, 1, 1, 1))

        def take(i, carried):
            kept, count, returned = carried
            picture = whole[i]
            full = count >= self.size
            number = ops.where(full, place[i], count)
            old = ops.take(kept, number, axis=0)
            keeps = ops.logical_or(ops.logical_not(full), swaps[i])
            swapped = ops.where(ops.logical_and(full, swaps[i]), old, picture)
            return (
                ops.where(ops.logical_and(at(number, self.size), keeps), picture, kept),
                ops.minimum(count + 1, self.size),
                ops.where(at(i, rows), swapped, returned),
            )

        begin = (ops.convert_to_tensor(self.kept), ops.convert_to_tensor(self.count), whole)
        kept, count, returned = ops.fori_loop(0, rows, take, begin)
        self.kept.assign(kept)
        self.count.assign(count)
        return ops.cast(backend.current().own_rows(returned), image.dtype)

    def get_config(self):
        """The arguments, for Keras."""
        return {**super().get_config(), "size": self.size}
