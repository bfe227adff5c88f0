"""Shards of raw examples become shards of transformed examples, one for one and in order."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import itertools
import tempfile
import threading
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import apache_beam as beam
import tensorflow as tf
from apache_beam.metrics import Metrics
from apache_beam.utils.shared import Shared

from components.preprocess.graph import Example, Graph
from components.preprocess.storage import Folder
from trainer.data import manifest as manifests
from trainer.data.examples import decode_example, encode_example
from trainer.data.records import RecordWriter, read_records
from trainer.dataset import Feature
from trainer.errors import BadItem, UserError

BATCH_SIZE = 32
"""Examples that go through the graph at once (ours): enough that the calls cost nothing, few enough
that a batch of decoded pictures stays small."""

GRAPH = "graph"
NOTES = "notes"
SCREENED = "screened"
FAILURE = "failure.json"
"""What a draft holds besides shards: the graph, a note for each finished shard, what a screening
found, and why nothing can come of it."""

COUNTERS = "preprocess"
"""Namespace of the Beam counters `examples`, `quarantined` and `bytes`."""

T = TypeVar("T")
R = TypeVar("R")


@dataclasses.dataclass(frozen=True)
class Job:
    """What all shards of a run have in common.

    Attributes:
        model: name of the model.
        examples: the folder of the raw examples.
        draft: the folder to fill.
        graph: the folder of the transform graph.
        raw: features of the raw examples.
        stored: split -> features of the transformed examples.
        passed_by: split -> raw features that are stored as they are, besides `key`.
        allowed: how many examples may be refused; a shard that refuses more ends the run.
        threads: how many batches a worker process works on at once.
    """

    model: str
    examples: Folder
    draft: Folder
    graph: Folder
    raw: Mapping[str, Feature]
    stored: Mapping[str, Mapping[str, Feature]]
    passed_by: Mapping[str, tuple[str, ...]]
    allowed: int
    threads: int


@dataclasses.dataclass(frozen=True)
class Task:
    """One shard to do: what enters the pipeline.

    Attributes:
        split: its split.
        file: its name, in both folders.
    """

    split: str
    file: str


@dataclasses.dataclass(frozen=True)
class Refused:
    """One line of quarantine.jsonl."""

    split: str
    key: str
    reason: str
    expected: str


@dataclasses.dataclass(frozen=True)
class Note:
    """What is known of a finished shard.

    Attributes:
        shard: as the manifest is to list it.
        refused: the examples that the graph refused, in order.
    """

    shard: manifests.Shard
    refused: tuple[Refused, ...]


class Tally:
    """What Beam's counters have counted in this process; they can be asked only at the end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._examples = 0

    def add(self, examples: int) -> None:
        """Counts examples that are done."""
        with self._lock:
            self._examples += examples

    def take(self) -> int:
        """How many examples have been done since this was asked last."""
        with self._lock:
            examples, self._examples = self._examples, 0
        return examples


TALLY = Tally()


def read_note(draft: Folder, task: Task) -> Note | None:
    """The note of a shard; None if the shard is not finished."""
    name = f"{NOTES}/{task.file}.json"
    if not draft.exists(name):
        return None
    values = draft.read_json(name)
    return Note(
        manifests.Shard(**values["shard"]), tuple(Refused(**item) for item in values["refused"])
    )


def read_examples(
    folder: Folder, file: str, features: Mapping[str, Feature]
) -> Iterator[dict[str, Any]]:
    """The examples of a shard, in order.

    Raises:
        UserError: there is no such file, or a record is damaged, or no example; names the file and
            the record.
    """
    path = folder.place(file)
    try:
        stream = folder.open(file)
    except (FileNotFoundError, PermissionError) as error:
        raise UserError(
            f"Every shard that the manifest lists must be there to be read; {path!r} is not "
            f"({error.strerror or error}). Create the examples again."
        ) from error
    for number, record in enumerate(read_records(path, stream)):
        try:
            yield decode_example(features, record)
        except ValueError as error:
            raise UserError(
                "The records of a shard must be examples with the features that the manifest says; "
                f"record {number} of {path!r} is not one: {error} Create the examples again."
            ) from error


@contextlib.contextmanager
def told(draft: Folder) -> Iterator[None]:
    """Leaves word in the draft if the user is to be told of something, instead of raising it.

    An error that passes through Beam comes out as a long text, if a runner does not try for hours
    to get past it.
    """
    try:
        yield
    except UserError as error:
        draft.write_json(FAILURE, {"message": str(error)})


def raise_failure(draft: Folder) -> None:
    """Raises what a worker left word of.

    Raises:
        UserError: there is something to tell.
    """
    if draft.exists(FAILURE):
        message = draft.read_json(FAILURE)["message"]
        draft.remove([FAILURE])
        raise UserError(message)


class _Worker(beam.DoFn):  # type: ignore[misc]
    """What is common to work on shards: a graph for each split, shared by a process's threads."""

    def __init__(self, job: Job):
        self._job = job
        self._shared = Shared()

    def setup(self) -> None:
        """Loads the graph, once for each process."""
        self._graphs: _Graphs = self._shared.acquire(lambda: _Graphs(self._job))

    def process(self, task: Task) -> Iterator[str]:
        """Works on one shard; an error of the user ends all others."""
        with told(self._job.draft):
            if not self._job.draft.exists(FAILURE):
                self.work(task, self._graphs.of(task.split))
        yield task.file

    def work(self, task: Task, graph: Graph) -> None:
        """Works on one shard."""
        raise NotImplementedError


class TransformShard(_Worker):
    """Writes the transformed examples of a shard, and then its note.

    Each file has a temporary name until it is whole, so a shard may be done twice, or by two
    workers at once: what is written is the same.
    """

    def __init__(self, job: Job):
        super().__init__(job)
        self._examples = Metrics.counter(COUNTERS, "examples")
        self._quarantined = Metrics.counter(COUNTERS, "quarantined")
        self._bytes = Metrics.counter(COUNTERS, "bytes")

    def work(self, task: Task, graph: Graph) -> None:
        """Reads, transforms and writes batch by batch.

        Raises:
            UserError: the shard is damaged, or refuses more examples than all may.
        """
        job = self._job
        refused: list[Refused] = []
        batches = _batches(read_examples(job.examples, task.file, job.raw))
        with (
            job.draft.creating(task.file) as file,
            RecordWriter(file) as writer,
            contextlib.closing(
                _in_order(lambda batch: self._encoded(task, graph, batch), batches, job.threads)
            ) as done,
        ):
            for outcomes in done:
                before = writer.bytes
                for outcome in outcomes:
                    if isinstance(outcome, Refused):
                        refused.append(outcome)
                        self._quarantined.inc()
                    else:
                        writer.write(outcome)
                if len(refused) > job.allowed:
                    raise too_many(refused, job.allowed)
                self._examples.inc(len(outcomes))
                self._bytes.inc(writer.bytes - before)
                TALLY.add(len(outcomes))
        note = Note(writer.shard(task.file), tuple(refused))
        job.draft.write_json(f"{NOTES}/{task.file}.json", dataclasses.asdict(note))

    def _encoded(
        self, task: Task, graph: Graph, examples: Sequence[Example]
    ) -> list[bytes | Refused]:
        """The records of a batch, or why there is none."""
        passed_by = ("key", *self._job.passed_by[task.split])
        stored = self._job.stored[task.split]
        outcomes: list[bytes | Refused] = []
        for example, row in zip(examples, graph(examples), strict=True):
            if isinstance(row, BadItem):
                outcomes.append(Refused(task.split, named(example), row.reason, row.expected))
            else:
                values = {name: example[name] for name in passed_by}
                outcomes.append(encode_example(stored, {**values, **row}))
        return outcomes


class ScreenShard(_Worker):
    """Lists the examples of a shard that the graph refuses; writes nothing else."""

    def __init__(self, job: Job):
        super().__init__(job)
        self._examples = Metrics.counter(COUNTERS, "examples")

    def work(self, task: Task, graph: Graph) -> None:
        """Puts every example through the graph."""
        job = self._job
        refused: list[Refused] = []
        keys: list[str] = []
        for batch in _batches(read_examples(job.examples, task.file, job.raw)):
            for example, row in zip(batch, graph(batch), strict=True):
                if isinstance(row, BadItem):
                    refused.append(Refused(task.split, named(example), row.reason, row.expected))
                    keys.append(example["key"].hex())
            if len(refused) > job.allowed:
                raise too_many(refused, job.allowed)
            self._examples.inc(len(batch))
            TALLY.add(len(batch))
        job.draft.write_json(f"{SCREENED}/{task.file}.json", keys)


class _Graphs:
    """The graph of each split, loaded when it is asked for."""

    def __init__(self, job: Job):
        self._job = job
        self._lock = threading.Lock()
        self._of: dict[str, Graph] = {}
        _take_threads(job.threads)
        self._folder = job.graph
        if self._folder.remote:
            # TensorFlow reaches buckets by ways and credentials of its own.
            local = Folder(tempfile.mkdtemp())
            weakref.finalize(self, local.discard)
            self._folder.copy_to(local)
            self._folder = local

    def of(self, split: str) -> Graph:
        """The graph that makes what is stored of a split."""
        job = self._job
        with self._lock:
            if split not in self._of:
                passed_by = job.passed_by[split]
                raw = {name: f for name, f in job.raw.items() if name != "key"}
                stored = {
                    name: feature
                    for name, feature in job.stored[split].items()
                    if name not in ("key", *passed_by)
                }
                self._of[split] = Graph(self._folder.path, job.model, raw, stored, passed_by)
            return self._of[split]


def too_many(refused: Sequence[Refused], allowed: int) -> UserError:
    """The error for more bad examples than there may be, before their number is known."""
    return UserError(
        f"At most {allowed:,} examples may be bad, by max_bad_fraction; there are more. "
        f"{first_of(refused)} Mend or remove them, or raise max_bad_fraction."
    )


def first_of(refused: Sequence[Refused], most: int = 10) -> str:
    """The first few bad examples in a sentence."""
    chosen = refused[:most]
    described = "; ".join(f"{item.key}: {item.reason}" for item in chosen)
    return f"The first {len(chosen)}: {described}."


def named(example: Example) -> str:
    """The key of an example as text that can be written down."""
    key: bytes = example["key"]
    return key.decode("utf-8", "backslashreplace")


def _take_threads(threads: int) -> None:
    """Has TensorFlow run that many operations at once, each on one thread: pictures are many."""
    try:
        tf.config.threading.set_inter_op_parallelism_threads(threads)
        tf.config.threading.set_intra_op_parallelism_threads(1)
    except RuntimeError:
        pass  # TensorFlow is at work already in this process


def _batches(examples: Iterable[T]) -> Iterator[list[T]]:
    iterator = iter(examples)
    return iter(lambda: list(itertools.islice(iterator, BATCH_SIZE)), [])


def _in_order(function: Callable[[T], R], items: Iterable[T], threads: int) -> Generator[R]:
    """The results in the order of the items, some computed ahead by threads."""
    with ThreadPoolExecutor(threads) as pool:
        waiting: collections.deque[Future[R]] = collections.deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
