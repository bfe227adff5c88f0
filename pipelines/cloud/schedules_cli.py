"""The commands `paper2hub schedules …`: recurring work, here and in the clouds."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trainer.errors import TryAgain, UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipelines.cloud.crontab import Crontab
    from pipelines.cloud.job import Recurring, Scheduled
    from pipelines.cloud.schedules import Change, Entry, Target

app = typer.Typer(
    help="Keep recurring work as pipelines/schedules.yaml has it.", no_args_is_help=True
)

_FILE = Path("pipelines/schedules.yaml")
_WIDE = 200  # columns where there is no screen

File = Annotated[Path, typer.Option("--file", help="The file of all recurring work.")]
Targets = Annotated[
    Path | None,
    typer.Option(
        "--targets",
        help="The file of accounts.",
        show_default="what PAPER2HUB_TARGETS names, or targets.yaml",
    ),
]
One = Annotated[str, typer.Option("--target", help="Only this target: local, or an account.")]
Name = Annotated[str, typer.Argument(help="Name of a schedule.")]


@app.command(epilog="Example: paper2hub schedules sync --dry-run")
def sync(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done.")
    ] = False,
    file: File = _FILE,
    targets: Targets = None,
    target: One = "",
) -> None:
    """Make Vertex AI, Kubeflow and this machine's cron match the file.

    Only what bears our label is touched, and nothing makes up for missed runs.

    Exit code 0 if all is as the file says, or has been made so; with --dry-run 1
    if something differs, as diff has it. 2 if the file asks for what cannot be
    and 75 if a target did not answer; everything else is done even then.
    """
    from pipelines.cloud import schedules
    from pipelines.cloud.cron import UTC

    entries = schedules.read_entries(file)
    places = _targets(entries, targets)
    if target and target not in places:
        raise UserError(f"--target must be one of {', '.join(places)}; got {target!r}.")
    changes = schedules.plan(entries, places, datetime.datetime.now(UTC), target)
    if dry_run:
        for change in changes:
            _tell(change)
        failures = [(change, change.error) for change in changes if change.error is not None]
    else:
        failures = schedules.carry_out(changes, places, _tell)
    _end(failures)
    if dry_run and any(change.action not in schedules.IDLE for change in changes):
        raise typer.Exit(1)


@app.command("list", epilog="Example: paper2hub schedules list --json")
def list_command(
    file: File = _FILE,
    targets: Targets = None,
    target: One = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List all schedules of the file and of the targets, and when they run next."""
    from pipelines.cloud import schedules

    entries = schedules.read_entries(file)
    places = {n: p for n, p in _targets(entries, targets).items() if target in ("", n)}
    rows: list[tuple[str, str, str, str, str, str]] = []
    failures: list[tuple[str, Exception]] = []
    found: dict[str, list[Scheduled]] = {}
    for name, place in places.items():
        try:
            found[name] = place.schedules.schedules()
        except (UserError, TryAgain) as error:
            failures.append((name, error))
    if as_json:
        document = {
            "file": [dataclasses.asdict(entry) for entry in entries.values()],
            "targets": {n: [dataclasses.asdict(s) for s in those] for n, those in found.items()},
        }
        print(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        there = set()
        for place_name, those in found.items():
            for each in those:
                there.add(each.name)
                rows.append(_row(each, place_name, entries))
        for entry in entries.values():
            if entry.name not in there and (target in ("", entry.target)):
                when = f"{entry.cron} {entry.time_zone}"
                state = "unknown" if failures else "not there: sync makes it"
                rows.append((entry.name, entry.target, when, state, "", ""))
        _print_table(rows)
    _end(failures)


@app.command(epilog="Example: paper2hub schedules pause weekly-autoencoder")
def pause(name: Name, file: File = _FILE, targets: Targets = None, target: One = "") -> None:
    """Let a schedule wait, wherever it is, until it is resumed or the file is synced."""
    for place, found in _ours(name, file, targets, target):
        if found.paused:
            print(f"{name} on {place.name} was paused already.")
            continue
        place.schedules.pause_schedule(found)
        print(f"{name} on {place.name} is paused.")
    _warn(name, file, paused=True)


@app.command(epilog="Example: paper2hub schedules resume weekly-autoencoder")
def resume(name: Name, file: File = _FILE, targets: Targets = None, target: One = "") -> None:
    """Have a schedule go on from now; what it missed stays missed."""
    for place, found in _ours(name, file, targets, target):
        if not found.paused:
            print(f"{name} on {place.name} was not paused.")
            continue
        place.schedules.resume_schedule(found)
        print(f"{name} on {place.name} goes on.")
    _warn(name, file, paused=False)


@app.command(epilog="Example: paper2hub schedules run-now weekly-autoencoder")
def run_now(
    name: Name,
    file: File = _FILE,
    targets: Targets = None,
    if_due: Annotated[
        bool,
        typer.Option(
            "--if-due",
            help="Only if it is time, in its zone and within its limits, as it was last synced: "
            "what the entries of cron call.",
        ),
    ] = False,
) -> None:
    """Run a schedule's work once, now, as the file has it.

    It counts as none of its runs, and whether the schedule is paused makes no difference.
    """
    if if_due:
        raise typer.Exit(_run_if_due(name))
    from pipelines.cloud import schedules

    entries = schedules.read_entries(file)
    if name not in entries:
        raise UserError(f"A schedule must be one of {', '.join(entries)}; got {name!r}.")
    entry = entries[name]
    places = _targets(entries, targets)
    place = schedules.resolve(entry.target, places)
    if place is None:
        raise UserError(
            f"The target of {name} must be one of {', '.join(places)}; got {entry.target!r}."
        )
    wanted = place.prepare(entry)
    if place.kind == schedules.LOCAL:
        process, why = _crontab().run_once(wanted)
        if process is None:
            raise TryAgain(f"{name} must wait: {why}.")
        raise typer.Exit(_wait(process))
    from pipelines.cloud.account import find_account
    from pipelines.cloud.submission import cloud_of, submit

    job, _ = submit(wanted.request, cloud_of(find_account(place.name, targets)), again=True)
    print(f"Job: {job.identifier}")
    if job.page:
        print(f"Page: {job.page}")


@app.command(epilog="Example: paper2hub schedules serve")
def serve() -> None:
    """Run the schedules of this machine where it has no cron, until SIGTERM or Ctrl-C."""
    from pipelines.cloud import serve as server

    crontab, clock = _crontab(), server.RealClock()
    with clock.listening():
        names = sorted({found.name for found in crontab.schedules() if found.name})
        _say(f"Serving {', '.join(names) or 'nothing yet'} of {crontab.table.where}.")
        server.serve(crontab, clock, _say)


def _run_if_due(name: str) -> int:
    """What an entry of cron starts: usually nothing, for it comes round more often than needed."""
    from pipelines.cloud.cron import UTC

    crontab, now = _crontab(), datetime.datetime.now(UTC)
    planned = crontab.due(name, now)
    if planned is None:
        return 0
    process = crontab.start(name, planned)
    if isinstance(process, str):
        _say(f"{name}: not started: {process}")
        return 0
    _say(f"{name}: started for {planned.isoformat(timespec='seconds')}")
    return _wait(process)


def _wait(process: subprocess.Popen[bytes]) -> int:
    """The exit code of a run; it ends when this command is asked to."""
    from pipelines.cloud.serve import RealClock, end

    clock = RealClock()
    with clock.listening():
        while process.poll() is None:
            if clock.wait(0.2):
                end([process])
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def _targets(entries: dict[str, Entry], file: Path | None) -> dict[str, Target]:
    """This machine, and the accounts where the file of them is there or needed."""
    from pipelines.cloud import schedules
    from pipelines.cloud.account import FILE, read_accounts
    from pipelines.cloud.crontab import request_here

    crontab = _crontab()

    def prepare(entry: Entry) -> Recurring:
        request = request_here(entry.model, entry.values(), crontab.folder)
        return schedules.recurring(entry, request)

    path = file or Path(os.environ.get(FILE) or "targets.yaml")
    elsewhere = any(entry.target != schedules.LOCAL for entry in entries.values())
    needed = file is not None or FILE in os.environ or elsewhere
    accounts = read_accounts(file) if needed or path.exists() else {}
    return schedules.targets_of(accounts, crontab, prepare)


def _crontab() -> Crontab:
    from pipelines.cloud.crontab import Crontab

    return Crontab(Path.cwd())


def _ours(
    name: str, file: Path, targets: Path | None, target: str
) -> list[tuple[Target, Scheduled]]:
    from pipelines.cloud import schedules

    entries: dict[str, Entry] = {}
    with contextlib.suppress(UserError):  # what is paused need not be in the file
        entries = schedules.read_entries(file)
    places = {n: p for n, p in _targets(entries, targets).items() if target in ("", n)}
    return schedules.find_ours(name, places)


def _warn(name: str, file: Path, paused: bool) -> None:
    """Says that the file has it otherwise, which the next sync follows."""
    from pipelines.cloud import schedules

    with contextlib.suppress(UserError):
        entry = schedules.read_entries(file).get(name)
        if entry is not None and entry.paused != paused:
            said = str(entry.paused).lower()
            _say(f"{file} says paused: {said}, which the next sync follows.")


def _row(
    found: Scheduled, target: str, entries: dict[str, Entry]
) -> tuple[str, str, str, str, str, str]:
    state = "paused" if found.paused else "active"
    if not found.name:
        state = f"{state}, not ours"
    elif found.name not in entries:
        state = f"{state}, not in the file: sync deletes it"
    when = f"{found.cron} {found.time_zone}".strip()
    return found.name or found.title, target, when, state, found.next_run, found.last_run


def _print_table(rows: Sequence[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if not console.is_terminal:
        console.width = _WIDE
    table = Table(box=None, pad_edge=False, header_style="dim")
    for header in ("schedule", "target", "when", "state", "next run", "last run"):
        table.add_column(header)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table if rows else "No schedules.", highlight=False)


def _tell(change: Change) -> None:
    print(change.line(), flush=True)


def _say(text: str) -> None:
    print(text, flush=True)


def _end(failures: Sequence[tuple[object, Exception]]) -> None:
    """Names all that failed, and leaves with the exit code of the worst.

    Raises:
        Exception: the first that is neither the caller's nor the surroundings' fault.
    """
    for _, error in failures:
        if not isinstance(error, UserError | TryAgain):
            raise error
    for _, error in failures:
        print(f"error: {error}", file=sys.stderr)
    codes = {error.exit_code for _, error in failures if isinstance(error, UserError | TryAgain)}
    if codes:
        raise typer.Exit(min(codes))  # what the caller can mend, 2, before what may pass, 75
