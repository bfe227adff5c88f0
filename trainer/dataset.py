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
from typing import Any, Literal, Protocol, get_args

Example = Mapping[str, Any]
"""One example: bytes for `image` (an encoded picture) and `key`, int for `label`, and so on."""

Content = Literal["", "image", "mask", "box", "label", "text"]
"""What the values of a feature are; it decides how they are checked and shown.

- image: an encoded picture, JPEG or PNG; an example has one at most.
- mask: a PNG of the height and width of the example's image.
- box: left, top, right, bottom in pixels of the image, from its upper left corner; right and bottom
  are edges, so a box over all of an image has its width and height there.
- label: the number of a class, from 0.
- text: UTF-8 with something in it.
"""


_DTYPES = Literal["bytes", "int64", "float32", "uint8"]
_ENCODINGS = Literal["list", "raw"]


@dataclasses.dataclass(frozen=True)
class Feature:
    """One named value of every example.

    Attributes:
        dtype: type of its elements.
        shape: its shape; () for a scalar or one string of bytes. None, only as the first size and
            only with the encoding "list", stands for as many as the example has: boxes are
            (None, 4).
        encoding: "list" keeps the elements as a list of a tf.train.Example feature (int64, float32
            and bytes only); "raw" keeps them as one string of little-endian bytes in C order.
        description: what it means, for people.
        content: what its values are; empty where no rule applies.
    """

    dtype: _DTYPES
    shape: tuple[int | None, ...] = ()
    encoding: _ENCODINGS = "list"
    description: str = ""
    content: Content = ""

    def __post_init__(self) -> None:
        for name, kinds in (("dtype", _DTYPES), ("encoding", _ENCODINGS), ("content", Content)):
            if getattr(self, name) not in get_args(kinds):
                raise ValueError(
                    f"The {name} of a feature must be one of {', '.join(get_args(kinds))}; got "
                    f"{getattr(self, name)!r}."
                )
        if not all(size is None or (type(size) is int and size >= 0) for size in self.shape):
            raise ValueError(f"The sizes of a feature must be 0 or more; got {self.shape}.")
        if None in self.shape[1:] or (None in self.shape and self.encoding == "raw"):
            raise ValueError(
                "Only the first size of a feature kept as a list may be open; "
                f"got {self.shape} kept as {self.encoding!r}."
            )

    @property
    def ragged(self) -> bool:
        """Whether examples differ in how many elements they have."""
        return None in self.shape


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """Where a dataset comes from.

    Attributes:
        title: its name as people know it, such as "CIFAR-10".
        homepage: where to get it.
        licence: under which terms, or "none stated".
        layout: the files that the adapter looks for, for error messages.
        general: whether more particular datasets share the layout; it is then chosen only where
            none of those fits.
    """

    title: str
    homepage: str
    licence: str
    layout: str
    general: bool = False


class Dataset(Protocol):
    """A dataset on disk, open for reading.

    It is pickled on its way to worker processes, so it keeps names and places rather than contents;
    what it reads lazily after that (a mapped file) each process has for itself.

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
