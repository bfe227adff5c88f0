import io
import pickle
import shutil

import numpy as np
import pytest
from PIL import Image

from trainer import catalog
from trainer.data.tiny_imagenet.dataset import open_dataset, recognises
from trainer.data.tiny_imagenet.sample import write_sample
from trainer.errors import BadItem, UserError

GOLDFISH, CAT, CRANE = "n01443537", "n02124075", "n03126707"


@pytest.fixture
def root(tmp_path):
    write_sample(tmp_path / "sample")
    return tmp_path / "sample" / "tiny-imagenet-200"


def everything(dataset):
    return {
        dataset.key(split, index): {
            name: np.asarray(value).tolist() if name == "box" else value
            for name, value in dataset.read(split, index).items()
        }
        for split, items in dataset.splits.items()
        for index in range(items)
    }


def refused(dataset):
    reasons = {}
    for split, items in dataset.splits.items():
        for index in range(items):
            try:
                dataset.read(split, index)
            except BadItem as error:
                reasons[dataset.key(split, index)] = error.reason
    return reasons


def edit(path, change):
    lines = path.read_bytes().splitlines()
    change(lines)
    path.write_bytes(b"\n".join(lines) + b"\n")


def boxes_of(root, wnid):
    return root / "train" / wnid / f"{wnid}_boxes.txt"


def test_labels_are_positions_of_the_sorted_ids(root):
    assert (root / "wnids.txt").read_text().split() == [CAT, GOLDFISH, CRANE]
    dataset = open_dataset(root)
    assert dataset.class_names == ("goldfish", "Egyptian cat", "crane")
    examples = everything(dataset)
    for label, wnid in enumerate((GOLDFISH, CAT, CRANE)):
        for number in range(6):
            assert examples[f"train/{wnid}/images/{wnid}_{number}.JPEG"]["label"] == label
    for number in range(9):  # cat, goldfish, crane, cat, ...
        assert examples[f"val/images/val_{number}.JPEG"]["label"] == (1, 0, 2)[number % 3]


def test_the_last_pixel_of_a_box_is_within_it(root):
    edit(
        boxes_of(root, CAT),
        lambda lines: lines.__setitem__(0, f"{CAT}_0.JPEG\t3\t5\t3\t63".encode()),
    )
    dataset = open_dataset(root)
    index = next(i for i in range(18) if dataset.key("train", i).endswith(f"{CAT}_0.JPEG"))
    box = dataset.read("train", index)["box"]
    assert box.dtype == np.float32
    assert box.tolist() == [3, 5, 4, 64]


def test_boxes_lie_around_the_coloured_rectangles(root):
    for example in everything(open_dataset(root)).values():
        pixels = np.asarray(Image.open(io.BytesIO(example["image"])), np.int32)
        channel = {1: 0, 0: 1, 2: 2}[example["label"]]
        left, top, right, bottom = map(int, example["box"])
        inside = np.zeros((64, 64), bool)
        inside[top:bottom, left:right] = True
        bright = pixels[:, :, channel]
        assert bright[inside].mean() > 150 > 100 > bright[~inside].mean()


def test_the_folder_itself_and_the_one_around_it_are_the_same(root):
    assert everything(open_dataset(root)) == everything(open_dataset(root.parent))
    for place in (root, root.parent):
        assert catalog.open_dataset(place)[0] == "tiny_imagenet"


def test_names_that_classes_share_get_the_id(root):
    edit(root / "words.txt", lambda lines: lines.append(f"{CAT}\tcrane, big bird".encode()))
    assert open_dataset(root).class_names == ("goldfish", f"crane ({CAT})", f"crane ({CRANE})")


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe rubbish\n\0\0\tn", b"\n" * 100])
def test_without_words_classes_have_their_ids_for_names(root, content):
    if content is None:
        (root / "words.txt").unlink()
    else:
        (root / "words.txt").write_bytes(content)
    assert open_dataset(root).class_names == (GOLDFISH, CAT, CRANE)


def test_words_that_are_no_utf_8_are_still_names(root):
    (root / "words.txt").write_bytes(b"n02124075\tchat \xe9gyptien\n")
    assert open_dataset(root).class_names[1] == r"chat \xe9gyptien"


def test_test_images_are_left_out(root):
    assert open_dataset(root).splits == {"train": 18, "validation": 9}
    shutil.rmtree(root / "test")
    assert open_dataset(root).splits == {"train": 18, "validation": 9}


BAD_LINES = [
    b"1\t2\t3",
    b"1\t2\t3\t4\t5",
    b"1\t2\t3\tx",
    b"1\t2\t3\t4.5",
    b"1\t2\t3\t\xff",
    b"1 2 3 4",
    b"1\t2\t3\tnan",
    b"1\t2\t3\t" + b"9" * 5000,
    b"",
]


@pytest.mark.parametrize("corners", BAD_LINES)
def test_a_line_that_is_no_box_is_a_bad_item(root, corners):
    edit(
        boxes_of(root, CAT),
        lambda lines: lines.__setitem__(2, f"{CAT}_2.JPEG\t".encode() + corners),
    )
    edit(
        root / "val" / "val_annotations.txt",
        lambda lines: lines.__setitem__(4, f"val_4.JPEG\t{CAT}\t".encode() + corners),
    )
    reasons = refused(open_dataset(root))
    assert set(reasons) == {f"train/{CAT}/images/{CAT}_2.JPEG", "val/images/val_4.JPEG"}
    assert reasons["val/images/val_4.JPEG"].startswith("line 5 of val/val_annotations.txt is ")
    assert all(len(reason) < 300 for reason in reasons.values())


def test_images_and_lines_without_a_partner_are_bad_items(root):
    (root / "train" / CAT / "images" / f"{CAT}_1.JPEG").unlink()
    edit(boxes_of(root, CAT), lambda lines: lines.pop(4))
    edit(root / "val" / "val_annotations.txt", lambda lines: lines.__setitem__(0, b"rubbish"))
    (root / "val" / "images" / "val_8.JPEG").unlink()
    assert refused(open_dataset(root)) == {
        f"train/{CAT}/images/{CAT}_1.JPEG": "a line without an image: there is no such file",
        f"train/{CAT}/images/{CAT}_4.JPEG": f"train/{CAT}/{CAT}_boxes.txt has no line about it",
        "val/images/rubbish": "a line without an image: there is no such file",
        "val/images/val_0.JPEG": "val/val_annotations.txt has no line about it",
        "val/images/val_8.JPEG": "a line without an image: there is no such file",
    }


def test_lines_that_contradict_each_other_are_a_bad_item(root):
    def change(lines):
        lines += [lines[0], lines[1].replace(CAT.encode(), GOLDFISH.encode())]
        lines.append(lines[1].replace(GOLDFISH.encode(), CRANE.encode()))

    edit(root / "val" / "val_annotations.txt", change)
    assert refused(open_dataset(root)) == {
        "val/images/val_1.JPEG": "val/val_annotations.txt has two lines about it that differ"
    }


@pytest.mark.parametrize("wnid", [b"n99999999", b"", b"cat", b"\xff"])
def test_a_class_that_is_none_is_a_bad_item(root, wnid):
    edit(
        root / "val" / "val_annotations.txt",
        lambda lines: lines.__setitem__(3, b"val_3.JPEG\t" + wnid + b"\t1\t2\t3\t4"),
    )
    ((key, reason),) = refused(open_dataset(root)).items()
    assert key == "val/images/val_3.JPEG"
    assert reason.startswith("val/val_annotations.txt says its class is '")


@pytest.mark.parametrize("damage", ["missing", "folder", "empty"])
def test_without_its_boxes_a_class_has_bad_items_alone(root, damage):
    path = boxes_of(root, CAT)
    path.unlink()
    if damage == "folder":
        path.mkdir()
    if damage == "empty":
        path.touch()
    reasons = refused(open_dataset(root))
    assert set(reasons) == {f"train/{CAT}/images/{CAT}_{number}.JPEG" for number in range(6)}
    source = f"train/{CAT}/{CAT}_boxes.txt"
    assert (
        set(reasons.values())
        == {
            "missing": {f"{source}: there is no such file"},
            "folder": {f"{source}: it is not a file but something else"},
            "empty": {f"{source} has no line about it"},
        }[damage]
    )


def test_windows_line_ends_do_not_matter(root):
    expected = everything(open_dataset(root))
    for path in (*root.glob("*.txt"), *root.glob("train/*/*.txt"), *root.glob("val/*.txt")):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n") + b"\r\n")
    assert everything(open_dataset(root)) == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it has one twice, or none"),
        (b"\n\n", "it has one twice, or none"),
        (b"goldfish\n", "it has 'goldfish'"),
        (b"\xff\0\n", "a WordNet id on each line"),
        (f"{CAT}\n{CAT}\n".encode(), "it has one twice"),
        (f"{CAT}\n{GOLDFISH}\n".encode(), rf"'{CRANE}' is in one of the two alone \(1 such\)"),
        (f"{CAT}\n{GOLDFISH}\n{CRANE}\nn00000001".encode(), "'n00000001' is in one of the two"),
        (b"\n" * 200_001, "at most 200,000 lines; it has 200,001"),
    ],
)
def test_another_list_of_classes_is_told(root, content, message):
    (root / "wnids.txt").write_bytes(content)
    with pytest.raises(UserError, match=rf"wnids\.txt must .*{message}"):
        open_dataset(root)


def test_a_validation_that_was_sorted_is_told(root):
    (root / "val" / "images").rename(root / "val" / CAT)
    with pytest.raises(UserError, match="images sorted into val/<wnid>/ are not read"):
        open_dataset(root)


def test_missing_annotations_of_the_validation_are_told(root):
    (root / "val" / "val_annotations.txt").unlink()
    with pytest.raises(UserError, match=r"val_annotations\.txt must be a file that can be read"):
        open_dataset(root)


def test_recognised_by_the_list_of_classes_and_the_training_images(root):
    assert recognises(root)
    assert recognises(root.parent)
    assert not recognises(root / "train")
    (root / "wnids.txt").unlink()
    assert not recognises(root)


def test_it_can_be_sent_to_another_process(root):
    dataset = open_dataset(root)
    sent = pickle.loads(pickle.dumps(dataset))  # noqa: S301
    assert everything(sent) == everything(dataset)
