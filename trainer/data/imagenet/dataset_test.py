import gzip
import io
import os
import pickle
import shutil

import numpy as np
import pytest
import scipy.io
from PIL import Image

from trainer import catalog
from trainer.data.image_folder import sample as image_folder_sample
from trainer.data.imagenet import sample
from trainer.data.imagenet.dataset import open_dataset, recognises
from trainer.data.imagenet.sample import SYNSETS, pack, write_meta
from trainer.errors import BadItem, UserError

TENCH, CRANE, FOX, MACHINE = "n01440764", "n02012849", "n02119022", "n03126707"
NAMES = ("tench", f"crane ({CRANE})", "red fox", f"crane ({MACHINE})")
KIT = "ILSVRC2012_devkit_t12"
TRUTH = f"{KIT}/data/ILSVRC2012_validation_ground_truth.txt"
META = f"{KIT}/data/meta.mat"


@pytest.fixture
def packed(tmp_path):
    sample.write_sample(tmp_path / "packed")
    return tmp_path / "packed"


@pytest.fixture
def flat(tmp_path):
    """Unpacked, the validation as it comes, with the unpacked development kit."""
    sample.write_unpacked(tmp_path / "flat")
    return tmp_path / "flat"


@pytest.fixture
def sorted_(tmp_path):
    """Unpacked, the validation sorted into folders, without anything else."""
    sample.write_sorted(tmp_path / "sorted")
    return tmp_path / "sorted"


@pytest.fixture
def kaggle(tmp_path):
    sample.write_kaggle(tmp_path / "kaggle")
    return tmp_path / "kaggle"


def everything(dataset):
    """(split, name of the file) -> label and image."""
    return {
        (split, dataset.key(split, index).rpartition("/")[2]): dataset.read(split, index)
        for split, items in dataset.splits.items()
        for index in range(items)
    }


def refused(dataset, split="validation"):
    """Key -> reason of all bad items of a split."""
    reasons = {}
    for index in range(dataset.splits[split]):
        try:
            dataset.read(split, index)
        except BadItem as error:
            reasons[dataset.key(split, index)] = error.reason
    return reasons


def test_all_forms_hold_the_same(packed, flat, sorted_, kaggle):
    expected = everything(open_dataset(packed))
    assert len(expected) == 36
    for root in (flat, sorted_, kaggle):
        dataset = open_dataset(root)
        assert everything(dataset) == expected
        assert dataset.splits == {"train": 24, "validation": 12}
    assert open_dataset(packed).class_names == NAMES
    assert open_dataset(flat).class_names == open_dataset(kaggle).class_names == NAMES
    assert open_dataset(sorted_).class_names == (TENCH, CRANE, FOX, MACHINE)


def test_labels_are_positions_of_the_sorted_ids_and_classes_have_colours(packed):
    dataset = open_dataset(packed)
    for split in dataset.splits:
        for index in range(dataset.splits[split]):
            example = dataset.read(split, index)
            pixels = np.asarray(Image.open(io.BytesIO(example["image"])))
            assert pixels.mean((0, 1)).argmax() == example["label"] % 3
    assert dataset.read("train", 0)["label"] == 0
    assert f"/{TENCH}.tar/" in dataset.key("train", 0)


def test_keys_are_paths(packed, flat, sorted_, kaggle):
    train, val = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
    assert open_dataset(packed).key("train", 0).startswith(f"{train}/{TENCH}.tar/{TENCH}_")
    first = "ILSVRC2012_val_00000001.JPEG"
    assert open_dataset(packed).key("validation", 0) == f"{val}/{first}"
    assert open_dataset(flat).key("validation", 0) == f"val/{first}"
    assert open_dataset(kaggle).key("validation", 0) == f"ILSVRC/Data/CLS-LOC/val/{first}"
    assert open_dataset(sorted_).key("validation", 0).startswith(f"val/{TENCH}/ILSVRC2012_val_")
    assert open_dataset(sorted_).key("train", 0).startswith(f"train/{TENCH}/{TENCH}_")


def test_all_forms_are_recognised(packed, flat, sorted_, kaggle):
    for root in (packed, flat, sorted_, kaggle):
        assert catalog.open_dataset(root)[0] == "imagenet"


def test_other_folders_of_images_are_not(sorted_, tmp_path):
    image_folder_sample.write_sample(tmp_path / "general")
    assert not recognises(tmp_path / "general")
    assert catalog.open_dataset(tmp_path / "general")[0] == "image_folder"
    (sorted_ / "wnids.txt").touch()  # Tiny ImageNet
    assert not recognises(sorted_)
    (sorted_ / "wnids.txt").unlink()
    (sorted_ / "train" / "dogs").mkdir()
    assert not recognises(sorted_)
    assert not recognises(tmp_path / "absent")


@pytest.mark.parametrize(
    "name", ["ILSVRC2012_img_train.tar", f"{KIT}.tar.gz", "LOC_val_solution.csv"]
)
def test_one_official_file_is_enough_to_be_recognised(tmp_path, name):
    (tmp_path / name).touch()
    assert recognises(tmp_path)
    with pytest.raises(UserError, match=r"ImageNet must have|must be a tar archive"):
        open_dataset(tmp_path)


def test_archives_go_before_folders(packed, flat):
    (flat / "train").rename(packed / "train")
    shutil.rmtree(packed / "train" / TENCH)
    assert len(open_dataset(packed).class_names) == 4


def test_forms_may_be_mixed(packed, flat):
    expected = everything(open_dataset(packed))
    (packed / "ILSVRC2012_img_train.tar").unlink()
    shutil.move(flat / "train", packed / "train")
    assert everything(open_dataset(packed)) == expected


def test_a_subset_of_the_classes_is_a_dataset_of_its_own(sorted_):
    for split in ("train", "val"):
        shutil.rmtree(sorted_ / split / CRANE)
        shutil.rmtree(sorted_ / split / TENCH)
    dataset = open_dataset(sorted_)
    assert dataset.class_names == (FOX, MACHINE)
    assert {dataset.read("train", index)["label"] for index in range(12)} == {0, 1}


def test_a_class_that_training_lacks_is_told(sorted_, flat, kaggle):
    shutil.rmtree(sorted_ / "train" / FOX)
    shutil.rmtree(flat / "train" / FOX)
    shutil.rmtree(kaggle / "ILSVRC/Data/CLS-LOC/train" / FOX)
    for root in (sorted_, flat, kaggle):
        with pytest.raises(
            UserError, match=rf"train has 3 classes and lacks '{FOX}'\. Complete it"
        ):
            open_dataset(root)


def test_a_cut_training_archive_that_lacks_classes_is_told(packed):
    path = packed / "ILSVRC2012_img_train.tar"
    content = path.read_bytes()
    path.write_bytes(content[: content.rindex(FOX.encode()) + 600])
    with pytest.raises(
        UserError, match=rf"lacks '{MACHINE}'\. It is damaged: the archive is cut short: "
    ):
        open_dataset(packed)


def test_a_cut_archive_keeps_what_is_whole(packed):
    expected = everything(open_dataset(packed))
    path = packed / "ILSVRC2012_img_train.tar"
    content = path.read_bytes()
    path.write_bytes(content[: content.rindex(MACHINE.encode()) + 512 + 100])
    dataset = open_dataset(packed)
    (lost,) = refused(dataset, "train").items()
    assert lost[0].startswith(f"ILSVRC2012_img_train.tar/{MACHINE}.tar/{MACHINE}_")
    assert lost[1].startswith("the archive is cut short: 100 of the file's ")
    found = {
        ("train", dataset.key("train", index).rpartition("/")[2]): dataset.read("train", index)
        for index in range(23)
    }
    assert found.items() <= expected.items()
    assert len(found) == 23


def test_validation_images_that_a_cut_archive_has_lost_are_bad_items(packed):
    path = packed / "ILSVRC2012_img_val.tar"
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"ILSVRC2012_val_00000011") + 512 + 100])
    dataset = open_dataset(packed)
    assert dataset.splits["validation"] == 12
    archive = "ILSVRC2012_img_val.tar/ILSVRC2012_val_000000"
    reasons = refused(dataset)
    assert reasons.pop(f"{archive}11.JPEG").startswith("the archive is cut short")
    assert reasons == {f"{archive}12.JPEG": "a label without an image: there is no such file"}


def test_a_damaged_header_is_one_bad_item(packed):
    path = packed / "ILSVRC2012_img_val.tar"
    content = bytearray(path.read_bytes())
    offset = content.index(b"ILSVRC2012_val_00000007")
    content[offset] ^= 1
    path.write_bytes(content)
    reasons = refused(open_dataset(packed))
    assert set(reasons) == {
        f"ILSVRC2012_img_val.tar#{offset}",
        "ILSVRC2012_img_val.tar/ILSVRC2012_val_00000007.JPEG",
    }


def edit_truth(root, change):
    lines = (root / TRUTH).read_bytes().splitlines()
    change(lines)
    (root / TRUTH).write_bytes(b"\n".join(lines) + b"\n")


@pytest.mark.parametrize(
    "line", [b"", b"0", b"-490", b"1e3", b"5000", b"49o", b"\xff", b"9" * 5000]
)
def test_a_line_that_is_no_class_is_a_bad_item(flat, line):
    edit_truth(flat, lambda lines: lines.__setitem__(4, line))
    ((key, reason),) = refused(open_dataset(flat)).items()
    assert key == "val/ILSVRC2012_val_00000005.JPEG"
    assert reason.startswith(f"its class is not known: line 5 of {TRUTH} is")
    assert len(reason) < 300


def test_images_and_lines_without_a_partner_are_bad_items(flat):
    edit_truth(flat, lambda lines: lines.pop())
    (flat / "val" / "ILSVRC2012_val_00000003.JPEG").unlink()
    (flat / "val" / "notes.txt").touch()
    assert refused(open_dataset(flat)) == {
        "val/ILSVRC2012_val_00000003.JPEG": "a label without an image: there is no such file",
        "val/ILSVRC2012_val_00000012.JPEG": "an image without a label",
        "val/notes.txt": "an image without a label",
    }


def test_windows_line_ends_and_empty_lines_at_the_end_do_not_matter(flat):
    expected = everything(open_dataset(flat))
    text = (flat / TRUTH).read_bytes().replace(b"\n", b"\r\n")
    (flat / TRUTH).write_bytes(text + b"\r\n\n  \n")
    assert everything(open_dataset(flat)) == expected


def test_too_many_lines_are_told(flat):
    (flat / TRUTH).write_bytes(b"1\n" * 200_001)
    with pytest.raises(UserError, match=r"a line for each image or class; it has 200,001"):
        open_dataset(flat)


def broken_meta(**changes):
    """meta.mat with the first synset changed."""
    table = scipy.io.loadmat(io.BytesIO(write_meta(SYNSETS)))["synsets"]
    for field, value in changes.items():
        table[0, 0][field] = value
    file = io.BytesIO()
    scipy.io.savemat(file, {"synsets": table})
    return file.getvalue()


def saved(**variables):
    file = io.BytesIO()
    scipy.io.savemat(file, variables)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it begins with b''"),
        (b"<html>not found</html>" * 9, "it begins with b'<html>not fo'"),
        (write_meta(SYNSETS)[:-100], "it is cut short"),
        (saved(other=np.zeros((2, 2))), "it has no synsets"),
        (saved(synsets=np.zeros((2, 2))), "its synsets are no structures"),
        (saved(synsets={"WNID": TENCH}), "a synset lacks its ILSVRC2012_ID"),
        (broken_meta(WNID="tench"), "a synset lacks its ILSVRC2012_ID, WNID"),
        (broken_meta(WNID=np.zeros((1, 1))), "a synset lacks"),
        (broken_meta(words=np.zeros((1, 1))), "a synset lacks"),
        (broken_meta(ILSVRC2012_ID=np.array([[np.nan]])), "a synset lacks"),
        (broken_meta(ILSVRC2012_ID="490"), "a synset lacks"),
        (broken_meta(ILSVRC2012_ID=np.array([[382.0]])), "a synset is there twice"),
        (broken_meta(WNID=CRANE), "a synset is there twice"),
    ],
)
def test_damaged_synsets_are_told(flat, content, message):
    (flat / META).write_bytes(content)
    with pytest.raises(UserError, match=rf"meta\.mat must be a whole file .*{message}"):
        open_dataset(flat)


@pytest.mark.parametrize("name", [TRUTH, META])
def test_a_file_that_the_development_kit_lacks_is_told(flat, packed, name):
    (flat / name).unlink()
    with pytest.raises(UserError, match=rf"{name}.*there is no such file"):
        open_dataset(flat)
    kit = {"meta.mat": write_meta(SYNSETS), "ILSVRC2012_validation_ground_truth.txt": b"490\n"}
    del kit[name.rpartition("/")[2]]
    (packed / f"{KIT}.tar.gz").write_bytes(gzip.compress(pack(kit)))
    with pytest.raises(UserError, match=rf"{KIT}\.tar\.gz .*it has no {name.rpartition('/')[2]}"):
        open_dataset(packed)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must be a tar archive"),
        (b"<html>", "it is damaged or cut short"),
        (gzip.compress(b"<html>", mtime=0), "must be a tar archive"),
        (gzip.compress(pack({"a": bytes(2**20)}))[:-9], "it is damaged or cut short"),
        (gzip.compress(bytes(2**26 + 1)), "it unpacks to more than 67,108,864 bytes"),
    ],
)
def test_a_damaged_development_kit_is_told(packed, content, message):
    (packed / f"{KIT}.tar.gz").write_bytes(content)
    with pytest.raises(UserError, match=rf"{KIT}\.tar\.gz .*{message}"):
        open_dataset(packed)


def test_without_labels_the_ways_to_get_them_are_told(packed, flat):
    (packed / f"{KIT}.tar.gz").unlink()
    shutil.rmtree(flat / KIT)
    for root in (packed, flat):
        with pytest.raises(UserError, match=r"has none of them\. Put the development kit there"):
            open_dataset(root)


def edit_solution(root, change):
    path = root / "LOC_val_solution.csv"
    lines = path.read_bytes().splitlines()
    change(lines)
    path.write_bytes(b"\n".join(lines))


@pytest.mark.parametrize(
    "boxes",
    [b"", b"n0144076 1 2 3 4", b"tench", b"n99999999 1 2 3 4", b"\xff\xfe", b'"'],
)
def test_a_line_of_kaggles_without_a_class_is_a_bad_item(kaggle, boxes):
    edit_solution(kaggle, lambda lines: lines.__setitem__(2, b"ILSVRC2012_val_00000011," + boxes))
    ((key, reason),) = refused(open_dataset(kaggle)).items()
    assert key == "ILSVRC/Data/CLS-LOC/val/ILSVRC2012_val_00000011.JPEG"
    assert reason.startswith("its class is not known: line 3 of LOC_val_solution.csv is")


def test_two_classes_for_an_image_are_a_bad_item(kaggle):
    def change(lines):
        image, _, boxes = lines[1].partition(b",")
        other = CRANE if boxes.startswith(FOX.encode()) else FOX
        lines.extend([lines[1], image + b"," + other.encode()])

    edit_solution(kaggle, change)
    ((key, reason),) = refused(open_dataset(kaggle)).items()
    assert key.endswith("ILSVRC2012_val_00000012.JPEG")
    assert "LOC_val_solution.csv says n" in reason


def test_a_line_without_a_comma_leaves_its_image_without_a_label(kaggle):
    edit_solution(kaggle, lambda lines: lines.__setitem__(2, b"rubbish"))
    data = "ILSVRC/Data/CLS-LOC/val"
    assert refused(open_dataset(kaggle)) == {
        f"{data}/ILSVRC2012_val_00000011.JPEG": "an image without a label",
        f"{data}/rubbish.JPEG": "a label without an image: there is no such file",
    }


def test_without_kaggles_mapping_classes_have_their_ids_for_names(kaggle):
    (kaggle / "LOC_synset_mapping.txt").unlink()
    assert open_dataset(kaggle).class_names == (TENCH, CRANE, FOX, MACHINE)
    assert not refused(open_dataset(kaggle))


def test_a_folder_that_is_no_class_is_told(flat):
    (flat / "train" / "lost+found").mkdir()
    with pytest.raises(UserError, match=r"train also has 'lost\+found'\. Move that elsewhere"):
        open_dataset(flat)


def test_a_training_folder_without_classes_is_told(flat):
    shutil.rmtree(flat / "train")
    (flat / "train").mkdir()
    with pytest.raises(UserError, match="named by WordNet ids, such as n01440764"):
        open_dataset(flat)


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_missing_split_is_told(flat, split):
    shutil.rmtree(flat / split)
    with pytest.raises(UserError, match=rf"has neither ILSVRC2012_img_{split}\.tar nor {split}/"):
        open_dataset(flat)


def test_files_beside_the_classes_and_empty_classes_are_bad_items(sorted_):
    (sorted_ / "train" / "n09999999").mkdir()
    (sorted_ / "train" / "readme.txt").touch()
    (sorted_ / "val" / "stray.JPEG").touch()
    os.mkfifo(sorted_ / "train" / TENCH / "pipe.JPEG")
    dataset = open_dataset(sorted_)
    assert refused(dataset, "train") == {
        "train/readme.txt": "an image without a class: it lies directly in train/",
        "train/n09999999": "a label without an image: the class folder is empty",
        f"train/{TENCH}/pipe.JPEG": "it is not a file but something else",
    }
    assert list(refused(dataset)) == ["val/stray.JPEG"]


def test_links_may_not_lead_out_but_archives_may_lie_elsewhere(packed, sorted_, tmp_path):
    (tmp_path / "secret").write_text("secret")
    (sorted_ / "train" / TENCH / "link.JPEG").symlink_to(tmp_path / "secret")
    (reason,) = refused(open_dataset(sorted_), "train").values()
    assert "leads out of the data folder" in reason
    expected = everything(open_dataset(packed))
    (tmp_path / "links").mkdir()
    for path in packed.iterdir():
        if "img" in path.name:
            (tmp_path / "links" / path.name).symlink_to(path)
        else:
            shutil.copy(path, tmp_path / "links")
    assert everything(open_dataset(tmp_path / "links")) == expected


def test_it_can_be_sent_to_another_process(packed, flat):
    for root in (packed, flat):
        dataset = open_dataset(root)
        expected = everything(dataset)
        sent = pickle.loads(pickle.dumps(dataset))  # noqa: S301
        assert everything(sent) == expected
