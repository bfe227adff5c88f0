import numpy as np
import tensorflow as tf

from trainer.models.autoencoder.config import Config
from trainer.models.autoencoder.data import augment


def test_half_of_the_digits_are_distorted_a_little() -> None:
    image = np.zeros((28, 28, 1), np.float32)
    image[8:20, 12:16] = 1.0
    drawn = tf.function(lambda seed: augment({"image": image}, seed, Config()), autograph=False)
    found = [drawn(tf.constant([1, number]))["image"].numpy() for number in range(200)]
    same = np.array([np.array_equal(picture, image) for picture in found])
    assert 0.4 < same.mean() < 0.6
    for picture in found:
        assert picture.shape == image.shape and picture.dtype == np.float32
        assert picture.min() >= 0 and picture.max() <= 1
        # The middle of the stroke, where nothing so small reaches, and what is far from it.
        assert picture[12:16, 14].min() > 0.99 and not picture[:, :6].any()


def test_without_distortion_digits_stay_as_they_are() -> None:
    example = {"image": np.random.default_rng(0).random((28, 28, 1), np.float32)}
    assert augment(example, (1, 2), Config(distortion=0)) is example
