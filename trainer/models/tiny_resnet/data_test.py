import numpy as np
import pytest
import tensorflow as tf

from trainer.models.tiny_resnet.config import Config
from trainer.models.tiny_resnet.data import augment, preprocessing_fn


def test_preprocessing_takes_the_middle_of_a_picture() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 80, 3), np.uint8)
    inputs = {"image": tf.stack([tf.io.encode_png(image)]), "label": tf.constant([1], tf.int64)}
    outputs = preprocessing_fn(inputs, Config())
    np.testing.assert_array_equal(outputs["image"][0], image[:, 8:72])
    assert outputs["label"].numpy().tolist() == [1]


@pytest.mark.parametrize("size", [64, 32, 16])
def test_augmented_pictures_have_the_size_of_training(size: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    example = {"image": tf.constant(image), "label": np.int64(1)}
    config = Config(training_size=size)
    first, again, other = (augment(example, seed, config) for seed in ((1, 2), (1, 2), (1, 3)))
    assert first["image"].shape == (size, size, 3) and first["image"].dtype == tf.float32
    assert float(tf.reduce_min(first["image"])) >= 0
    assert float(tf.reduce_max(first["image"])) <= 255
    np.testing.assert_array_equal(first["image"], again["image"])
    assert not np.array_equal(first["image"], other["image"])
    assert first["label"] == 1


def test_light_and_mirroring_are_drawn_for_each_picture() -> None:
    picture = np.full((32, 32, 3), 100, np.uint8)
    picture[..., 0] = np.linspace(40, 80, 32)[None, :]
    example = {"image": tf.constant(picture), "label": np.int64(1)}
    config = Config(image_size=32, training_size=32)
    drawn = tf.function(lambda seed: augment(example, seed, config)["image"], autograph=False)
    found = np.array([drawn(tf.constant([1, number])).numpy() for number in range(200)])
    light = found[..., 1].mean(axis=(1, 2)) / 100
    assert 0.4 <= light.min() < 0.5 and 1.5 < light.max() <= 1.6001
    assert light.mean() == pytest.approx(1, abs=0.1)
    rising = np.mean([image[16, 20, 0] > image[16, 12, 0] for image in found])
    assert rising == pytest.approx(0.5, abs=0.12)
