import dataclasses
import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from trainer.models.cyclegan.config import Config
from trainer.models.cyclegan.data import augment, preprocessing_fn

CONFIG = Config(image_size=32, load_size=40)


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def gradient(height: int, width: int) -> np.ndarray:
    """A picture that tells each column by its red and each row by its green."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, :, 0] = np.arange(width) * 4
    pixels[:, :, 1] = np.arange(height)[:, None] * 4
    return pixels


def test_evaluation_sees_the_square_in_the_middle() -> None:
    inputs = {"image": tf.constant([png(gradient(32, 48))]), "label": tf.constant([1], tf.int64)}
    outputs = preprocessing_fn(inputs, CONFIG)
    assert set(outputs) == {"image", "domain"} and outputs["domain"].numpy().tolist() == [1]
    np.testing.assert_array_equal(outputs["image"].numpy()[0], gradient(32, 48)[:, 8:40])


def test_a_label_is_taken_apart_into_domain_and_class() -> None:
    inputs = {
        "image": tf.constant([png(gradient(32, 32))] * 3),
        "label": tf.constant([3, 10, 19], tf.int64),
    }
    outputs = preprocessing_fn(inputs, dataclasses.replace(CONFIG, num_classes=10))
    assert outputs["domain"].numpy().tolist() == [0, 1, 1]
    assert outputs["label"].numpy().tolist() == [3, 0, 9]


@pytest.mark.parametrize("mirror", [False, True])
def test_training_sees_a_random_crop_mirrored_or_not(mirror: bool) -> None:
    config = dataclasses.replace(CONFIG, mirror=mirror)
    example = {"image": tf.constant(png(gradient(40, 40))), "domain": tf.constant(1, tf.int64)}
    crops = [augment(example, tf.constant([0, n]), config) for n in range(40)]
    again = augment(example, tf.constant([0, 7]), config)
    np.testing.assert_array_equal(again["image"], crops[7]["image"])
    seen = set()
    for crop in crops:
        assert crop["image"].shape == (32, 32, 3) and int(crop["domain"]) == 1
        pixels = crop["image"].numpy()
        mirrored = bool(pixels[0, 0, 0] > pixels[0, -1, 0])
        left, top = pixels[0, -1 if mirrored else 0, 0] / 4, pixels[0, 0, 1] / 4
        whole = gradient(40, 40)[int(top) : int(top) + 32, int(left) : int(left) + 32]
        np.testing.assert_array_equal(pixels, whole[:, ::-1] if mirrored else whole)
        seen.add((left, top, mirrored))
    assert len({place[:2] for place in seen}) > 20
    assert {place[2] for place in seen} == ({False, True} if mirror else {False})


def test_without_room_to_crop_the_picture_stays_whole() -> None:
    config = dataclasses.replace(CONFIG, load_size=32, mirror=False)
    example = {"image": tf.constant(png(gradient(32, 32))), "domain": tf.constant(0, tf.int64)}
    np.testing.assert_array_equal(
        augment(example, tf.constant([0, 1]), config)["image"], gradient(32, 32)
    )
