"""Importing TensorFlow in two thirds of the time and in silence (standard library only)."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import tempfile
from collections.abc import Iterator


def begin() -> None:
    """To be called before TensorFlow is imported, directly or not.

    An import makes a million objects that stay, and the garbage collector would look through them
    again and again; it rests until `end`.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    gc.disable()


def end() -> None:
    """To be called when all is imported: from here on the collector looks at what is new."""
    gc.freeze()
    gc.enable()


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Holds back what is written to standard error, and lets it out only if something is raised.

    TensorFlow tells of the processor and of missing GPUs whatever the log level; a person who waits
    for one line should not have to look for it among these.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            sys.stderr.flush()
            held.seek(0)
            os.write(kept, held.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
