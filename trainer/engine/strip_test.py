import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainer.engine.strip import (
    KEPT_BETWEEN,
    Strip,
    encode,
    epochs_that_stay,
    grid,
    read_samples,
    save_samples,
)


def pictures(seed: int = 0, count: int = 4, side: int = 2, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).random((count, side, side, channels), np.float32)


def epochs_in(folder: Path) -> list[int]:
    (strip,) = read_samples(folder)
    return [epoch for epoch, _ in strip.grids]


def test_a_grid_has_pictures_in_rows_with_a_gap() -> None:
    images = np.array([0.0, 0.2, 0.4, 0.6, 1.0]).reshape(5, 1, 1, 1)
    grey = 128
    row = [grey] * 7
    assert grid(images)[..., 0].tolist() == [
        [0, grey, grey, 51, grey, grey, 102],
        row,
        row,
        [153, grey, grey, 255, grey, grey, grey],
    ]
    assert grid(pictures(channels=3, count=1)).shape == (2, 2, 3)


def test_values_beyond_are_clipped_and_no_number_is_black() -> None:
    images = np.array([-1.0, 2.0, np.nan, np.inf]).reshape(4, 1, 1, 1)
    assert grid(images)[[0, 0, 3, 3], [0, 3, 0, 3], 0].tolist() == [0, 255, 0, 255]


def test_a_grid_has_64_pictures_at_most() -> None:
    assert grid(pictures(count=100, side=1)).shape == (22, 22, 1)


def test_large_pictures_are_reduced_by_the_mean() -> None:
    images = np.zeros((4, 600, 600, 3), np.float32)
    images[0, ::2] = 1.0
    reduced = grid(images)
    assert reduced.shape == (602, 602, 3)
    assert set(np.unique(reduced[:300, :300])) <= {127, 128}
    assert not reduced[302:, 302:].any()


@pytest.mark.parametrize("shape", [(2, 2, 2), (1, 2, 2, 2), (0, 2, 2, 3), (1, 0, 2, 3)])
def test_what_is_no_picture_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"must be pictures .* got shape \["):
        grid(np.zeros(shape))


def test_samples_are_read_as_they_were_saved(tmp_path: Path) -> None:
    titles = ["Fakes", "fakes!", "ﬁgures — 数字", "x" * 300]
    for epoch in (1, 2):
        save_samples(tmp_path, epoch, {title: pictures(epoch) for title in titles})
    strips = read_samples(tmp_path)
    assert [strip.title for strip in strips] == sorted(titles)
    for strip in strips:
        assert [epoch for epoch, _ in strip.grids] == [1, 2]
        for epoch, path in strip.grids:
            with Image.open(path) as image:
                np.testing.assert_array_equal(np.asarray(image), grid(pictures(epoch))[..., 0])
    assert read_samples(tmp_path / "none") == []


def test_few_grids_stay_and_the_same_ones_after_going_on(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for epoch in range(1, 101):
        save_samples(whole, epoch, {"a": pictures(epoch), "b": pictures(-epoch % 1000)})
        assert len(list((whole / "samples").iterdir())) <= 2 * (KEPT_BETWEEN + 2)
    begin = 1
    for end in (7, 64, 100):
        for epoch in range(begin, end + 1):
            save_samples(cut, epoch, {"a": pictures(epoch), "b": pictures(-epoch % 1000)})
        begin = end - 3  # the checkpoint is older than the samples
    assert epochs_that_stay(100) == {1, *range(0, 101, 8), 100}
    assert digests(whole) == digests(cut)
    (first, _) = read_samples(whole)
    assert [epoch for epoch, _ in first.grids] == [1, *range(8, 100, 8), 100]


def digests(folder: Path) -> dict[str, str]:
    paths = sorted((folder / "samples").iterdir())
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


@pytest.mark.parametrize("newest", [1, 2, 20, 21, 40, 41, 999, 100_000])
def test_what_stays_has_stayed_before(newest: int) -> None:
    stay = epochs_that_stay(newest)
    assert {1, newest} <= stay and len(stay - {0, 1, newest}) <= KEPT_BETWEEN
    assert len(stay) > min(newest, KEPT_BETWEEN // 2)
    for before in (newest - 1, max(newest // 2, 1), max(newest // 7, 1)):
        assert {epoch for epoch in stay if epoch <= before} <= epochs_that_stay(before)


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    save_samples(tmp_path, 1, {"a": pictures()})
    others = [tmp_path / "samples" / name for name in ("notes.txt", "a-00007.png", ".DS_Store")]
    for path in others:
        path.write_text("mine")
    save_samples(tmp_path, 50, {"a": pictures()})
    assert all(path.read_text() == "mine" for path in others)
    assert epochs_in(tmp_path) == [1, 50]


def test_grids_of_a_longer_training_before_are_removed(tmp_path: Path) -> None:
    for epoch in (1, 2, 3):
        save_samples(tmp_path, epoch, {"a": pictures()})
    save_samples(tmp_path, 2, {"a": pictures()})
    assert epochs_in(tmp_path) == [1, 2]
    shutil.rmtree(tmp_path / "samples")
    assert read_samples(tmp_path) == []


def test_the_bytes_depend_on_pixels_and_title_alone() -> None:
    pixels = grid(pictures())
    assert encode(pixels, "a") == encode(pixels.copy(), "a") != encode(pixels, "b")


def test_a_strip_is_spread_evenly_over_the_epochs() -> None:
    strip = Strip("a", tuple((epoch, Path(str(epoch))) for epoch in (1, *range(8, 97, 8), 100)))
    assert [epoch for epoch, _ in strip.spread(5)] == [1, 24, 48, 72, 100]
    assert [epoch for epoch, _ in strip.spread(2)] == [1, 100]
    assert strip.spread(100) == strip.grids
    assert Strip("a", ()).spread(2) == ()
