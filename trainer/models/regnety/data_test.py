import numpy as np
import tensorflow as tf

from trainer.augmentation.crops import centre_crop
from trainer.models.regnety.config import TINY
from trainer.models.regnety.data import augment, preprocessing_fn


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def test_preprocessing_is_the_centre_crop_of_each_picture() -> None:
    images = [picture(80, 100), picture(90, 74)]
    inputs = {
        "image": tf.stack([tf.io.encode_png(image) for image in images]),
        "label": tf.constant([1, 2], tf.int64),
    }
    outputs = preprocessing_fn(inputs, TINY)
    for got, image in zip(outputs["image"], images, strict=True):
        # 64 pixels of 73, as 224 are of 256.
        np.testing.assert_allclose(got, centre_crop(image, 73, 64), atol=0.5)
    assert outputs["label"].numpy().tolist() == [1, 2]


def test_augmentation_works_inside_tf_data_as_it_does_eagerly() -> None:
    example = {"image": tf.io.encode_png(picture(50, 60)), "label": np.int64(1)}
    eager = augment(example, (3, 4), TINY)
    dataset = tf.data.Dataset.from_tensors(example).map(lambda e: augment(e, (3, 4), TINY))
    traced = next(iter(dataset))
    assert traced["image"].shape == (TINY.image_size, TINY.image_size, 3)
    np.testing.assert_allclose(traced["image"], eager["image"], atol=1e-3)
    assert int(traced["label"]) == 1
