"""The data path beside its peers and its bounds, in one run: `make bench-data`.

    python -m tests.bench.data [header] [decode] [workers] [memory] [peers] [preprocess] [training]
        [fuzz] [kills] [--rounds N] [--quick] [--tfds-python PATH] [--mutations N] [--kills N]

Without a name: all of them. On two processors at most; everything lies on one file system, and what
is read is in the page cache. Contestants take turns: each number is the median over the rounds,
with the range behind it.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.bench.data_contest import (
    ROOT,
    Contestant,
    compete,
    ratio,
    say,
    speed,
    tell,
    tell_processor,
)
from tests.bench.data_kills import Toll, create_tfrecords_step, kill_at_random, preprocess_step
from tests.bench.data_kills import session as processes_of
from tests.bench.data_photos import link_some, write_photos, write_small

TFDS_MISSING = (
    "not installed: `pip install tensorflow-datasets tensorflow` in an environment of its own, and "
    "name its Python with --tfds-python"
)
SEED = 4


@dataclasses.dataclass(frozen=True)
class Plan:
    """How much is done.

    Attributes:
        folder: for everything that is written.
        rounds: turns of each contestant.
        photos: for checking headers.
        decoded: photos for decoding them.
        peers: photos for the peers, which are slow.
        items: numbers of items of which memory is measured.
        mutations: damaged files.
        kills: runs of create_tfrecords that are killed, and as many of preprocess.
        tfds_python: Python of an environment with tensorflow-datasets; empty without.
    """

    folder: Path
    rounds: int
    photos: int
    decoded: int
    peers: int
    items: tuple[int, ...]
    mutations: int
    kills: int
    tfds_python: str


def header(plan: Plan) -> None:
    """Headers checked alone, beside loops that read, copy and compute checksums."""
    with photos(plan, plan.photos) as folder:
        ours = "create_tfrecords --check header, one core"
        free = "  the same process, two cores"
        bound, with_sha256 = "  bound: read, copy, CRC-32C", "  bound: read, copy, CRC-32C, SHA-256"
        entries = [
            created(ours, folder, plan, check="header", cores=1),
            work(bound, "copy", folder, plan, cores=1),
            work(with_sha256, "copy", folder, plan, "sha256=yes", cores=1),
            created(free, folder, plan, check="header"),
        ]
        seconds = compete(entries, plan.rounds)
        tell(plan.photos, seconds, {bound: ours, with_sha256: ours})
        say("  two cores beside the first bound", ratio(seconds[free], seconds[bound]))
        tell_processor(plan.photos, entries, {bound: ours, with_sha256: ours})
        say("wanted", "3,000 images/s per process, 0.80 of the bound")


def decode(plan: Plan) -> None:
    """Every pixel decoded, beside loops that do nothing else."""
    with photos(plan, plan.decoded) as folder:
        ours = "create_tfrecords --check decode, one core"
        bound, small = (
            "  bound: simplejpeg",
            "  bound: simplejpeg, grey, an eighth in size, as we do",
        )
        pillow, tensorflow = "  Pillow", "  TensorFlow"
        entries = [
            created(ours, folder, plan, check="decode", cores=1),
            work(bound, "simplejpeg", folder, plan, cores=1),
            work(small, "simplejpeg", folder, plan, "size=eighth", cores=1),
            work(pillow, "pillow", folder, plan, cores=1),
            work(tensorflow, "tensorflow", folder, plan, cores=1),
        ]
        against = dict.fromkeys((bound, small, pillow, tensorflow), ours)
        tell(plan.decoded, compete(entries, plan.rounds), against)
        tell_processor(plan.decoded, entries, against)
        say("wanted", "0.95 of the bound, per core")


def workers(plan: Plan) -> None:
    """Two workers beside one."""
    for check, count in (("header", plan.photos), ("decode", plan.decoded)):
        with photos(plan, count) as folder, photos(plan, 8) as few:
            one = f"one worker on one core, {check}"
            threads, two = "  one worker on two cores", "  two workers"
            start = "  two workers, 8 photos"
            seconds = compete(
                [
                    created(one, folder, plan, check=check, cores=1),
                    created(two, folder, plan, check=check, workers=2),
                    created(threads, folder, plan, check=check),
                    created(start, few, plan, check=check, workers=2),
                ],
                plan.rounds,
            )
            started = seconds.pop(start)
            tell(count, seconds, {})
            say("  two workers beside one", ratio(seconds[two], seconds[one]))
            working = [whole - part for whole, part in zip(seconds[two], started, strict=True)]
            say(
                f"  without their start, {statistics.median(started):.2f} s",
                f"{speed(count, working)}; {ratio(working, seconds[one])}",
            )
    say("wanted", "1.7")


def memory(plan: Plan) -> None:
    """The most memory that create_tfrecords takes with few items and with many."""
    largest = max(plan.items)
    with tempfile.TemporaryDirectory(dir=plan.folder) as place:
        folder = Path(place)
        write_small(folder / f"{largest}", largest)
        for count in plan.items:
            if count != largest:
                link_some(folder / f"{largest}", count, folder / f"{count}")
        for number in (1, 2):
            for check in ("header", "decode"):
                peaks = [
                    peak(
                        f"--data={folder / str(count)}",
                        f"--examples={folder / 'examples'}",
                        f"--workers={number}",
                        f"--check={check}",
                    )
                    for count in plan.items
                ]
                told = ", ".join(
                    f"{count:,} items {size / 2**20:.0f} MiB"
                    for count, size in zip(plan.items, peaks, strict=True)
                )
                who = "one process" if number == 1 else "three processes (two workers)"
                say(f"peak resident memory, {check}, {who}", told)
    say("wanted", "flat")


def peers(plan: Plan) -> None:
    """tensorflow-datasets and a plain Beam pipeline writing the same folder; neither checks it."""
    with photos(plan, plan.peers) as folder:
        ours = "create_tfrecords --check header, one worker"
        decoding, both = "create_tfrecords, one worker", "create_tfrecords, two workers"
        beam, tfds = "Beam, WriteToTFRecord", "tensorflow-datasets"
        entries = [
            created(ours, folder, plan, check="header"),
            created(decoding, folder, plan, check="decode"),
            created(both, folder, plan, check="decode", workers=2),
            work(beam, "beam", folder, plan),
        ]
        if plan.tfds_python:
            script = str(ROOT / "tests" / "bench" / "peers" / "tfds_folder.py")
            command = [plan.tfds_python, script, str(folder), str(scratch(plan, tfds))]
            entries.append(Contestant(tfds, command))
        seconds = compete(entries, plan.rounds)
        tell(plan.peers, seconds, {})
        for peer in (beam, tfds):
            if peer in seconds:
                for title in (ours, decoding, both):
                    say(f"{title} / {peer}", ratio(seconds[title], seconds[peer]))
        if not plan.tfds_python:
            say(tfds, TFDS_MISSING)


def preprocess(plan: Plan) -> None:
    """Beam and TF Transform beside a plain loop."""
    from tests.bench.preprocess import preprocess_speed

    preprocess_speed(plan.rounds, plan.decoded)


def training(plan: Plan) -> None:
    """Reading for training beside decoding alone, and beside Keras's own reader."""
    from tests.bench.preprocess import training_input_speed

    training_input_speed(plan.rounds, plan.decoded)


def fuzz(plan: Plan) -> None:
    """Damaged files of every kind."""
    from tests.fuzz.campaign import fuzz_all

    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir=plan.folder) as folder:
        report = fuzz_all(Path(folder), plan.mutations, SEED)
    say(
        f"{report.mutated:,} damaged files",
        f"{len(report.faults)} faults, slowest run {report.slowest:.1f} s, "
        f"{time.monotonic() - began:.0f} s in all, seed {SEED}",
    )
    for outcome, count in sorted(report.outcomes.items()):
        say(f"  {outcome}", f"{count:,}")
    for fault in report.faults:
        say("  fault", fault)


def kills(plan: Plan) -> None:
    """Runs killed at random instants, and run again."""
    processes = "--direct_running_mode=multi_processing --direct_num_workers=2"
    few = max(plan.kills // 6, 1)  # starting Beam's workers takes long
    for title, make, items, options, count in (
        ("create_tfrecords", create_tfrecords_step, 2400, (), plan.kills),
        ("preprocess", preprocess_step, 300, (), plan.kills - few),
        ("preprocess, two processes", preprocess_step, 300, (processes,), few),
    ):
        with tempfile.TemporaryDirectory(dir=plan.folder) as folder:
            toll = kill_at_random(make(Path(folder), items, *options), count, SEED)
        tell_toll(title, toll)


def tell_toll(title: str, toll: Toll) -> None:
    """Prints what became of killed runs."""
    say(f"{title}, {toll.seconds:.1f} s undisturbed", str(toll))
    for fault in toll.faults:
        say("  fault", fault)


@contextlib.contextmanager
def photos(plan: Plan, count: int) -> Iterator[Path]:
    """A folder of photos, and a word about them."""
    with tempfile.TemporaryDirectory(dir=plan.folder) as folder:
        root = Path(folder) / "photos"
        told = write_photos(root, count)
        if count > 100:
            say("", told)
        yield root


def created(
    title: str, data: Path, plan: Plan, check: str, workers: int = 1, cores: int = 2
) -> Contestant:
    """create_tfrecords as a contestant."""
    settings = [f"check={check}", f"workers={workers}"]
    return work(title, "create_tfrecords", data, plan, *settings, cores=cores)


def work(
    title: str, name: str, data: Path, plan: Plan, *settings: str, cores: int = 2
) -> Contestant:
    """A contestant of `tests.bench.data_work`."""
    command = [sys.executable, "-m", "tests.bench.data_work", name]
    command += [str(data), str(scratch(plan, title)), *settings]
    return Contestant(title, command, cores)


def scratch(plan: Plan, title: str) -> Path:
    """A folder for what a contestant writes."""
    return plan.folder / f"of {title.strip().replace('/', ' ')}"


def peak(*arguments: str) -> int:
    """The most memory, in bytes, that create_tfrecords and its workers have at one time.

    It is the largest sum of the peaks so far of the processes that run: what they share counts in
    each of them.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "components.create_tfrecords", *arguments],
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    largest = 0
    while process.poll() is None:
        largest = max(largest, sum(map(peak_of, processes_of(process.pid))))
        time.sleep(0.01)
    if process.returncode:
        raise RuntimeError(f"create_tfrecords ended with exit code {process.returncode}.")
    return largest


def peak_of(pid: int) -> int:
    """The most memory that a process has had, in bytes; 0 if it has ended."""
    with contextlib.suppress(OSError, ValueError):
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
        (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return 0


CHAPTERS: tuple[Callable[[Plan], None], ...] = (
    header,
    decode,
    workers,
    memory,
    peers,
    preprocess,
    training,
    fuzz,
    kills,
)


def main() -> None:
    """Reads the command line."""
    chapters = {chapter.__name__: chapter for chapter in CHAPTERS}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("chapters", nargs="*", metavar="CHAPTER", help=", ".join(chapters))
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contestant")
    parser.add_argument("--quick", action="store_true", help="little of everything, in minutes")
    parser.add_argument("--tfds-python", default="", help="Python with tensorflow-datasets")
    parser.add_argument("--mutations", type=int, default=6000, help="damaged files")
    parser.add_argument("--kills", type=int, default=30, help="runs of each step that are killed")
    given = parser.parse_args()
    unknown = set(given.chapters) - set(chapters)
    if unknown:
        parser.error(f"name chapters among {', '.join(chapters)}; got {', '.join(sorted(unknown))}")
    here = sys.executable if importlib.util.find_spec("tensorflow_datasets") else ""
    with tempfile.TemporaryDirectory(prefix="paper2hub-bench-") as folder:
        plan = Plan(
            folder=Path(folder),
            rounds=given.rounds,
            photos=10_000,
            decoded=2_000,
            peers=2_000,
            items=(1_000, 10_000, 50_000),
            mutations=given.mutations,
            kills=given.kills,
            tfds_python=given.tfds_python or here,
        )
        if given.quick:
            plan = dataclasses.replace(
                plan,
                rounds=min(given.rounds, 2),
                photos=2_000,
                decoded=400,
                peers=400,
                items=(1_000, 5_000),
                mutations=min(given.mutations, 600),
                kills=min(given.kills, 3),
            )
        cores = min(len(os.sched_getaffinity(0)), 2)
        say("machine", f"{cores} processors used, {plan.rounds} rounds, page cache warm")
        for name in given.chapters or chapters:
            say(f"[{name}]", chapters[name].__doc__ or "")
            chapters[name](plan)
        say("machine", f"load {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
