"""Workers are real processes here, and so are the signals that end them."""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import xxhash

from components.create_tfrecords.create_tfrecords import create_tfrecords
from components.create_tfrecords.shard import Job, Work, read_note
from components.create_tfrecords.workers import ATTEMPTS, Crew
from trainer.data.image_folder.sample import write_sample
from trainer.data.images import encode_png
from trainer.dataset import Feature
from trainer.errors import BadItem, TryAgain, UserError

ITEMS = 60
SHARDS = 6
HEAVY = ("tensorflow", "keras", "jax", "apache_beam", "tensorflow_transform", "tfx_bsl", "kfp")
ROOT = Path(__file__).parents[2]


class Trouble:
    """A dataset of pictures, one of which does something to the process that reads it.

    Args:
        folder: where processes leave a file of their number, and the trouble one of its own.
        kind: "" for none, "die once", "die always", "user", "bad", "bug", "sleep" or "modules".
    """

    class_names = ()
    evaluation_split = "train"

    def __init__(self, folder, kind=""):
        self.features = {"image": Feature("bytes", description="a picture", content="image")}
        self.splits = {"train": ITEMS}
        self.folder = folder
        self.kind = kind

    def key(self, split, index):
        return f"picture {index}"

    def read(self, split, index):
        (self.folder / f"process {os.getpid()}").touch()
        if index == 33 and self.kind:
            self._trouble()
        return {"image": picture(index)}

    def _trouble(self):
        been_here = (self.folder / "been here").exists()
        (self.folder / "been here").touch()
        if self.kind == "die always" or (self.kind == "die once" and not been_here):
            os.kill(os.getpid(), signal.SIGKILL)
        if self.kind == "user":
            raise UserError("The disk must be turned; it lies on its side. Turn it.")
        if self.kind == "bad":
            raise BadItem("it is number 33", "another number")
        if self.kind == "bug":
            raise ZeroDivisionError("a slip of ours")
        if self.kind == "sleep":
            time.sleep(600)
        if self.kind == "modules":
            raise UserError(f"imported: {[name for name in HEAVY if name in sys.modules]}")


def picture(index):
    return encode_png(np.full((4, 4, 1), index, np.uint8))


@pytest.fixture
def here(tmp_path):
    (tmp_path / "processes").mkdir()
    (tmp_path / "examples").mkdir()
    return tmp_path


def jobs():
    return [Job("train", number, SHARDS) for number in range(SHARDS)]


def run(here, kind="", workers=2, folder="examples"):
    """Writes all shards; what was told of the progress."""
    (here / folder).mkdir(exist_ok=True)
    work = Work(str(here / folder), str(here), "trouble", "quarantine", "decode", {})
    progress = []
    with Crew(Trouble(here / "processes", kind), workers) as crew:
        crew.write(work, jobs(), progress.append)
    return progress


def shards(here, folder="examples"):
    return {path.name: path.read_bytes() for path in (here / folder).glob("*.tfrecord")}


def processes(here):
    """The processes that have read items."""
    return [int(p.name.split()[1]) for p in (here / "processes").glob("process *")]


def gone(pids, seconds=5.0):
    """Whether none of the processes is there any more, or will not be in a moment."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not any(alive(pid) for pid in pids):
            return True
        time.sleep(0.01)
    return False


def alive(pid):
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="latin-1")
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


@pytest.mark.parametrize("workers", [2, 3])
def test_the_number_of_workers_does_not_change_a_byte(tmp_path, workers):
    write_sample(tmp_path / "data")
    (tmp_path / "data" / "train" / "犬" / "broken.png").write_bytes(b"broken")
    contents = []
    for count in (1, workers):
        folder = tmp_path / f"with {count}"
        create_tfrecords(
            str(folder), str(tmp_path / "data"), shards=5, max_bad_fraction=0.1, workers=count
        )
        contents.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert contents[0] == contents[1]
    assert len(contents[0]) == 3 * 5 + 3


def test_shards_are_written_side_by_side(here):
    run(here)
    assert len(processes(here)) == 2
    assert os.getpid() not in processes(here)


def test_a_timeout_for_all_sockets_is_none_of_theirs(here):
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(60)  # as the client libraries of clouds do
    try:
        run(here)
    finally:
        socket.setdefaulttimeout(before)
    assert len(shards(here)) == SHARDS


def test_one_worker_is_this_process(here):
    run(here, workers=1)
    assert processes(here) == [os.getpid()]


def test_there_are_no_more_workers_than_shards(here):
    run(here, workers=50)
    assert len(processes(here)) <= SHARDS


def test_a_worker_that_dies_is_replaced(here):
    run(here, folder="undisturbed")
    progress = run(here, "die once")
    assert shards(here) == shards(here, "undisturbed")
    assert len(shards(here)) == SHARDS
    assert sum(progress) == ITEMS
    assert not list((here / "examples").glob(".*"))


def test_workers_that_keep_dying_are_told(here):
    with pytest.raises(TryAgain, match=rf"ended {ATTEMPTS} times, the last time by SIGKILL"):
        run(here, "die always")
    # Every shard but one that has picture 33 can be written, and those that were are kept.
    assert 0 < len(shards(here)) < SHARDS
    assert gone(processes(here))


def test_what_the_user_can_mend_is_told_as_it_is(here):
    with pytest.raises(UserError) as error:
        run(here, "user")
    assert str(error.value) == "The disk must be turned; it lies on its side. Turn it."
    assert gone(processes(here))


def test_a_slip_of_ours_comes_with_its_traceback(here):
    with pytest.raises(RuntimeError, match=r"(?s)in _trouble.*ZeroDivisionError: a slip of ours"):
        run(here, "bug")
    assert gone(processes(here))


def test_a_bad_item_is_noted_by_the_worker(here):
    run(here, "bad")
    notes = [read_note(here / "examples", job) for job in jobs()]
    (refused,) = (item for note in notes for item in note.refused)
    assert (refused.index, refused.key) == (33, "picture 33")
    assert (refused.reason, refused.expected) == ("it is number 33", "another number")
    assert sum(note.shard.records for note in notes) == ITEMS - 1


def test_a_crew_stays_for_the_next_split(here):
    first, second = jobs()[:3], jobs()[3:]
    folder = here / "examples"
    work = Work(str(folder), str(here), "trouble", "quarantine", "decode", {})
    images = [xxhash.xxh3_64_intdigest(picture(index)) for index in range(ITEMS)]
    after = dataclasses.replace(work, seen={"test": np.sort(np.array(images, np.uint64))})
    with Crew(Trouble(here / "processes"), 2) as crew:
        crew.write(work, first, lambda items: None)
        before = sorted(processes(here))
        crew.write(after, second, lambda items: None)
    assert sorted(processes(here)) == before
    refused = [len(read_note(folder, job).refused) for job in jobs()]
    assert refused == [0, 0, 0, 10, 10, 10]


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_progress_counts_every_item_once(here, workers):
    progress = run(here, workers=workers)
    assert sum(progress) == ITEMS
    assert all(step >= 0 for step in progress)


def test_a_worker_imports_no_framework(here):
    with pytest.raises(UserError) as error:
        run(here, "modules")
    assert str(error.value) == "imported: []"


def test_the_command_imports_no_framework(tmp_path):
    write_sample(tmp_path / "data")
    script = (
        "import runpy, sys\n"
        "try: runpy.run_module('components.create_tfrecords', run_name='__main__')\n"
        "except SystemExit as ended: print(ended.code)\n"
        f"print([name for name in {HEAVY} if name in sys.modules])\n"
    )
    flags = [f"--data={tmp_path / 'data'}", f"--examples={tmp_path / 'examples'}"]
    done = subprocess.run(
        [sys.executable, "-c", script, *flags], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n")[:2] == ["0", "[]"]


SLEEPER = """
import signal, sys
# What a shell starts in the background ignores it, and so does all that is started from there.
signal.signal(signal.SIGINT, signal.default_int_handler)
from pathlib import Path
from components.create_tfrecords import workers_test
workers_test.run(Path(sys.argv[1]), "sleep")
"""


@pytest.fixture
def sleeper(here):
    """A process of which one worker is in the middle of an item that takes ten minutes."""
    process = subprocess.Popen(
        [sys.executable, "-c", SLEEPER, str(here)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 30
        been_here = here / "processes" / "been here"
        while not (been_here.exists() and len(processes(here)) == 2):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield process
    finally:
        for pid in [process.pid, *processes(here)]:
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
        process.wait()
        process.stderr.close()


def test_workers_do_not_outlive_their_parent(here, sleeper):
    assert sum(map(alive, processes(here))) == 2
    sleeper.kill()
    sleeper.wait()
    assert gone(processes(here))


def test_ctrl_c_ends_everything_at_once(here, sleeper):
    began = time.monotonic()
    os.killpg(sleeper.pid, signal.SIGINT)  # as a terminal does it, to all of them
    _, errors = sleeper.communicate(timeout=60)
    assert time.monotonic() - began < 5
    assert sleeper.returncode == -signal.SIGINT
    assert gone(processes(here))
    # Workers leave it to their parent: one KeyboardInterrupt is shown, and no more.
    assert errors.count(b"KeyboardInterrupt") == 1
