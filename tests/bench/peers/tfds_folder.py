"""tensorflow-datasets writing an image folder: a builder as its guide has it.

    PYTHON tests/bench/peers/tfds_folder.py DATA SCRATCH

Runs in an environment that has tensorflow-datasets and knows nothing of this project. Takes turns
as `tests.bench.data_work` does.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds


class PhotoFolder(tfds.core.GeneratorBasedBuilder):
    """Class folders of JPEG files, in the folders `train` and `val` of `data`."""

    data = Path()
    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> Any:
        names = sorted(path.name for path in (self.data / "train").iterdir())
        features = {
            "image": tfds.features.Image(encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(names=names),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        folders = {"train": "train", "validation": "val"}
        return {split: self._generate_examples(self.data / name) for split, name in folders.items()}

    def _generate_examples(self, folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
        # A path is read and stored as it is, neither decoded nor checked.
        for path in sorted(folder.rglob("*.jpg")):
            yield path.name, {"image": path, "label": path.parent.name}


def main() -> None:
    """Takes turns until there are no more."""
    PhotoFolder.data, scratch = map(Path, sys.argv[1:])
    answers = sys.stdout
    sys.stdout = sys.stderr
    answers.write(f"tensorflow-datasets {tfds.__version__}\n")
    answers.flush()
    tfds.display_progress_bar(False)
    for _ in sys.stdin:
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        began = time.perf_counter()
        PhotoFolder(data_dir=str(scratch)).download_and_prepare()
        seconds = time.perf_counter() - began
        shutil.rmtree(scratch)
        answers.write(f"{seconds}\n")
        answers.flush()


if __name__ == "__main__":
    main()
