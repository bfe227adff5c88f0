"""Where Beam runs the work: its options read and completed, and the end of a pipeline awaited."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import difflib
import os
import re
import shlex
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import apache_beam as beam
from apache_beam.metrics.metric import MetricsFilter
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.runner import PipelineState

from components.images import DATA
from components.preprocess.shards import COUNTERS, TALLY
from components.preprocess.storage import in_the_cloud
from trainer.errors import TryAgain, UserError
from trainer.progress import Progress

LOCAL = "FnApiRunner"
DATAFLOW = "DataflowRunner"
WITH_JOB_SERVERS = ("PortableRunner", "FlinkRunner", "SparkRunner")
RUNNERS = (LOCAL, DATAFLOW, *WITH_JOB_SERVERS)
"""The runners that may be named. DirectRunner and PrismRunner are left out: they fetch a program
from the internet, or run something else where they cannot."""

_NOT_FOR_US = ("dry_run", "streaming", "template_location", "update")

_SHOWN_EVERY = {LOCAL: 0.25, DATAFLOW: 15.0}  # seconds between two looks at the counters (ours)
_SHOWN_EVERY_ELSEWHERE = 2.0


@dataclasses.dataclass(frozen=True)
class Runner:
    """Where the work is done.

    Attributes:
        name: one of `RUNNERS`.
        flags: the options of the Beam pipeline, completed.
        threads: how many batches each worker process is to work on at once.
        in_process: whether the work is done in this process.
    """

    name: str
    flags: tuple[str, ...]
    threads: int
    in_process: bool

    @property
    def remote(self) -> bool:
        """Whether workers are elsewhere and may see buckets, but none of this machine's mounts."""
        return self.name != LOCAL

    def options(self, job: str = "") -> PipelineOptions:
        """The options of a pipeline.

        Args:
            job: name of the job, for runners that list jobs.
        """
        named = [f"--job_name={job}"] if self.remote and job and not self._has_job_name else []
        return PipelineOptions([*self.flags, *named])

    @property
    def _has_job_name(self) -> bool:
        return any(re.match(r"--job_name(=|$)", flag) for flag in self.flags)


def read_options(text: str, model: str) -> Runner:
    """Reads the options of a Beam pipeline and fills in what they leave open.

    Args:
        text: options as in a shell, such as `--runner=DataflowRunner --project=p`.
        model: name of the model, for labels.

    Raises:
        UserError: an option is unknown or malformed, or one is missing.
    """
    try:
        flags = shlex.split(text)
    except ValueError as error:
        raise UserError(
            f"beam_options must be options as in a shell; got {text!r} ({error})."
        ) from error
    if not any(re.match("--runner(=|$)", flag) for flag in flags):
        flags.insert(0, f"--runner={LOCAL}")
    values, unknown = _parsed(flags)
    name = next((r for r in RUNNERS if r.lower() == str(values["runner"]).lower()), None)
    if name is None:
        raise UserError(
            f"beam_options must name one of the runners {', '.join(RUNNERS)}; got "
            f"{values['runner']!r}."
        )
    # A job server has options of its own, which Beam asks it for.
    if unknown and not (name in WITH_JOB_SERVERS and unknown[0].startswith("--")):
        close = difflib.get_close_matches(unknown[0].partition("=")[0].strip("-"), values, n=1)
        hint = f" Did you mean --{close[0]}?" if close else ""
        raise UserError(f"beam_options must be options of Beam's {name}; got {unknown[0]!r}.{hint}")
    unfit = [option for option in _NOT_FOR_US if values[option]]
    if unfit:
        raise UserError(
            f"beam_options must have the pipeline run now, once and to its end; got --{unfit[0]}."
        )
    if name == LOCAL:
        return _local(values, flags)
    flags += _for_dataflow(values, model) if name == DATAFLOW else _for_job_servers(name, values)
    translated = (re.sub("^(--[a-z_]+=)?/gcs/", r"\g<1>gs://", flag) for flag in flags)
    return Runner(name, tuple(translated), threads=1, in_process=False)


def run(
    runner: Runner,
    job: str,
    build: Callable[[beam.Pipeline], None],
    progress: Progress,
    count: int,
    finished: Callable[[], int],
) -> None:
    """Runs a pipeline to its end and shows how far it is.

    Args:
        runner: where.
        job: name of the job.
        build: adds the transforms to the pipeline.
        progress: what counts the examples.
        count: how many examples there are.
        finished: how many examples are done, as far as can be told from files; asked where Beam's
            counters cannot be read before the end.

    Raises:
        UserError: the job failed, or somebody cancelled it.
        TryAgain: a worker died, the service did not answer, or this process is being ended.
    """
    TALLY.take()
    pipeline = beam.Pipeline(options=runner.options(job))
    build(pipeline)
    every = _SHOWN_EVERY.get(runner.name, _SHOWN_EVERY_ELSEWHERE)
    if runner.name == LOCAL:
        counted = TALLY.take if runner.in_process else _increments(finished, count)
        with _shown(progress, counted, every):
            if runner.in_process:
                pipeline.run()
            else:
                _run_in_processes(pipeline)
        return
    result = _submitted(pipeline, runner)
    counted = (
        _increments(lambda: _counter(result), count)
        if runner.name == DATAFLOW
        else _increments(finished, count)
    )
    with _shown(progress, counted, every), _cancelled_with_us(result):
        _await(result, runner)


def usable_processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0))


def job_name(*parts: str) -> str:
    """A name that Dataflow accepts for a job."""
    text = re.sub("[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")
    return text[:63].rstrip("-")


def _parsed(flags: list[str]) -> tuple[dict[str, Any], list[str]]:
    """The values of all options that Beam knows, and the words that are none of them."""
    parsers: list[argparse.ArgumentParser] = []
    PipelineOptions([]).get_all_options(add_extra_args_fn=parsers.append)
    (parser,) = parsers

    def refuse(message: str = "") -> NoReturn:
        raise UserError(
            f"beam_options must be options of Beam; got {shlex.join(flags)!r}{message}."
        )

    parser.error = lambda message: refuse(f" ({message})")  # type: ignore[method-assign]
    parser.print_help = lambda *_: refuse()  # type: ignore[method-assign]
    values, unknown = parser.parse_known_args(flags)
    return vars(values), unknown


def _local(values: Mapping[str, Any], flags: list[str]) -> Runner:
    processors = usable_processors()
    mode = values["direct_running_mode"]
    workers = values["direct_num_workers"] or processors
    return Runner(
        LOCAL,
        tuple(flags),
        threads=processors if mode == "in_memory" else max(1, processors // workers),
        in_process=mode != "multi_processing",
    )


def _for_dataflow(values: Mapping[str, Any], model: str) -> list[str]:
    """What a Dataflow job needs besides what was given."""
    missing = [name for name in ("project", "region", "temp_location") if not values[name]]
    if missing:
        raise UserError(
            f"beam_options must have --{', --'.join(missing)} for {DATAFLOW}, as in "
            "--runner=DataflowRunner --project=PROJECT --region=us-central1 "
            "--temp_location=gs://BUCKET/temporary."
        )
    if not in_the_cloud(values["temp_location"]).startswith("gs://"):
        raise UserError(
            "beam_options must have a --temp_location that starts with gs://; got "
            f"{values['temp_location']!r}."
        )
    added = ["--experiments=use_runner_v2", "--label=step=preprocess", f"--label=model={model}"]
    if not values["sdk_container_image"]:
        added.append(f"--sdk_container_image={DATA}")
    if values["sdk_location"] == "default":
        added.append("--sdk_location=container")  # our image has Beam; nothing is to be fetched
    return added


def _for_job_servers(name: str, values: Mapping[str, Any]) -> list[str]:
    """What Flink and Spark need besides what was given."""
    if name == "PortableRunner" and not values["job_endpoint"]:
        raise UserError(
            "beam_options must have --job_endpoint=HOST:PORT for PortableRunner, the address of a "
            "job server."
        )
    in_containers = values["environment_type"] in (None, "DOCKER")
    if in_containers and not (values["environment_config"] or values["environment_options"]):
        image = values["sdk_container_image"] or DATA
        return ["--environment_type=DOCKER", f"--environment_config={image}"]
    return []


def _submitted(pipeline: beam.Pipeline, runner: Runner) -> Any:
    """The result of a pipeline that a service has taken on.

    Raises:
        UserError: the service refuses the job.
        TryAgain: it cannot be reached, or works on a job of that name.
    """
    import grpc
    from apache_beam.runners.dataflow.internal.apiclient import DataflowJobAlreadyExistsError
    from google.api_core.exceptions import ClientError, GoogleAPICallError, TooManyRequests
    from google.auth.exceptions import GoogleAuthError

    try:
        return pipeline.run()
    except (DataflowJobAlreadyExistsError, TooManyRequests) as error:
        raise TryAgain(f"{runner.name} does not take the job now: {_one_line(error)}") from error
    except (ClientError, GoogleAuthError) as error:
        raise UserError(
            f"{runner.name} must accept the job; it says: {_one_line(error)}"
        ) from error
    except (GoogleAPICallError, grpc.RpcError, grpc.FutureTimeoutError, ConnectionError) as error:
        raise TryAgain(f"{runner.name} cannot be reached: {_one_line(error)}") from error


def _await(result: Any, runner: Runner) -> None:
    """Waits for the end of a job.

    Raises:
        UserError: it was cancelled, or failed.
    """
    from apache_beam.runners.dataflow.dataflow_runner import DataflowRuntimeException

    name = f"The {runner.name} job {result.job_id()}" if runner.name == DATAFLOW else "The job"
    try:
        result.wait_until_finish()
    except (DataflowRuntimeException, RuntimeError) as error:
        if runner.name != DATAFLOW and "CANCELLED" not in str(error):
            raise
        if result.state == PipelineState.CANCELLED:
            raise UserError(
                f"{name} must run to its end; it was cancelled. Run the step again, and it goes on "
                "from the finished shards."
            ) from error
        reason = _one_line(str(error).partition("Error:\n")[2] or error)
        raise UserError(
            f"{name} must run to its end; it failed: {reason} Run the step again when that is "
            "mended, and it goes on from the finished shards."
        ) from error


@contextlib.contextmanager
def _cancelled_with_us(result: Any) -> Iterator[None]:
    """Cancels a job if this process is told to end before it; nobody would wait for its results."""

    def end(number: int, frame: FrameType | None) -> None:
        raise TryAgain(f"{signal.Signals(number).name} came before the job had ended.")

    in_main_thread = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, end) if in_main_thread else None
    try:
        yield
    except (KeyboardInterrupt, TryAgain):
        with contextlib.suppress(Exception):  # nothing more can be done about it
            result.cancel()
        raise
    finally:
        if in_main_thread:
            signal.signal(signal.SIGTERM, before)


def _run_in_processes(pipeline: beam.Pipeline) -> None:
    """Runs a pipeline whose workers are processes of this machine.

    Beam waits for ever for a worker that has died, so it waits in a thread, which is left behind.

    Raises:
        TryAgain: a worker died.
    """
    ended = threading.Event()
    outcome: list[BaseException | None] = []

    def work() -> None:
        try:
            pipeline.run()
            outcome.append(None)
        except BaseException as error:
            outcome.append(error)
        ended.set()

    def note_death(arguments: threading.ExceptHookArgs) -> None:
        if arguments.exc_type is RuntimeError and "Worker subprocess" in str(arguments.exc_value):
            ended.set()
        else:
            before(arguments)

    before = threading.excepthook
    threading.excepthook = note_death
    try:
        threading.Thread(target=work, name="beam", daemon=True).start()
        ended.wait()
    finally:
        threading.excepthook = before
    if not outcome:
        _end_workers()
        raise TryAgain(
            "A worker process died, as happens where memory is short. Finished shards are kept: "
            "run the step again, with a smaller --direct_num_workers."
        )
    if outcome[0] is not None:
        raise outcome[0]


def _end_workers() -> None:
    """Ends the worker processes that are below this one, where Beam started them.

    It looks until there are none three times in a row, for Beam may just be starting one.
    """
    seen_none = 0
    while seen_none < 3:
        workers = _workers()
        for worker in workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
        seen_none = 0 if workers else seen_none + 1
        time.sleep(0.1)


def _workers() -> list[int]:
    """The worker processes below this one, at any depth, that have not ended."""
    parents, workers = {}, []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            # After the name, which may hold anything: state, parent.
            fields = (entry / "stat").read_text(encoding="latin-1").rpartition(")")[2].split()
            parents[int(entry.name)] = int(fields[1])
            if b"sdk_worker_main" in (entry / "cmdline").read_bytes():  # empty once it has ended
                workers.append(int(entry.name))
    return [worker for worker in workers if os.getpid() in _ancestors(worker, parents)]


def _ancestors(pid: int, parents: Mapping[int, int]) -> Iterator[int]:
    while pid := parents.get(pid, 0):
        yield pid


@contextlib.contextmanager
def _shown(progress: Progress, newly: Callable[[], int], every: float) -> Iterator[None]:
    """Adds to the progress now and then while the block runs, and at its end."""
    ended = threading.Event()

    def show() -> None:
        last = False
        while not last:
            last = ended.wait(every)
            count = newly()
            if count:
                progress.advance(count)

    thread = threading.Thread(target=show, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _increments(total: Callable[[], int], most: int) -> Callable[[], int]:
    """By how much a number has grown since it was asked for last; it ends at `most`."""
    seen = 0

    def newly() -> int:
        nonlocal seen
        grown = max(min(total(), most), seen) - seen
        seen += grown
        return grown

    return newly


def _counter(result: Any) -> int:
    """How many examples Beam has counted; retried work counts again, so it may be too many."""
    examples = MetricsFilter().with_namespace(COUNTERS).with_name("examples")
    try:
        found = result.metrics().query(examples)["counters"]
    except Exception:
        return 0  # progress is not worth failing for
    return sum(int(metric.attempted or metric.committed or 0) for metric in found)


def _one_line(error: object) -> str:
    """The last line of an error that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[-1] if lines else type(error).__name__
    return text if text.endswith(".") else f"{text}."
