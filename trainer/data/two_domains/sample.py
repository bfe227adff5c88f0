"""Two small domains for tests: MNIST's sample as A, SVHN's as B."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from trainer.data.mnist import sample as mnist
from trainer.data.svhn import sample as svhn


def write_sample(root: Path) -> Mapping[str, int]:
    """Writes the sample, the same at every call; returns the number of items of each split."""
    written = [mnist.write_sample(root / "A"), svhn.write_sample(root / "B")]
    return {split: sum(counts[split] for counts in written) for split in ("train", "test")}
