"""Lets create_tfrecords read damaged datasets, and looks at what becomes of every item.

What must hold, however a file is damaged: the step ends in time and by itself; it finishes, or says
in one line what the user can do; an item is in the shards or in the quarantine, with a reason; what
is in the shards can be read by every decoder; an item whose files are sound is stored as if nothing
had happened; nothing is written anywhere else.
"""

from __future__ import annotations

import collections
import dataclasses
import importlib
import io
import json
import os
import random
import select
import shutil
import stat
import subprocess
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.fuzz.mutations import Mutation, mutate
from tests.fuzz.pictures import bombs, every_kind, good_file
from trainer import catalog
from trainer.data.examples import decode_example
from trainer.data.manifest import CHANGES, QUARANTINE, read_manifest
from trainer.data.records import read_records

ROOT = Path(__file__).parents[2]
SECONDS = 60.0
"""Time that a run has before it counts as hanging; a run of a sample takes a few hundredths."""

SECONDS_PER_IMAGE = 0.1
"""What each file of a large folder adds to it, on a busy machine."""

LONGEST = 20.0
"""Seconds that a run of a few items may take, whatever is in them (ours)."""

MEMORY = 2**31
"""Bytes of memory that a process may have come to use (ours): the largest image that is accepted,
decoded, converted and encoded, takes less."""

Stranger = str
"""What is in the place of a file, in words."""

STRANGE: tuple[Stranger, ...] = (
    "a folder",
    "a link to /dev/zero",
    "a link to /etc/passwd",
    "a link to .",
    "a link to nowhere",
    "a pipe",
    "a socket",
    "nothing",
)

PICTURES = (".jpg", ".jpeg", ".png")

WAYS = [(unusual, check) for unusual in ("quarantine", "convert") for check in ("decode", "header")]


@dataclasses.dataclass
class Report:
    """What became of the damaged files.

    Attributes:
        mutated: number of damaged files.
        outcomes: how runs ended, and what became of damaged items -> how often.
        faults: what must not be, a line each, with all it takes to see it again.
        slowest: seconds of the longest run.
        peak: bytes of memory of the largest process.
    """

    mutated: int = 0
    outcomes: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    faults: list[str] = dataclasses.field(default_factory=list)
    slowest: float = 0.0
    peak: int = 0

    def add(self, other: Report) -> None:
        """Takes in another report."""
        self.mutated += other.mutated
        self.outcomes += other.outcomes
        self.faults += other.faults
        self.slowest = max(self.slowest, other.slowest)
        self.peak = max(self.peak, other.peak)


@dataclasses.dataclass(frozen=True)
class Answer:
    """How a run ended: "finished", "refused" with a message for the user, or any other way."""

    outcome: str
    message: str
    seconds: float
    peak: int = 0


class Runner:
    """A process that runs create_tfrecords on one folder after another; a context manager."""

    def __enter__(self) -> Runner:
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def run(self, **arguments: Any) -> Answer:
        """Runs the step; a process that crashes or hangs is replaced."""
        began = time.monotonic()
        self._process.stdin.write(json.dumps(arguments) + "\n")
        self._process.stdin.flush()
        ready, _, _ = select.select([self._process.stdout], [], [], SECONDS)
        line = self._process.stdout.readline() if ready else ""
        seconds = time.monotonic() - began
        if line:
            answer = json.loads(line)
            if answer["printed"]:
                return Answer("printed", answer["printed"], seconds)
            return Answer(answer["outcome"], answer["message"], seconds, answer["peak"])
        if not ready:
            self._stop()
            self._start()
            return Answer("hung", f"no answer within {SECONDS:g} s", seconds)
        code = self._process.wait()
        self._start()
        return Answer("crashed", f"exit code {code}", seconds)

    def _start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.runner"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def _stop(self) -> None:
        self._process.kill()
        self._process.communicate()


def fuzz_images(
    folder: Path, mutations: int, seed: int, ways: Sequence[tuple[str, str]] = WAYS
) -> Report:
    """A folder of damaged images of every kind beside good ones, by the command itself."""
    chance = random.Random(seed)  # noqa: S311
    report = Report(mutated=mutations)
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / "data"
    good: dict[str, bytes] = {}
    damaged: dict[str, tuple[bytes, str]] = {}
    bases = every_kind()
    for number in range(mutations):
        base = chance.choice(sorted(bases))
        mutation = mutate(bases[base], chance, list(bases.values()))
        key = f"{chance.choice(('train', 'val'))}/{chance.choice('ab')}/{number} {base}"
        damaged[key] = (mutation.content, f"{base}, {mutation.kind}")
    for number in range(max(mutations // 5, 20)):
        name, content = good_file(number)
        good[f"{('train', 'val')[number % 2]}/{'ab'[number // 2 % 2]}/{name}"] = content
    for key, content in [*good.items(), *((key, content) for key, (content, _) in damaged.items())]:
        (data / key).parent.mkdir(parents=True, exist_ok=True)
        (data / key).write_bytes(content)
    for unusual, check in ways:
        where = f"seed {seed}, {mutations} images, unusual={unusual}, check={check}"
        answer = _command(folder, unusual, check, SECONDS + SECONDS_PER_IMAGE * mutations)
        report.slowest = max(report.slowest, answer.seconds)
        report.outcomes[f"images, {check}: {answer.outcome}"] += 1
        if answer.outcome != "finished":
            report.faults.append(f"{where}: {answer.outcome}: {answer.message}")
            continue
        if "Warning: " in answer.message:  # libtiff's own words cannot be kept back
            report.faults.append(f"{where}: warnings were shown: {answer.message[-300:]}")
        found = Found.read(folder / "examples")
        for key, content in good.items():
            if found.examples.get(key, {}).get("image") != content or key in found.changed:
                report.faults.append(f"{where}: the good {key} is lost or another")
        for key, (content, what) in damaged.items():
            fault = _fault(found, key, content, unusual, check)
            if fault:
                kept = keep(folder, f"{seed}-{Path(key).name}", content)
                report.faults.append(f"{where}: {key} ({what}): {fault}; kept as {kept}")
            report.outcomes[f"damaged images, {check}: {found.fate(key)}"] += 1
        strangers = found.keys - good.keys() - damaged.keys()
        report.faults += [f"{where}: there is no {key}" for key in strangers]
    return report


def _command(folder: Path, unusual: str, check: str, seconds: float) -> Answer:
    """The step as users start it, with two workers."""
    arguments = {
        "data": folder / "data",
        "examples": folder / "examples",
        "unusual": unusual,
        "check": check,
        "workers": 2,
        "shards": 6,
        "max_bad_fraction": 1,
        "duplicates": "keep",
    }
    command = [sys.executable, "-m", "components.create_tfrecords"]
    command += [f"--{name}={value}" for name, value in arguments.items()]
    began = time.monotonic()
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return Answer("hung", f"not ended after {seconds:.0f} s", seconds)
    outcome = {0: "finished", 2: "refused"}.get(done.returncode, f"exit code {done.returncode}")
    return Answer(outcome, done.stderr[-2000:], time.monotonic() - began)


@dataclasses.dataclass(frozen=True)
class Found:
    """A folder of examples by the keys of its items.

    Attributes:
        examples: key -> values.
        refused: key -> what the quarantine says.
        changed: keys of those that are not stored as they came.
        twice: keys that are there more than once.
        classes: number of classes.
    """

    examples: Mapping[str, Mapping[str, Any]]
    refused: Mapping[str, Mapping[str, str]]
    changed: frozenset[str]
    twice: frozenset[str]
    classes: int

    @classmethod
    def read(cls, folder: Path) -> Found:
        manifest = read_manifest(folder)
        examples = [
            (f"{split}:{example.pop('key').decode()}", example)
            for split in manifest.splits
            for file in manifest.files(folder, split)
            for example in (
                decode_example(manifest.features_of(split), record) for record in read_records(file)
            )
        ]
        refused = [(f"{line['split']}:{line['key']}", line) for line in _lines(folder / QUARANTINE)]
        counts = collections.Counter(key for key, _ in [*examples, *refused])
        return cls(
            {_path(key): example for key, example in examples},
            {_path(key): line for key, line in refused},
            frozenset(_path(f"{line['split']}:{line['key']}") for line in _lines(folder / CHANGES)),
            frozenset(_path(key) for key, count in counts.items() if count > 1),
            len(manifest.class_names),
        )

    @property
    def keys(self) -> set[str]:
        """All that is accounted for."""
        return {*self.examples, *self.refused}

    def fate(self, key: str) -> str:
        """What became of an item, in a word or two."""
        if key in self.refused:
            return "quarantined"
        return "stored changed" if key in self.changed else "stored as it came"


def _path(key: str) -> str:
    """A key without its split: of an image folder's it is a path, and says it already."""
    return key.partition(":")[2]


def _lines(path: Path) -> list[dict[str, str]]:
    # splitlines would also end a line at the odder characters that a name may have (U+2028).
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def _fault(found: Found, key: str, content: bytes, unusual: str, check: str) -> str:
    """What is wrong with the fate of a damaged image; empty if nothing is."""
    if key not in found.keys:
        return "it is neither in the shards nor in the quarantine"
    if key in found.twice:
        return "it is there more than once"
    if key in found.refused:
        line = found.refused[key]
        sound = all(
            line[name].strip() and "\n" not in line[name] for name in ("reason", "expected")
        )
        return "" if sound else f"the quarantine does not say why: {line}"
    stored = found.examples[key]["image"]
    if stored != content and key not in found.changed:
        return "it was stored in another form, and nothing says so"
    return undecodable(stored) if check == "decode" else ""


def undecodable(content: bytes) -> str:
    """Why a stored image is not one that training and people see alike; empty if it is."""
    import tensorflow as tf

    try:
        with (
            warnings.catch_warnings(action="ignore"),
            Image.open(io.BytesIO(content)) as image,
        ):
            kind = image.format
            wanted = np.asarray(image.convert("RGB"))
        found = tf.io.decode_image(content, channels=3, expand_animations=False).numpy()
        if kind != "PNG":
            # By default TensorFlow rounds in a way of its own.
            found = tf.io.decode_jpeg(content, 3, dct_method="INTEGER_ACCURATE").numpy()
    except Exception as error:
        return f"a decoder fails: {type(error).__name__}: {str(error)[:300]}"
    if kind not in ("JPEG", "MPO", "PNG"):
        return f"it is stored as {kind}"
    if not np.array_equal(wanted, found):
        return f"Pillow sees another picture {wanted.shape} than TensorFlow {found.shape}"
    return ""


def fuzz_bombs(folder: Path) -> Report:
    """Small files that swell or last, each in a folder with good ones."""
    report = Report()
    good = [good_file(number) for number in range(8)]
    with Runner() as runner:
        for name, content in bombs().items():
            data = folder / "data"
            for number, (good_name, good_content) in enumerate([(name, content), *good]):
                path = data / ("val" if number % 2 else "train") / "a" / good_name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(good_content)
            for unusual in ("quarantine", "convert"):
                answer = runner.run(
                    examples=str(folder / "examples"),
                    data=str(data),
                    unusual=unusual,
                    max_bad_fraction=1.0,
                )
                report.mutated += 1
                report.slowest = max(report.slowest, answer.seconds)
                report.peak = max(report.peak, answer.peak)
                report.outcomes[f"bombs: {answer.outcome}"] += 1
                where = f"the bomb {name}, unusual={unusual}"
                if answer.outcome != "finished":
                    report.faults.append(f"{where}: {answer.outcome}: {answer.message}")
                    continue
                if answer.peak > MEMORY or answer.seconds > LONGEST:
                    spent = f"{answer.peak / 2**20:,.0f} MiB and {answer.seconds:.1f} s"
                    report.faults.append(f"{where}: it took {spent}")
                found = Found.read(folder / "examples")
                if len(found.keys) != 1 + len(good):
                    report.faults.append(f"{where}: something has vanished")
                report.outcomes[f"bombs: {found.fate(f'train/a/{name}')}"] += 1
            shutil.rmtree(data)
    return report


def fuzz_dataset(folder: Path, dataset: str, mutations: int, seed: int) -> Report:
    """The sample of an adapter, one to four of its files damaged at a time."""
    chance = random.Random(f"{seed} {dataset}")  # noqa: S311
    report = Report()
    folder.mkdir(parents=True, exist_ok=True)
    with Runner() as runner:
        for version, original in _samples(folder, dataset).items():
            campaign = _Campaign(runner, folder, dataset, original)
            share = -(-mutations // len(_samples_of(dataset)))
            while campaign.report.mutated < share:
                campaign.round(chance, f"{dataset}{version}, seed {seed}")
            report.add(campaign.report)
    return report


def _samples_of(dataset: str) -> list[str]:
    return ["", " (Python version)"] if dataset == "cifar10" else [""]


def _samples(folder: Path, dataset: str) -> dict[str, Path]:
    """The sample in each version that there is of it."""
    from tests.fuzz import cifar10_python

    samples = {}
    for version in _samples_of(dataset):
        place = folder / f"original{version}"
        if version:
            cifar10_python.write_sample(place)
        else:
            importlib.import_module(f"trainer.data.{dataset}.sample").write_sample(place)
        samples[version] = place
    return samples


class _Campaign:
    """Rounds of damage to one sample.

    Args:
        runner: runs the step.
        folder: for copies.
        dataset: name of the adapter.
        original: the sample.
    """

    def __init__(self, runner: Runner, folder: Path, dataset: str, original: Path):
        self.report = Report()
        self._runner = runner
        self._folder = folder
        self._dataset = dataset
        self._original = original
        self._files = sorted(
            str(path.relative_to(original)) for path in original.rglob("*") if path.is_file()
        )
        shutil.rmtree(folder / "data", ignore_errors=True)
        self._contents = {name: (original / name).read_bytes() for name in self._files}
        self._sound = self._run({}, "undamaged")
        if self._sound is None or self._sound.refused:
            raise RuntimeError(f"The sample of {dataset} must pass: {self.report.faults}")
        # Which items a file belongs to, found out by emptying it: only those may change with it.
        # None for one that all of the dataset hangs on.
        self._items: dict[str, frozenset[str] | None] = {}
        # Items of files that are no longer than what is in them: a shorter file has fewer.
        self._fleeting: set[str] = set()

    def round(self, chance: random.Random, where: str) -> None:
        """Damages some files, runs the step and looks at every item."""
        names = chance.sample(self._files, min(chance.randint(1, 4), len(self._files)))
        # Images are many and read alike; every second time it is one of the other files.
        others = [n for n in self._files if Path(n).suffix.lower() not in PICTURES]
        if others and chance.random() < 0.5:
            names[0] = chance.choice(others)
        damage = {
            name: mutate(self._contents[name], chance, list(self._contents.values()))
            for name in names
        }
        if chance.random() < 0.1:
            damage[names[-1]] = Mutation(chance.choice(STRANGE), "no ordinary file")
        self.report.mutated += len(damage)
        what = "; ".join(f"{name} ({mutation.kind})" for name, mutation in damage.items())
        contents = {name: mutation.content for name, mutation in damage.items()}
        faults = len(self.report.faults)
        found = self._run(contents, f"{where}: {what}")
        if found is not None:
            touched = [self._items_of(name) for name in damage]
            removed = [self._items_of(name) for name in damage if contents[name] == "nothing"]
            self._compare(found, touched, removed, f"{where}: {what}")
        if len(self.report.faults) > faults:
            for name, content in contents.items():
                if isinstance(content, bytes):
                    kept = keep(self._folder, f"{self._dataset}-{Path(name).name}", content)
                    self.report.faults[-1] += f"; {name} kept as {kept}"
                else:
                    self.report.faults[-1] += f"; {name} was {content}"

    def _items_of(self, name: str) -> frozenset[str] | None:
        if name not in self._items:
            found = self._run({name: b""}, f"{name} emptied")
            if found is None:
                self._items[name] = None
            else:
                self._fleeting |= self._sound.keys - found.keys
                self._items[name] = frozenset(
                    key
                    for key in {*self._sound.keys, *found.keys}
                    if not _same(self._sound.examples.get(key), found.examples.get(key))
                )
        return self._items[name]

    def _run(self, contents: Mapping[str, bytes | Stranger], where: str) -> Found | None:
        """What the step makes of the sample with these contents; None if it refuses it."""
        data = self._folder / "data"
        for name in self._files:
            put(data / name, contents.get(name, self._contents[name]))
        before = sorted(str(path) for path in data.rglob("*"))
        examples = self._folder / "examples"
        shutil.rmtree(examples, ignore_errors=True)
        answer = self._runner.run(
            examples=str(examples),
            data=str(data),
            dataset=self._dataset,
            shards=2,
            max_bad_fraction=1.0,
            duplicates="keep",
            workers=1,
        )
        self.report.slowest = max(self.report.slowest, answer.seconds)
        self.report.peak = max(self.report.peak, answer.peak)
        self.report.outcomes[f"{self._dataset}: {answer.outcome}"] += 1
        if before != sorted(str(path) for path in data.rglob("*")):
            self.report.faults.append(f"{where}: the data has other files than before")
        if answer.peak > MEMORY or answer.seconds > LONGEST:
            spent = f"{answer.peak:,} bytes of memory and {answer.seconds:.1f} s"
            self.report.faults.append(f"{where}: it took {spent}")
        if answer.outcome == "refused":
            if "\n" in answer.message or not answer.message.strip():
                self.report.faults.append(f"{where}: not one line: {answer.message!r}")
            return None
        if answer.outcome != "finished":
            self.report.faults.append(f"{where}: {answer.outcome}: {answer.message}")
            return None
        return Found.read(examples)

    def _compare(
        self,
        found: Found,
        touched: Sequence[frozenset[str] | None],
        removed: Sequence[frozenset[str] | None],
        where: str,
    ) -> None:
        """Looks at every item after some files were damaged.

        Args:
            found: what there is.
            touched: items of each file that was damaged or removed.
            removed: items of each file that was removed; of many a dataset nothing else tells.
            where: for messages.
        """
        damaged = _together(touched)
        everything = None in touched
        fleeting = self._fleeting | _together(removed)
        faults = [f"{key} is there more than once" for key in found.twice]
        for line in found.refused.values():
            if not all(line[n].strip() and "\n" not in line[n] for n in ("reason", "expected")):
                faults.append(f"the quarantine does not say why: {line}")
        if not everything:
            for key in self._sound.keys - damaged:
                if not _same(self._sound.examples[key], found.examples.get(key)):
                    faults.append(f"the good {key} is lost or another")
            faults += [f"{key} has vanished" for key in damaged - found.keys - fleeting]
        elif len(found.keys) < len(self._sound.keys):
            self.report.outcomes[f"{self._dataset}: fewer items"] += 1
        for key, example in found.examples.items():
            if not _same(self._sound.examples.get(key), example):
                fault = unusable(example, found.classes)
                faults += [f"{key} is stored, but {fault}"] if fault else []
                self.report.outcomes["items of damaged datasets, stored"] += 1
        self.report.outcomes["items of damaged datasets, quarantined"] += len(found.refused)
        self.report.faults += [f"{where}: {fault}" for fault in faults]


def _together(items: Sequence[frozenset[str] | None]) -> frozenset[str]:
    return frozenset[str]().union(*(keys for keys in items if keys is not None))


def put(target: Path, content: bytes | Stranger) -> None:
    """Makes a file, or something else in its place, whatever was there before."""
    ordinary = target.is_file() and not target.is_symlink()
    if ordinary and isinstance(content, bytes) and target.read_bytes() == content:
        return
    if target.is_dir() and not target.is_symlink():
        target.rmdir()
    target.unlink(missing_ok=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        target.write_bytes(content)
    elif content == "a folder":
        target.mkdir()
    elif content == "a pipe":
        os.mkfifo(target)
    elif content == "a socket":
        os.mknod(target, stat.S_IFSOCK | 0o600)
    elif content.startswith("a link to "):
        target.symlink_to(content.removeprefix("a link to "))


def unusable(example: Mapping[str, Any], classes: int) -> str:
    """What is wrong with a stored example by what its values mean; empty if nothing is."""
    size = None
    if "image" in example:
        fault = undecodable(example["image"])
        if fault:
            return f"image: {fault}"
        size = size_of(example["image"])
    for mask in _each(example.get("mask", ())):
        fault = undecodable(mask)
        if fault:
            return f"mask: {fault}"
        if size_of(mask) != size:
            return f"a mask has {size_of(mask)} pixels, the image {size}"
    for left, top, right, bottom in np.reshape(example.get("box", ()), (-1, 4)).tolist():
        if not 0 <= left < right <= size[0] or not 0 <= top < bottom <= size[1]:
            return f"a box is not in the image: {(left, top, right, bottom)}"
    for label in np.ravel(example.get("label", ())).tolist():
        if not 0 <= label < max(classes, 1):
            return f"a label is {label}"
    for text in _each(example.get("text", ())):
        if not text.decode().strip():
            return "a text is empty"
    return ""


def size_of(content: bytes) -> tuple[int, int]:
    """Width and height of an image file."""
    with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(content)) as image:
        return image.size


def _each(value: Any) -> list[bytes]:
    return [value] if isinstance(value, bytes) else list(value)


def _same(one: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.keys() == other.keys() and all(np.array_equal(one[n], other[n]) for n in one)


def keep(folder: Path, name: str, content: bytes) -> Path:
    """Keeps a file that something went wrong with, for whoever looks into it."""
    target = folder.parent / "faults" / name.replace("/", " ")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)
    return target


def fuzz_all(folder: Path, mutations: int, seed: int) -> Report:
    """Images take half of the damage, the datasets share the rest.

    Args:
        folder: empty; what went wrong is kept in `faults` there.
        mutations: number of damaged files, at least.
        seed: decides on all of it.
    """
    report = Report()
    names = catalog.dataset_names()
    report.add(_in(folder / "images", fuzz_images, -(-mutations // 2), seed))
    report.add(_in(folder / "bombs", fuzz_bombs))
    for name in names:
        share = -(-mutations // (2 * len(names)))
        report.add(_in(folder / name, fuzz_dataset, name, share, seed))
    return report


def _in(folder: Path, function: Any, *arguments: Any) -> Report:
    try:
        return function(folder, *arguments)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
