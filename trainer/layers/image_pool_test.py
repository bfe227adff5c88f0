"""Our pool of pictures against the rule, told in plain Python."""

import keras
import numpy as np
import pytest
from keras import ops

from trainer.layers.image_pool import ImagePool


def normal(uniform):
    """The standard normal number below which a share of all lies."""
    from statistics import NormalDist

    return NormalDist().inv_cdf(uniform)


def pictures(*values):
    return np.array(values, np.float32)[:, None, None, None]


def test_a_picture_is_kept_while_there_is_room_and_then_swapped_or_not():
    pool = ImagePool(2, name="pool")
    swap, give_back = -1.0, 1.0
    first, second = normal(0.25), normal(0.75)
    given = [
        (pictures(1, 2, 3), [(first, swap), (first, swap), (second, swap)], [1, 2, 2]),
        (pictures(4), [(first, give_back)], [4]),
        (pictures(5, 6), [(first, swap), (first, swap)], [1, 5]),
    ]
    for image, draw, wanted in given:
        returned = pool(image, np.array(draw, np.float32))
        assert ops.convert_to_numpy(returned).ravel().tolist() == wanted
    assert ops.convert_to_numpy(pool.kept).ravel().tolist() == [6, 3]
    assert int(pool.count) == 2 and pool.trainable_variables == []


def test_it_swaps_one_in_two_and_every_place_alike():
    pool = ImagePool(4, name="pool")
    random = np.random.default_rng(0)
    pool(pictures(*range(4)), random.standard_normal((4, 2)))
    image = pictures(*range(4, 4004))
    returned = ops.convert_to_numpy(pool(image, random.standard_normal((4000, 2)))).ravel()
    # Standard error of a share of one half among 4,000: 0.8 %.
    assert (returned == image.ravel()).mean() == pytest.approx(0.5, abs=0.03)
    # No picture is lost or doubled: what came back and what is kept are what was given.
    kept = ops.convert_to_numpy(pool.kept).ravel()
    assert sorted([*returned, *kept]) == list(range(4004))


def test_it_is_a_network_that_keeps_its_pictures_when_saved():
    image, draw = keras.Input((3, 3, 1)), keras.Input((2,))
    network = keras.Model([image, draw], ImagePool(5, name="pool")(image, draw))
    network([np.ones((2, 3, 3, 1), np.float32), np.zeros((2, 2), np.float32)])
    assert [v.path for v in network.non_trainable_weights] == ["pool/kept", "pool/count"]
    assert int(network.get_layer("pool").count) == 2
    with pytest.raises(ValueError, match="size must be at least 1; got 0"):
        ImagePool(0)
