import dataclasses
from pathlib import Path

import pytest

from trainer.config import DatasetFacts
from trainer.data.facts import check_settings, read_facts, write_facts, write_settings
from trainer.errors import UserError


@dataclasses.dataclass(frozen=True)
class Config:
    image_size: int = 28
    mean: tuple[float, ...] = (0.5, 0.25)
    epochs: int = 3


def test_facts_come_back(tmp_path: Path) -> None:
    facts = DatasetFacts(class_names=("cat", "dog"), train_examples=7, shorter_side=32)
    write_facts(tmp_path, facts)
    assert read_facts(tmp_path) == facts
    with pytest.raises(UserError, match=r"must be a folder with a facts\.json"):
        read_facts(tmp_path / "elsewhere")


def test_a_config_must_have_the_settings_that_preprocessing_read(tmp_path: Path) -> None:
    check_settings(tmp_path, Config())  # examples of before, which say nothing
    write_settings(tmp_path, {"image_size": 28, "mean": (0.5, 0.25)})
    check_settings(tmp_path, Config())
    check_settings(tmp_path, Config(epochs=9))  # preprocessing knows nothing of epochs
    with pytest.raises(UserError, match=r"changed: image_size 28 -> 14\. Run preprocess") as told:
        check_settings(tmp_path, Config(image_size=14))
    assert "\n" not in str(told.value)
    with pytest.raises(UserError, match=r"mean \(0\.5, 0\.25\) -> \(0\.5, 0\.5\)\."):
        check_settings(tmp_path, Config(mean=(0.5, 0.5)))
