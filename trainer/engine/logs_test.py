import os
import signal
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.util.event_pb2 import Event, SessionLog

from trainer.engine import logs as logs_module
from trainer.engine.logs import VERTEX_LOGS, Logs
from trainer.engine.strip import grid


@pytest.fixture(autouse=True)
def not_on_vertex(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VERTEX_LOGS, raising=False)


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*tfevents*"))


def events(path: Path) -> list[Event]:
    """The events of a file, each with its checksums verified, up to one that was cut off."""
    data, found = path.read_bytes(), []
    while len(data) >= 12:
        (length,) = struct.unpack("Q", data[:8])
        if len(data) < 16 + length:
            break
        found.append(length)
        data = data[16 + length :]
    whole = path.read_bytes()[: sum(length + 16 for length in found)]
    copy = path.with_suffix(".whole")
    copy.write_bytes(whole)
    records = [r.numpy() for r in tf.data.TFRecordDataset(str(copy))]
    copy.unlink()
    return [Event.FromString(record) for record in records]


def shown(folder: Path) -> dict[str, dict[int, Any]]:
    """What TensorBoard shows of a folder: tag -> step -> value, restarts taken into account."""
    values: dict[str, dict[int, Any]] = {}
    for path in files(folder):
        first, *others = events(path)
        assert first.file_version == "brain.Event:2"
        for event in others:
            if event.session_log.status == SessionLog.START:
                for steps in values.values():
                    for step in [step for step in steps if step >= event.step]:
                        del steps[step]
            for value in event.summary.value:
                kind = value.WhichOneof("value")
                assert kind in ("simple_value", "image")
                values.setdefault(value.tag, {})[event.step] = getattr(value, kind)
    return values


def test_scalars_and_pictures_are_read_back(tmp_path: Path) -> None:
    pictures = np.random.default_rng(0).random((3, 4, 4, 3), np.float32)
    with Logs(tmp_path / "logs") as logs:
        logs.scalars(20, {"generator_loss": 0.5, "input_share": 0.25})
        logs.scalars(40, {"generator_loss": 0.25})
        logs.pictures(40, {"Fakes": pictures})
    assert len(files(tmp_path / "logs")) == 1
    values = shown(tmp_path / "logs")
    assert values["generator_loss"] == {20: 0.5, 40: 0.25}
    assert values["input_share"] == {20: 0.25}
    image = values["samples/Fakes"][40]
    assert (image.height, image.width, image.colorspace) == (10, 10, 3)
    pixels = tf.image.decode_png(image.encoded_image_string).numpy()
    np.testing.assert_array_equal(pixels, grid(pictures))


def test_nowhere_means_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Logs(None) as logs:
        logs.scalars(1, {"loss": 1.0})
        logs.pictures(1, {"Fakes": "no pictures"})
        logs.flush()
    assert list(tmp_path.iterdir()) == []


def test_vertex_ai_gets_them_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VERTEX_LOGS, str(tmp_path / "watched"))
    with Logs(tmp_path / "logs") as logs:
        logs.scalars(1, {"loss": 1.0})
    assert shown(tmp_path / "watched") == shown(tmp_path / "logs") == {"loss": {1: 1.0}}
    with Logs(None) as logs:
        logs.scalars(2, {"loss": 0.5})
    assert shown(tmp_path / "watched") == {"loss": {1: 1.0, 2: 0.5}}
    monkeypatch.setenv(VERTEX_LOGS, "gs://bucket/run/logs")
    assert [str(f.folder) for f in Logs(None)._files] == ["/gcs/bucket/run/logs"]


def test_what_is_in_memory_is_written_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs = Logs(tmp_path)
    logs.scalars(1, {"loss": 1.0})
    assert files(tmp_path) == []
    monkeypatch.setattr(logs_module, "FLUSH_SECONDS", 0.0)
    logs.scalars(2, {"loss": 0.5})
    assert shown(tmp_path) == {"loss": {1: 1.0, 2: 0.5}}
    logs.close()
    logs.close()
    assert len(files(tmp_path)) == 1


KILLED = """
import os, signal, sys
from trainer.engine.logs import Logs
logs = Logs(sys.argv[1])
for step in range(1, 31):
    logs.scalars(step, {"loss": float(step)})
    if step == 20:
        logs.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_process_leaves_what_was_flushed_and_the_next_goes_on(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert shown(tmp_path) == {"loss": {step: float(step) for step in range(1, 21)}}
    # What the machine lost of the file's end does not matter either.
    (path,) = files(tmp_path)
    os.truncate(path, path.stat().st_size - 5)
    assert set(shown(tmp_path)["loss"]) == set(range(1, 20))
    with Logs(tmp_path) as logs:
        for step in range(11, 16):  # it goes on from the checkpoint of step 10
            logs.scalars(step, {"loss": -float(step)})
    assert len(files(tmp_path)) == 2
    wanted = {step: float(step if step <= 10 else -step) for step in range(1, 16)}
    assert shown(tmp_path) == {"loss": wanted}


def test_a_large_file_is_followed_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs_module, "LARGEST_FILE", 100)
    monkeypatch.setattr(logs_module, "FLUSH_SECONDS", 0.0)
    with Logs(tmp_path) as logs:
        for step in range(10):
            logs.scalars(step, {"a_long_name_of_a_loss": float(step)})
    assert len(files(tmp_path)) > 2
    assert shown(tmp_path) == {"a_long_name_of_a_loss": {step: float(step) for step in range(10)}}


def test_a_folder_that_cannot_be_written_ends_no_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "logs"
    folder.write_text("in the way")
    with Logs(folder) as logs:
        for step in (1, 2):
            logs.scalars(step, {"loss": float(step)})
            logs.flush()
        told = capsys.readouterr().err
        assert told.startswith(f"warning: The logs cannot be written to {str(folder)!r} (")
        assert told.count("\n") == 1
        folder.unlink()
        logs.scalars(3, {"loss": 3.0})
    assert shown(folder) == {"loss": {1: 1.0, 2: 2.0, 3: 3.0}}
    assert capsys.readouterr().err == ""


def test_tensorboardx_is_imported_only_when_used() -> None:
    code = "import sys, trainer.engine.logs; assert 'tensorboardX' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
