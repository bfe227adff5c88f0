"""Kills a step of the data path at random instants, runs it again and compares every byte."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from tests.fuzz.pictures import encoded, picture
from trainer.errors import TryAgain

ROOT = Path(__file__).parents[2]
PATIENCE = 300.0  # seconds after which a run counts as hanging
VICTIMS = ("all", "parent", "worker")
WORKER = "a worker"


@dataclasses.dataclass(frozen=True)
class Step:
    """A step of which runs are killed.

    Attributes:
        command: its command line.
        outputs: the folders that it writes, each alone in a folder of its own.
        notes: endings of what a run that goes on must find of a shard in the folder `notes` beside
            it, to know that it is finished.
        after_worker: the exit code of a run of which a worker was killed.
    """

    command: Sequence[str]
    outputs: Sequence[Path]
    notes: Sequence[str] = ("json",)
    after_worker: int = 0


@dataclasses.dataclass
class Toll:
    """What became of the runs that were killed.

    Attributes:
        kills: who was killed -> how often.
        continued: runs that were begun again.
        kept: finished files that a run found and left as they were.
        equal: runs whose outputs were, byte for byte, those of the undisturbed one.
        faults: what must not be, a line each.
        seconds: of the undisturbed run.
    """

    kills: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    continued: int = 0
    kept: int = 0
    equal: int = 0
    faults: list[str] = dataclasses.field(default_factory=list)
    seconds: float = 0.0

    def __str__(self) -> str:
        killed = ", ".join(f"{who} {count}" for who, count in sorted(self.kills.items()))
        return (
            f"{self.kills.total()} kills ({killed}): {self.continued} runs begun again, which "
            f"found {self.kept} finished files and kept them; {self.equal} results byte for byte "
            f"as undisturbed; {len(self.faults)} faults"
        )


def kill_at_random(step: Step, count: int, seed: int, victims: Sequence[str] = VICTIMS) -> Toll:
    """Kills `count` runs, each at an instant of its own, and has each finished.

    Args:
        step: what is run.
        count: number of kills.
        seed: decides on instants and victims.
        victims: who may be killed: "all" of a run's processes, its "parent" alone, or a "worker".
    """
    chance = random.Random(seed)  # noqa: S311
    toll = Toll()
    began = time.monotonic()
    finish(step, toll, "undisturbed")
    toll.seconds = time.monotonic() - began
    wanted = digests(step)
    number = 0
    while toll.kills.total() < count and number < 10 * count:
        number += 1
        clear(step)
        victim = chance.choice(victims)
        moment = chance.uniform(0.0, toll.seconds)
        where = f"kill {number} (seed {seed}: {victim} after {moment:.3f} s)"
        process = start(step)
        time.sleep(moment)
        killed = _kill(process, victim, chance)
        if killed:  # not too late
            toll.kills[killed] += 1
        code = end(process, toll, where)
        if code != 0:
            if code != (step.after_worker if killed == WORKER else -signal.SIGKILL):
                toll.faults.append(f"{where}: it ended with exit code {code}")
            # What has its final name belongs to a run that was done; another begins anew.
            finished = _finished(step, drafts=True)
            toll.continued += 1
            finish(step, toll, where)
            stayed = _finished(step, drafts=False) & finished
            toll.kept += len(stayed)
            if stayed != finished:
                toll.faults.append(f"{where}: {len(finished - stayed)} finished files written anew")
        found = differences(wanted, digests(step))
        toll.equal += bool(killed) and not found
        toll.faults += [f"{where}: {difference}" for difference in found]
    clear(step)
    return toll


def start(step: Step) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        list(step.command),
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def finish(step: Step, toll: Toll, where: str) -> None:
    process = start(step)
    code = end(process, toll, where)
    if code != 0:
        toll.faults.append(f"{where}: run again, it ended with exit code {code}")


def end(process: subprocess.Popen[bytes], toll: Toll, where: str) -> int:
    """Waits for the run's end, after which none of its processes may be left."""
    try:
        code = process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        toll.faults.append(f"{where}: it hung")
        return 0
    deadline = time.monotonic() + 2.0  # a process that is killed takes a moment to be gone
    while (left := session(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.01)
    if left:
        toll.faults.append(f"{where}: left were {'; '.join(map(_command_of, left))}")
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    return code


def _command_of(pid: int) -> str:
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
        return words.decode("utf-8", "replace")[:100].strip()
    return "one that is gone"


def _kill(process: subprocess.Popen[bytes], victim: str, chance: random.Random) -> str:
    """Kills one or all of a run's processes; says who it was, "" if the run had ended."""
    if process.poll() is not None:
        return ""
    workers = [pid for pid in session(process.pid) if pid != process.pid]
    with contextlib.suppress(ProcessLookupError):
        if victim == "worker" and workers:
            os.kill(chance.choice(workers), signal.SIGKILL)
            return WORKER
        if victim == "parent":
            os.kill(process.pid, signal.SIGKILL)
            return "the parent"
        os.killpg(process.pid, signal.SIGKILL)
    return "all at once"


def session(leader: int) -> list[int]:
    """The processes of a session that have not ended, zombies left out."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                # After the name, which may hold anything: state, parent, group, session.
                fields = (entry / "stat").read_text(encoding="latin-1").rpartition(")")[2].split()
                if int(fields[3]) == leader and fields[0] not in "ZX":
                    found.append(int(entry.name))
    return sorted(found)


def _finished(step: Step, drafts: bool) -> set[tuple[str, int, int]]:
    """Name, place on the disk and time of each finished shard, of drafts or of the outputs."""
    return {
        (path.name, path.stat().st_ino, path.stat().st_mtime_ns)
        for output in step.outputs
        for path in output.parent.rglob("*.tfrecord")
        if (path.parent != output) == drafts and (not drafts or _has_notes(path, step.notes))
    }


def _has_notes(shard: Path, endings: Sequence[str]) -> bool:
    return all((shard.parent / "notes" / f"{shard.name}.{n}").is_file() for n in endings)


def digests(step: Step) -> dict[str, str]:
    """SHA-256 of every file that a run has left behind, temporary ones among them."""
    return {
        str(path.relative_to(output.parent.parent)): (
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "a folder"
        )
        for output in step.outputs
        for path in output.parent.rglob("*")
    }


def differences(wanted: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    changed = sorted(n for n in wanted.keys() & found.keys() if wanted[n] != found[n])
    return [
        *(f"{name} is missing" for name in sorted(wanted.keys() - found.keys())),
        *(f"{name} was left behind" for name in sorted(found.keys() - wanted.keys())),
        *(f"{name} is another" for name in changed),
    ]


def clear(step: Step) -> None:
    for output in step.outputs:
        shutil.rmtree(output.parent, ignore_errors=True)
        output.parent.mkdir(parents=True)


def write_pictures(root: Path, count: int) -> None:
    """An image folder with something of everything: bad items, turned ones, the same ones twice."""
    for number in range(count):
        split = "val" if number % 6 == 0 else "train"
        folder = root / split / f"class {number // 6 % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        # Every 31st is like one of the other split.
        image = Image.fromarray(picture(number - 1 if number % 31 == 1 else number, 96, 96))
        exif = Image.Exif()
        exif[0x0112] = 6 if number % 17 == 0 else 1  # orientation
        content = encoded(image, "JPEG", quality=90, exif=exif)
        if number % 13 == 0:
            content = content[: number % len(content)]
        (folder / f"{number:05d}.jpg").write_bytes(content)


def create_tfrecords_step(folder: Path, pictures: int) -> Step:
    """create_tfrecords with two workers on a folder of pictures, which is made here."""
    write_pictures(folder / "data", pictures)
    output = folder / "examples of a run" / "examples"
    output.parent.mkdir()
    arguments = {
        "data": folder / "data",
        "examples": output,
        "workers": 2,
        "shards": 8,
        "max_bad_fraction": 0.2,
    }
    flags = [f"--{name}={value}" for name, value in arguments.items()]
    command = [sys.executable, "-m", "components.create_tfrecords", *flags]
    return Step(command, [output], notes=("digests", "json"))


def preprocess_step(folder: Path, pictures: int, options: str = "") -> Step:
    """The preprocessing of RegNetY with examples of a folder of pictures, which are made here.

    Args:
        folder: for all of it.
        pictures: how many.
        options: of Beam.
    """
    from components.create_tfrecords.create_tfrecords import create_tfrecords

    write_pictures(folder / "data", pictures)
    create_tfrecords(str(folder / "examples"), str(folder / "data"), max_bad_fraction=0.2, shards=4)
    outputs = [folder / name / name for name in ("transformed_examples", "transform_graph")]
    for output in outputs:
        output.parent.mkdir()
    arguments = {
        "model": "regnety",
        "examples": folder / "examples",
        "max_bad_fraction": 0.2,
        "beam_options": f"--runner=FnApiRunner {options}".strip(),
        **{output.name: output for output in outputs},
    }
    flags = [f"--{name}={value}" for name, value in arguments.items()]
    command = [sys.executable, "-m", "components.preprocess", *flags]
    return Step(command, outputs, after_worker=TryAgain.exit_code)
