"""Serves a cloud until SIGTERM or Ctrl-C: `python -m tests.cloud --folder F [--port P]`."""

from __future__ import annotations

import argparse
import json
import os
import signal
import threading

from tests.cloud.cloud import Cloud


def main() -> None:
    """Prints one line of JSON, the address and the environment to set, and serves."""
    parser = argparse.ArgumentParser(prog="python -m tests.cloud", description=__doc__)
    parser.add_argument("--folder", required=True, help="takes buckets, runs and keys")
    parser.add_argument("--port", type=int, default=0, help="0 for any")
    parser.add_argument("--workers", type=int, default=2, help="how many jobs run at once")
    parser.add_argument("--execute", choices=("run", "instant", "hold"), default="run")
    parser.add_argument("--launcher", choices=("subprocess", "docker"), default="subprocess")
    asked = parser.parse_args()
    over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: over.set())
    with Cloud(
        asked.folder, port=asked.port, workers=asked.workers, execute=asked.execute
    ) as cloud:
        cloud.execution.launcher = asked.launcher
        environment = cloud.environment()
        os.environ.update(environment)  # for the steps
        told = {"url": cloud.url, "folder": str(cloud.folder), "environment": environment}
        print(json.dumps(told), flush=True)
        over.wait()


if __name__ == "__main__":
    main()
