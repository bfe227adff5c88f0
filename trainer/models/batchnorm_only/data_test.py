import numpy as np
import pytest
import tensorflow as tf

from trainer.models.batchnorm_only.config import Config
from trainer.models.batchnorm_only.data import augment, preprocessing_fn


def encoded(height: int, width: int) -> tuple[np.ndarray, tf.Tensor]:
    image = np.random.default_rng(0).integers(1, 256, (height, width, 3), np.uint8)
    return image, tf.io.encode_png(image)


def test_pictures_of_cifar_stay_as_they_are() -> None:
    image, png = encoded(32, 32)
    inputs = {"image": tf.stack([png]), "label": tf.constant([3], tf.int64)}
    outputs = preprocessing_fn(inputs, Config())
    np.testing.assert_array_equal(outputs["image"][0], image)
    assert outputs["label"].numpy().tolist() == [3]


def test_for_imagenets_networks_the_centre_is_cut_out() -> None:
    image, png = encoded(64, 64)
    config = Config(variant="ResNet-50", image_size=56)
    outputs = preprocessing_fn({"image": tf.stack([png]), "label": tf.constant([3])}, config)
    np.testing.assert_array_equal(outputs["image"][0], image[4:60, 4:60])


def test_crops_of_cifar_are_the_picture_moved_and_mirrored() -> None:
    image, png = encoded(32, 32)
    padded = np.pad(image, ((4, 4), (4, 4), (0, 0)))
    crops = [padded[i : i + 32, j : j + 32] for i in range(9) for j in range(9)]
    wanted = {crop.tobytes() for crop in crops} | {crop[:, ::-1].tobytes() for crop in crops}
    example = {"image": png, "label": np.int64(1)}
    drawn = tf.function(lambda seed: augment(example, seed, Config())["image"], autograph=False)
    found = [drawn(tf.constant([1, number])).numpy() for number in range(40)]
    assert {image.astype(np.uint8).tobytes() for image in found} <= wanted
    assert len({image.tobytes() for image in found}) > 20


@pytest.mark.parametrize("variant", ["ResNet-14", "ResNet-50"])
def test_crops_follow_from_their_seed(variant: str) -> None:
    example = {"image": encoded(40, 50)[1], "label": np.int64(1)}
    config = Config(variant=variant, image_size=32)
    first, again, other = (augment(example, seed, config) for seed in ((1, 2), (1, 2), (1, 3)))
    np.testing.assert_array_equal(first["image"], again["image"])
    assert not np.array_equal(first["image"], other["image"])
    assert first["image"].shape == (32, 32, 3) and first["image"].dtype == tf.float32
    assert first["label"] == 1
