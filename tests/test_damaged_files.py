"""Files of ImageNet and of what is read like it, damaged at random."""

import collections
import pickle
import resource
import time

import numpy as np
import pytest

from trainer import catalog
from trainer.data.imagenet import sample as imagenet
from trainer.data.paired_pictures import sample as paired_pictures
from trainer.data.svhn import sample as svhn
from trainer.data.tiny_imagenet import sample as tiny_imagenet
from trainer.data.unpaired_folders import sample as unpaired_folders
from trainer.errors import BadItem, UserError

# Adapter, who writes its sample, what is damaged (all but pictures, where there is more), and what
# must come of it at times besides examples.
CASES = [
    ("imagenet", imagenet.write_sample, "*.tar*", {"refused", "told"}),
    ("imagenet", imagenet.write_unpacked, "ILSVRC2012_devkit_t12/data/*", {"refused", "told"}),
    ("imagenet", imagenet.write_kaggle, "LOC_*", {"refused"}),
    ("tiny_imagenet", tiny_imagenet.write_sample, "*/**/*.txt", {"refused", "told"}),
    ("svhn", svhn.write_sample, "t*.mat", {"told"}),
    ("unpaired_folders", unpaired_folders.write_sample, "*/*.*", set()),
    ("paired_pictures", paired_pictures.write_sample, "*/*.*", set()),
]
ROUNDS = 200
MEMORY = 500 * 2**20  # bytes by which a process may grow


def damage(content, generator):
    """Content with some bits flipped, or with a part zeroed, cut off, taken out or put in."""
    kind = generator.integers(6)
    begin, end = sorted(generator.integers(0, len(content) + 1, 2).tolist())
    if kind == 0 or begin == end:
        changed = bytearray(content)
        for place in generator.integers(0, len(content), generator.integers(1, 20)):
            changed[place] ^= 1 << generator.integers(8)
        return bytes(changed)
    if kind == 1:
        return content[:begin] + bytes(end - begin) + content[end:]
    if kind == 2:
        return content[:begin]
    if kind == 3:
        return content[:begin] + content[end:]
    if kind == 4:
        return content[:begin] + generator.bytes(generator.integers(1, 600)) + content[begin:]
    return content[:begin] + content[begin:end] + content[begin:]


def outcomes(name, root):
    """How often items are read and refused; anything but BadItem and UserError is raised."""
    counts = collections.Counter()
    try:
        _, dataset = catalog.open_dataset(root, name)
        dataset = pickle.loads(pickle.dumps(dataset))  # noqa: S301 - written just before
        keys = set()
        for split, items in dataset.splits.items():
            for index in range(items):
                keys.add(dataset.key(split, index).encode())
                try:
                    example = dataset.read(split, index)
                    assert example.keys() == dataset.features.keys()
                    assert isinstance(example["image"], bytes)
                    assert 0 <= example.get("label", 0) < max(len(dataset.class_names), 1)
                    counts["read"] += 1
                except BadItem as error:
                    assert "\n" not in error.reason + error.expected
                    counts["refused"] += 1
        assert len(keys) == sum(dataset.splits.values())
    except UserError as error:
        assert "\n" not in str(error)
        counts["told"] += 1
    return counts


@pytest.mark.parametrize(("name", "write", "pattern", "others"), CASES)
def test_damage_is_refused_or_told(name, write, pattern, others, tmp_path):
    write(tmp_path)
    whole = outcomes(name, tmp_path)
    assert set(whole) == {"read"}
    files = sorted(tmp_path.glob(pattern))
    generator = np.random.default_rng(0)
    total = collections.Counter()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    slowest = 0.0
    for number in range(ROUNDS):
        path = files[number % len(files)]
        content = path.read_bytes()
        path.write_bytes(damage(content, generator))
        begin = time.monotonic()
        total += outcomes(name, tmp_path)
        slowest = max(slowest, time.monotonic() - begin)
        path.write_bytes(content)
    assert outcomes(name, tmp_path) == whole
    assert total["read"] > ROUNDS  # whatever is damaged, much else is whole
    assert others <= total.keys()
    assert slowest < 2
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    assert grown < MEMORY
