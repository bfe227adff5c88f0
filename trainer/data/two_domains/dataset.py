"""Reads two datasets with the same classes as the domains A and B of one."""

from __future__ import annotations

from pathlib import Path

from trainer import catalog
from trainer.dataset import Dataset, DatasetInfo, Example, Feature
from trainer.errors import UserError

INFO = DatasetInfo(
    title="Two domains with classes",
    homepage="https://github.com/yunjey/mnist-svhn-transfer",
    licence="those of the two datasets",
    layout="A/ and B/, each in the layout of a dataset with classes",
)

_DOMAINS = ("A", "B")
_EVALUATION = "test"


class TwoDomains:
    """Two datasets, open for reading; the items of A come before those of B.

    A class is one of a domain: `A/7` and `B/7` are two, and those of A have the lower labels. Each
    dataset's training split is trained on, and its evaluation split is the `test` of both; others
    are left out.

    Raises:
        UserError: a folder is missing or none of a dataset with classes, or the classes of both
            are not the same.
    """

    evaluation_split = _EVALUATION

    def __init__(self, root: Path):
        self._domains = {domain: _open(root / domain) for domain in _DOMAINS}
        classes = {domain: tuple(d.class_names) for domain, d in self._domains.items()}
        if classes["A"] != classes["B"]:
            only = {
                domain: [n for n in names if n not in classes[other]]
                for (domain, names), other in zip(classes.items(), ("B", "A"), strict=True)
            }
            found = ", ".join(f"{names[0]!r} only in {d}" for d, names in only.items() if names)
            raise UserError(
                f"A and B must have the same classes in the same order; those in {str(root)!r} "
                f"differ: {found or 'in their order'}. Rename or remove classes."
            )
        self._classes = len(classes["A"])
        self.class_names = tuple(f"{d}/{name}" for d in _DOMAINS for name in classes[d])
        self._sources = {
            split: [
                (domain, dataset, "train" if split == "train" else dataset.evaluation_split)
                for domain, dataset in self._domains.items()
            ]
            for split in ("train", _EVALUATION)
        }
        self.splits = {
            split: sum(dataset.splits[name] for _, dataset, name in sources)
            for split, sources in self._sources.items()
        }
        self.features = {
            "image": Feature("bytes", description="the image file, JPEG or PNG", content="image"),
            "label": Feature(
                "int64",
                description=f"the class, and {self._classes} more in B",
                content="label",
            ),
        }

    def key(self, split: str, index: int) -> str:
        """The domain, and the item's key in its dataset."""
        domain, dataset, name, number = self._find(split, index)
        return f"{domain}/{dataset.key(name, number)}"

    def read(self, split: str, index: int) -> Example:
        """The picture, and its class in its domain.

        Raises:
            BadItem: its dataset cannot use it.
        """
        domain, dataset, name, number = self._find(split, index)
        example = dataset.read(name, number)
        label = example["label"] + self._classes * _DOMAINS.index(domain)
        return {"image": example["image"], "label": label}

    def _find(self, split: str, index: int) -> tuple[str, Dataset, str, int]:
        """Domain and dataset of an item, and which of its own it is there."""
        (domain, dataset, name), other = self._sources[split]
        if index < dataset.splits[name]:
            return domain, dataset, name, index
        return *other, index - dataset.splits[name]


def recognises(root: Path) -> bool:
    """Whether the folders of both domains are there."""
    return all((root / domain).is_dir() for domain in _DOMAINS)


def open_dataset(root: Path) -> TwoDomains:
    """Opens two datasets as two domains.

    Raises:
        UserError: they do not fit together; see `TwoDomains`.
    """
    return TwoDomains(root)


def _open(folder: Path) -> Dataset:
    name, dataset = catalog.open_dataset(folder)
    if not {"image", "label"} <= set(dataset.features) or name == "two_domains":
        raise UserError(
            f"Each of two domains must be a dataset whose pictures have a class; {str(folder)!r} "
            f"is one of {name}. Pictures without a class go in {{trainA,trainB,testA,testB}}/."
        )
    return dataset
