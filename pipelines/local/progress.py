"""Reads how far a running task is, from the file that its step keeps."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_KEYS = {"done", "total", "unit", "per_second", "seconds_left", "figures"}


def read_progress(path: Path) -> Mapping[str, Any] | None:
    """The newest state that a step has told; None where it has told none.

    What it holds is written by `trainer.progress.Progress`.
    """
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return state if isinstance(state, dict) and set(state) >= _KEYS else None
