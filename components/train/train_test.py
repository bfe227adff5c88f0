import os
from pathlib import Path

import pytest

from components.train.train import choose_backend, train
from trainer.errors import UserError


def test_the_backend_is_the_argument_or_the_environment_or_tensorflow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "")
    choose_backend()
    assert os.environ["KERAS_BACKEND"] == "tensorflow"
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    choose_backend()
    assert os.environ["KERAS_BACKEND"] == "jax"
    choose_backend("tensorflow")
    assert os.environ["KERAS_BACKEND"] == "tensorflow"
    with pytest.raises(UserError, match="must be tensorflow or jax; got 'torch'"):
        choose_backend("torch")


def test_a_folder_without_transformed_examples_is_the_users_fault(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"folder with a facts\.json, as preprocess writes it"):
        train("autoencoder", str(tmp_path), str(tmp_path / "checkpoint"))
