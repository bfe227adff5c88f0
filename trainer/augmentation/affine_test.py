import numpy as np
import pytest
import tensorflow as tf

from trainer.augmentation.affine import random_affine, random_transform


def test_transforms_keep_within_their_bounds() -> None:
    drawn = tf.function(
        lambda seed: random_transform(64, 64, seed, 18.0, 0.15, 0.15, 0.2), autograph=False
    )
    found = np.array([drawn(tf.constant([1, number])).numpy() for number in range(500)])
    assert not found[:, 6:].any()
    a, b, left, c, d, top = found[:, :6].T
    # A rotation and a shear leave areas as they are, but for the cosine of a very small angle.
    area = a * d - b * c
    assert 0.85**2 - 1e-3 <= area.min() < 0.8 and 1.2 < area.max() <= 1.15**2 + 1e-3
    angle = np.degrees(np.arctan2(c, a))
    assert -18 / 0.85 < angle.min() < -14 and 14 < angle.max() < 18 / 0.85
    assert angle.mean() == pytest.approx(0, abs=1.5)
    # Where the centre comes from, in pixels: 0.2 of 64 away at most.
    for moved in (a * 31.5 + b * 31.5 + left - 31.5, c * 31.5 + d * 31.5 + top - 31.5):
        assert -12.8 - 1e-3 <= moved.min() < -11.5 and 11.5 < moved.max() <= 12.8 + 1e-3


def test_nothing_to_change_changes_nothing() -> None:
    image = np.random.default_rng(0).random((6, 9, 2), np.float32)
    same = random_affine(image, (1, 2), rotation=0, zoom=0, shift=0)
    np.testing.assert_allclose(same, image, atol=1e-6)


@pytest.mark.parametrize("fill", ["REFLECT", "NEAREST"])
def test_a_moved_picture_is_filled_from_its_border(fill: str) -> None:
    """Of a picture 9 wide that moves by at most 3, each row is a piece of the filled one."""
    row = np.arange(9, dtype=np.float32) ** 2
    image = np.repeat(row[None, :, None], 4, axis=0)
    filled = np.pad(row, 4, "symmetric" if fill == "REFLECT" else "edge")
    positions = np.arange(len(filled)) - 4
    for number in range(20):
        moved = random_affine(image, (1, number), rotation=0, zoom=0, shift=1 / 3, fill=fill)
        found = moved.numpy()[0, :, 0]
        drawn = random_transform(4, 9, (1, number), 0, 0, 0, 1 / 3).numpy()
        wanted = np.interp(np.arange(9) + drawn[2], positions, filled)
        np.testing.assert_allclose(found, wanted, atol=1e-3)


def test_a_quarter_turn_is_a_quarter_turn() -> None:
    image = np.random.default_rng(0).random((5, 5, 1), np.float32)
    drawn = [float(random_transform(5, 5, (1, n), 90, 0, 0, 0)[3]) for n in range(2000)]
    number = int(np.argmax(np.abs(drawn)))  # as good as 90 degrees
    turned = random_affine(image, (1, number), rotation=90, zoom=0, shift=0).numpy()
    wanted = np.rot90(image, 1 if drawn[number] > 0 else -1)
    np.testing.assert_allclose(turned, wanted, atol=0.02)
