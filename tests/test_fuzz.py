"""Damaged datasets: no crash, no hang, no lost good item, every bad one told. See tests/fuzz."""

import random

import pytest

from tests.fuzz.campaign import fuzz_all, fuzz_bombs, fuzz_dataset, fuzz_images, undecodable
from tests.fuzz.mutations import mutate
from tests.fuzz.pictures import every_kind, good_file
from trainer.catalog import dataset_names
from trainer.data.images import check_image

SEED = 1


def test_the_same_seed_does_the_same_damage():
    for name, content in every_kind().items():
        one, other = (mutate(content, random.Random(name)) for _ in range(2))  # noqa: S311
        assert one == other
        assert one.content != content


def test_good_files_are_good_and_different():
    contents = [good_file(number) for number in range(50)]
    assert len({content for _, content in contents}) == 50
    for name, content in contents:
        assert check_image(content, name).data == content
        assert undecodable(content) == ""


def test_what_a_decoder_cannot_read_is_found():
    png, jpeg = every_kind()["colours.png"], every_kind()["baseline.jpg"]
    assert undecodable(png[:-4]).startswith("a decoder fails: InvalidArgumentError")
    assert undecodable(jpeg[: len(jpeg) // 2]).startswith("a decoder fails: OSError")
    assert undecodable(every_kind()["plain.tif"]) != ""


def test_damaged_images_harm_no_others(tmp_path):
    report = fuzz_images(
        tmp_path / "images", 150, SEED, [("quarantine", "decode"), ("convert", "header")]
    )
    assert "\n".join(report.faults) == ""
    assert report.outcomes["damaged images, decode: quarantined"] > 50
    assert report.outcomes["damaged images, decode: stored as it came"] > 5


@pytest.mark.parametrize("dataset", dataset_names())
def test_damaged_datasets_harm_nothing(dataset, tmp_path):
    report = fuzz_dataset(tmp_path / dataset, dataset, 16, SEED)
    assert "\n".join(report.faults) == ""
    assert report.mutated >= 16


@pytest.mark.slow
def test_bombs_neither_last_nor_swell(tmp_path):
    report = fuzz_bombs(tmp_path)
    assert "\n".join(report.faults) == ""
    assert report.outcomes["bombs: quarantined"] > 8


@pytest.mark.slow
def test_five_thousand_damaged_files(tmp_path):
    report = fuzz_all(tmp_path, 5000, SEED + 1)
    assert "\n".join(report.faults) == ""
    assert report.mutated >= 5000
