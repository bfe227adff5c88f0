import numpy as np
import tensorflow as tf

from trainer.models.quicksal.config import Config
from trainer.models.quicksal.data import augment, preprocessing_fn

CONFIG = Config(image_size=32)


def png(pixels: np.ndarray) -> tf.Tensor:
    return tf.io.encode_png(pixels)


def test_pictures_and_masks_become_squares_of_one_size() -> None:
    picture = np.zeros((40, 60, 3), np.uint8)
    mask = np.zeros((40, 60, 1), np.uint8)
    picture[10:30, 15:45], mask[10:30, 15:45] = 200, 255
    mask[0, 0], mask[39, 59] = 127, 128  # grey, as after resizing
    outputs = preprocessing_fn(
        {"image": tf.stack([png(picture)]), "mask": tf.stack([png(mask)])}, CONFIG
    )
    image, found = outputs["image"][0].numpy(), outputs["mask"][0].numpy()
    assert image.shape == (32, 32, 3) and found.shape == (32, 32)
    assert set(np.unique(found)) == {0, 1}
    wanted = np.zeros((32, 32))
    wanted[8:24, 8:24] = 1
    wanted[31, 31] = 1
    np.testing.assert_array_equal(found, wanted)
    assert (image[10:22, 10:22] == 200).all() and (image[:6] == 0).all()


def test_a_server_that_has_no_mask_gets_an_empty_one() -> None:
    picture = png(np.full((8, 8, 3), 7, np.uint8))
    outputs = preprocessing_fn(
        {"image": tf.stack([picture]), "mask": tf.constant([b""])}, Config(image_size=32)
    )
    assert (outputs["image"].numpy() == 7).all() and not outputs["mask"].numpy().any()


def test_picture_and_mask_are_cropped_and_mirrored_alike() -> None:
    rows, columns = np.mgrid[:32, :32]
    inside = (rows - 12) ** 2 + (columns - 20) ** 2 < 60
    picture = np.repeat(np.where(inside, 200, 20)[:, :, None], 3, axis=2).astype(np.uint8)
    example = {"image": tf.constant(picture), "mask": tf.constant(inside, tf.uint8)}
    drawn = tf.function(lambda seed: augment(example, seed, CONFIG), autograph=False)
    sides, lights = [], []
    for number in range(100):
        found = drawn(tf.constant([1, number]))
        image, mask = found["image"].numpy(), found["mask"].numpy()
        assert image.dtype == np.float32 and mask.dtype == np.uint8
        assert image.min() >= 0 and image.max() <= 255
        bright = image[:, :, 0] > (image.min() + image.max()) / 2
        # Between pixels the border of a mask may be half a pixel elsewhere.
        assert (bright != (mask > 0)).mean() < 0.03
        sides.append(np.nonzero(mask)[1].mean() > 15.5)
        lights.append(image.max())
    assert 0.35 < np.mean(sides) < 0.65
    assert np.std(lights) > 5
    again = augment(example, (1, 0), CONFIG)
    np.testing.assert_array_equal(again["mask"], drawn(tf.constant([1, 0]))["mask"])


def test_colours_are_more_or_less_strong() -> None:
    picture = np.zeros((32, 32, 3), np.uint8)
    picture[:] = (150, 100, 80)
    example = {"image": tf.constant(picture), "mask": tf.zeros((32, 32), tf.uint8)}
    drawn = tf.function(lambda seed: augment(example, seed, CONFIG)["image"], autograph=False)
    spread = []
    for number in range(100):
        image = drawn(tf.constant([2, number])).numpy()
        spread.append(np.ptp(image[5, 5]) / image[5, 5].mean())
    whole = 70 / 110
    assert 0.5 * whole * 0.7 < min(spread) < 0.75 * whole < 1.2 * whole < max(spread)
