"""Runs create_tfrecords again and again in one process: a line of JSON in, a line of JSON out.

    python -m tests.fuzz.runner

Whoever starts it sees a crash as the end of the process, and a hang as a line that does not come.
"""

from __future__ import annotations

import contextlib
import io
import json
import resource
import sys
import time
import traceback
from pathlib import Path

from components.create_tfrecords.create_tfrecords import create_tfrecords
from trainer.errors import UserError

MEMORY = 4 * 2**30
"""Bytes of address space: what asks for more than this for a small file must be told."""


def main() -> None:
    """Takes jobs until there are no more."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    answers = sys.stdout
    for line in sys.stdin:
        arguments = json.loads(line)
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew: proc(5)
        began = time.monotonic()
        outcome, message = "finished", ""
        with (
            contextlib.redirect_stdout(io.StringIO()) as printed,
            contextlib.redirect_stderr(io.StringIO()),
        ):
            try:
                create_tfrecords(**arguments)
            except UserError as error:
                outcome, message = "refused", str(error)
            except BaseException:
                outcome, message = "failed", traceback.format_exc()
        answer = {
            "outcome": outcome,
            "message": message,
            "printed": printed.getvalue(),
            "seconds": time.monotonic() - began,
            "peak": _peak(),
        }
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _peak() -> int:
    """Most memory that this process has had, in bytes."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main()
