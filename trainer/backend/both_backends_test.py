"""What `train_step_test.py` says holds on either backend, with one device and with two."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_train_steps_on_two_devices(backend: str) -> None:
    environment = {
        **os.environ,
        "KERAS_BACKEND": backend,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "DEVICES_OF_TEST": "2",
    }
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "trainer/backend/train_step_test.py"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-5000:]
