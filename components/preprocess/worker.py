"""Makes a container of our image a worker of a Beam pipeline.

    python -m components.preprocess.worker --id=1 --provision_endpoint=HOST:PORT [...]

Dataflow, and Flink and Spark through Beam's job servers, start the image of the workers with these
flags, as Beam's own images take them (their `/opt/apache/beam/boot`). The runner is asked what the
pipeline is about, and Beam's Python worker started with what it answers. Nothing is installed:
whatever the work needs is in the image.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

import grpc
from apache_beam.portability.api import (
    beam_provision_api_pb2,
    beam_provision_api_pb2_grpc,
    beam_runner_api_pb2,
    endpoints_pb2,
)
from google.protobuf import json_format, text_format

ATTEMPTS = 4
"""How often a worker process is started that ends badly, as in Beam's own images."""

_WORKER = "apache_beam.runners.worker.sdk_worker_main"
_LIST_OF_PACKAGES = "submission_environment_dependencies.txt"  # for people to read
_PATIENCE = 60.0  # seconds that a runner may take to answer (ours)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Works for a runner until it has had enough, and leaves with the worker's exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--id", required=True, help="name of the worker")
    parser.add_argument("--provision_endpoint", required=True, help="who knows of the pipeline")
    for name in ("control", "logging", "artifact"):
        parser.add_argument(f"--{name}_endpoint", default="", help="unless that knows better")
    parser.add_argument("--semi_persist_dir", default="", help="folder for temporary files")
    given, _ = parser.parse_known_args(arguments)  # runners may have more to say
    info = provision_info(given.provision_endpoint, given.id)
    unmet = [name for name in staged(info) if name != _LIST_OF_PACKAGES]
    if unmet:
        sys.exit(
            f"error: A worker of this image must need nothing that is not in it; the pipeline "
            f"brings {', '.join(unmet)}. Add it to the image, and leave out the option."
        )
    with tempfile.TemporaryDirectory() as folder:
        common = environment(info, given, Path(folder))
        identities = [given.id, *info.sibling_worker_ids]
        with ThreadPoolExecutor(len(identities)) as pool:
            codes = list(pool.map(lambda identity: _work(common, identity), identities))
    sys.exit(max(codes))


def provision_info(endpoint: str, identity: str) -> beam_provision_api_pb2.ProvisionInfo:
    """What a runner has to say to a worker of its pipeline."""
    with grpc.insecure_channel(endpoint) as channel:
        stub = beam_provision_api_pb2_grpc.ProvisionServiceStub(channel)
        return stub.GetProvisionInfo(
            beam_provision_api_pb2.GetProvisionInfoRequest(),
            metadata=[("worker_id", identity)],
            timeout=_PATIENCE,
            wait_for_ready=True,
        ).info


def staged(info: beam_provision_api_pb2.ProvisionInfo) -> list[str]:
    """Names of the files that the pipeline has brought along for its workers."""
    role = beam_runner_api_pb2.ArtifactStagingToRolePayload
    return [role.FromString(item.role_payload).staged_name for item in info.dependencies]


def environment(
    info: beam_provision_api_pb2.ProvisionInfo, given: argparse.Namespace, folder: Path
) -> dict[str, str]:
    """The environment variables by which Beam's worker knows what to do.

    Args:
        info: of the pipeline.
        given: the flags of the container, which hold where the runner leaves something open.
        folder: takes the pipeline's options, which may be too long for a variable.
    """
    options = folder / "options.json"
    options.write_text(json_format.MessageToJson(info.pipeline_options), encoding="utf-8")
    variables = {
        "PIPELINE_OPTIONS_FILE": str(options),
        "SEMI_PERSISTENT_DIRECTORY": given.semi_persist_dir or str(folder),
        "RUNNER_CAPABILITIES": " ".join(info.runner_capabilities),
    }
    for name, endpoint, flag in (
        ("CONTROL", info.control_endpoint, given.control_endpoint),
        ("LOGGING", info.logging_endpoint, given.logging_endpoint),
        ("STATUS", info.status_endpoint, ""),
    ):
        url = endpoint.url or flag
        if url:
            service = endpoints_pb2.ApiServiceDescriptor(url=url)
            variables[f"{name}_API_SERVICE_DESCRIPTOR"] = text_format.MessageToString(service)
    return variables


def _work(common: dict[str, str], identity: str) -> int:
    """Runs a worker process; begins it again if it ends badly, a few times."""
    code = 0
    for _ in range(ATTEMPTS):
        code = subprocess.run(
            [sys.executable, "-m", _WORKER], env={**os.environ, **common, "WORKER_ID": identity}
        ).returncode
        if code == 0:
            break
    return abs(code)


if __name__ == "__main__":
    main()
