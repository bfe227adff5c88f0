"""A container of ours as worker, in place of whose engine stands a script that starts processes."""

import sys
from pathlib import Path

import pytest
from apache_beam.portability.api import beam_provision_api_pb2, beam_runner_api_pb2

from components.images import DATA
from components.preprocess import worker
from components.preprocess.preprocess import preprocess
from trainer.data.image_folder.sample import write_sample

SETTINGS = {"image_size": 8}
DOCKER = """#!/bin/sh
# What Beam's runner asks of Docker, with processes in place of containers.
echo "$@" >>"{log}"
case "$1" in
run)
    while [ "${{1#paper2hub}}" = "$1" ]; do shift; done  # up to the image
    shift
    {python} -m components.preprocess.worker "$@" >"{log}.worker" 2>&1 &
    echo $! ;;
inspect) if kill -0 "$4" 2>/dev/null; then echo running; else echo exited; fi ;;
kill) kill "$2" ;;
esac
"""


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.slow
def test_our_image_is_a_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from components.create_tfrecords.create_tfrecords import create_tfrecords

    write_sample(tmp_path / "data")
    examples = str(tmp_path / "examples")
    create_tfrecords(examples, str(tmp_path / "data"), shards=2)
    log = tmp_path / "docker.log"
    docker = tmp_path / "bin" / "docker"
    docker.parent.mkdir()
    docker.write_text(DOCKER.format(log=log, python=sys.executable), encoding="utf-8")
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", str(docker.parent), prepend=":")
    for name, options in (
        ("there", "--runner=PortableRunner --job_endpoint=embed"),
        ("here", "--runner=FnApiRunner"),
    ):
        folders = [str(tmp_path / name / output) for output in ("examples", "graph")]
        preprocess("regnety", examples, *folders, SETTINGS, options)
    assert contents(tmp_path / "there") == contents(tmp_path / "here")
    started = [line for line in log.read_text().splitlines() if line.startswith("run ")]
    assert len(started) == 1
    assert f" {DATA} --id=" in started[0]


def info(**fields: object) -> beam_provision_api_pb2.ProvisionInfo:
    return beam_provision_api_pb2.ProvisionInfo(**fields)


def flags(*more: str) -> list[str]:
    return ["--id=7", "--provision_endpoint=host:1", *more]


def test_the_runner_knows_better_than_the_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[tuple[dict[str, str], str]] = []
    monkeypatch.setattr(worker, "_work", lambda common, name: found.append((common, name)) or 0)
    told = info(runner_capabilities=["a", "b"], sibling_worker_ids=["8", "9"])
    told.control_endpoint.url = "control:2"
    told.pipeline_options.update({"beam:option:job_name:v1": "x"})
    monkeypatch.setattr(worker, "provision_info", lambda endpoint, identity: told)
    with pytest.raises(SystemExit) as left:
        worker.main(flags("--control_endpoint=flag:3", "--logging_endpoint=flag:4", "--new=5"))
    assert left.value.code == 0
    assert sorted(name for _, name in found) == ["7", "8", "9"]
    common = found[0][0]
    assert common["CONTROL_API_SERVICE_DESCRIPTOR"] == 'url: "control:2"\n'
    assert common["LOGGING_API_SERVICE_DESCRIPTOR"] == 'url: "flag:4"\n'
    assert "STATUS_API_SERVICE_DESCRIPTOR" not in common
    assert common["RUNNER_CAPABILITIES"] == "a b"


def test_what_is_not_in_the_image_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told = info()
    for name in ("submission_environment_dependencies.txt", "mine-1.0.tar.gz"):
        role = beam_runner_api_pb2.ArtifactStagingToRolePayload(staged_name=name)
        told.dependencies.add(role_payload=role.SerializeToString())
    monkeypatch.setattr(worker, "provision_info", lambda endpoint, identity: told)
    with pytest.raises(SystemExit, match=r"the pipeline brings mine-1\.0\.tar\.gz\. Add it to"):
        worker.main(flags())


@pytest.mark.parametrize(("ending", "times", "code"), [("0", 1, 0), ("3", worker.ATTEMPTS, 3)])
def test_a_worker_that_ends_badly_is_begun_again(
    ending: str, times: int, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "ending.py"
    module.write_text(
        "import os, pathlib, sys\n"
        f"open({str(tmp_path / 'log')!r}, 'a').write(os.environ['WORKER_ID'])\n"
        f"sys.exit({ending})\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(worker, "_WORKER", "ending")
    assert worker._work({}, "7") == code
    assert (tmp_path / "log").read_text() == "7" * times
