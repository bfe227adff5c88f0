import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import (
    DebugOptions,
    GoogleCloudOptions,
    PortableOptions,
    SetupOptions,
    WorkerOptions,
)

from components.images import DATA
from components.preprocess.runners import (
    _end_workers,
    _increments,
    _run_in_processes,
    _shown,
    job_name,
    read_options,
    usable_processors,
)
from trainer.errors import TryAgain, UserError
from trainer.progress import Progress

DATAFLOW = "--runner=DataflowRunner --project=p --region=r --temp_location=gs://b/t"


def test_by_default_all_processors_of_this_process_are_used() -> None:
    for text in ("", "--runner=FnApiRunner", "--runner fnapirunner"):
        runner = read_options(text, "regnety")
        assert (runner.name, runner.in_process, runner.remote) == ("FnApiRunner", True, False)
        assert runner.threads == usable_processors()


def test_workers_share_the_processors() -> None:
    processors = usable_processors()
    text = f"--direct_running_mode=multi_processing --direct_num_workers={processors}"
    runner = read_options(text, "regnety")
    assert (runner.threads, runner.in_process) == (1, False)
    assert read_options("--direct_num_workers=0", "regnety").in_process


def test_dataflow_gets_what_it_needs() -> None:
    runner = read_options(DATAFLOW, "my_model")
    assert runner.remote
    assert runner.threads == 1  # it starts a process for each processor
    options = runner.options("job")
    assert options.view_as(WorkerOptions).sdk_container_image == DATA
    assert options.view_as(SetupOptions).sdk_location == "container"
    assert not options.view_as(SetupOptions).save_main_session
    assert options.view_as(DebugOptions).experiments == ["use_runner_v2"]
    cloud = options.view_as(GoogleCloudOptions)
    assert (cloud.job_name, cloud.labels) == ("job", ["step=preprocess", "model=my_model"])


def test_what_dataflow_is_given_is_kept() -> None:
    text = f"{DATAFLOW} --sdk_container_image=i --job_name=mine --sdk_location=s"
    options = read_options(text, "m").options("job")
    assert options.view_as(WorkerOptions).sdk_container_image == "i"
    assert options.view_as(SetupOptions).sdk_location == "s"
    assert options.view_as(GoogleCloudOptions).job_name == "mine"


def test_mounted_buckets_become_addresses() -> None:
    text = DATAFLOW.replace("gs://", "/gcs/") + " --staging_location /gcs/b/s"
    options = read_options(text, "m").options().view_as(GoogleCloudOptions)
    assert (options.temp_location, options.staging_location) == ("gs://b/t", "gs://b/s")


@pytest.mark.parametrize(
    ("text", "image"),
    [
        ("--runner=FlinkRunner --flink_master=host:8081 --parallelism=8", DATA),
        ("--runner=SparkRunner --spark_master_url=spark://host:7077", DATA),
        ("--runner=PortableRunner --job_endpoint=host:8099", DATA),
        ("--runner=PortableRunner --job_endpoint=host:8099 --environment_type=DOCKER", DATA),
        ("--runner=PortableRunner --job_endpoint=host:8099 --sdk_container_image=i", "i"),
        ("--runner=PortableRunner --job_endpoint=host:8099 --environment_config=i", "i"),
        ("--runner=PortableRunner --job_endpoint=h:1 --environment_type=LOOPBACK", None),
        # A job server has options that Beam asks it for.
        ("--runner=PortableRunner --job_endpoint=host:8099 --checkpointing_interval=9", DATA),
    ],
)
def test_flink_and_spark_get_our_image(text: str, image: str | None) -> None:
    runner = read_options(text, "regnety")
    assert (runner.remote, runner.in_process, runner.threads) == (True, False, 1)
    assert runner.options("job").view_as(PortableOptions).environment_config == image


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("--runner=DirectRunner", "must name one of the runners FnApiRunner, .*got 'DirectRunner'"),
        ("--runner=PrismRunner", "must name one of the runners .*got 'PrismRunner'"),
        ("--runner=PortableRunner", "must have --job_endpoint=HOST:PORT for PortableRunner"),
        ("--runner", r"must be options of Beam; .*expected one argument"),
        ("--direct_num_workers=two", "invalid int value: 'two'"),
        (
            "--direct_num_worker=2",
            r"got '--direct_num_worker=2'. Did you mean --direct_num_workers",
        ),
        ("--runner='FnApiRunner", r"as in a shell; got .*\(No closing quotation\)"),
        ("FnApiRunner", "must be options of Beam's FnApiRunner; got 'FnApiRunner'"),
        ("--runner=PortableRunner --job_endpoint=h:1 word", "got 'word'"),
        ("--streaming", r"run now, once and to its end; got --streaming\."),
        ("--help", "must be options of Beam; got .*--help'"),
    ],
)
def test_options_that_do_not_fit_are_told_in_a_line(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        read_options(text, "regnety")
    assert "\n" not in str(error.value)


def test_names_of_jobs_are_as_dataflow_wants_them() -> None:
    assert job_name("preprocess", "my_Model", "learn") == "preprocess-my-model-learn"
    assert job_name("a" * 62, "b", "c") == "a" * 62


def test_progress_is_shown_while_something_runs() -> None:
    progress = Progress(10, "examples")
    total = 0

    def look() -> int:
        nonlocal total
        total += 4
        return total

    with _shown(progress, _increments(look, 10), every=0.01):
        deadline = time.monotonic() + 10
        while progress.done < 10 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert progress.done == 10  # 4, 8, and no more than there are


class FailingPipeline:
    """Stands for a pipeline of Beam's whose worker process dies: `run` never returns."""

    def run(self) -> None:
        def worker() -> None:
            raise RuntimeError("Worker subprocess exited with return code -9")

        threading.Thread(target=worker, name="run_worker").start()
        threading.Event().wait()


def test_a_worker_that_dies_does_not_hang_the_step() -> None:
    with pytest.raises(TryAgain, match=r"A worker process died.*run the step again"):
        _run_in_processes(FailingPipeline())


def ended(pid: int) -> bool:
    """Whether a process has ended; nobody may have asked yet how."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_workers_that_are_left_are_ended() -> None:
    # As Beam starts them: a shell, and the worker below it.
    command = f"{sys.executable} -c 'import time; time.sleep(60)' sdk_worker_main; true"
    shell = subprocess.Popen(["sh", "-c", command])
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        children = Path(f"/proc/{shell.pid}/task/{shell.pid}/children")
        while not (found := children.read_text().split()):
            time.sleep(0.01)
        while b"sdk_worker_main" not in Path(f"/proc/{found[0]}/cmdline").read_bytes():
            time.sleep(0.01)
        _end_workers()
        assert shell.wait(10) == -signal.SIGKILL
        deadline = time.monotonic() + 10
        while not ended(int(found[0])):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert other.poll() is None
    finally:
        other.communicate()


def test_an_error_of_a_pipeline_in_processes_is_raised() -> None:
    class Pipeline:
        def run(self) -> None:
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        _run_in_processes(Pipeline())


def test_beam_fetches_no_program() -> None:
    """DirectRunner would: it is not what runs by default."""
    pipeline = beam.Pipeline(options=read_options("", "regnety").options())
    assert type(pipeline.runner).__name__ == "FnApiRunner"
