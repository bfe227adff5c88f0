"""Some of a split's records, without reading all of them."""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from itertools import accumulate, chain, islice
from pathlib import Path

from trainer.data.manifest import Manifest
from trainer.data.records import next_record, read_record, read_shard

STREAMED_BYTES = 2**30
"""Splits up to this size are read from begin to end, 1 GiB (ours): about a second."""


def first_records(folder: str | Path, manifest: Manifest, split: str, most: int) -> Iterator[bytes]:
    """The first records of a split.

    Raises:
        UserError: there is no such split, or a record is missing or damaged.
    """
    files = manifest.files(folder, split)
    return islice(chain.from_iterable(read_shard(path) for path in files), most)


def spread_records(
    folder: str | Path, manifest: Manifest, split: str, most: int
) -> Iterator[bytes]:
    """Records of a split, evenly spaced over it, in order; always the same ones.

    A small split is read from begin to end, and the records are evenly spaced by number. In a large
    one they are evenly spaced by bytes: the first that begins there or later is found by the
    checksum of its length, so that the time needed does not grow with the split.

    Args:
        folder: folder of examples.
        manifest: its manifest.
        split: one of its splits.
        most: how many; all if there are no more. Of a large split it may be some fewer.

    Raises:
        UserError: there is no such split, or a record is missing or damaged.
    """
    files = manifest.files(folder, split)
    content = manifest.splits[split]
    total = sum(shard.bytes for shard in content.shards)
    if content.records <= most or total <= STREAMED_BYTES:
        wanted = {number * content.records // most for number in range(most)}
        for number, record in enumerate(first_records(folder, manifest, split, content.records)):
            if number in wanted:
                yield record
        return
    begins = [0, *accumulate(shard.bytes for shard in content.shards)]
    last = None
    for number in range(most):
        place = number * total // most
        shard = bisect.bisect_right(begins, place) - 1
        offset = next_record(files[shard], place - begins[shard])
        if offset is not None and (shard, offset) != last:
            last = shard, offset
            yield read_record(files[shard], offset)
