import os
import shutil

import pytest

from trainer.data.msra10k.dataset import open_dataset, recognises
from trainer.data.msra10k.sample import write_sample
from trainer.errors import BadItem, UserError


def write(root, names):
    folder = root / "MSRA10K_Imgs_GT" / "Imgs"
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(os.fsencode(name))
    return folder


def pairs(*stems):
    return [f"{stem}{extension}" for stem in stems for extension in (".jpg", ".png")]


def places(dataset):
    """key -> its split and index."""
    return {
        dataset.key(split, index): (split, index)
        for split, count in dataset.splits.items()
        for index in range(count)
    }


def split_of(root):
    return {key.rpartition("/")[2]: split for key, (split, _) in places(open_dataset(root)).items()}


def test_pictures_and_masks_are_paired_by_name(tmp_path):
    write(tmp_path, pairs("1", "2", "a.b"))
    dataset = open_dataset(tmp_path)
    found = places(dataset)
    assert set(found) == {f"MSRA10K_Imgs_GT/Imgs/{n}.jpg" for n in ("1", "2", "a.b")}
    example = dataset.read(*found["MSRA10K_Imgs_GT/Imgs/a.b.jpg"])
    assert example == {"image": b"a.b.jpg", "mask": b"a.b.png"}


def test_ten_thousand_are_split_as_the_papers_do(tmp_path):
    write(tmp_path, pairs(*range(10_000)))
    assert open_dataset(tmp_path).splits == {"train": 8000, "validation": 1000, "test": 1000}


@pytest.mark.parametrize(
    ("count", "splits"), [(3, (1, 1, 1)), (10, (8, 1, 1)), (25, (21, 2, 2)), (30, (24, 3, 3))]
)
def test_small_sets_have_an_item_in_each_split(tmp_path, count, splits):
    write(tmp_path, pairs(*range(count)))
    assert tuple(open_dataset(tmp_path).splits.values()) == splits


def test_the_split_hangs_on_names_alone(tmp_path):
    write(tmp_path / "a", pairs(*range(100)))
    write(tmp_path / "b", reversed(pairs(*range(100))))
    before = split_of(tmp_path / "a")
    assert before == split_of(tmp_path / "b")
    # `printf 0.jpg | sha256sum` and so on, sorted: the last ten.
    last = "13.jpg 15.jpg 30.jpg 51.jpg 56.jpg 60.jpg 62.jpg 64.jpg 72.jpg 73.jpg"
    assert [name for name, split in before.items() if split == "test"] == last.split()


def test_a_further_picture_moves_next_to_none_of_the_others(tmp_path):
    folder = write(tmp_path, pairs(*range(200)))
    before = split_of(tmp_path)
    write(tmp_path, pairs("new"))
    after = split_of(tmp_path)
    assert sum(after[name] != split for name, split in before.items()) <= 2
    (folder / "7.png").unlink()  # a picture that loses its mask stays where it was
    assert split_of(tmp_path) == after


def test_what_is_no_pair_is_refused_and_not_lost(tmp_path):
    folder = write(tmp_path, [*pairs("1", "2", "3"), "4.jpg", "5.png", "6.jpeg", "Thumbs.db"])
    write(tmp_path, [".DS_Store"])
    (folder / "deeper").mkdir()
    dataset = open_dataset(tmp_path)
    reasons = {}
    for key, place in places(dataset).items():
        try:
            dataset.read(*place)
        except BadItem as error:
            reasons[key.rpartition("/")[2]] = error.reason
    assert reasons == {
        "4.jpg": "a picture without a mask",
        "5.png": "a mask without a picture",
        "6.jpeg": "neither a picture nor a mask",
        "Thumbs.db": "neither a picture nor a mask",
        "deeper": "neither a picture nor a mask",
    }
    assert sum(dataset.splits.values()) == 8


def test_a_mask_that_cannot_be_read_is_told_as_the_mask(tmp_path):
    folder = write(tmp_path, pairs("1", "2", "3"))
    (folder / "2.png").unlink()
    (folder / "2.png").mkdir()
    dataset = open_dataset(tmp_path)
    with pytest.raises(BadItem, match="its mask: it is not a file but something else"):
        dataset.read(*places(dataset)["MSRA10K_Imgs_GT/Imgs/2.jpg"])


def test_names_that_are_no_text_get_a_key_that_is(tmp_path):
    write(tmp_path, [os.fsdecode(b"\xff" + name.encode()) for name in pairs("1", "2", "3")])
    dataset = open_dataset(tmp_path)
    found = places(dataset)
    assert r"MSRA10K_Imgs_GT/Imgs/\xff1.jpg" in found
    assert dataset.read(*found[r"MSRA10K_Imgs_GT/Imgs/\xff1.jpg"])["mask"] == b"\xff1.png"


def test_the_folder_itself_and_the_one_around_it_may_be_given(tmp_path):
    write_sample(tmp_path)
    inner = tmp_path / "MSRA10K_Imgs_GT"
    assert recognises(tmp_path) and recognises(inner)
    assert open_dataset(inner).splits == open_dataset(tmp_path).splits
    assert open_dataset(inner).key("test", 0).startswith("Imgs/")


def test_recognised_by_pictures_and_masks(tmp_path):
    folder = write(tmp_path, ["1.jpg", "2.jpg"])
    assert not recognises(tmp_path)
    write(tmp_path, ["2.png"])
    assert recognises(tmp_path)
    shutil.rmtree(folder)
    assert not recognises(tmp_path)
    with pytest.raises(UserError, match="has no folder Imgs"):
        open_dataset(tmp_path)


def test_fewer_pictures_than_splits_are_told(tmp_path):
    write(tmp_path, pairs("1", "2"))
    with pytest.raises(UserError, match=r"three pictures at least, one for each split; .* has 2"):
        open_dataset(tmp_path)
