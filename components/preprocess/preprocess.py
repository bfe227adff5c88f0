"""Raw examples become transformed examples and the graph that transformed them."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
import logging
import math
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems
from PIL import Image

from components.preprocess.graph import TRANSFORM_FN, stored_features
from components.preprocess.learning import (
    Preprocessing,
    learn_from_nothing,
    learn_from_shards,
    looked_at,
    settings_read,
)
from components.preprocess.runners import DATAFLOW, Runner, job_name, read_options, run
from components.preprocess.settling import settle
from components.preprocess.shards import (
    FAILURE,
    GRAPH,
    NOTES,
    SCREENED,
    Job,
    Note,
    ScreenShard,
    Task,
    TransformShard,
    first_of,
    raise_failure,
    read_examples,
    read_note,
)
from components.preprocess.storage import Folder, in_the_cloud, resumable
from trainer.artifact import whole_folder
from trainer.catalog import load_config, model_part
from trainer.config import DatasetFacts, suited_to, with_settings
from trainer.data import examples as example_format
from trainer.data import records as record_format
from trainer.data.facts import FACTS, SETTINGS, write_facts, write_settings
from trainer.data.manifest import (
    CHANGES,
    MANIFEST,
    QUARANTINE,
    Manifest,
    read_manifest,
    write_manifest,
)
from trainer.data.notes import note_line
from trainer.dataset import Feature
from trainer.errors import TryAgain, UserError
from trainer.progress import Progress

GREY_MODES = ("1", "L", "LA", "I", "I;16")
"""How Pillow names pictures without colour."""

MEASURED_PICTURES = 256
"""Pictures whose size is looked at to tell the size that a dataset's pictures have (ours)."""

PACKAGES = ("numpy", "protobuf", "tensorflow", "tensorflow-transform")
"""The packages whose versions decide what comes out."""

_LEARNING = "learning"  # the folder of a draft in which TF Transform works
_PROVISIONAL = "provisional"  # that of the graph that screens examples
_SAVED_MODEL = "saved_model.pb"  # the file of a SavedModel without which there is none


def preprocess(
    model: str,
    examples: str,
    transformed_examples: str,
    transform_graph: str,
    settings: dict[str, Any] | None = None,
    beam_options: str = "--runner=FnApiRunner",
    max_bad_fraction: float = 0.01,
    stage_settings: dict[str, Any] | None = None,
) -> dict[str, dict[str, Any]]:
    """Applies a model's preprocessing to all examples, by Beam and TF Transform.

    The training split decides what has to be learnt from the data; every split goes through the
    same graph, which is kept for serving. Each shard of examples becomes one shard of transformed
    examples, in the same order, whatever the runner and the number of its workers. An example that
    the graph refuses is left out and listed with its reason in quarantine.jsonl, after those that
    create_tfrecords has refused.

    Cut short and run again, the step goes on from the shards that are finished, if the examples,
    the model and its settings are as they were.

    Args:
        model: Name of the model.
        examples: Folder of examples, as create_tfrecords writes it.
        transformed_examples: Folder to write the transformed examples to.
        transform_graph: Folder to write the transform graph to.
        settings: Changes to the model's configuration, such as {"image_size": 64}.
        beam_options: Options of the Beam pipeline, separated by spaces, such as
            "--runner=DataflowRunner --project=P --region=R --temp_location=gs://B/temporary".
        max_bad_fraction: Largest part of all examples that the graph may refuse, from 0 to 1.
        stage_settings: Changes that a stage of a pipeline makes where settings does not.

    Returns:
        What is worth knowing about the artifacts: number of examples of each split, number of
        examples refused here, bytes written.

    Raises:
        UserError: an argument does not fit, a shard is damaged, the model cannot take the examples,
            more of them are refused than allowed, or the job of a service failed.
        TryAgain: a worker died, or a service cannot be reached.
    """
    if not 0 <= max_bad_fraction <= 1:
        raise UserError(f"max_bad_fraction must be between 0 and 1; got {max_bad_fraction}.")
    config = load_config(model)
    runner = read_options(beam_options, model)
    FileSystems.set_options(runner.options())
    source, target, graph = (
        in_the_cloud(path) if runner.remote else path
        for path in (examples, transformed_examples, transform_graph)
    )
    here = [path for path in (source, target, graph) if "://" not in path]
    if runner.name == DATAFLOW and here:
        raise UserError(
            f"With {DATAFLOW}, all folders must be in buckets, as gs://BUCKET/NAME or "
            f"/gcs/BUCKET/NAME; got {here[0]!r}."
        )
    raw = Folder(source).absolute()
    manifest, digest = _read_manifest(raw)
    facts = dataset_facts(manifest, raw)
    chosen = {**(stage_settings or {}), **(settings or {})}
    config = suited_to(with_settings(config, chosen), facts, chosen)
    plan = _plan(model, config, digest)
    with resumable(target, plan) as draft:
        step = _Step(
            preprocessing=Preprocessing(model, config),
            raw=raw,
            manifest=manifest,
            draft=draft.absolute(),
            runner=runner,
            max_bad_fraction=max_bad_fraction,
        )
        if not draft.exists(MANIFEST):  # an earlier attempt may have come as far as that
            progress = step.learn()
            notes = step.transform(progress)
            _publish(draft.below(GRAPH), Folder(graph))
            step.finish(notes, facts)
        finished, _ = _read_manifest(draft)
        step.tidy()
    splits = finished.splits
    refused = sum(s.quarantined - manifest.splits[n].quarantined for n, s in splits.items())
    return {
        "transformed_examples": {
            "model": model,
            **{split: content.records for split, content in splits.items()},
            "quarantined": refused,
            "bytes": sum(shard.bytes for s in splits.values() for shard in s.shards),
        },
        "transform_graph": {"model": model},
    }


def dataset_facts(manifest: Manifest, examples: str | Path | Folder) -> DatasetFacts:
    """What a model's config may adapt to: classes, number of examples, and form of pictures."""
    folder = examples if isinstance(examples, Folder) else Folder(str(examples))
    files = [path.name for path in manifest.files(folder.path, "train")]
    sides, grey = [], []
    if "image" in manifest.features and manifest.features["image"].dtype == "bytes":
        wanted = {"image": manifest.features["image"]}
        some = (e for file in files for e in read_examples(folder, file, wanted))
        for example in islice(some, MEASURED_PICTURES):
            with (
                contextlib.suppress(OSError, ValueError, SyntaxError, Image.DecompressionBombError),
                Image.open(BytesIO(example["image"])) as image,
            ):
                sides.append(min(image.size))
                grey.append(image.mode in GREY_MODES)
    return DatasetFacts(
        class_names=manifest.class_names,
        train_examples=manifest.splits["train"].records,
        shorter_side=int(statistics.median(sides)) if sides else 0,
        channels=1 if grey and all(grey) else 3,
    )


@dataclasses.dataclass(frozen=True)
class _Step:
    """The parts of the work, each of which is done once, however often the step is cut short.

    Attributes:
        preprocessing: the model's function.
        raw: the folder of the raw examples.
        manifest: of the raw examples.
        draft: the folder to fill.
        runner: where the work is done.
        max_bad_fraction: largest part of all examples that may be refused.
    """

    preprocessing: Preprocessing
    raw: Folder
    manifest: Manifest
    draft: Folder
    runner: Runner
    max_bad_fraction: float

    @functools.cached_property
    def inputs(self) -> dict[str, Feature]:
        """What `preprocessing_fn` takes."""
        return {name: f for name, f in self.manifest.features.items() if name != "key"}

    def learn(self) -> Progress:
        """Makes the transform graph, unless it is in the draft; returns the step's progress."""
        self.draft.remove([FAILURE])
        graph = self.draft.below(GRAPH)
        if graph.exists(f"{TRANSFORM_FN}/{_SAVED_MODEL}"):
            return Progress(sum(self._records.values()), "examples")
        columns = self._columns
        progress = Progress(
            sum(self._records.values()) + (self._training if columns else 0), "examples"
        )
        with contextlib.ExitStack() as stack:
            if columns:
                self._analyse(progress)
                folder = stack.enter_context(_on_this_machine(self._learning.below("graph")))
            else:
                folder = stack.enter_context(self._learnt_from_nothing())
            settle(Path(folder) / TRANSFORM_FN)
            Folder(folder).copy_to(graph, last=_SAVED_MODEL)
        return progress

    @functools.cached_property
    def _columns(self) -> list[str]:
        """What has to be looked at in the training split."""
        return looked_at(self.preprocessing, self.inputs)

    @property
    def _training(self) -> int:
        return self.manifest.splits["train"].records

    @property
    def _learning(self) -> Folder:
        """Where TF Transform works."""
        return self.draft.below(_LEARNING)

    def _analyse(self, progress: Progress) -> None:
        """Passes over the training split, without the examples that the function refuses.

        They are not known before. If the pass fails they may be to blame: then all examples are put
        through a provisional graph, which has learnt from none, and the pass is made again without
        those that it refuses.
        """
        begun = progress.done
        try:
            with _quiet("apache_beam"):  # what is raised says all that Beam would log
                self._pass(progress, ())
        except (UserError, TryAgain):
            raise
        except Exception:
            print(
                "The pass over the training split failed; looking for the cause.", file=sys.stderr
            )
            # All that for nothing, and all the examples once more.
            progress.total = (progress.total or 0) + progress.done - begun + self._training
            refused = self._screen(progress)
            if not refused:
                raise
            self._pass(progress, refused)

    def _pass(self, progress: Progress, left_out: Sequence[str]) -> None:
        self._learning.discard()
        learn = functools.partial(
            learn_from_shards,
            preprocessing=self.preprocessing,
            raw=self.manifest.features,
            examples=self.raw,
            files=[task.file for task in self._tasks("train")],
            columns=self._columns,
            left_out=left_out,
            draft=self.draft,
            folder=self._learning.path,
        )
        self._run("learn", learn, progress, self._training)

    def _screen(self, progress: Progress) -> list[str]:
        """The keys of the training examples that a provisional graph refuses, in hexadecimal."""
        provisional = self.draft.below(_PROVISIONAL)
        with self._learnt_from_nothing() as folder:
            Folder(folder).copy_to(provisional)
            made = stored_features(folder, self.preprocessing.model, self.inputs, {})
        job = self._job(provisional, {"train": made}, {"train": ()})
        tasks = self._tasks("train")
        screen = functools.partial(_add, tasks, ScreenShard(job))
        self._run("screen", screen, progress, self._training)
        found = (self.draft.read_json(f"{SCREENED}/{task.file}.json") for task in tasks)
        return [key for keys in found for key in keys]

    @contextlib.contextmanager
    def _learnt_from_nothing(self) -> Iterator[str]:
        """Path of the graph that follows from no example."""
        with tempfile.TemporaryDirectory() as folder:
            learn_from_nothing(self.preprocessing, self.inputs, folder)
            yield f"{folder}/graph"

    def transform(self, progress: Progress) -> Mapping[str, Sequence[Note]]:
        """Writes all shards that are not finished; returns the notes of all, by split.

        Raises:
            UserError: too many examples are refused, or a split is left without any.
        """
        remaining = []
        for task in (task for split in self.manifest.splits for task in self._tasks(split)):
            note = read_note(self.draft, task)
            if note is None:
                remaining.append(task)
            else:
                progress.advance(note.shard.records + len(note.refused))
        if remaining:
            job = self._job(self.draft.below(GRAPH), *self._stored)
            count = sum(self._records[task.file] for task in remaining)
            transform = functools.partial(_add, remaining, TransformShard(job))
            self._run("transform", transform, progress, count)
        notes = {s: [self._note(task) for task in self._tasks(s)] for s in self.manifest.splits}
        self._check(notes)
        return notes

    def finish(self, notes: Mapping[str, Sequence[Note]], facts: DatasetFacts) -> None:
        """Writes all that goes with the shards, the manifest last."""
        stored, _ = self._stored
        splits = {
            split: dataclasses.replace(
                self.manifest.splits[split],
                shards=tuple(note.shard for note in of_split),
                quarantined=self.manifest.splits[split].quarantined
                + sum(len(note.refused) for note in of_split),
            )
            for split, of_split in notes.items()
        }
        evaluated = stored[self.manifest.evaluation_split]
        refused = [
            item for of_split in notes.values() for note in of_split for item in note.refused
        ]
        lines = "".join(note_line(dataclasses.asdict(item)) for item in refused)
        before = self.raw.read(QUARANTINE) if self.raw.exists(QUARANTINE) else b""
        self.draft.write(QUARANTINE, before + lines.encode())
        if self.raw.exists(CHANGES):
            self.draft.write(CHANGES, self.raw.read(CHANGES))
        with tempfile.TemporaryDirectory() as folder:
            write_facts(folder, dataclasses.replace(facts, train_examples=splits["train"].records))
            write_settings(folder, settings_read(self.preprocessing, self.inputs))
            write_manifest(
                folder,
                dataclasses.replace(
                    self.manifest,
                    features=evaluated,
                    split_features={s: f for s, f in stored.items() if f != evaluated},
                    splits=splits,
                ),
            )
            for name in (FACTS, SETTINGS, MANIFEST):
                self.draft.write(name, (Path(folder) / name).read_bytes())

    def tidy(self) -> None:
        """Removes what only the work needed."""
        for name in (NOTES, GRAPH, SCREENED, _LEARNING, _PROVISIONAL):
            self.draft.below(name).discard()
        self.draft.remove([FAILURE])
        self.draft.remove_unfinished()

    def _run(
        self, name: str, build: Callable[[beam.Pipeline], None], progress: Progress, count: int
    ) -> None:
        """Runs a pipeline on `count` examples; raises what a worker has left word of."""
        done = progress.done
        before = self._finished()
        # Two attempts at the same work have the same names of jobs, so that they do not meet.
        identity = hashlib.sha256(self.draft.path.encode()).hexdigest()[:8]
        job = job_name("preprocess", self.preprocessing.model, name, identity)
        try:
            run(self.runner, job, build, progress, count, lambda: self._finished() - before)
        except Exception:
            raise_failure(self.draft)
            raise
        raise_failure(self.draft)
        if progress.done < done + count:
            progress.advance(done + count - progress.done)

    def _finished(self) -> int:
        """How many examples are in shards that are finished."""
        return sum(
            self._records[name.removesuffix(".json")]
            for name in self.draft.below(NOTES).files()
            if name.removesuffix(".json") in self._records
        )

    @functools.cached_property
    def _records(self) -> dict[str, int]:
        """Shard -> number of raw examples."""
        splits = self.manifest.splits.values()
        return {shard.file: shard.records for split in splits for shard in split.shards}

    def _tasks(self, split: str) -> list[Task]:
        return [Task(split, shard.file) for shard in self.manifest.splits[split].shards]

    def _note(self, task: Task) -> Note:
        note = read_note(self.draft, task)
        if note is None or note.shard.records + len(note.refused) != self._records[task.file]:
            raise RuntimeError(f"{task.file} must keep its examples; its note says: {note}")
        return note

    @functools.cached_property
    def _stored(self) -> tuple[dict[str, dict[str, Feature]], dict[str, tuple[str, ...]]]:
        """Split -> what is stored; split -> what is stored as it came."""
        model = self.preprocessing.model
        data = model_part(model, "data")
        kept = tuple(getattr(data, "RAW_FOR_TRAINING", ()))
        unknown = set(kept) - set(self.inputs)
        if unknown:
            raise UserError(
                f"The examples must have what RAW_FOR_TRAINING of {model} names; they have "
                f"{', '.join(self.inputs)}, but not {', '.join(sorted(unknown))}."
            )
        with _on_this_machine(self.draft.below(GRAPH)) as folder:
            made = stored_features(folder, model, self.inputs, getattr(data, "STORED_AS", {}))
        key = {"key": self.manifest.features["key"]}
        passed_by = {split: kept if split == "train" else () for split in self.manifest.splits}
        stored = {
            split: {**key, **made, **{name: self.inputs[name] for name in names}}
            for split, names in passed_by.items()
        }
        return stored, passed_by

    def _job(
        self,
        graph: Folder,
        stored: Mapping[str, Mapping[str, Feature]],
        passed_by: Mapping[str, tuple[str, ...]],
    ) -> Job:
        return Job(
            model=self.preprocessing.model,
            examples=self.raw,
            draft=self.draft,
            graph=graph,
            raw=self.manifest.features,
            stored=stored,
            passed_by=passed_by,
            allowed=math.floor(self.max_bad_fraction * sum(self._records.values())),
            threads=self.runner.threads,
        )

    def _check(self, notes: Mapping[str, Sequence[Note]]) -> None:
        refused = [
            item for of_split in notes.values() for note in of_split for item in note.refused
        ]
        total = sum(self._records.values())
        if len(refused) > self.max_bad_fraction * total:
            enough = math.ceil(1000 * len(refused) / total) / 1000
            raise UserError(
                f"At most {self.max_bad_fraction:.1%} of the examples may be bad; {len(refused):,} "
                f"of {total:,} are. {first_of(refused)} Mend or remove them, or set "
                f"max_bad_fraction={enough:g}."
            )
        for split, of_split in notes.items():
            if not any(note.shard.records for note in of_split):
                of_this = [item for item in refused if item.split == split]
                raise UserError(
                    f"Every split must keep an example; {split} keeps none of "
                    f"{self.manifest.splits[split].records:,}. {first_of(of_this)}"
                )


def _add(tasks: Sequence[Task], worker: beam.DoFn, pipeline: beam.Pipeline) -> None:
    """Adds work on shards to a pipeline: only their names enter it."""
    _ = (
        pipeline
        | "Name" >> beam.Create(list(tasks))
        | "Spread" >> beam.Reshuffle()
        | type(worker).__name__ >> beam.ParDo(worker)
    )


def _read_manifest(folder: Folder) -> tuple[Manifest, str]:
    """The manifest of a folder and the SHA-256 of its file.

    Raises:
        UserError: the folder holds no finished examples.
    """
    if not folder.remote:
        manifest = read_manifest(folder.path)
        return manifest, hashlib.sha256(folder.read(MANIFEST)).hexdigest()
    if not folder.exists(MANIFEST):
        raise UserError(
            f"Examples must be a folder with a {MANIFEST}, as create_tfrecords writes it; "
            f"{folder.path!r} has none."
        )
    data = folder.read(MANIFEST)
    with tempfile.TemporaryDirectory() as local:
        (Path(local) / MANIFEST).write_bytes(data)
        return read_manifest(local), hashlib.sha256(data).hexdigest()


def _plan(model: str, config: Any, manifest_digest: str) -> dict[str, Any]:
    """All that the result depends on. The manifest has the digest of each shard."""
    code = hashlib.sha256()
    ours = [Path(example_format.__file__), Path(record_format.__file__)]
    for folder in (Path(__file__).parent, _folder_of(model)):
        ours += sorted(path for path in folder.rglob("*.py") if not path.match("*_test.py"))
    for path in ours:
        code.update(path.read_bytes())
    return {
        "examples": manifest_digest,
        "model": model,
        "config": dataclasses.asdict(config),
        "code": code.hexdigest(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def _folder_of(model: str) -> Path:
    return Path(str(model_part(model, "data").__file__)).parent


def _publish(made: Folder, target: Folder) -> None:
    """Copies the finished graph to where the step is to put it."""
    if target.remote:
        target.discard()
        made.copy_to(target, last=_SAVED_MODEL)
    else:
        with whole_folder(target.path) as folder:
            made.copy_to(Folder(str(folder)))


@contextlib.contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Keeps a logger and all below it silent."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextlib.contextmanager
def _on_this_machine(folder: Folder) -> Iterator[str]:
    """Path of a folder with the same files on this machine."""
    if not folder.remote:
        yield folder.path
        return
    with tempfile.TemporaryDirectory() as local:
        folder.copy_to(Folder(local))
        yield local
