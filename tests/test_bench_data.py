"""What the benchmarks of the data path stand on: contestants, pictures, measures."""

import io
import sys

import numpy as np
import pytest
from PIL import Image

from tests.bench import data
from tests.bench.data_contest import Contestant, compete, ratio, speed
from tests.bench.data_photos import link_some, with_comment, write_small
from tests.fuzz.pictures import encoded, picture

WORKS = (
    ("create_tfrecords", "check=header", "workers=1"),
    ("copy",),
    ("copy", "sha256=yes"),
    ("simplejpeg", "size=eighth"),
    ("pillow",),
)


@pytest.mark.parametrize("work", WORKS, ids=" ".join)
def test_a_contestant_does_its_work_and_tidies_up(work, tmp_path):
    write_small(tmp_path / "data", 40)
    name, *settings = work
    command = [sys.executable, "-m", "tests.bench.data_work", name]
    command += [str(tmp_path / "data"), str(tmp_path / "scratch"), *settings]
    (seconds,) = compete([Contestant("ours", command, cores=1)], 2).values()
    assert len(seconds) == 2
    assert all(0 < s < 60 for s in seconds)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_contestant_that_fails_is_named(tmp_path):
    command = [sys.executable, "-c", "print('ready'); input(); raise SystemExit('out of breath')"]
    with pytest.raises(RuntimeError, match=r"(?s)theirs ended with exit code 1\..*out of breath"):
        compete([Contestant("theirs", command)], 1)


def test_medians_come_with_their_range():
    assert speed(100, [1.0, 0.5, 2.0]) == "100 images/s (50 to 200)"
    assert ratio([1.0, 2.0, 4.0], [1.0, 1.0, 1.0]) == "0.50 (0.25 to 1.00)"


def test_a_comment_makes_a_file_its_own_and_leaves_the_picture():
    original = encoded(Image.fromarray(picture(0)), "JPEG")
    one, other = with_comment(original, "one"), with_comment(original, "other")
    assert len({original, one, other}) == 3
    pictures = [np.asarray(Image.open(io.BytesIO(content))) for content in (original, one, other)]
    assert np.array_equal(pictures[0], pictures[1])
    assert np.array_equal(pictures[0], pictures[2])


def test_part_of_a_folder_is_linked(tmp_path):
    write_small(tmp_path / "many", 200)
    link_some(tmp_path / "many", 50, tmp_path / "few")
    few = sorted(path for path in (tmp_path / "few").rglob("*.jpg"))
    assert len(few) == 50
    assert len({path.read_bytes() for path in few}) == 50
    assert all(path.stat().st_nlink == 2 for path in few)


def test_the_peak_is_that_of_all_processes(tmp_path):
    write_small(tmp_path / "data", 200)
    flags = [f"--data={tmp_path / 'data'}", f"--examples={tmp_path / 'examples'}"]
    one, three = (data.peak(*flags, f"--workers={workers}") for workers in (1, 2))
    assert 10 * 2**20 < one < 500 * 2**20
    assert three > 2 * one
