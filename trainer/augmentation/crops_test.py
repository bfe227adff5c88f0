import io
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from trainer.augmentation.crops import (
    centre_crop,
    centre_crops,
    decode,
    padded_crop,
    random_crop,
    random_crop_of_encoded,
)

BOXES = (0.08, (3 / 4, 4 / 3))


def picture(height: int, width: int) -> np.ndarray:
    """Red grows to the right, green downwards."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = np.linspace(0, 255, width)[None, :]
    image[..., 1] = np.linspace(0, 255, height)[:, None]
    return image


def encoded(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("shape", [(256, 256), (256, 400), (400, 256), (37, 501), (256, 257)])
def test_the_centre_crop_is_the_centre(shape: tuple[int, int]) -> None:
    crop = centre_crop(picture(*shape), 256, 224).numpy()
    assert crop.shape == (224, 224, 3)
    middle = crop[111:113, 111:113].mean(axis=(0, 1))
    np.testing.assert_allclose(middle[:2], 127.5, atol=3)


def test_a_square_of_256_is_cut_without_any_resizing() -> None:
    image = picture(256, 256)
    np.testing.assert_array_equal(centre_crop(image, 256, 224).numpy(), image[16:240, 16:240])


def test_crops_of_a_batch_are_those_of_each_picture() -> None:
    images = [picture(40, 50), picture(90, 37)]
    crops = centre_crops(tf.constant([encoded(image) for image in images]), 37, 32)
    assert crops.shape == (2, 32, 32, 3) and crops.dtype == tf.int64
    for got, image in zip(crops, images, strict=True):
        np.testing.assert_allclose(got, centre_crop(image, 37, 32), atol=0.5)


def test_random_crops_follow_from_their_seed_and_have_the_areas_of_the_paper() -> None:
    image = picture(300, 400)
    crop = tf.function(lambda seed: random_crop(image, 32, seed, *BOXES), autograph=False)
    crops = [crop(tf.constant([7, i])).numpy() for i in range(200)]
    np.testing.assert_array_equal(crops[3], crop(tf.constant([7, 3])).numpy())
    # The gradients make each crop tell its own box: extent of red times extent of green.
    extent = np.array([np.ptp(c[..., 0]) * np.ptp(c[..., 1]) / 255**2 for c in crops])
    assert 0.05 < extent.min() < 0.2
    assert extent.max() > 0.8
    # Of U(0.08, 1) the large boxes are the likelier to stick out of a 3:4 picture, so that the mean
    # of the first of ten that fits is 0.4325; 32 pixels span 31/32 of a box in each direction.
    assert extent.mean() == pytest.approx(0.4325 * (31 / 32) ** 2, abs=0.05)
    assert all(c.min() >= 0 and c.max() <= 255 for c in crops)


def jpeg(image: np.ndarray, **how: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=90, **how)
    return file.getvalue()


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_crop_of_a_jpeg_is_a_crop_of_the_whole_of_it(subsampling: str, progressive: bool) -> None:
    # Noise: with it, each pixel of the crop depends on all that decoding it may depend on.
    noise = np.random.default_rng(0).integers(0, 256, (97, 130, 3), np.uint8)
    encoded = jpeg(noise, subsampling=subsampling, progressive=progressive)
    of_encoded = tf.function(lambda seed: random_crop_of_encoded(encoded, 16, seed, *BOXES))
    of_image = tf.function(lambda seed: random_crop(decode(encoded), 16, seed, *BOXES))
    for number in range(60):
        seed = tf.constant([3, number])
        np.testing.assert_array_equal(of_encoded(seed), of_image(seed))


def test_other_pictures_are_cropped_alike() -> None:
    for image in (encoded(picture(50, 60)), jpeg(picture(50, 60)[..., 0]), jpeg(picture(1, 400))):
        wanted = random_crop(decode(image), 16, (1, 2), *BOXES)
        got = random_crop_of_encoded(image, 16, (1, 2), *BOXES)
        np.testing.assert_array_equal(got, wanted)


def test_a_picture_no_box_fits_gives_its_centre() -> None:
    # 1 pixel high: every box of at least 8 % of the area is higher than that, or wider than it.
    crop = random_crop(picture(1, 1000), 32, (0, 0), *BOXES).numpy()
    assert crop.shape == (32, 32, 3)


def test_a_padded_crop_is_the_picture_moved_by_up_to_its_padding() -> None:
    image = np.random.default_rng(0).integers(1, 256, (8, 6, 3), np.uint8)
    padded = np.pad(image, ((2, 2), (2, 2), (0, 0)))
    wanted = {padded[i : i + 8, j : j + 6].tobytes() for i in range(5) for j in range(5)}
    crops = [padded_crop(tf.constant(image), 2, (1, number)).numpy() for number in range(300)]
    assert {crop.tobytes() for crop in crops} == wanted
    assert crops[0].shape == (8, 6, 3) and crops[0].dtype == np.uint8
