"""The training that every contestant of `make bench` does, and how it is asked to: no framework."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

BATCH_SIZE, IMAGE_SIZE, CLASSES = 32, 128, 1000
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 0.025, 0.9, 5e-5  # pycls: 0.8 per 1024; Nesterov
PARAMETERS = 3_162_996  # RegNetY-200MF, pycls: dev/model_complexity.json
THREADS = 2


def answer(name: str, train: Callable[[int], None]) -> None:
    """Says who is ready; then, for each number on standard input, trains and prints the seconds.

    Args:
        name: framework and version.
        train: takes that many training steps and returns when the last one has ended.
    """
    print(name, flush=True)
    for line in sys.stdin:
        began = time.perf_counter()
        train(int(line))
        print(time.perf_counter() - began, flush=True)
