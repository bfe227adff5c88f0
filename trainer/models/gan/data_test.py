from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from trainer.errors import UserError
from trainer.models.gan.config import TINY
from trainer.models.gan.data import preprocessing_fn


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


def test_colour_becomes_grey_and_any_size_the_one() -> None:
    red = np.zeros((40, 60, 3), np.uint8)
    red[..., 0] = 200
    image = preprocessing_fn(
        {"image": tf.constant([encoded(red)])}, dataclasses.replace(TINY, num_classes=0)
    )["image"]
    assert image.shape == (1, 28, 28, 1) and image.dtype == tf.int64
    np.testing.assert_allclose(image, 0.299 * 200, atol=1)  # ITU-R BT.601


def test_classes_without_labels_are_refused() -> None:
    with pytest.raises(UserError, match="num_classes=0"):
        preprocessing_fn({"image": tf.constant([b""]), "box": tf.constant([1.0])}, TINY)
