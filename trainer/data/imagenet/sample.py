"""A small ImageNet for tests, in its official archives: 4 classes of coloured noise."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import scipy.io
from PIL import Image

SYNSETS = {
    490: ("n01440764", "tench, Tinca tinca"),
    382: ("n02012849", "crane"),
    710: ("n03126707", "crane"),
    2: ("n02119022", "red fox, Vulpes vulpes"),
    1001: ("n00004475", "organism, being"),  # not a class itself, but above some
}
"""The challenge's number of a class (ours) -> its WordNet id and synonyms."""

_CLASSES = tuple(sorted(wnid for number, (wnid, _) in SYNSETS.items() if number <= 1000))
_PER_CLASS = {"train": 6, "val": 3}


def write_sample(root: Path) -> Mapping[str, int]:
    """Writes the sample, the same at every call; returns the number of items of each split."""
    root.mkdir(parents=True, exist_ok=True)
    train, validation, kit = _contents()
    inner = {f"{wnid}.tar": pack(images) for wnid, images in train.items()}
    (root / "ILSVRC2012_img_train.tar").write_bytes(pack(inner))
    (root / "ILSVRC2012_img_val.tar").write_bytes(
        pack({name: image for name, (_, image) in validation.items()})
    )
    (root / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(gzip.compress(pack(kit), mtime=0))
    return {"train": sum(map(len, train.values())), "validation": len(validation)}


def write_unpacked(root: Path) -> None:
    """Writes the same images unpacked: folders of classes, and a flat validation with the kit."""
    train, validation, kit = _contents()
    _write(root / "train", train)
    _write(root, {"val": {name: image for name, (_, image) in validation.items()}})
    (root / "ILSVRC2012_devkit_t12" / "data").mkdir(parents=True)
    for path, content in kit.items():
        (root / path).write_bytes(content)


def write_sorted(root: Path) -> None:
    """Writes the same images in folders of classes, training and validation, and nothing else."""
    train, validation, _ = _contents()
    _write(root / "train", train)
    for name, (wnid, image) in validation.items():
        _write(root / "val", {wnid: {name: image}})


def write_kaggle(root: Path) -> None:
    """Writes the same images in Kaggle's layout."""
    train, validation, _ = _contents()
    data = root / "ILSVRC" / "Data" / "CLS-LOC"
    _write(data / "train", train)
    _write(data, {"val": {name: image for name, (_, image) in validation.items()}})
    lines = ["ImageId,PredictionString"]
    for number, (name, (wnid, _)) in enumerate(reversed(validation.items())):
        boxes = f"{wnid} 85 1 499 272 " * (1 + number % 2)
        lines.append(f"{name.removesuffix('.JPEG')},{boxes}")
    (root / "LOC_val_solution.csv").write_bytes("\n".join(lines).encode())
    words = {wnid: synonyms for wnid, synonyms in SYNSETS.values() if wnid in _CLASSES}
    mapping = "".join(f"{wnid} {words[wnid]}\n" for wnid in _CLASSES)
    (root / "LOC_synset_mapping.txt").write_bytes(mapping.encode())


def _contents() -> tuple[
    dict[str, dict[str, bytes]], dict[str, tuple[str, bytes]], dict[str, bytes]
]:
    """Training images by class and name, validation's class and image by name, files of the kit."""
    generator = np.random.default_rng(0)
    train: dict[str, dict[str, bytes]] = {}
    for label, wnid in enumerate(_CLASSES):
        names = [f"{wnid}_{generator.integers(30_000)}.JPEG" for _ in range(_PER_CLASS["train"])]
        train[wnid] = {name: _picture(generator, label) for name in names}
    labels = generator.permutation(np.repeat(np.arange(len(_CLASSES)), _PER_CLASS["val"])).tolist()
    validation = {
        f"ILSVRC2012_val_{number:08d}.JPEG": (_CLASSES[label], _picture(generator, label))
        for number, label in enumerate(labels, 1)
    }
    numbers = {wnid: number for number, (wnid, _) in SYNSETS.items()}
    truth = "".join(f"{numbers[wnid]}\n" for wnid, _ in validation.values())
    folder = "ILSVRC2012_devkit_t12/data"
    kit = {
        f"{folder}/ILSVRC2012_validation_ground_truth.txt": truth.encode(),
        f"{folder}/meta.mat": write_meta(SYNSETS),
    }
    return train, validation, kit


def _write(root: Path, folders: Mapping[str, Mapping[str, bytes]]) -> None:
    for folder, files in folders.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (root / folder / name).write_bytes(content)


def pack(files: Mapping[str, bytes]) -> bytes:
    """A tar archive of files, by name, in that order."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return archive.getvalue()


def write_meta(synsets: Mapping[int, tuple[str, str]]) -> bytes:
    """The development kit's meta.mat, with the fields that it has.

    Args:
        synsets: the challenge's number of a class -> its WordNet id and synonyms.
    """
    fields = (
        *("ILSVRC2012_ID", "WNID", "words", "gloss", "num_children", "children"),
        *("wordnet_height", "num_train_images"),
    )
    table = np.zeros((len(synsets), 1), [(field, object) for field in fields])
    for row, (number, (wnid, words)) in zip(table, synsets.items(), strict=True):
        row[0] = (float(number), wnid, words, f"what a {words} is", 0.0, np.zeros((1, 0)), 0.0, 6.0)
    file = io.BytesIO()
    scipy.io.savemat(file, {"synsets": table}, do_compression=True)
    # SciPy writes the time of day into the text at the beginning.
    return b"MATLAB 5.0 MAT-file, Platform: GLNXA64".ljust(116) + file.getvalue()[116:]


def _picture(generator: np.random.Generator, label: int) -> bytes:
    pixels = generator.integers(0, 80, (24 + label, 32, 3), np.uint8)
    pixels[:, :, label % 3] += 150 if label < 3 else 75  # each class has a colour, to be learnt
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90)
    return file.getvalue()
