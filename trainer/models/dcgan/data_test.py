from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from trainer.errors import UserError
from trainer.models.dcgan.config import TINY
from trainer.models.dcgan.data import preprocessing_fn


def encoded(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def test_a_digit_of_28_pixels_stays_as_it_is() -> None:
    digit = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)
    inputs = {"image": tf.constant([encoded(digit)]), "label": tf.constant([7], tf.int64)}
    outputs = preprocessing_fn(inputs, TINY)
    np.testing.assert_array_equal(outputs["image"][0, :, :, 0], digit)
    assert outputs["label"].numpy().tolist() == [7]


def test_of_a_wide_picture_the_square_in_the_middle_is_left() -> None:
    wide = np.zeros((28, 60, 3), np.uint8)
    wide[:, 16:44] = np.random.default_rng(0).integers(0, 256, (28, 28, 3))
    config = dataclasses.replace(TINY, channels=3, num_classes=0)
    image = preprocessing_fn({"image": tf.constant([encoded(wide)])}, config)["image"]
    assert image.dtype == tf.int64
    np.testing.assert_array_equal(image[0], wide[:, 16:44])


def test_grey_becomes_colour_where_the_pictures_are_and_any_size_the_one() -> None:
    grey = np.full((90, 64), 70, np.uint8)
    config = dataclasses.replace(TINY, image_size=32, channels=3, num_classes=0)
    image = preprocessing_fn({"image": tf.constant([encoded(grey)])}, config)["image"]
    assert image.shape == (1, 32, 32, 3)
    np.testing.assert_array_equal(image, np.full((1, 32, 32, 3), 70))


def test_classes_without_labels_are_refused() -> None:
    with pytest.raises(UserError, match="num_classes=0"):
        preprocessing_fn({"image": tf.constant([b""]), "box": tf.constant([1.0])}, TINY)
