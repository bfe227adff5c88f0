"""What a dataset adapter is: the numbered items of a folder on disk, read one at a time.

Each folder `trainer/data/<dataset>/` holds an adapter in `dataset.py` with
- `INFO`, a `DatasetInfo`;
- `recognises(root) -> bool`: does this folder have the dataset's official layout?
- `open_dataset(root) -> Dataset`;
and, in `sample.py`, `write_sample(root) -> Mapping[str, int]`, which writes a small dataset in the
very layout for tests and returns how many items each split of it has.

Standard library only; nothing here knows TensorFlow.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

Example = Mapping[str, Any]
"""One example: bytes for `image` (an encoded picture) and `key`, int for `label`, and so on."""


@dataclasses.dataclass(frozen=True)
class Feature:
    """One named value of every example.

    Attributes:
        dtype: type of its elements.
        shape: its fixed shape; () for a scalar or one string of bytes.
        encoding: "list" keeps the elements as a list of a tf.train.Example feature (int64, float32
            and bytes only); "raw" keeps them as one string of little-endian bytes in C order.
        description: what it means, for people.
    """

    dtype: Literal["bytes", "int64", "float32", "uint8"]
    shape: tuple[int, ...] = ()
    encoding: Literal["list", "raw"] = "list"
    description: str = ""


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """Where a dataset comes from.

    Attributes:
        title: its name as people know it, such as "CIFAR-10".
        homepage: where to get it.
        licence: under which terms, or "none stated".
        layout: the files that the adapter looks for, for error messages.
    """

    title: str
    homepage: str
    licence: str
    layout: str


class Dataset(Protocol):
    """A dataset on disk, open for reading; cheap to open again in another process.

    Attributes:
        features: what `read` returns, without `key`, which every example also gets.
        class_names: name of each label, by number; empty where there are no labels.
        splits: name -> number of items, good or bad. Names are `train`, `validation`, `test`.
        evaluation_split: the split that published numbers are measured on.
    """

    features: Mapping[str, Feature]
    class_names: Sequence[str]
    splits: Mapping[str, int]
    evaluation_split: str

    def key(self, split: str, index: int) -> str:
        """Name of an item, unique within the dataset: its path below the root, or `file#number`."""

    def read(self, split: str, index: int) -> Example:
        """One example.

        Raises:
            BadItem: the item cannot be used; the caller quarantines it and goes on.
        """
