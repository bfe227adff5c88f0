"""The command `paper2hub`, thin over the library functions that do the work.

What a command needs is imported when it is called, so that `--help` answers at once.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trainer import imports
from trainer.errors import TryAgain, UserError

if TYPE_CHECKING:
    from rich.console import Console

    from pipelines.local.graph import Graph
    from pipelines.local.record import RunRecord

app = typer.Typer(
    help="From a paper to a Hub: trains, evaluates and exports published models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change a field of the model's Config; may be repeated."
    ),
]


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
        for reproduction in reproductions:
            published, ours = reproduction.published, reproduction.measured
            measured = (
                f"{ours.value:g} {published.unit} on {ours.dataset}" if ours else "not yet run"
            )
            number = f"{published.value:g} {published.unit}"
            table.add_row(published.variant, published.dataset, published.metric, number, measured)
        console.print(table)


@app.command("compile", epilog="Example: paper2hub compile autoencoder --target vertex -o a.yaml")
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
) -> None:
    """Compile a model's pipeline to KFP v2 YAML."""
    if every == bool(model):
        raise UserError("compile must be given a model or --all; got both or neither.")
    from pipelines.compile import compile_all, compile_model

    if model:
        files = [compile_model(model, output or f"{model}.yaml", target)]
    else:
        files = compile_all(output or "compiled", target)
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
    dataset: Annotated[str | None, typer.Option(help="Name of the dataset, to be sure.")] = None,
    settings: Settings = None,
    parameters: Annotated[
        list[str] | None,
        typer.Option(
            "--param", metavar="KEY=VALUE", help="Set a parameter of the pipeline; may be repeated."
        ),
    ] = None,
    root: Annotated[Path, typer.Option(help="Folder for the run's folder.")] = Path("runs"),
    jobs: Annotated[
        int, typer.Option("-j", min=1, help="How many steps may run at once.")
    ] = os.cpu_count() or 1,
) -> None:
    """Run a pipeline on this machine, each step as a process of its own."""
    from pipelines.local.display import display_for, print_failures
    from pipelines.local.graph import parse_graph
    from pipelines.local.run import run_pipeline
    from trainer.config import parse_settings

    is_file = pipeline.endswith((".yaml", ".yml"))
    changes = parse_settings(settings or [])
    if not is_file:
        _check_settings(pipeline, changes)
    if data is not None and not data.exists():
        raise UserError(f"--data must be a folder of data; {str(data)!r} does not exist.")
    text = _read(pipeline) if is_file else _compile(pipeline)
    graph = parse_graph(text)
    values = _parameters(graph, parse_settings(parameters or []))
    if changes:
        values["settings"] = changes
    if data is not None:
        values["data"] = str(data.absolute())
    if dataset is not None or (data is not None and "dataset" in graph.parameters):
        # The pipeline's own dataset is not that of a folder given by hand.
        values["dataset"] = dataset or ""
    console = _console()
    if graph.unobserved:
        console.print(f"Not followed on this machine: {', '.join(graph.unobserved)}.")
    with display_for(console) as display:
        record = run_pipeline(text, values, root, display, jobs)
    print_failures(record, console)
    answers = _announce(record, console)
    raise typer.Exit(record.exit_code or (0 if answers else 1))


@app.command(epilog="Example: paper2hub import-weights regnety --from pycls RegNetY.pyth -o DIR")
def import_weights(
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    file: Annotated[
        Path, typer.Argument(help="The published checkpoint: .pth, .pyth, .pt or .safetensors.")
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


def _console() -> Console:
    from rich.console import Console

    return Console()


def _say(console: Console, what: str, path: Path) -> None:
    console.print(f"{what}: {path}", markup=False, highlight=False, soft_wrap=True)


def _check_settings(model: str, settings: Mapping[str, str]) -> None:
    """Finds a wrong setting before anything starts."""
    from trainer.catalog import load_config
    from trainer.config import with_settings

    with_settings(load_config(model), settings)


def _read(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"The pipeline must be a file to read; {file}: {error.strerror}."
        ) from error


def _compile(model: str) -> str:
    """The text of a model's pipeline for this machine."""
    from pipelines.compile import compile_model

    with tempfile.TemporaryDirectory() as folder:
        return compile_model(model, Path(folder) / f"{model}.yaml").read_text(encoding="utf-8")


def _parameters(graph: Graph, texts: Mapping[str, str]) -> dict[str, Any]:
    """Values of pipeline parameters from text; unknown names are left for the run to refuse."""
    from pipelines.local.graph import convert_text

    return {
        name: convert_text(text, graph.parameters[name].type, name)
        if name in graph.parameters
        else text
        for name, text in texts.items()
    }


def _announce(record: RunRecord, console: Console) -> bool:
    """Names what the run has left; says whether its export, where there is one, answers."""
    _say(console, "Run", Path(record.folder))
    if record.status != "succeeded":
        return False
    report, export = record.artifact("report"), record.artifact("export")
    if report is not None and report.is_file():
        # KFP names an artifact without an ending; a person's browser wants one.
        page = Path(record.folder) / "report.html"
        shutil.copyfile(report, page)
        _say(console, "Report", page)
    if export is None or not (export / "export.json").is_file():
        return True
    _say(console, "Export", export)
    # In a process of its own: loading it here would bring TensorFlow into the command.
    loading = subprocess.run(
        [sys.executable, "-m", "components.export_hub.answer", str(export)],
        cwd=record.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    shown = loading.stderr if loading.returncode else loading.stdout
    console.print(shown.strip(), markup=False, highlight=False, soft_wrap=True)
    return loading.returncode == 0
