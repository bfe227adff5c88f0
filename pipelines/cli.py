"""The command `paper2hub`, thin over the library functions that do the work.

What a command needs is imported when it is called, so that `--help` answers at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines import examples
from pipelines.cloud import schedules_cli
from trainer import imports
from trainer.errors import TryAgain, UserError

if TYPE_CHECKING:
    from rich.console import Console

    from pipelines.cloud.job import Cloud
    from pipelines.local.graph import Graph
    from pipelines.local.launcher import Launcher
    from pipelines.local.record import RunRecord
    from pipelines.local.run import Options

app = typer.Typer(
    help="From a paper to a Hub: trains, evaluates and exports published models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(examples.app, name="examples")
app.add_typer(schedules_cli.app, name="schedules")

CPUS = os.cpu_count() or 1

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change a field of the model's Config; may be repeated."
    ),
]

TrainingSettings = Annotated[
    list[str] | None,
    typer.Option(
        "--training",
        metavar="KEY=VALUE",
        help="Change how training is carried out, as in precision=mixed_bfloat16, accumulation=4 "
        "or moving_average=0.999; may be repeated.",
    ),
]
Parameters = Annotated[
    list[str] | None,
    typer.Option(
        "--param",
        metavar="KEY=VALUE",
        help="Set a parameter of the pipeline, or the path of an artifact; may be repeated.",
    ),
]
Root = Annotated[Path, typer.Option(help="Folder of the runs.")]
Jobs = Annotated[int, typer.Option("-j", min=1, help="How many steps may run at once.")]
Run = Annotated[str, typer.Argument(help="A run: its name or how it begins, its folder, or last.")]
Cached = Annotated[
    bool | None,
    typer.Option(
        "--cache/--no-cache",
        help="Whether earlier results may be used.",
        show_default="as the pipeline says",
    ),
]
Timeout = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[STEP=]TIME",
        help="How long a step may take, as in 90s, 30m or train=12h; may be repeated.",
    ),
]
FailFast = Annotated[
    bool,
    typer.Option(
        "--fail-fast", help="End all steps at the first failure, not only what depends on it."
    ),
]
Memory = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="Memory that steps may ask for together, as in 16G.",
        show_default="all that this machine has",
    ),
]
EnvFile = Annotated[
    Path | None,
    typer.Option(help="File of KEY=VALUE lines: variables and secrets for the steps."),
]
Network = Annotated[str, typer.Option(help="With --docker: the containers' network.")]
Dataset = Annotated[str | None, typer.Option(help="Name of the dataset, to be sure.")]
CloudData = Annotated[
    str | None, typer.Option(help="Where the dataset is, as in gs://BUCKET/FOLDER.")
]
SubmittedJob = Annotated[str, typer.Argument(help="A job, by the name that submit printed.")]
Machines = Annotated[
    list[str] | None,
    typer.Option(
        "--machine",
        metavar="PART=MACHINE",
        help="On a cloud: what data, training, evaluation or export runs on, as in "
        "training=TPU_V5E:2x2 or training=NVIDIA_L4:1,strategy=spot; may be repeated.",
    ),
]
Images = Annotated[
    str,
    typer.Option(
        metavar="PREFIX|LOCK.json|local",
        help="Whose digests pin the images: a registry's, those of a lock file, or those that the "
        "Docker engine here knows.",
    ),
]
Account = Annotated[
    str, typer.Option("--target", help="A target of targets.yaml, or vertex or kubeflow.")
]
Targets = Annotated[
    Path | None,
    typer.Option(help="File of targets.", show_default="targets.yaml, or $PAPER2HUB_TARGETS"),
]
Mounts = Annotated[
    list[str] | None,
    typer.Option(
        "--mount",
        metavar="FOLDER[:PATH]",
        help="With --docker: a further folder to see, read-only; may be repeated.",
    ),
]
User = Annotated[str, typer.Option(help="With --docker: UID:GID.", show_default="your own")]


@app.command(epilog="Example: paper2hub models --json")
def models(as_json: AsJson = False) -> None:
    """List every model with its paper, the published numbers and ours."""
    from pipelines import catalog, results
    from trainer.catalog import load_paper

    found = {name: (load_paper(name), results.reproductions(name)) for name in catalog.names()}
    if as_json:
        entries = [
            {
                "model": name,
                "paper": {"title": paper.title, "year": paper.year, "url": paper.url},
                "results": [dataclasses.asdict(reproduction) for reproduction in reproductions],
            }
            for name, (paper, reproductions) in found.items()
        ]
        print(json.dumps(entries, indent=2, ensure_ascii=False))
        return
    from rich.table import Table

    console = _console()
    for name, (paper, reproductions) in found.items():
        console.print(f"[bold]{name}[/]  {paper.title}, {paper.year}. {paper.url}", highlight=False)
        table = Table("", "dataset", "metric", "paper", "ours", box=None, header_style="dim")
        for row in reproductions:
            numbers = (row.published_text, row.measured_text)
            table.add_row(row.variant, row.dataset, row.metric, *numbers)
        console.print(table)


@app.command(
    "compile",
    epilog="Example: paper2hub compile regnety --target vertex --machine training=TPU_V5E:2x2",
)
def compile_command(
    model: Annotated[str | None, typer.Argument(help="Name of the model.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Compile every model.")] = False,
    target: Annotated[str, typer.Option(help="local, kubeflow or vertex.")] = "local",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="The file, or the folder with --all.",
            show_default="MODEL.yaml, or compiled",
        ),
    ] = None,
    machines: Machines = None,
    images: Images = "",
) -> None:
    """Compile a model's pipeline to KFP v2 YAML.

    With --images the steps name their images by digest, and caches can be trusted.
    """
    if every == bool(model):
        raise UserError("compile must be given a model or --all; got both or neither.")
    from pipelines.cloud.machines import parse_machine
    from pipelines.cloud.placement import Placement
    from pipelines.compile import compile_all, compile_model

    asked = {part: parse_machine(text) for part, text in _machines(machines).items()}
    place = Placement(target, asked)  # type: ignore[arg-type]  # compiling checks it
    if model:
        files = [compile_model(model, output or f"{model}.yaml", place, images)]
    else:
        files = compile_all(output or "compiled", place, images)
    for file in files:
        print(file)


@app.command(epilog="Example: paper2hub run regnety --data /data/imagenet --set variant=400MF")
def run(
    pipeline: Annotated[
        str, typer.Argument(metavar="MODEL|FILE.yaml", help="A model, or a compiled pipeline.")
    ],
    data: Annotated[
        Path | None, typer.Option(help="Folder of the dataset; its layout tells which one it is.")
    ] = None,
    dataset: Dataset = None,
    settings: Settings = None,
    training: TrainingSettings = None,
    parameters: Parameters = None,
    root: Root = Path("runs"),
    jobs: Jobs = CPUS,
    in_docker: Annotated[bool, typer.Option("--docker", help="Run steps in containers.")] = False,
    cache: Cached = None,
    timeout: Timeout = None,
    fail_fast: FailFast = False,
    memory: Memory = None,
    env_file: EnvFile = None,
    network: Network = "",
    mounts: Mounts = None,
    user: User = "",
) -> None:
    """Run a pipeline on this machine, each step as a process or a container of its own."""
    from pipelines.local.run import run_pipeline

    text, graph, values = _asked(pipeline, parameters, root, data, dataset, settings, training)
    options = _options(jobs, cache, timeout, fail_fast, memory, env_file)
    launcher = _launcher("docker" if in_docker else "subprocess", network, mounts, user)
    console = _console()
    _tell_unobserved(graph, launcher, console)
    with _display(console, root, graph.name) as display:
        record = run_pipeline(text, values, root, display, options, launcher)
    raise typer.Exit(_announce(record, console))


@app.command(epilog="Example: paper2hub train autoencoder --data /data/digits -o weights")
def train(
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Folder for the checkpoint, with its logs in it."),
    ],
    examples: Annotated[
        Path | None,
        typer.Option(help="Folder of transformed examples, as preprocess writes it."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of a dataset; its layout tells which one it is."),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="With --data: name of the dataset, to be sure.")
    ] = None,
    settings: Settings = None,
    training: TrainingSettings = None,
    initial: Annotated[
        Path | None, typer.Option(help="Checkpoint with whose networks to begin.")
    ] = None,
    backend: Annotated[
        str,
        typer.Option(
            help="tensorflow or jax.", show_default="what KERAS_BACKEND says, or tensorflow"
        ),
    ] = "",
    root: Root = Path("runs"),
    jobs: Jobs = CPUS,
) -> None:
    """Train a model without a pipeline: the step train, and what it needs, by one command.

    Without --examples the steps of the model's pipeline make them, of --data or
    of what the model brings along. They are found again in the folder of runs
    while data and settings stay the same.

    Ctrl-C and SIGTERM save at once; the same command goes on from there.
    """
    from components.train.train import choose_backend
    from components.train.train import train as step
    from trainer.config import parse_settings

    changes, way = parse_settings(settings or []), _way_of_training(training)
    _check_settings(model, changes)
    if examples is not None and (data is not None or dataset is not None):
        raise UserError("train must be given --examples, or --data and --dataset; got both.")
    choose_backend(backend)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"-o must be a folder to write to; {output}: {error.strerror}.") from error
    console = _console()
    if examples is None:
        examples = _examples_of(model, data, dataset, changes, root, jobs, console)
    try:
        with _watched(console):
            step(
                model,
                str(examples),
                str(output),
                str(output / "logs"),
                settings=changes,
                training=way,
                backend=backend,
                initial="" if initial is None else str(initial),
            )
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    _say(console, "Checkpoint", output)
    _say(console, "Logs", output / "logs")
    for line in _last_evaluation(output):
        _say(console, "Evaluation", line)


@app.command(epilog="Example: paper2hub resume last")
def resume(
    run: Run,
    root: Root = Path("runs"),
    jobs: Annotated[int | None, typer.Option("-j", min=1, help="Other than before.")] = None,
    cache: Cached = None,
    timeout: Timeout = None,
    fail_fast: Annotated[bool | None, typer.Option("--fail-fast/--keep-going")] = None,
    memory: Memory = None,
    env_file: EnvFile = None,
    network: Network = "",
    mounts: Mounts = None,
    user: User = "",
) -> None:
    """Go on with a run that was interrupted, killed or failed; what is done is not done again."""
    from pipelines.local.graph import parse_graph
    from pipelines.local.record import PIPELINE_FILE, find_run, read_run
    from pipelines.local.run import resume_run

    folder = find_run(run, root)
    before = read_run(folder, with_tasks=False)
    options = _options(
        jobs or int(before.options["jobs"]),
        cache if cache is not None else before.options["cache"],
        timeout,
        fail_fast if fail_fast is not None else bool(before.options["fail_fast"]),
        memory,
        env_file,
    )
    kept = {} if timeout else {key: before.options[key] for key in ("timeout", "timeouts")}
    if memory is None:
        kept["memory"] = before.options["memory"]
    options = dataclasses.replace(options, **kept)
    launcher = _launcher(before.launcher, network, mounts, user)
    console = _console()
    graph = parse_graph(_read(str(folder / PIPELINE_FILE)))
    _tell_unobserved(graph, launcher, console)
    with _display(console, folder.parent, before.pipeline) as display:
        record = resume_run(folder, display, options, launcher)
    raise typer.Exit(_announce(record, console))


@app.command(epilog="Example: paper2hub runs --root /data/runs")
def runs(root: Root = Path("runs"), as_json: AsJson = False) -> None:
    """List the runs of a folder and how they stand."""
    from pipelines.local.history import summarise

    summaries = summarise(root)
    if as_json:
        print(json.dumps([dataclasses.asdict(summary) for summary in summaries], indent=2))
        return
    from rich.table import Table

    console = _console()
    if not console.is_terminal:
        console.width = 200  # nobody's screen is narrow: nothing is to be cut
    table = Table(box=None, pad_edge=False, header_style="dim")
    # On a narrow screen the name of a run, with which it is called, is not cut.
    names = max((len(summary.run) for summary in summaries), default=0)
    table.add_column("run", no_wrap=True, min_width=names)
    table.add_column("status", no_wrap=True, min_width=len("interrupted"))
    table.add_column("started", no_wrap=True)
    table.add_column("time", no_wrap=True, min_width=len("9999.9 s"))
    for name in ("with", "steps"):
        table.add_column(name, no_wrap=True)
    for summary in summaries:
        counts = ", ".join(f"{count} {status}" for status, count in sorted(summary.tasks.items()))
        table.add_row(
            summary.run,
            summary.status,
            summary.started[: len("2026-01-01T00:00")].replace("T", " "),
            f"{summary.seconds:.1f} s" if summary.seconds else "",
            summary.launcher,
            counts,
        )
    console.print(table if summaries else f"No runs in {root}.", highlight=False)


@app.command(epilog="Example: paper2hub logs last train -f")
def logs(
    run: Run,
    task: Annotated[str | None, typer.Argument(help="A step; all of them without.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as it is written.")] = False,
    root: Root = Path("runs"),
) -> None:
    """Print what the steps of a run have printed."""
    from pipelines.local.logs import read_logs
    from pipelines.local.record import find_run

    last = None
    try:
        for path, text in read_logs(find_run(run, root), task, follow):
            if task is None and path != last:
                print(f"==> {path} <==")
            print(text, end="", flush=True)
            last = path
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


@app.command(epilog="Example: paper2hub why last train")
def why(
    run: Run,
    task: Annotated[str, typer.Argument(help="A step of the run.")],
    root: Root = Path("runs"),
) -> None:
    """Say why a step ran or was taken from the cache, and what had changed."""
    from pipelines.local import history
    from pipelines.local.record import find_run

    for line in history.why(find_run(run, root), task):
        print(line)


@app.command(epilog="Example: paper2hub parity autoencoder --set epochs=1")
def parity(
    pipeline: Annotated[
        str, typer.Argument(metavar="MODEL|FILE.yaml", help="A model, or a compiled pipeline.")
    ],
    data: Annotated[Path | None, typer.Option(help="Folder of the dataset.")] = None,
    dataset: Dataset = None,
    settings: Settings = None,
    parameters: Parameters = None,
    root: Root = Path("runs"),
    jobs: Jobs = CPUS,
    timeout: Timeout = None,
    env_file: EnvFile = None,
    network: Network = "",
    mounts: Mounts = None,
    user: User = "",
) -> None:
    """Run a pipeline as processes and in Docker, and compare all that came of it."""
    from pipelines.local.parity import compare
    from pipelines.local.run import run_pipeline

    text, graph, values = _asked(pipeline, parameters, root, data, dataset, settings)
    # Nothing is taken from the cache: both have to do the work.
    options = _options(jobs, False, timeout, False, None, env_file)
    console = _console()
    records = []
    for name in ("subprocess", "docker"):
        launcher = _launcher(name, network, mounts, user)
        _tell_unobserved(graph, launcher, console)
        with _display(console, root, graph.name) as display:
            records.append(run_pipeline(text, values, root, display, options, launcher))
        _say(console, "Run", Path(records[-1].folder))
        if records[-1].status == "interrupted":
            raise typer.Exit(records[-1].exit_code or 1)
    differences = compare(*records)
    for difference in differences:
        console.print(f"differs: {difference}", markup=False, highlight=False, soft_wrap=True)
    if differences:
        raise typer.Exit(1)
    artifacts = sum(len(task.digests) for task in records[0].tasks.values())
    print(
        f"Parity: {len(records[0].tasks)} tasks, {artifacts} artifacts, all parameters, metrics "
        "and branches are the same."
    )


@app.command(epilog="Example: paper2hub import-weights regnety --from pycls RegNetY.pyth -o DIR")
def import_weights(
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    file: Annotated[
        Path,
        typer.Argument(
            help="The published checkpoint, as torch.save or safetensors write it; or a folder "
            "with one for each network."
        ),
    ],
    source: Annotated[
        str, typer.Option("--from", metavar="FORMAT", help="Whose checkpoint it is, as in pycls.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for our checkpoint.")],
    settings: Settings = None,
) -> None:
    """Turn a published PyTorch checkpoint into ours, ready to evaluate and export."""
    from trainer.config import parse_settings

    changes = parse_settings(settings or [])
    _check_settings(model, changes)
    imports.begin()
    with imports.quietly():
        from trainer.engine import import_weights as engine
    imports.end()
    engine.import_weights(model, source, file, output, changes)
    _say(_console(), "Checkpoint", output)


@app.command(
    epilog="Example: paper2hub submit regnety --target vertex --data gs://B/images --watch"
)
def submit(
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    target: Account,
    targets: Targets = None,
    data: CloudData = None,
    dataset: Dataset = None,
    settings: Settings = None,
    training: TrainingSettings = None,
    parameters: Parameters = None,
    machines: Machines = None,
    images: Images = "",
    cache: Cached = None,
    watching: Annotated[
        bool, typer.Option("--watch", help="Show how it goes, and leave with its status.")
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Although the same has succeeded or is at work.")
    ] = False,
) -> None:
    """Submit a model's pipeline to Vertex AI or Kubeflow Pipelines.

    The same request twice is one job, also when an answer was lost on the way.
    """
    from pipelines.cloud.account import find_account
    from pipelines.cloud.submission import cloud_of, request_for
    from pipelines.cloud.submission import submit as submit_request

    account = find_account(target, targets)
    values = _values_for(model, data, dataset, settings, training, parameters)
    request = request_for(
        model, account, values, machines=_machines(machines), pinned_by=images, cache=cache
    )
    cloud = cloud_of(account)
    job, made = submit_request(request, cloud, again)
    console = _console()
    _say(console, "Job", job.identifier if made else f"{job.identifier}, submitted {job.created}")
    _say(console, "Page", job.page)
    if watching:
        raise typer.Exit(_watch(job.identifier, request.record(job.identifier), cloud, console))
    if not made:
        _say(console, "State", f"{job.state}; --again submits it once more")


@app.command(
    epilog="Example: paper2hub plan regnety --target vertex --machine training=TPU_V5E:2x2"
)
def plan(
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    target: Account,
    targets: Targets = None,
    data: CloudData = None,
    dataset: Dataset = None,
    settings: Settings = None,
    training: TrainingSettings = None,
    parameters: Parameters = None,
    machines: Machines = None,
    images: Images = "",
    cache: Cached = None,
    root: Root = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Show what submit would do, step by step, before anything is spent.

    Of each step: whether it runs and why, its machine, time, cost and quota.
    """
    from pipelines.cloud import plan_cli
    from pipelines.cloud.account import find_account

    account = find_account(target, targets)
    values = _values_for(model, data, dataset, settings, training, parameters)
    console = _console()
    if not console.is_terminal:
        console.width = 200  # nobody's screen is narrow: nothing is to be cut
    code = plan_cli.plan(
        model,
        account,
        values,
        machines=_machines(machines),
        pinned_by=images,
        cache=cache,
        root=root,
        as_json=as_json,
        console=console,
    )
    raise typer.Exit(code)


@app.command(epilog="Example: paper2hub watch regnety-0123456789ab --target vertex")
def watch(
    job: SubmittedJob,
    target: Account,
    targets: Targets = None,
) -> None:
    """Show how a submitted job goes, until it has ended; leave with its status."""
    from pipelines.cloud.account import find_account
    from pipelines.cloud.submission import cloud_of, unknown

    raise typer.Exit(_watch(job, unknown(job), cloud_of(find_account(target, targets)), _console()))


@app.command(epilog="Example: paper2hub cancel regnety-0123456789ab --target vertex")
def cancel(
    job: SubmittedJob,
    target: Account,
    targets: Targets = None,
) -> None:
    """Ask a submitted job to end."""
    from pipelines.cloud.account import find_account
    from pipelines.cloud.submission import cloud_of

    cloud = cloud_of(find_account(target, targets))
    if cloud.find(job) is None:
        raise UserError(f"The job must be one of target {target}; it knows no {job!r}.")
    cloud.cancel(job)
    _say(_console(), "Asked to end", job)


@app.command(epilog="Example: paper2hub jobs --target vertex")
def jobs(
    target: Account,
    targets: Targets = None,
    most: Annotated[int, typer.Option("-n", min=1, help="How many, the newest first.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List the jobs that were submitted to a target and how they stand."""
    from pipelines.cloud.account import find_account
    from pipelines.cloud.submission import cloud_of

    found = cloud_of(find_account(target, targets)).jobs(most)
    if as_json:
        print(json.dumps([dataclasses.asdict(job) for job in found], indent=2))
        return
    for job in found:
        print(f"{job.identifier}  {job.state}  {job.created}")


@app.command(epilog="Example: paper2hub lock europe-west4-docker.pkg.dev/P/paper2hub-dev")
def lock(
    images: Annotated[
        str, typer.Argument(metavar="PREFIX|local", help="The registry that has the images.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The file.")] = Path("images.json"),
) -> None:
    """Write down where the images of this version are, by digest, for --images."""
    from pipelines.cloud.images import write_lock

    for image in write_lock(output, images).values():
        print(image)


@app.command(epilog="Example: paper2hub doctor")
def doctor(as_json: AsJson = False) -> None:
    """Find out what this machine can run, and what mends what is missing."""
    from pipelines.doctor import examine

    findings = examine()
    if as_json:
        print(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2))
        return
    console = _console()
    for finding in findings:
        mark = "[green]ok     [/]" if finding.ok else "[yellow]missing[/]"
        console.print(f"{mark} {finding.name}: {finding.detail}", highlight=False, soft_wrap=True)
        if not finding.ok:
            text = f"        for {finding.needed_for}: {finding.mend}"
            console.print(text, markup=False, highlight=False, soft_wrap=True)


def main() -> None:
    """Runs the command; what the caller can mend is one line and exit code 2."""
    try:
        app()
    except (UserError, TryAgain) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def _machines(pairs: list[str] | None) -> dict[str, str]:
    """Part of the work -> machine, from text."""
    found = {}
    for pair in pairs or []:
        part, equals, machine = pair.partition("=")
        if not equals:
            raise UserError(
                f"--machine must look like PART=MACHINE, as in training=TPU_V5E:2x2; got {pair!r}."
            )
        found[part] = machine
    return found


def _values_for(
    model: str,
    data: str | None,
    dataset: str | None,
    settings: list[str] | None,
    training: list[str] | None,
    parameters: list[str] | None,
) -> dict[str, Any]:
    """Values of a model's pipeline parameters for a cloud, where no path is of this machine."""
    from pipelines.compiled import compiled_text
    from pipelines.local.graph import parse_graph
    from trainer.config import parse_settings

    changes, way = parse_settings(settings or []), _way_of_training(training)
    _check_settings(model, changes)
    values = {}
    if parameters:  # only their types take a compiled pipeline
        with tempfile.TemporaryDirectory() as folder:
            graph = parse_graph(compiled_text(model, Path(folder)))
        values = _parameters(graph, parameters)
    if changes:
        values["settings"] = changes
    if way:
        values["training"] = way
    if data is not None:
        values["data"] = data
    if dataset is not None or data is not None:
        values["dataset"] = dataset or ""
    return values


def _watch(job: str, record: RunRecord, cloud: Cloud, console: Console) -> int:
    """Shows a job until it has ended; the exit code of the command."""
    from pipelines.cloud.submission import exit_code
    from pipelines.cloud.submission import watch as watch_job
    from pipelines.local.display import display_for, print_failures

    try:
        with display_for(console) as display:
            ended, record = watch_job(job, record, cloud, display)
    except KeyboardInterrupt:
        _say(console, "Not watched any more", f"{job}, which goes on")
        return 130
    print_failures(record, console)
    _say(console, "State", f"{ended.state}. {ended.reason}".strip())
    return exit_code(ended)


def _console() -> Console:
    from rich.console import Console

    return Console()


def _say(console: Console, what: str, said: Path | str) -> None:
    console.print(f"{what}: {said}", markup=False, highlight=False, soft_wrap=True)


def _check_settings(model: str, settings: Mapping[str, str]) -> None:
    """Finds a wrong setting before anything starts."""
    from trainer.catalog import load_config
    from trainer.config import with_settings

    with_settings(load_config(model), settings)


def _way_of_training(pairs: list[str] | None) -> dict[str, str]:
    """How to carry out a training, from text; finds what is wrong before anything starts."""
    from trainer.config import parse_settings, with_settings
    from trainer.training import Training

    changes = parse_settings(pairs or [])
    with_settings(Training(), changes)
    return changes


def _read(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"The pipeline must be a file to read; {file}: {error.strerror}."
        ) from error


def _asked(
    pipeline: str,
    parameters: list[str] | None,
    root: Path,
    data: Path | None,
    dataset: str | None,
    settings: list[str] | None,
    training: list[str] | None = None,
) -> tuple[str, Graph, dict[str, Any]]:
    """The compiled text of what the user named, its graph, and the values of its parameters."""
    from pipelines.local.graph import parse_graph
    from trainer.config import parse_settings

    is_file = pipeline.endswith((".yaml", ".yml", ".json")) or Path(pipeline).is_file()
    changes = parse_settings(settings or [])
    way = _way_of_training(training)
    if is_file:
        text = _read(pipeline)
    else:
        from pipelines.compiled import compiled_text

        _check_settings(pipeline, changes)
        text = compiled_text(pipeline, root)
    graph = parse_graph(text)
    values = _parameters(graph, parameters or [])
    if changes:
        values["settings"] = changes
    if way:
        values["training"] = way
    _add_data(values, data, dataset, "dataset" in graph.parameters)
    return text, graph, values


def _add_data(
    values: dict[str, Any], data: Path | None, dataset: str | None, has_dataset: bool = True
) -> None:
    """Adds the data that the user names to the values of a pipeline's parameters."""
    if data is not None:
        if not data.exists():
            raise UserError(f"--data must be a folder of data; {str(data)!r} does not exist.")
        values["data"] = str(data.absolute())
    if dataset is not None or (data is not None and has_dataset):
        # The pipeline's own dataset is not that of a folder given by hand.
        values["dataset"] = dataset or ""


def _parameters(graph: Graph, pairs: list[str]) -> dict[str, Any]:
    """Values of pipeline parameters from text; unknown names are left for the run to refuse."""
    from pipelines.local.graph import convert_text

    values: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise UserError(f"--param must look like name=value, as in shards=8; got {pair!r}.")
        known = graph.parameters.get(name)
        values[name] = convert_text(text, known.type, name) if known else text
    return values


def _options(
    jobs: int,
    cache: bool | None,
    timeouts: list[str] | None,
    fail_fast: bool,
    memory: str | None,
    env_file: Path | None,
) -> Options:
    from pipelines.local.resources import bytes_of
    from pipelines.local.run import Options

    of_all, of_tasks = None, {}
    for text in timeouts or []:
        name, equals, duration = text.rpartition("=")
        if equals:
            of_tasks[name] = _seconds(duration)
        else:
            of_all = _seconds(duration)
    return Options(
        jobs=jobs,
        cache=cache,
        timeout=of_all,
        timeouts=of_tasks,
        fail_fast=fail_fast,
        memory=None if memory is None else bytes_of(memory, "--memory"),
        variables=_variables(env_file),
    )


def _seconds(text: str) -> float:
    """A duration such as 90, 90s, 30m or 1.5h in seconds."""
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    number, unit = (text[:-1], text[-1]) if text[-1:] in units else (text, "s")
    try:
        seconds = float(number) * units[unit]
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise UserError(f"--timeout must be a time such as 90s, 30m or train=12h; got {text!r}.")
    return seconds


def _variables(file: Path | None) -> dict[str, str]:
    """The variables of a file, in the format of Docker's --env-file."""
    variables = {}
    for number, line in enumerate(_read(str(file)).splitlines() if file else (), start=1):
        name, equals, value = line.partition("=")
        name = name.strip()
        if not name or name.startswith("#"):
            continue
        if not equals:
            value = os.environ.get(name, "")
        if not name.replace("_", "a").isalnum() or (not equals and name not in os.environ):
            raise UserError(
                f"Line {number} of {file} must be KEY=VALUE, or a KEY that is set here."
            )
        variables[name] = value
    return variables


def _examples_of(
    model: str,
    data: Path | None,
    dataset: str | None,
    settings: Mapping[str, str],
    root: Path,
    jobs: int,
    console: Console,
) -> Path:
    """The transformed examples of a dataset, by the steps of the model's pipeline that make them.

    Raises:
        typer.Exit: a step failed, which has been told.
    """
    from pipelines.compiled import examples_text
    from pipelines.local.run import Options, run_pipeline

    values: dict[str, Any] = {"settings": dict(settings)}
    _add_data(values, data, dataset)
    text = examples_text(model, root)
    with _display(console, root, f"{model}-examples") as display:
        record = run_pipeline(text, values, root, display, Options(jobs=jobs))
    found = record.artifact("transformed_examples")
    if record.status != "succeeded" or found is None:
        raise typer.Exit(_announce(record, console))
    return found


@contextlib.contextmanager
def _watched(console: Console) -> Iterator[None]:
    """Shows on a terminal how far a step of this process is; elsewhere it prints lines itself."""
    if not console.is_terminal:
        yield
        return
    from rich.live import Live
    from rich.text import Text

    from pipelines.local.progress import read_progress
    from trainer.progress import PROGRESS_FILE, describe

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "progress.json"
        os.environ[PROGRESS_FILE] = str(file)

        def line() -> Text:
            state = read_progress(file)
            return Text(describe(state) if state else "", overflow="ellipsis", no_wrap=True)

        with Live(console=console, get_renderable=line, transient=True):
            yield


def _last_evaluation(checkpoint: Path) -> Iterator[str]:
    """The numbers of a training's last evaluation, as one line."""
    from trainer.artifact import read_json

    records = read_json(checkpoint / "history.json")
    measured = [record["evaluation"] for record in records if record.get("evaluation")]
    for numbers in measured[-1:]:
        yield ", ".join(f"{n.replace('_', ' ')} {value:.4g}" for n, value in numbers.items())


def _launcher(name: str, network: str, mounts: list[str] | None, user: str) -> Launcher:
    """What runs the steps."""
    if name == "subprocess":
        if network or mounts or user:
            raise UserError("--network, --mount and --user are for --docker; there is no --docker.")
        from pipelines.local.subprocesses import Subprocesses

        return Subprocesses()
    from pipelines.local.containers import Containers
    from pipelines.local.containers import Options as DockerOptions

    pairs = []
    for text in mounts or []:
        folder, _, target = text.partition(":")
        path = Path(folder).absolute()
        if not path.exists() or (target and not target.startswith("/")):
            raise UserError(f"--mount must be FOLDER or FOLDER:/PATH, and be there; got {text!r}.")
        pairs.append((path, target or str(path)))
    return Containers(DockerOptions(user=user, network=network, mounts=tuple(pairs)))


def _tell_unobserved(graph: Graph, launcher: Launcher, console: Console) -> None:
    """Names what the pipeline wishes and this machine does not do."""
    wishes = sorted({*graph.unobserved, *launcher.check(graph)})
    if wishes:
        console.print(f"Not followed on this machine: {', '.join(wishes)}.", soft_wrap=True)


def _display(console: Console, root: Path, pipeline: str) -> Any:
    from pipelines.local.display import display_for
    from pipelines.local.history import usual_seconds

    return display_for(console, usual_seconds(root, pipeline) if console.is_terminal else None)


def _announce(record: RunRecord, console: Console) -> int:
    """Says what went wrong and what the run has left; the exit code of the command."""
    from pipelines.local.display import print_failures

    print_failures(record, console)
    _say(console, "Run", Path(record.folder))
    _say(console, "Report", record.artifacts["report"]["uri"])
    if record.status != "succeeded":
        _say(console, "To go on", f"paper2hub resume {record.folder}")
        return record.exit_code or 1
    export = record.artifact("export")
    if export is None or not (export / "export.json").is_file():
        return 0
    _say(console, "Export", export)
    line, answered = _answer(record, export)
    console.print(line, markup=False, highlight=False, soft_wrap=True)
    return 0 if answered else 1


def _answer(record: RunRecord, export: Path) -> tuple[str, bool]:
    """What the export says when a stranger loads it; known already where it has not changed."""
    from pipelines.local.cache import FOLDER
    from trainer.artifact import write_text

    digest = next(
        task.digests["export"] for task in record.tasks.values() if "export" in task.digests
    )
    known = Path(record.folder).parent / FOLDER / "answers" / digest
    if known.is_file():
        return known.read_text(encoding="utf-8").strip(), True
    # In a process of its own: loading it here would bring TensorFlow into the command.
    loading = subprocess.run(
        [sys.executable, "-m", "components.export_hub.answer", str(export)],
        cwd=record.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if loading.returncode:
        return loading.stderr.strip(), False
    write_text(known, loading.stdout)
    return loading.stdout.strip(), True
