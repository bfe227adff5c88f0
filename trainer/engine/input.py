"""From TFRecord shards to batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from trainer.catalog import model_part
from trainer.data.manifest import Manifest, read_manifest
from trainer.dataset import Feature
from trainer.errors import UserError

CACHED_BYTES = 2**30
"""Splits up to this size are read from disk once and kept in memory (ours)."""

SHUFFLED_EXAMPLES = 16_384
"""Examples that are mixed at a time; below this, a split is mixed completely (ours)."""

PADDING = -1
"""What fills up a ragged feature of numbers where another example of the batch has more of it
(KerasCV and the Model Garden mark boxes that are none in the same way); strings are filled up with
empty ones."""

Sides = Mapping[str, tuple[str, ...]]
"""A feature of whole numbers, and for each of its values, from 0, how the features of an example
with it end; none, or one alone: {"domain": ("_a", "_b")}."""

NO_SIDES: Sides = {}

Batches = Iterator[dict[str, np.ndarray]]
Augment = Callable[[Mapping[str, Any], Any], Mapping[str, Any]]
Noise = Mapping[str, tuple[int, ...]]
NO_NOISE: Noise = {}


def parse(record: Any, features: Mapping[str, Feature]) -> dict[str, Any]:
    """The features of one serialised tf.train.Example, as tensors.

    A ragged feature has as many rows as the example has: boxes are [None, 4].
    """
    listed = {"bytes": tf.string, "int64": tf.int64, "float32": tf.float32}

    def column(feature: Feature) -> Any:
        if feature.encoding == "raw":
            return tf.io.FixedLenFeature((), tf.string)
        dtype = listed[feature.dtype]
        return (
            tf.io.RaggedFeature(dtype)
            if feature.ragged
            else tf.io.FixedLenFeature(feature.shape, dtype)
        )

    values: dict[str, Any] = tf.io.parse_single_example(
        record, {name: column(feature) for name, feature in features.items()}
    )
    for name, feature in features.items():
        if feature.encoding == "raw":
            values[name] = tf.io.decode_raw(values[name], feature.dtype)
        if feature.encoding == "raw" or feature.ragged:
            values[name] = tf.reshape(values[name], [-1 if n is None else n for n in feature.shape])
    return values


class Split:
    """One split of a folder of transformed examples, read in batches.

    Args:
        folder: the examples.
        split: name of the split.
        sides: which feature tells the sides of a batch apart, where examples of several kinds,
            such as two domains of pictures, are to stand side by side in training. An example of a
            shuffled batch is then one of each side, whatever their order: `image` becomes `image_a`
            and `image_b`. An epoch has as many as the split has, divided by the sides; a smaller
            side comes round more than once in it, and of a larger one another part in each.

    Attributes:
        examples: how many there are in an epoch.

    Raises:
        UserError: there is no such split, or a side has no example.
    """

    def __init__(self, folder: str | Path, split: str, sides: Sides = NO_SIDES):
        manifest: Manifest = read_manifest(folder)
        self.files = [str(path) for path in manifest.files(folder, split)]
        self.features = manifest.features_of(split)
        self.examples = manifest.splits[split].records
        size = sum(shard.bytes for shard in manifest.splits[split].shards)
        self._in_memory = size <= CACHED_BYTES
        self._records = self._read(self.files)
        self._side_by, self._endings = next(iter(sides.items()), ("", ()))
        if self._endings:
            self.examples //= len(self._endings)
            for value in range(len(self._endings)):
                if not any(True for _ in self._side(self._records, value).take(1)):
                    raise UserError(
                        f"The {split} split must have examples of every {self._side_by} from 0 to "
                        f"{len(self._endings) - 1}; of {value} it has none."
                    )
        self._functions: dict[Augment | None, Any] = {}

    def in_order(self, batch_size: int, noise: Noise = NO_NOISE) -> Batches:
        """All examples once, in the order they are stored; the last batch may be smaller.

        Ragged features are filled up with `PADDING`, see `shuffled`.

        Args:
            batch_size: examples per batch.
            noise: name -> shape of standard normal noise that joins each example: the same each
                time, whatever the size of the batches.
        """
        examples = self._records.map(
            lambda record: parse(record, self.features), num_parallel_calls=tf.data.AUTOTUNE
        )
        first = 0
        for batch in _prefetched(self._batched(examples, batch_size)).as_numpy_iterator():
            count = len(next(iter(batch.values())))
            yield {**batch, **_noise_of(range(first, first + count), noise)}
            first += count

    def shuffled(
        self,
        batch_size: int,
        seed: int,
        epoch: int,
        augment: Augment | None = None,
        noise: Noise = NO_NOISE,
        begin: int = 0,
        part: tuple[int, int] = (0, 1),
    ) -> tf.data.Dataset:
        """One epoch, whose order, augmentation and noise follow from seed and epoch alone.

        Args:
            batch_size: examples per batch; what does not fill the last batch is left out.
            seed: of the whole training.
            epoch: counted from 0.
            augment: maps an example and a seed, int32 [2], to an example.
            noise: name -> shape of standard normal noise that joins each example.
            begin: number of the batch to begin with; those before are neither decoded nor
                augmented.
            part: (i, n) for the i-th of n equal parts of each batch, counted from 0.

        Returns:
            Batches; every feature but strings, which no accelerator can hold. What differs in
            length between examples is filled up with `PADDING`, up to the next power of two: an
            accelerator compiles its program anew for each length, so there must be few. A model for
            which one length is best gives its features that length in `augment`.

        Raises:
            UserError: there is not even one batch of examples, or batches have no equal parts.
        """
        index, parts = part
        if self.examples < batch_size:
            raise UserError(
                f"batch_size must be at most the number of training examples, {self.examples}; "
                f"got {batch_size}."
            )
        if batch_size % parts:
            raise UserError(
                f"batch_size must be a multiple of the number of processes, {parts}; got "
                f"{batch_size}."
            )
        order = np.random.default_rng((seed, epoch))
        shuffle_seed, augment_seed = (int(s) for s in order.integers(0, 2**31, 2))
        records = self._records
        if not self._in_memory:
            records = self._read([str(f) for f in order.permutation(self.files)])
        noise_seed = int(order.integers(0, 2**31))
        records = self._mixed(records, shuffle_seed)
        steps = self.examples // batch_size
        numbered = records.enumerate().take(steps * batch_size).skip(begin * batch_size)
        size = batch_size // parts
        if parts > 1:
            numbered = numbered.batch(size).shard(parts, index).unbatch()

        prepare = self._prepared(augment)
        examples = numbered.map(
            lambda number, record: prepare(number, record, augment_seed),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
        batches = self._batched(examples, size, drop_remainder=True)
        if noise:

            def noisy(number: Any, batch: Any) -> dict[str, Any]:
                drawn = {}
                for i, (name, shape) in enumerate(noise.items()):
                    seeds = tf.stack([(noise_seed + i) % 2**31, tf.cast(begin + number, tf.int32)])
                    # One algorithm on all machines, and one batch whatever its parts.
                    whole = tf.random.stateless_normal([batch_size, *shape], seeds, alg="philox")
                    drawn[name] = whole[index * size : (index + 1) * size]
                return {**batch, **drawn}

            batches = batches.enumerate().map(noisy, num_parallel_calls=tf.data.AUTOTUNE)
        return _prefetched(batches)

    def _prepared(self, augment: Augment | None) -> Any:
        """What makes an example of training of a record, traced once and not in each epoch."""
        if augment not in self._functions:

            def example_of(record: Any, seeds: Any) -> dict[str, Any]:
                example: Mapping[str, Any] = parse(record, self.features)
                if augment is not None:
                    example = augment(example, seeds)
                return {name: value for name, value in example.items() if value.dtype != tf.string}

            def prepare(number: Any, record: Any, augment_seed: Any) -> dict[str, Any]:
                # In one piece: another stage would cost as much as an operation on a picture.
                seeds = tf.stack([augment_seed, tf.cast(number, tf.int32)])
                if not self._endings:
                    return example_of(record, seeds)
                example = {}
                for side, ending in enumerate(self._endings):
                    own = tf.random.fold_in(seeds, side)
                    for name, value in example_of(record[side], own).items():
                        if name != self._side_by:
                            example[name + ending] = value
                return example

            record = tf.TensorSpec([], tf.string)
            specs = [
                tf.TensorSpec([], tf.int64),
                (record,) * len(self._endings) if self._endings else record,
                tf.TensorSpec([], tf.int32),
            ]
            self._functions[augment] = tf.function(prepare, input_signature=specs, autograph=False)
        return self._functions[augment]

    def _mixed(self, records: tf.data.Dataset, seed: int) -> tf.data.Dataset:
        """Records in random order, those of all sides beside each other."""
        if not self._endings:
            return records.shuffle(min(self.examples, SHUFFLED_EXAMPLES), seed=seed)
        sides = [
            # How many there are of a side is not known: they are all mixed, up to the limit.
            self._side(records, value).shuffle(SHUFFLED_EXAMPLES, seed=seed + value).repeat()
            for value in range(len(self._endings))
        ]
        return tf.data.Dataset.zip(tuple(sides))

    def _side(self, records: tf.data.Dataset, value: int) -> tf.data.Dataset:
        """The records of one side."""
        feature = {self._side_by: self.features[self._side_by]}
        return records.filter(lambda record: parse(record, feature)[self._side_by] == value)

    def _read(self, files: list[str]) -> tf.data.Dataset:
        records = tf.data.TFRecordDataset(files, num_parallel_reads=None)
        return records.cache() if self._in_memory else records

    def _batched(
        self, examples: tf.data.Dataset, batch_size: int, drop_remainder: bool = False
    ) -> tf.data.Dataset:
        """Batches, in which ragged features whose length is still open are filled up."""
        specs = examples.element_spec
        ends = self._endings or ("",)
        open_ended = {n + end for n, f in self.features.items() if f.ragged for end in ends}
        ragged = [n for n, spec in specs.items() if n in open_ended and spec.shape[0] is None]
        if not ragged:
            return examples.batch(batch_size, drop_remainder=drop_remainder)
        unknown = [
            n for n, s in specs.items() if n not in ragged and not s.shape.is_fully_defined()
        ]
        if unknown:
            raise ValueError(
                f"Beside ragged features, all others must have a known shape; {unknown[0]!r} is "
                f"{specs[unknown[0]].shape} when augment returns it."
            )
        padding = {name: _padding(spec.dtype) for name, spec in specs.items()}
        shapes = {name: spec.shape for name, spec in specs.items()}
        batches = examples.padded_batch(batch_size, shapes, padding, drop_remainder)
        return batches.map(
            lambda batch: {
                name: _lengthened(value, padding[name]) if name in ragged else value
                for name, value in batch.items()
            },
            num_parallel_calls=tf.data.AUTOTUNE,
        )


def training_split(model: str, examples: str | Path) -> Split:
    """What a model is trained on; `SIDES` of its `data.py` are the sides of its batches.

    Args:
        model: name of the model.
        examples: folder of transformed examples.
    """
    return Split(examples, "train", getattr(model_part(model, "data"), "SIDES", NO_SIDES))


def _padding(dtype: Any) -> Any:
    return tf.constant("") if dtype == tf.string else tf.cast(PADDING, dtype)


def _lengthened(values: Any, padding: Any) -> Any:
    """Values [batch, length, ...], filled up to the next power of two."""
    shape = tf.shape(values)
    powers = tf.constant([2**n for n in range(31)])
    length = tf.reduce_min(tf.boolean_mask(powers, powers >= shape[1]))
    more = tf.concat([shape[:1], [length - shape[1]], shape[2:]], axis=0)
    return tf.concat([values, tf.fill(more, padding)], axis=1)


def _noise_of(numbers: range, noise: Noise) -> dict[str, np.ndarray]:
    """Noise of the examples of some numbers, float32 [len(numbers), *shape]."""
    if not noise:
        return {}
    sources = [np.random.default_rng((0, number)) for number in numbers]
    return {
        name: np.stack([source.standard_normal(shape, np.float32) for source in sources])
        for name, shape in noise.items()
    }


def _prefetched(dataset: tf.data.Dataset) -> tf.data.Dataset:
    options = tf.data.Options()
    options.deterministic = True
    return dataset.prefetch(tf.data.AUTOTUNE).with_options(options)
