"""The Docker launcher against a real daemon: what containers see, how they end, what is left."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import docker
import pytest
import yaml

from components.images import DATA
from pipelines.local.containers import Containers, Options
from pipelines.local.reaper import RUN_LABEL
from pipelines.local.record import read_run
from pipelines.local.run import Options as RunOptions
from pipelines.local.run import resume_run, run_pipeline
from trainer.errors import UserError

pytestmark = pytest.mark.docker


class Silence:
    def show(self, run):
        assert run.tasks is not None


@pytest.fixture(scope="module")
def client():
    """A client of the daemon; skips where there is none, or no image."""
    try:
        found = docker.from_env()
        found.images.get(DATA)
    except docker.errors.ImageNotFound:
        pytest.skip(f"{DATA} has not been built here; run `make images`")
    except docker.errors.DockerException as error:
        pytest.skip(f"no Docker daemon answers here: {error}")
    yield found
    found.close()


@pytest.fixture
def in_docker(compiled, client):
    """The text of a pipeline, its tasks in containers of our own image."""

    def make(parameters=None, **tasks):
        spec = yaml.safe_load(compiled(parameters, **tasks))
        for executor in spec["deploymentSpec"]["executors"].values():
            executor["container"]["image"] = DATA
            command = executor["container"]["command"]
            executor["container"]["command"] = [
                "python3" if word == sys.executable else word for word in command
            ]
        return spec

    return make


@pytest.fixture
def run(tmp_path):
    def start(spec, parameters=None, docker_options=None, **options):
        return run_pipeline(
            yaml.safe_dump(spec),
            parameters or {},
            tmp_path / "runs",
            Silence(),
            RunOptions(**{"jobs": 4, **options}),
            Containers(docker_options or Options()),
        )

    return start


def left(client, folder):
    ours = {"label": f"{RUN_LABEL}={Path(folder).name}"}
    return client.containers.list(all=True, filters=ours, ignore_removed=True)


def wait_for(found, seconds=60.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = found()
        if value:
            return value
        time.sleep(0.05)
    raise TimeoutError


LOOK = """
import os, pathlib, sys
own, data, given = sys.argv[1:4]
print(os.getuid(), os.getgid(), os.environ['HOME'], os.getcwd())
print(pathlib.Path(data, 'x').read_text(), pathlib.Path(given).read_text())
for place in (data, given, '/etc'):
    try:
        (pathlib.Path(place) / 'new' if os.path.isdir(place) else open(place, 'a')).touch()
        print('wrote', place)
    except OSError:
        pass
pathlib.Path(own).write_text('mine')
"""


def test_a_container_sees_its_inputs_and_writes_to_its_own_folder(
    run, in_docker, container, tmp_path
):
    data = tmp_path / "data"
    data.mkdir()
    (data / "x").write_text("from the data")
    give = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_text('given')"
    spec = in_docker(
        {"data": ""},
        give=container(give, "{{$.outputs.artifacts['page'].path}}", artifacts=["page"]),
        look=container(
            LOOK,
            "{{$.outputs.artifacts['own'].path}}",
            "{{$.inputs.parameters['data']}}",
            "{{$.inputs.artifacts['page'].path}}",
            inputs={"page": "give/page", "data": "pipeline:data"},
            artifacts=["own"],
        ),
    )
    user = "1234:1234"
    (tmp_path / "runs").mkdir()
    own_user = run(spec, {"data": str(data)})
    assert own_user.status == "succeeded", own_user.log("look").read_text()
    lines = own_user.log("look").read_text().splitlines()
    work = own_user.task_folder("look") / "work"
    assert lines[0] == f"{os.getuid()} {os.getgid()} /tmp {work}"
    assert lines[1] == "from the data given"
    assert not [line for line in lines if line.startswith("wrote /") and line != "wrote /etc"]
    assert own_user.artifact("own").stat().st_uid == os.getuid()
    other = run(spec, {"data": str(data)}, Options(user=user))
    # Somebody else may not write where the runs are ours alone, and is told so.
    assert other.status == "failed"


def test_variables_mounts_and_the_network_are_as_asked(run, in_docker, container, tmp_path):
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "y").write_text("mounted")
    script = (
        "import os, pathlib; print(os.environ['TOKEN'][::-1], pathlib.Path('/more/y').read_text(),"
        " sorted(os.listdir('/sys/class/net')))"
    )
    record = run(
        in_docker(a=container(script)),
        docker_options=Options(network="none", mounts=((tmp_path / "more", "/more"),)),
        variables={"TOKEN": "secret"},
    )
    assert record.log("a").read_text() == "terces mounted ['lo']\n"


def test_limits_are_those_of_the_pipeline(run, in_docker, container):
    spec = in_docker(
        a=container("data = b'x' * 400_000_000; print(len(data))"),
        b=container("print(open('/sys/fs/cgroup/cpu/cpu.cfs_quota_us').read())"),
    )
    limits = {"a": {"resourceMemoryLimit": "64M"}, "b": {"resourceCpuLimit": "500m"}}
    for name, resources in limits.items():
        spec["deploymentSpec"]["executors"][f"exec-{name}"]["container"]["resources"] = resources
    spec["deploymentSpec"]["executors"]["exec-b"]["container"]["command"] = [
        "sh",
        "-c",
        "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null || cat /sys/fs/cgroup/cpu.max",
    ]
    record = run(spec)
    assert (record.tasks["a"].status, record.tasks["a"].exit_code) == ("failed", 137)
    assert "memory" in record.tasks["a"].reason
    assert record.log("b").read_text().split()[0] == "50000"


def test_the_image_s_own_command_is_used_where_there_is_none(run, in_docker, container):
    spec = in_docker(a=container(""))
    spec["deploymentSpec"]["executors"]["exec-a"]["container"]["command"] = []
    record = run(spec)
    assert record.status == "succeeded"
    assert "usage: python -m components.preprocess" in record.log("a").read_text()


def test_an_image_that_is_nowhere_is_refused_before_anything_starts(
    run, in_docker, container, tmp_path
):
    spec = in_docker(a=container(""))
    spec["deploymentSpec"]["executors"]["exec-a"]["container"]["image"] = "paper2hub/no-such:1"
    with pytest.raises(UserError, match=r"image paper2hub/no-such:1 of a must be here"):
        run(spec)
    assert not (tmp_path / "runs").exists()


def test_every_exit_code_is_told_as_it_was(run, in_docker, container, client):
    codes = [0, 1, 0, 2, 75, 137] * 10
    random.Random(0).shuffle(codes)  # noqa: S311
    spec = in_docker(
        **{
            f"t{i}": {**container(""), "command": ["sh", "-c", f"exit {c}"]}
            for i, c in enumerate(codes)
        }
    )
    record = run(spec, jobs=8)
    assert [record.tasks[f"t{i}"].exit_code for i in range(len(codes))] == codes
    assert left(client, record.folder) == []


def test_a_rebuilt_image_is_another_image(run, in_docker, container, client):
    name = "paper2hub/cache-test"
    spec = in_docker(a=container("print(1)"))
    spec["root"]["dag"]["tasks"]["a"]["cachingOptions"] = {"enableCache": True}
    spec["deploymentSpec"]["executors"]["exec-a"]["container"]["image"] = name
    first = client.containers.create(DATA, "true")
    second = client.containers.create(DATA, "true", environment={"REBUILT": "1"})
    try:
        first.commit(name, "latest")
        assert [run(spec).tasks["a"].status for _ in range(2)] == ["succeeded", "cached"]
        second.commit(name, "latest", changes="ENV REBUILT=1")
        assert run(spec).tasks["a"].status == "succeeded"
    finally:
        for each in (first, second):
            each.remove(force=True)
        with contextlib.suppress(docker.errors.APIError):
            client.images.remove(name, force=True)


ENGINE = """
import sys
from pipelines.local.containers import Containers
from pipelines.local.containers_test import Silence
from pipelines.local.run import Options, run_pipeline
text = open(sys.argv[1]).read()
record = run_pipeline(text, {}, sys.argv[2], Silence(), Options(jobs=4), Containers())
sys.exit(record.exit_code)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_container_outlives_the_engine_and_the_run_goes_on(
    in_docker, container, client, tmp_path, number
):
    # Even one that does not listen.
    stubborn = (
        "import pathlib, signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "go = pathlib.Path(sys.argv[1]); first = not go.exists(); print('here', flush=True)\n"
        "while first: time.sleep(0.1)"
    )
    go = tmp_path / "go"
    file = tmp_path / "pipeline.yaml"
    file.write_text(yaml.safe_dump(in_docker(a=container(stubborn, str(go)), b=container(""))))
    command = [sys.executable, "-c", ENGINE, str(file), str(tmp_path / "runs")]
    with subprocess.Popen(command) as engine:
        log = wait_for(lambda: next(iter(tmp_path.glob("runs/*/tasks/a/log.txt")), None))
        wait_for(log.read_text)
        engine.send_signal(number)
        assert engine.wait(60) in (130, -9)
    folder = log.parents[2]
    wait_for(lambda: not left(client, folder))
    assert read_run(folder).status == ("interrupted" if number == signal.SIGINT else "running")
    go.touch()
    record = resume_run(folder, Silence(), launcher=Containers())
    assert record.status == "succeeded"
    assert left(client, folder) == []
