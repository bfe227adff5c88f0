"""What every model promises, whichever paper it comes from: see `tests.battery`."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import load_file

from pipelines.results import measurements
from tests import battery
from tests.battery import CHECKS, PRECISIONS, Subject
from tests.conftest import Prepared, model_cases
from trainer import backend
from trainer.catalog import load_config, load_paper, load_recipe, model_folder
from trainer.engine import checkpoint
from trainer.engine.export import difference, export_saved_model

MODELS = model_cases()
LONGEST = "a_training_cut_short_within_an_epoch_ends_as_if_it_were_not"
# The longest check on one model in every run of the tests, on the others with the slow ones.
CASES = [
    pytest.param(
        *model.values,
        name,
        marks=[*model.marks, *([pytest.mark.slow] if number and name == LONGEST else [])],
    )
    for number, model in enumerate(MODELS)
    for name in CHECKS
]
Prepare = Callable[[str], Prepared]
TOLERANCE = {"float32": 1e-5, "float64": 1e-7}
"""Of losses, and of what an export answers: relative to the value or 1."""


@dataclasses.dataclass(frozen=True)
class Tried:
    """What became of a model on both backends.

    Attributes:
        folder: with a folder for each precision, in which `here` and `there` are the checkpoints
            that each backend trained.
        logs: backend -> precision -> logs of each step.
        faults: check -> what the other backend's process found.
    """

    folder: Path
    logs: Mapping[str, Mapping[str, list[dict[str, float]]]]
    faults: Mapping[str, list[str]]


class OnJax:
    """Models on the other backend: one process for each, which works while tests run here."""

    def __init__(self, prepare: Prepare, folders: pytest.TempPathFactory):
        self._prepare, self._folders = prepare, folders
        self._begun: dict[str, tuple[Path, Any, subprocess.Popen[bytes]]] = {}
        self._tried: dict[str, Tried] = {}

    def begin(self, model: str) -> None:
        """Takes a model's steps here, and starts the process that retraces them."""
        if model in self._begun:
            return
        folder = self._folders.mktemp(f"{model}_on_jax")
        subject = Subject(model, self._prepare(model).transformed_examples, folder)
        here = battery.store(subject)
        command = [sys.executable, "-m", "tests.battery", model]
        with (folder / "said").open("wb") as said:
            process = subprocess.Popen(
                [*command, str(subject.examples), str(folder)],
                env={
                    **os.environ,
                    "KERAS_BACKEND": "jax",
                    "JAX_PLATFORMS": "cpu",
                    # Several checks train the same recipe, which needs compiling just once.
                    "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
                    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
                },
                stdout=said,
                stderr=said,
            )
        self._begun[model] = (folder, here, process)

    def __call__(self, model: str) -> Tried:
        """What became of a model, once its process has ended."""
        self.begin(model)
        if model not in self._tried:
            folder, here, process = self._begun[model]
            said = folder / "said"
            assert process.wait() == 0, said.read_text("utf-8", "replace")[-3000:]
            findings = battery.read_findings(folder)
            there = findings.pop("logs")
            self._tried[model] = Tried(folder, {"tensorflow": here, "jax": there}, findings)
        return self._tried[model]

    def end(self) -> None:
        """Ends processes that nobody has waited for."""
        for _, _, process in self._begun.values():
            process.kill()
            process.wait()


@pytest.fixture(scope="session")
def tried(prepared: Prepare, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnJax]:
    """Tries models on the other backend, each once a session."""
    on_jax = OnJax(prepared, tmp_path_factory)
    yield on_jax
    on_jax.end()


@pytest.mark.parametrize("model", MODELS)
def test_the_folder_says_what_a_model_must_say(model: str) -> None:
    paper, folder = load_paper(model), model_folder(model)
    assert paper.results and paper.url.startswith("https://")
    config = load_config(model)
    assert dataclasses.is_dataclass(config)
    assert config.epochs > 0 and config.batch_size > 0 and isinstance(config.seed, int)
    readme = (folder / "README.md").read_text(encoding="utf-8")
    assert paper.url in readme and "## Deviations" in readme
    for field in dataclasses.fields(config):
        assert f"{field.name}:" in type(config).__doc__, f"{field.name} is not documented"
    if (folder / "results.json").exists():
        for entry in measurements(model):
            assert entry.metric and np.isfinite(entry.value) and entry.minutes > 0
            assert entry.hardware and entry.commit and entry.command
            dataclasses.replace(config, **entry.settings)


@pytest.mark.parametrize("model", MODELS)
def test_two_builds_have_the_same_variables(model: str) -> None:
    def shapes() -> dict[str, tuple[int, ...]]:
        _, recipe = Subject(model, Path(), Path()).tiny()
        named = checkpoint.named_variables(recipe, networks_only=True)
        return {name: tuple(variable.shape) for name, variable in named.items()}

    assert shapes() == shapes()


@pytest.mark.parametrize(("model", "name"), CASES)
def test_on_tensorflow(
    model: str, name: str, prepared: Prepare, tried: OnJax, tmp_path: Path
) -> None:
    tried.begin(model)
    subject = Subject(model, prepared(model).transformed_examples, tmp_path)
    assert "\n".join(CHECKS[name](subject)) == ""


@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.parametrize("model", MODELS)
def test_on_jax(model: str, name: str, tried: OnJax) -> None:
    assert "\n".join(tried(model).faults[name]) == ""


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("model", MODELS)
def test_losses_are_equal_on_both_backends(model: str, precision: str, tried: OnJax) -> None:
    """In float64 whatever the network; in float32 as long as its rounding errors stay small."""
    logs = tried(model).logs
    ours, theirs = (logs[name][precision] for name in ("tensorflow", "jax"))
    assert len(ours) == len(theirs) == battery.steps_that_agree(model, precision)
    for here, there in zip(ours, theirs, strict=True):
        assert there == pytest.approx(here, rel=TOLERANCE[precision], abs=TOLERANCE[precision])


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("model", MODELS)
def test_what_one_backend_saves_the_other_loads(
    model: str, precision: str, tried: OnJax, tmp_path: Path
) -> None:
    """JAX went on from TensorFlow's checkpoint; TensorFlow loads JAX's, down to the last bit."""
    folder = tried(model).folder / precision
    with battery.computing_in(precision):
        state = checkpoint.read_state(folder / "there")
        recipe = load_recipe(model)(state.load_config())
        backend.current().TrainStep(recipe)
        checkpoint.restore(folder / "there", recipe)
        checkpoint.save(tmp_path, recipe, state)
    loaded, wanted = (load_file(place / state.file) for place in (tmp_path, folder / "there"))
    assert set(loaded) == set(wanted)
    for name, value in wanted.items():
        # Whole numbers are as wide as each backend likes them.
        assert value.dtype.kind in "iu" or loaded[name].dtype == value.dtype, name
        np.testing.assert_array_equal(loaded[name], value, err_msg=name)


@pytest.mark.parametrize("model", MODELS)
def test_an_export_answers_what_predict_does(
    model: str, prepared: Prepare, tried: OnJax, tmp_path: Path
) -> None:
    """Networks that JAX has trained, exported by TensorFlow, answer what they predicted on JAX."""
    folder = tried(model).folder / "float32" / "there"
    recipe = load_recipe(model)(checkpoint.read_state(folder).load_config())
    checkpoint.restore(folder, recipe, networks_only=True)
    export_saved_model(recipe, prepared(model).transform_graph, (), tmp_path)
    served = tf.saved_model.load(str(tmp_path)).signatures
    stored = np.load(folder / "predicted.npz")
    batch, predicted = (
        {k.removeprefix(start): stored[k] for k in stored.files if k.startswith(start)}
        for start in ("batch/", "predicted/")
    )
    compared = [n for n, s in recipe.signatures.items() if set(s.inputs) <= set(batch)]
    assert compared, f"no signature of {model} takes what its batches hold"
    for name in compared:
        inputs = recipe.signatures[name].inputs
        answer = served[name](**{n: tf.cast(batch[n], t.dtype) for n, t in inputs.items()})
        answered = {n: value.numpy() for n, value in answer.items()}
        assert set(answered) <= set(predicted)
        wanted = {n: predicted[n] for n in answered}
        assert difference(answered, wanted) <= TOLERANCE["float32"]
