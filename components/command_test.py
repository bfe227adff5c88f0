import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from components import command
from trainer.errors import TryAgain, UserError


def scale(
    examples: str,
    factor: float = 0.5,
    shards: int = 4,
    name: str = "",
    settings: dict[str, Any] | None = None,
) -> dict[str, dict[str, Any]] | None:
    """Scales the examples.

    Args:
        examples: folder of examples,
            as create_tfrecords writes it.
        factor: what 100% becomes.
    """
    called.append((examples, factor, shards, name, settings))
    return {"examples": {"records": 3}}


called: list[tuple[Any, ...]] = []


def leave(function: Any, *arguments: str) -> Any:
    called.clear()
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as leaving:
            command.run(function, arguments)
    finally:
        signal.signal(signal.SIGTERM, before)
    return leaving.value.code


def test_values_arrive_with_their_types_and_defaults_hold():
    assert leave(scale, "--examples=a b", "--factor=2", "--shards", "8") == 0
    assert called == [("a b", 2.0, 8, "", None)]


def test_settings_keep_the_types_of_their_json():
    text = '{"epochs": "010", "rate": 1e-4, "code": 2, "on": "yes", "off": null}'
    leave(scale, "--examples=a", f"--settings={text}")
    assert called[0][4] == {"epochs": "010", "rate": 1e-4, "code": 2, "on": "yes", "off": None}


@pytest.mark.parametrize("value", ["", "--runner=X --y=1", "null", "1e3", "{{$}}"])
def test_text_arrives_as_it_is(value):
    leave(scale, "--examples=a", f"--name={value}")
    assert called[0][3] == value


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--examples=a", "--shards=many"],
        ["--examples=a", "--settings=[1]"],
        ["--examples=a", "--settings=epochs"],
        ["--examples=a", "--shard=3"],
        ["--examples=a", "--executor_input=x"],
    ],
)
def test_a_wrong_command_line_is_the_users_fault(arguments, capsys):
    assert leave(scale, *arguments) == 2
    assert not called
    assert "error:" in capsys.readouterr().err


def test_help_tells_every_flag_in_the_words_of_the_docstring(capsys):
    assert leave(scale, "--help") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "Scales the examples." in shown
    assert "folder of examples, as create_tfrecords writes it" in shown
    assert "what 100% becomes. (default: 0.5)" in shown
    for flag in ("--examples TEXT", "--shards INTEGER", "--settings JSON", "--executor_input JSON"):
        assert flag in shown


def test_metadata_join_the_announced_artifacts(tmp_path):
    output_file = tmp_path / "deep" / "executor_output.json"
    announced = {
        "name": "examples",
        "uri": "/data/examples",
        "type": {"schemaTitle": "system.Dataset", "schemaVersion": "0.0.1"},
        "metadata": {"owner": "me"},
    }
    bare = {"name": "page", "uri": "/p", "type": {"schemaTitle": "system.HTML"}}
    executor_input = {
        "inputs": {},
        "outputs": {
            "artifacts": {"examples": {"artifacts": [announced]}, "page": {"artifacts": [bare]}},
            "outputFile": str(output_file),
        },
    }
    assert leave(scale, "--examples=a", "--executor_input", json.dumps(executor_input)) == 0
    assert json.loads(output_file.read_text()) == {
        "artifacts": {
            "examples": {
                "artifacts": [{**announced, "metadata": {"owner": "me", "records": 3}}],
            },
            "page": {"artifacts": [{**bare, "metadata": {}}]},
        }
    }


@pytest.mark.parametrize(("error", "code"), [(UserError("a must hold"), 2), (TryAgain("gone"), 75)])
def test_expected_errors_are_one_line_and_an_exit_code(error, code, tmp_path, capsys):
    def fail() -> None:
        """Fails."""
        raise error

    output_file = tmp_path / "executor_output.json"
    executor_input = json.dumps({"outputs": {"outputFile": str(output_file)}})
    assert leave(fail, "--executor_input", executor_input) == code
    assert capsys.readouterr().err == f"error: {error}\n"
    assert not output_file.exists()


def test_ctrl_c_is_no_fault(capsys):
    def stop() -> None:
        """Is stopped."""
        raise KeyboardInterrupt

    assert leave(stop) == 130
    assert capsys.readouterr().err == ""


def test_our_own_faults_keep_their_traceback():
    def fail() -> None:
        """Fails."""
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        command.run(fail, [])


def test_a_signature_that_no_command_line_can_fill_is_refused():
    def takes_bytes(content: bytes) -> None:
        """Takes bytes."""

    with pytest.raises(TypeError, match="bytes"):
        command.run(takes_bytes, [])


def test_a_step_that_is_asked_to_end_can_be_tried_again(capsys: Any) -> None:
    def wait() -> None:
        """Waits."""
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)  # who asks twice does not disturb what ends
            called.append(())

    assert leave(wait) == 75
    assert called == [()]
    assert "SIGTERM came before the step was done; do it again." in capsys.readouterr().err


# A step that is asked to end when it is done and its process takes its time to leave.
DONE = """
import atexit, os, signal
from components import command
def step() -> None:
    "Does nothing."
atexit.register(lambda: os.kill(os.getpid(), signal.SIGTERM))
command.run(step, [])
"""


def test_a_step_that_is_done_stays_done() -> None:
    assert subprocess.run([sys.executable, "-c", DONE], check=False).returncode == 0
