"""From TFRecord shards to batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from trainer.data.manifest import Manifest, read_manifest
from trainer.dataset import Feature
from trainer.errors import UserError

CACHED_BYTES = 2**30
"""Splits up to this size are read from disk once and kept in memory (ours)."""

SHUFFLED_EXAMPLES = 16_384
"""Examples that are mixed at a time; below this, a split is mixed completely (ours)."""

Batches = Iterator[dict[str, np.ndarray]]
Augment = Callable[[Mapping[str, Any], Any], Mapping[str, Any]]


def parse(record: Any, features: Mapping[str, Feature]) -> dict[str, Any]:
    """The features of one serialised tf.train.Example, as tensors."""
    listed = {"bytes": tf.string, "int64": tf.int64, "float32": tf.float32}
    specification = {
        name: tf.io.FixedLenFeature((), tf.string)
        if feature.encoding == "raw"
        else tf.io.FixedLenFeature(feature.shape, listed[feature.dtype])
        for name, feature in features.items()
    }
    values: dict[str, Any] = tf.io.parse_single_example(record, specification)
    for name, feature in features.items():
        if feature.encoding == "raw":
            flat = tf.io.decode_raw(values[name], feature.dtype)
            values[name] = tf.reshape(flat, feature.shape)
    return values


class Split:
    """One split of a folder of transformed examples, read in batches.

    Args:
        folder: the examples.
        split: name of the split.
    """

    def __init__(self, folder: str | Path, split: str):
        manifest: Manifest = read_manifest(folder)
        self.files = [str(path) for path in manifest.files(folder, split)]
        self.features = manifest.features_of(split)
        self.examples = manifest.splits[split].records
        size = sum(shard.bytes for shard in manifest.splits[split].shards)
        self._in_memory = size <= CACHED_BYTES
        self._records = self._read(self.files)

    def in_order(self, batch_size: int) -> Batches:
        """All examples once, in the order they are stored; the last batch may be smaller."""
        batches = self._parsed(self._records).batch(batch_size)
        yield from _prefetched(batches).as_numpy_iterator()

    def shuffled(
        self, batch_size: int, seed: int, epoch: int, augment: Augment | None = None
    ) -> tf.data.Dataset:
        """One epoch in an order, and with an augmentation, that follow from seed and epoch alone.

        Args:
            batch_size: examples per batch; what does not fill the last batch is left out.
            seed: of the whole training.
            epoch: counted from 0.
            augment: maps an example and a seed, int32 [2], to an example.

        Returns:
            Batches; every feature but strings, which no accelerator can hold.

        Raises:
            UserError: there is not even one batch of examples.
        """
        if self.examples < batch_size:
            raise UserError(
                f"batch_size must be at most the number of training examples, {self.examples}; "
                f"got {batch_size}."
            )
        order = np.random.default_rng((seed, epoch))
        shuffle_seed, augment_seed = (int(s) for s in order.integers(0, 2**31, 2))
        records = self._records
        if not self._in_memory:
            records = self._read([str(f) for f in order.permutation(self.files)])
        records = records.shuffle(min(self.examples, SHUFFLED_EXAMPLES), seed=shuffle_seed)
        examples = self._parsed(records)
        if augment is not None:
            numbered = tf.data.Dataset.zip(tf.data.Dataset.range(self.examples), examples)
            examples = numbered.map(
                lambda number, example: augment(
                    example, tf.stack([augment_seed, tf.cast(number, tf.int32)])
                ),
                num_parallel_calls=tf.data.AUTOTUNE,
            )
        numeric = examples.map(
            lambda example: {k: v for k, v in example.items() if v.dtype != tf.string}
        )
        return _prefetched(numeric.batch(batch_size, drop_remainder=True))

    def _read(self, files: list[str]) -> tf.data.Dataset:
        records = tf.data.TFRecordDataset(files, num_parallel_reads=None)
        return records.cache() if self._in_memory else records

    def _parsed(self, records: tf.data.Dataset) -> tf.data.Dataset:
        return records.map(
            lambda record: parse(record, self.features), num_parallel_calls=tf.data.AUTOTUNE
        )


def _prefetched(dataset: tf.data.Dataset) -> tf.data.Dataset:
    options = tf.data.Options()
    options.deterministic = True
    return dataset.prefetch(tf.data.AUTOTUNE).with_options(options)
