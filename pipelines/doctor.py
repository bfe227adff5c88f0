"""Finds out what this machine can run, and names the command that mends what is missing."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

GIB = 1024**3
_MEMORY_GIB = 4  # ours: the autoencoder's steps stay below
_DISK_GIB = 10  # ours: the environment takes 3.2 GB, a run of CIFAR-10 about 1
_WHEEL_GLIBC = (2, 28)  # TF Transform's wheels are manylinux_2_28
_TFX_GLIBC = (2, 39)  # wheels of TFDV and ml-metadata 1.21 are manylinux_2_39


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: what it is.
        ok: whether it is as it should be.
        detail: what was found.
        needed_for: what does not work without it.
        mend: the command that mends it; empty where nothing has to be mended.
    """

    name: str
    ok: bool
    detail: str
    needed_for: str
    mend: str = ""


def examine() -> list[Finding]:
    """All findings about this machine; imports nothing heavy and reaches no network."""
    checks: list[Callable[[], Finding]] = [
        _python,
        _glibc,
        _memory,
        _disk,
        lambda: _package("TensorFlow", "tensorflow", "training and evaluation"),
        lambda: _package("TF Transform", "tensorflow_transform", "preprocess"),
        lambda: _package("Beam", "apache_beam", "preprocess"),
        lambda: _program("make", "make setup, make demo", "sudo apt-get install -y make"),
        lambda: _program("docker", "containers", "sudo apt-get install -y docker.io"),
        _docker_daemon,
        lambda: _program("gcloud", "Vertex AI", "curl -fsSL https://sdk.cloud.google.com | bash"),
        _google_credentials,
        _tfx,
    ]
    return [check() for check in checks]


def _finding(name: str, ok: bool, detail: str, needed_for: str, mend: str) -> Finding:
    return Finding(name, ok, detail, needed_for, "" if ok else mend)


def _python() -> Finding:
    ok = sys.version_info[:2] == (3, 11)  # what requirements/ is resolved for
    return _finding(
        "Python 3.11", ok, platform.python_version(), "everything", "uv python install 3.11"
    )


def _glibc_version() -> tuple[int, ...]:
    """Version of the C library; empty where it is not glibc."""
    name, version = platform.libc_ver()
    return tuple(int(part) for part in version.split(".")) if name == "glibc" else ()


def _glibc() -> Finding:
    version = _glibc_version()
    return _finding(
        "glibc",
        version >= _WHEEL_GLIBC,
        _dotted(version) or "another C library",
        "preprocess",
        "docker run -it --rm -v $PWD:$PWD -w $PWD python:3.11-bookworm bash",
    )


def _memory() -> Finding:
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    return _finding(
        "memory",
        gib >= _MEMORY_GIB,
        f"{gib:.1f} GiB, {_MEMORY_GIB} needed",
        "training",
        "sudo fallocate -l 4G /swapfile && sudo chmod 600 /swapfile && "
        "sudo mkswap /swapfile && sudo swapon /swapfile",
    )


def _disk() -> Finding:
    gib = shutil.disk_usage(Path.cwd()).free / GIB
    return _finding(
        "disk",
        gib >= _DISK_GIB,
        f"{gib:.1f} GiB free here, {_DISK_GIB} needed",
        "runs",
        "du -sh runs/* | sort -h",
    )


def _package(name: str, module: str, needed_for: str) -> Finding:
    version = _version(module)
    return _finding(name, bool(version), version or "not installed", needed_for, "make setup")


def _version(module: str) -> str:
    """Version of an installed package; empty where its module cannot be found."""
    if importlib.util.find_spec(module) is None:
        return ""
    try:
        return importlib.metadata.version(module.replace("_", "-"))
    except importlib.metadata.PackageNotFoundError:
        return "version unknown"


def _program(name: str, needed_for: str, mend: str) -> Finding:
    path = shutil.which(name)
    return _finding(name, path is not None, path or "not found", needed_for, mend)


def _docker_daemon() -> Finding:
    version = ""
    if shutil.which("docker"):
        command = ["docker", "info", "--format", "{{.ServerVersion}}"]
        try:
            asked = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
        except (OSError, subprocess.TimeoutExpired):
            pass
        else:
            version = asked.stdout.strip() if asked.returncode == 0 else ""
    return _finding(
        "Docker daemon",
        bool(version),
        version or "does not answer",
        "containers",
        "sudo systemctl start docker && sudo usermod -aG docker $USER",
    )


def _google_credentials() -> Finding:
    named = os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")
    configuration = os.environ.get("CLOUDSDK_CONFIG", str(Path.home() / ".config" / "gcloud"))
    file = Path(named or Path(configuration) / "application_default_credentials.json")
    return _finding(
        "Google credentials",
        file.is_file(),
        str(file) if file.is_file() else f"no {file}",
        "Vertex AI",
        "gcloud auth application-default login",
    )


def _tfx() -> Finding:
    version, glibc = _version("tfx"), _glibc_version()
    if version or glibc >= _TFX_GLIBC:
        detail, mend = version or "not installed", "pip install tfx==1.21.0"
    else:
        detail = f"needs glibc {_dotted(_TFX_GLIBC)}, here is {_dotted(glibc) or 'none'}"
        mend = "make images; docker run -it --rm -v $PWD:$PWD -w $PWD paper2hub/data bash"
    return _finding("TFX", bool(version), detail, "TFX components only", mend)


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
