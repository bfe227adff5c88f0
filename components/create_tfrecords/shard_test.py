import numpy as np
import pytest

from components.create_tfrecords.shard import (
    DIGESTS,
    NOTES,
    Changed,
    Job,
    Refused,
    ShardWriter,
    Work,
    all_features,
    read_digests,
    read_note,
)
from trainer.artifact import sha256
from trainer.data.examples import decode_example
from trainer.data.images import encode_png
from trainer.data.records import read_records
from trainer.dataset import Feature
from trainer.errors import BadItem, UserError

ITEMS = 40


class Pictures:
    """A dataset of pictures of one colour, whose label is their last digit; item 7 is damaged."""

    evaluation_split = "validation"

    def __init__(self):
        self.features = {
            "image": Feature("bytes", description="a picture", content="image"),
            "label": Feature("int64", description="a digit", content="label"),
        }
        self.class_names = tuple("0123456789")
        self.splits = {"train": ITEMS, "validation": 10}

    def key(self, split, index):
        return f"{split} {index}"

    def read(self, split, index):
        if index == 7:
            raise BadItem("it has a hole", "a whole one")
        if index == 8 and split == "train":
            raise OSError(5, "Input/output error")
        return {"image": picture(index), "label": index % 10}


def picture(index):
    return encode_png(np.full((2, 3, 1), index, np.uint8))


def work(folder, seen=None):
    return Work(str(folder), str(folder), "pictures", "quarantine", "decode", seen or {})


def write(folder, job, threaded=False, seen=None):
    progress = []
    ShardWriter(Pictures(), work(folder, seen), threaded)(job, progress.append)
    return progress


def examples(folder, job):
    features = all_features(Pictures())
    return [decode_example(features, record) for record in read_records(folder / job.file)]


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_file_tells_its_split_and_number():
    assert Job("train", 3, 128).file == "train-00003-of-00128.tfrecord"


def test_what_is_known_of_a_shard_is_noted(tmp_path):
    job = Job("validation", 0, 1)
    assert read_note(tmp_path, job) is None
    write(tmp_path, job)
    note = read_note(tmp_path, job)
    path = tmp_path / job.file
    assert (note.shard.file, note.shard.records) == (job.file, 9)
    assert (note.shard.bytes, note.shard.sha256) == (path.stat().st_size, sha256(path))
    assert note.refused == (Refused(7, "validation 7", "it has a hole", "a whole one"),)
    assert note.changed == ()
    assert note.labels == {label: 1 for label in range(10) if label != 7}
    assert sorted(e["key"].decode() for e in examples(tmp_path, job)) == [
        f"validation {n}" for n in range(10) if n != 7
    ]
    assert sorted(contents(tmp_path)) == [
        f"{NOTES}/{job.file}.digests",
        f"{NOTES}/{job.file}.json",
        job.file,
    ]


def test_the_shards_of_a_split_share_its_items(tmp_path):
    keys = []
    for number in range(3):
        job = Job("train", number, 3)
        write(tmp_path, job)
        keys.append([e["key"].decode() for e in examples(tmp_path, job)])
        keys.append([item.key for item in read_note(tmp_path, job).refused])
    every = [key for part in keys for key in part]
    assert sorted(every) == sorted(f"train {n}" for n in range(ITEMS))
    order = [int(key.split()[1]) for shard in keys[::2] for key in shard]
    assert order != sorted(order)


def test_a_file_that_cannot_be_read_is_a_bad_item(tmp_path):
    write(tmp_path, Job("train", 0, 1))
    refused = {item.index: item for item in read_note(tmp_path, Job("train", 0, 1)).refused}
    assert refused.keys() == {7, 8}
    assert refused[8].reason == "it cannot be read (Input/output error)"


def test_a_thread_writes_the_same_bytes(tmp_path):
    for threaded in (False, True):
        (tmp_path / str(threaded)).mkdir()
        write(tmp_path / str(threaded), Job("train", 0, 1), threaded)
    assert contents(tmp_path / "False") == contents(tmp_path / "True")


def test_progress_ends_with_the_number_of_items(tmp_path):
    progress = write(tmp_path, Job("train", 0, 1))
    assert sum(progress) == ITEMS
    assert len(progress) > 1


def test_an_image_of_an_earlier_split_is_refused(tmp_path):
    job = Job("validation", 0, 1)
    write(tmp_path, job)
    seen = {"validation": np.sort(read_digests(tmp_path, job)["image"])}
    write(tmp_path, Job("train", 0, 1), seen=seen)
    note = read_note(tmp_path, Job("train", 0, 1))
    twice = [item for item in note.refused if "same image" in item.reason]
    assert sorted(item.index for item in twice) == [0, 1, 2, 3, 4, 5, 6, 9]
    assert {item.reason for item in twice} == {"the same image is in the split validation"}
    assert note.shard.records == ITEMS - 2 - 8


def test_digests_are_of_each_record_and_its_image(tmp_path):
    one, other = Job("validation", 0, 2), Job("validation", 1, 2)
    write(tmp_path, one)
    write(tmp_path, other)
    digests = np.concatenate([read_digests(tmp_path, job) for job in (one, other)])
    assert digests.dtype == DIGESTS
    assert len(digests) == 9
    assert len(np.unique(digests["image"])) == len(np.unique(digests["record"])) == 9


@pytest.mark.parametrize("lost", ["{}", f"{NOTES}/{{}}.json", f"{NOTES}/{{}}.digests"])
def test_a_shard_of_which_something_is_lost_is_not_finished(tmp_path, lost):
    job = Job("train", 0, 1)
    write(tmp_path, job)
    assert read_note(tmp_path, job) is not None
    (tmp_path / lost.format(job.file)).unlink()
    assert read_note(tmp_path, job) is None


def test_what_a_killed_run_has_left_is_written_over(tmp_path):
    job = Job("train", 0, 1)
    (tmp_path / f".{job.file}.unfinished").write_bytes(b"half of something" * 10_000)
    write(tmp_path, job)
    assert len(examples(tmp_path, job)) == ITEMS - 2
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("threaded", [False, True])
def test_a_full_disk_is_told_in_one_line(tmp_path, threaded):
    job = Job("train", 0, 1)
    (tmp_path / f".{job.file}.unfinished").symlink_to("/dev/full")
    with pytest.raises(UserError, match="must have room for the examples; No space left") as error:
        write(tmp_path, job, threaded)
    assert "\n" not in str(error.value)
    assert read_note(tmp_path, job) is None


def test_what_was_changed_is_noted(tmp_path):
    from PIL import Image

    class Turned(Pictures):
        def read(self, split, index):
            exif = Image.Exif()
            exif[0x0112] = 3  # orientation: upside down
            path = tmp_path / "turned.png"
            Image.fromarray(np.full((2, 3), index, np.uint8)).save(path, exif=exif)
            return {"image": path.read_bytes(), "label": 0}

    ShardWriter(Turned(), work(tmp_path), threaded=False)(
        Job("validation", 0, 1), lambda items: None
    )
    changed = read_note(tmp_path, Job("validation", 0, 1)).changed
    assert Changed(7, "validation 7", "turned upright: EXIF orientation 3") in changed
    assert len(changed) == 10
