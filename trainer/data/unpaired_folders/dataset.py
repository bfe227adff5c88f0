"""Reads pictures of two domains, A and B, in the folders that CycleGAN and MUNIT have them in."""

from __future__ import annotations

from pathlib import Path

from trainer.data.files import read_file, readable
from trainer.data.listing import Listing, all_in
from trainer.dataset import DatasetInfo, Example, Feature
from trainer.errors import UserError

INFO = DatasetInfo(
    title="Two unpaired folders",
    homepage="https://people.eecs.berkeley.edu/~taesung_park/CycleGAN/datasets/",
    licence="that of the images",
    layout="{trainA,trainB,testA,testB}/<image>",
)

_DOMAINS = ("A", "B")
_SPLITS = ("train", "test")


class UnpairedFolders:
    """Pictures of two domains, open for reading; each one is an example, its label the domain.

    The files of a folder are listed once, in sorted order, those of A before those of B. Hidden
    files (names beginning with a dot) are no items; everything else is one, fit or not.

    Raises:
        UserError: one of the four folders is missing or has nothing in it.
    """

    class_names = _DOMAINS
    evaluation_split = "test"

    def __init__(self, root: Path):
        self._root = root.resolve()
        self._listings = {split: _list_split(root, split) for split in _SPLITS}
        self.splits = {split: len(listing) for split, listing in self._listings.items()}
        self.features = {
            "image": Feature("bytes", description="the image file, JPEG or PNG", content="image"),
            "label": Feature("int64", description="the domain: 0 is A, 1 is B", content="label"),
        }

    def key(self, split: str, index: int) -> str:
        """Path of the picture below the root."""
        return readable(self._path(split, index))

    def read(self, split: str, index: int) -> Example:
        """The image file as it is, and the number of its domain.

        Raises:
            BadItem: it is not an ordinary file inside the root.
        """
        group = self._listings[split].group(index)
        return {
            "image": read_file(self._root, self._path(split, index), f"{group}/<image>"),
            "label": _DOMAINS.index(group[-1]),
        }

    def _path(self, split: str, index: int) -> str:
        listing = self._listings[split]
        return f"{listing.group(index)}/{listing.names[index]}"


def recognises(root: Path) -> bool:
    """Whether a folder of training pictures of either domain is there."""
    return any((root / f"train{domain}").is_dir() for domain in _DOMAINS)


def open_dataset(root: Path) -> UnpairedFolders:
    """Opens two unpaired folders.

    Raises:
        UserError: a folder is missing or empty; see `UnpairedFolders`.
    """
    return UnpairedFolders(root)


def _list_split(root: Path, split: str) -> Listing:
    contents = {f"{split}{domain}": all_in(root / f"{split}{domain}") for domain in _DOMAINS}
    empty = [folder for folder, names in contents.items() if not names]
    if empty:
        advice = f"Move some pictures of {empty[0].replace('test', 'train')}/ there."
        raise UserError(
            f"Two unpaired folders must have {INFO.layout}; {str(root)!r} has no pictures in "
            f"{' and '.join(f'{folder}/' for folder in empty)}. "
            f"{advice if split == 'test' else 'Put the pictures of that domain there.'}"
        )
    return Listing.of(contents)
