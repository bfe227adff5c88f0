"""A model trains on two devices as it does on one, whichever the backend."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.conftest import Prepared, model_cases
from tests.distributed.devices import STEPS

MODELS = model_cases()
# One model in every run of the tests, the others with the slow ones.
SLOW = [pytest.param(case.values[0], marks=[pytest.mark.slow]) for case in MODELS[1:]]

TOLERANCE = 1e-4
"""Rounding errors in float32 after some steps."""


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
@pytest.mark.parametrize("model", [*MODELS[:1], *SLOW])
def test_two_devices_equal_one(
    model: str, backend: str, prepared: Callable[[str], Prepared]
) -> None:
    examples = prepared(model).transformed_examples
    done = subprocess.run(
        [sys.executable, "-m", "tests.distributed.devices", model, str(examples)],
        env={
            **os.environ,
            "KERAS_BACKEND": backend,
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = json.loads(done.stdout.splitlines()[-1])
    assert len(one) == len(two) == STEPS
    for ours, theirs in zip(one, two, strict=True):
        assert theirs == pytest.approx(ours, rel=TOLERANCE, abs=TOLERANCE)
