"""What a training measures, as event files that TensorBoard shows while it runs."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from trainer.engine.strip import encode, grid

VERTEX_LOGS = "AIP_TENSORBOARD_LOG_DIR"
"""Environment variable in which Vertex AI names the folder that its TensorBoard watches
(https://cloud.google.com/vertex-ai/docs/training/code-requirements)."""

FLUSH_SECONDS = 20.0
"""Longest time that what was measured is in memory only (ours)."""

LARGEST_FILE = 8 * 2**20
"""Bytes after which the next file begins (ours): where the folder is a mounted bucket, each flush
writes the whole file anew."""

_MOST_WAITING = 10_000
"""Events kept in memory while the folder cannot be written (ours)."""


class Logs:
    """Writes scalars and pictures for TensorBoard; a context manager.

    A training that goes on writes a new file, whose first step takes the place of what an earlier
    attempt wrote from there on. A folder that cannot be written is told of once and tried again
    later: no training ends for the sake of its logs.

    Args:
        folder: where the event files go; None for nowhere. On Vertex AI they go to the folder that
            its TensorBoard watches as well.
    """

    def __init__(self, folder: str | Path | None):
        watched = os.environ.get(VERTEX_LOGS, "")
        # Vertex AI mounts every bucket there.
        folders = (folder, re.sub("^gs://", "/gcs/", watched))
        self._files = [_EventFiles(Path(path)) for path in folders if path]
        self._flushed = time.monotonic()

    def __enter__(self) -> Logs:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def scalars(self, step: int, numbers: Mapping[str, float]) -> None:
        """Logs named numbers; a slash in a name groups it.

        Args:
            step: steps taken when they were measured.
            numbers: name -> value.
        """
        if self._files:
            self._add(step, [{"tag": k, "simple_value": float(v)} for k, v in numbers.items()])

    def pictures(self, step: int, pictures: Mapping[str, Any]) -> None:
        """Logs a grid per title, and writes all that is waiting.

        Args:
            step: steps taken when they were drawn.
            pictures: title -> [n, height, width, 1 or 3] in [0, 1].
        """
        if not self._files:
            return
        values = []
        for title, images in pictures.items():
            pixels = grid(images)
            height, width, channels = pixels.shape
            image = {
                "height": height,
                "width": width,
                "colorspace": channels,
                "encoded_image_string": encode(pixels, title),
            }
            values.append({"tag": f"samples/{title}", "image": image})
        self._add(step, values)
        self.flush()

    def flush(self) -> None:
        """Writes what is in memory, down to the disk."""
        self._flushed = time.monotonic()
        for files in self._files:
            files.flush()

    def close(self) -> None:
        """Writes what is in memory and closes the files."""
        for files in self._files:
            files.close()

    def _add(self, step: int, values: list[dict[str, Any]]) -> None:
        now = time.time()
        for files in self._files:
            files.add(step, now, values)
        if time.monotonic() - self._flushed >= FLUSH_SECONDS:
            self.flush()


class _EventFiles:
    """The event files of one folder, each begun where the one before was full or broke off."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.waiting: list[bytes] = []
        self.writer: Any = None
        self.size = 0
        self.begun = False
        self.told = False

    def add(self, step: int, now: float, values: list[dict[str, Any]]) -> None:
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.proto.summary_pb2 import Summary

        if not self.begun:
            # TensorBoard forgets what earlier files have of this step and later ones.
            start = SessionLog(status=SessionLog.START)
            self._wait(Event(wall_time=now, step=step, session_log=start))
            self.begun = True
        summary = Summary(value=[Summary.Value(**value) for value in values])
        self._wait(Event(wall_time=now, step=step, summary=summary))

    def _wait(self, event: Any) -> None:
        self.waiting.append(event.SerializeToString())
        del self.waiting[:-_MOST_WAITING]

    def flush(self) -> None:
        if not self.waiting:
            return
        try:
            if self.writer is None:
                self._open()
            for event in self.waiting:
                self.writer.write(event)
                self.size += len(event)
            self.writer.flush()
        except OSError as error:
            self._drop()
            if not self.told:
                self.told = True
                print(
                    f"warning: The logs cannot be written to {str(self.folder)!r} ({error}); the "
                    "training goes on, and tries again.",
                    file=sys.stderr,
                    flush=True,
                )
            return
        self.waiting.clear()
        if self.size >= LARGEST_FILE:
            self._drop()

    def close(self) -> None:
        self.flush()
        self._drop()

    def _open(self) -> None:
        from tensorboardX import RecordWriter
        from tensorboardX.proto.event_pb2 import Event

        self.folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads files in the order of their names, and asks for the word in them.
        now = time.time_ns()
        self.writer = RecordWriter(str(self.folder / f"events.out.tfevents.{now}"))
        self.size = 0
        self.writer.write(
            Event(wall_time=now / 1e9, file_version="brain.Event:2").SerializeToString()
        )

    def _drop(self) -> None:
        writer, self.writer = self.writer, None
        if writer is not None:
            try:
                writer.close()
            except OSError:
                return
