"""Steps killed at random instants go on where they were and end as if nothing had happened."""

import sys

import pytest

from tests.bench.data_kills import (
    Step,
    create_tfrecords_step,
    kill_at_random,
    preprocess_step,
)


def test_create_tfrecords_survives_being_killed(tmp_path):
    toll = kill_at_random(create_tfrecords_step(tmp_path, 240), 3, seed=1)
    assert "\n".join(toll.faults) == ""
    assert toll.equal == toll.kills.total() == 3


def test_a_step_that_does_not_survive_is_found(tmp_path):
    output = tmp_path / "of the step" / "output"
    output.parent.mkdir()
    # It counts its beginnings, leaves a temporary file behind, and goes on from nothing.
    script = (
        "import pathlib, time\n"
        f"folder = pathlib.Path({str(output)!r})\n"
        "folder.mkdir(exist_ok=True)\n"
        "begun = folder / 'begun'\n"
        "begun.write_text((begun.read_text() if begun.exists() else '') + 'once more\\n')\n"
        "(folder / '.unfinished').touch()\n"
        "time.sleep(0.2)\n"
        "(folder / '.unfinished').unlink()\n"
        "time.sleep(0.2)\n"
    )
    toll = kill_at_random(Step([sys.executable, "-c", script], [output]), 4, seed=1)
    assert toll.continued > 0
    assert toll.equal < 4
    assert any("begun is another" in fault for fault in toll.faults)


@pytest.mark.slow
def test_create_tfrecords_survives_many_kills(tmp_path):
    toll = kill_at_random(create_tfrecords_step(tmp_path, 1200), 12, seed=2)
    assert "\n".join(toll.faults) == ""
    assert toll.equal == 12
    assert toll.kept > 0


@pytest.mark.slow
def test_preprocess_survives_being_killed(tmp_path):
    toll = kill_at_random(preprocess_step(tmp_path, 200), 4, seed=3)
    assert "\n".join(toll.faults) == ""
    assert toll.equal == 4
