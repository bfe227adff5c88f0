import os
import subprocess
import sys
from pathlib import Path

import pytest

from components.train.train import choose_backend, train
from trainer.errors import UserError


def test_the_backend_is_the_argument_or_the_environment_or_tensorflow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "keras", raising=False)
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


_WITH_KERAS = """
import os, sys, types
keras = types.ModuleType("keras")
keras.backend = types.SimpleNamespace(backend=lambda: "tensorflow")
sys.modules["keras"] = keras
sys.argv = ["components.train", "--help"]
from components.train.train import choose_backend
choose_backend("jax")
"""


@pytest.mark.parametrize("forked", ["", "1"])
def test_keras_on_another_backend_is_noticed(forked: str) -> None:
    environment = {**os.environ, "PAPER2HUB_FORKED": forked}
    done = subprocess.run(
        [sys.executable, "-c", _WITH_KERAS], env=environment, capture_output=True, text=True
    )
    if forked:  # it begins again, without Keras, as the same command
        assert (done.returncode, done.stdout[:31]) == (0, "usage: python -m components.tra")
    else:
        assert "it runs on tensorflow. Set KERAS_BACKEND=jax" in done.stderr


def test_a_folder_without_transformed_examples_is_the_users_fault(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"folder with a facts\.json, as preprocess writes it"):
        train("autoencoder", str(tmp_path), str(tmp_path / "checkpoint"), "")
