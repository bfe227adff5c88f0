"""Annotation files damaged at random: each item is read, or refused, or the user is told."""

import collections
import json
import pickle
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.fuzz.mutations import mutate
from trainer import catalog
from trainer.data.check import check_example
from trainer.data.examples import encode_example
from trainer.errors import BadItem, UserError

# Adapter -> what is damaged: what its own code takes apart, so not the pictures.
FILES = {
    "coco_detection": ["annotations/*.json"],
    "coco_instances": ["annotations/*.json"],
    "coco_panoptic": ["annotations/*.json", "annotations/*/*.png"],
    "cub": ["CUB_200_2011/*.txt", "text_c10/*/*.txt"],
    "msra10k": ["MSRA10K_Imgs_GT/Imgs/*.png"],
}
ROUNDS = 200
MEMORY = 3 * 2**30  # bytes of address space
SECONDS = 5.0  # for one damaged dataset, whose like takes a hundredth when sound

# What a value of JSON may have become; written as text, because Python has no way to write some.
VALUES = (
    *(
        "null",
        "true",
        "[]",
        "{}",
        '""',
        '"7"',
        '"../x"',
        '"\\ud800"',
        '"\\u0000"',
        "-1",
        "0",
        "0.5",
    ),
    *("1e999", "-1e308", "NaN", "-Infinity", "2147483648", "99999999999999999999", "9" * 400),
    *(
        "[" * 5000,
        '{"a":' * 3000,
        "[[0,0,1e6,1e6,0,1e6]]",
        "[1e300]",
        '{"size":[36,48],"counts":"0"}',
    ),
    *('{"size":[36,48],"counts":[1728]}', '{"size":[36,48],"counts":[4294967295,1729]}', '"' * 3),
)


def damaged_json(content: bytes, chance: random.Random) -> bytes:
    """The document with another value, or none, in a place or several."""
    document = json.loads(content)
    marks = {}
    for number in range(chance.choice((1, 1, 1, 3))):
        places = [(document, key) for key in document]
        holder, key = chance.choice(places)
        while chance.random() < 0.97 and isinstance(holder[key], dict | list) and holder[key]:
            holder = holder[key]
            key = chance.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
        if chance.random() < 0.2:
            del holder[key]
        elif chance.random() < 0.2 and isinstance(holder, list):
            holder.append(holder[key])
        else:
            holder[key] = f"mark {number}"
            marks[f'"mark {number}"'] = chance.choice(VALUES)
    text = json.dumps(document)
    for mark, value in marks.items():
        text = text.replace(mark, value)
    return text.encode()


def damaged(path: Path, content: bytes, chance: random.Random) -> bytes:
    if path.suffix == ".json" and chance.random() < 0.7:
        return damaged_json(content, chance)
    return mutate(content, chance).content


def read_all(name: str, root: Path, outcomes: collections.Counter[str]) -> None:
    """Reads a dataset as create_tfrecords does; what must not happen ends the process."""
    try:
        _, dataset = catalog.open_dataset(root, name)
    except UserError as error:
        if "\n" in str(error):
            raise RuntimeError("the message has several lines") from error
        outcomes["refused as a whole"] += 1
        return
    dataset = pickle.loads(pickle.dumps(dataset))  # noqa: S301 - written just before
    keys = set()
    for split, count in dataset.splits.items():
        for index in range(count):
            key = dataset.key(split, index)
            key.encode()
            if key in keys:
                raise RuntimeError(f"two items have the key {key!r}")
            keys.add(key)
            try:
                example = dataset.read(split, index)
                features, classes = dataset.features, len(dataset.class_names)
                checked, _ = check_example(features, example, key, classes, check="header")
                encode_example(features, checked)
            except BadItem as error:
                if "\n" in f"{error.reason}{error.expected}" or not error.reason:
                    raise RuntimeError("the reason is not one line") from error
                outcomes["quarantined"] += 1
            else:
                outcomes["read"] += 1


def main(name: str, seed: int, rounds: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    chance = random.Random(seed)  # noqa: S311
    outcomes: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        __import__(f"trainer.data.{name}.sample", fromlist=["write_sample"]).write_sample(root)
        files = sorted(path for pattern in FILES[name] for path in root.glob(pattern))
        if not files:
            raise RuntimeError("there is nothing to damage")
        for number in range(rounds):
            path = chance.choice(files)
            content = path.read_bytes()
            path.write_bytes(damaged(path, content, chance))
            began = time.monotonic()
            try:
                read_all(name, root, outcomes)
            except Exception as error:
                raise RuntimeError(f"round {number}, {path.name}") from error
            if time.monotonic() - began > SECONDS:
                raise RuntimeError(f"round {number}, {path.name}: it took too long")
            path.write_bytes(content)
    print(json.dumps(outcomes))


@pytest.mark.parametrize("name", FILES)
def test_damage_is_told(name: str) -> None:
    # In a process of its own: C code that is led astray takes the process with it.
    command = [sys.executable, "-W", "error", "-m", "tests.test_damaged_annotations"]
    root = Path(__file__).parents[1]
    answer = subprocess.run(
        [*command, name, "0", str(ROUNDS)], cwd=root, capture_output=True, text=True, timeout=300
    )
    assert answer.returncode == 0, answer.stderr
    outcomes = json.loads(answer.stdout)
    assert outcomes["quarantined"] > 0
    assert outcomes["read"] > outcomes["quarantined"]
    assert outcomes.get("refused as a whole", 0) > 0 or name == "msra10k"


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
