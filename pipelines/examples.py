"""The commands `paper2hub examples …`: examples verified, shown and compared."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trainer.errors import UserError
from trainer.progress import Progress

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from trainer.data.comparison import Comparison, Differences
    from trainer.data.gallery import Group, Row
    from trainer.data.manifest import Manifest
    from trainer.data.verification import Verification

app = typer.Typer(help="Verify, show and compare folders of examples.", no_args_is_help=True)

Folder = Annotated[
    Path,
    typer.Argument(
        metavar="DIR", help="Folder of examples, as create_tfrecords or preprocess writes it."
    ),
]
_MEGABYTE = 10**6
_QUIET = 100 * _MEGABYTE  # less than this is read before anybody wonders
_GROUPS = 20  # kinds of reasons that the terminal lists
_CELL = 60  # characters of a table's cell
_WIDE = 200  # columns where there is no screen
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command(epilog="Example: paper2hub examples verify examples/cub")
def verify(
    folder: Folder,
    as_json: AsJson = False,
    listed: Annotated[
        int, typer.Option("-n", min=1, help="How many findings to list; the others are counted.")
    ] = 100,
) -> None:
    """Read every byte again and compare all checksums; name what is damaged, missing or too much.

    Exit code 0 if all is as the manifest says, 2 if not: a line for each finding on standard error.
    """
    from trainer.data.manifest import read_manifest
    from trainer.data.verification import verify_examples

    total = 0
    with contextlib.suppress(UserError):  # which the verification tells
        total = sum(
            s.bytes for split in read_manifest(folder).splits.values() for s in split.shards
        )
    with _reading(total) as advance:
        found = verify_examples(folder, listed, advance)
    if as_json:
        print(json.dumps({"folder": str(folder), **dataclasses.asdict(found)}, indent=2))
    summary = _verified(found)
    if not found.problems:
        if not as_json:
            _console().print(_text(f"{folder}: {summary}"), soft_wrap=True)
        return
    for finding in found.findings if not as_json else ():
        print(finding, file=sys.stderr)
    more = f" ({found.more:,} of them not listed)" if found.more else ""
    raise UserError(
        f"Examples must be as their manifest says; {folder} is not: "
        f"{_plural(found.problems, 'finding')}{more}; {summary}. Create the examples again."
    )


@app.command(epilog="Example: paper2hub examples show examples/cub -n 50 --html cub.html")
def show(
    folder: Folder,
    most: Annotated[
        int, typer.Option("-n", min=0, max=1000, help="How many examples to show.")
    ] = 25,
    split: Annotated[
        str,
        typer.Option(metavar="NAME", help="Show one split.", show_default="all, in equal parts"),
    ] = "",
    page: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Write a page with pictures, boxes and masks."),
    ] = None,
) -> None:
    """Show what a folder of examples holds: here, or with pictures on a page of its own.

    The terminal shows the first examples of each split, the page evenly spaced ones.
    """
    from trainer.data.manifest import read_manifest

    manifest = read_manifest(folder)
    if page is not None:
        from trainer.data.gallery import write_gallery

        count = write_gallery(folder, page, most, split)
        said = f"{page}: {_plural(count, 'example')} of {manifest.title}"
        _console().print(_text(said), soft_wrap=True)
        return
    from trainer.data.gallery import groups, rows
    from trainer.data.manifest import CHANGES, QUARANTINE

    shown = rows(folder, most, split)
    console = _console()
    _show_manifest(console, manifest)
    _show_groups(console, "Quarantine", groups(folder, QUARANTINE))
    _show_groups(console, "Changed", groups(folder, CHANGES))
    _show_rows(console, shown)


@app.command(epilog="Example: paper2hub examples diff examples/cub examples/cub-before")
def diff(
    first: Annotated[Path, typer.Argument(metavar="A", help="A folder of examples.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another one.")],
    named: Annotated[
        int, typer.Option("-n", min=0, help="How many examples of each kind of difference to name.")
    ] = 10,
    as_json: AsJson = False,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="End with exit code 1 if there are differences.")
    ] = False,
) -> None:
    """Compare two folders of examples by content; neither shards nor order matter.

    Exit code 0 however it turns out, since a difference is an answer and no error, unless
    --exit-code asks for another.
    """
    from trainer.data.comparison import bytes_to_read, compare_examples

    with _reading(bytes_to_read(first, second)) as advance:
        found = compare_examples(first, second, named, advance)
    if as_json:
        values = {"first": str(first), "second": str(second), "equal": found.equal}
        print(json.dumps({**values, **dataclasses.asdict(found)}, indent=2))
    else:
        _show_comparison(_console(), first, second, found)
    if exit_code and not found.equal:
        raise typer.Exit(1)


@contextlib.contextmanager
def _reading(total: int) -> Iterator[Callable[[int], None]]:
    """Shows how many bytes have been read: a bar on a terminal, lines now and then elsewhere."""
    if not sys.stderr.isatty():
        yield _lines(total)
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda count: bar.advance(task, count)


def _lines(total: int) -> Callable[[int], None]:
    """Prints a line now and then, if there is so much to read that somebody might wait."""
    if total < _QUIET:
        return lambda count: None
    progress = Progress(-(-total // _MEGABYTE), "MB")
    read = 0

    def advance(count: int) -> None:
        nonlocal read
        read += count
        more = min(-(-read // _MEGABYTE), progress.total or 0) - progress.done
        if more:
            progress.advance(more)

    return advance


def _verified(found: Verification) -> str:
    """What was read, in a line."""
    splits = ", ".join(f"{split} {count:,}" for split, count in found.splits.items())
    rate = f", {found.bytes / found.seconds / _MEGABYTE:,.0f} MB/s" if found.bytes > _QUIET else ""
    return (
        f"{_plural(found.records, 'record')} whole ({splits}), {found.bytes:,} bytes in "
        f"{found.seconds:.1f} s{rate}"
    )


def _show_manifest(console: Console, manifest: Manifest) -> None:
    from rich.table import Table

    from trainer.data.gallery import feature_table

    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    checked = "decoded in full" if manifest.check == "decode" else "headers only"
    for name, value in (
        ("dataset", f"{manifest.title} ({manifest.dataset})"),
        ("licence", manifest.licence),
        ("homepage", manifest.homepage),
        ("classes", f"{len(manifest.class_names):,}" if manifest.class_names else "none"),
        ("evaluated on", manifest.evaluation_split),
        ("images checked", checked),
        *(("note", note) for note in manifest.notes),
    ):
        facts.add_row(name, _text(value))
    console.print(facts)
    splits = _table("split", "shards", "records", "bytes", "refused", "changed")
    for column in splits.columns[1:]:
        column.justify = "right"
    for name, split in manifest.splits.items():
        size = sum(shard.bytes for shard in split.shards)
        counts = (len(split.shards), split.records, size, split.quarantined, split.changed)
        splits.add_row(_text(name), *(f"{count:,}" for count in counts))
    console.print("", splits)
    features = _table("feature", "type", "shape", "what it is")
    for feature in feature_table(manifest):
        where = f" (in {feature['splits']})" if feature["splits"] else ""
        features.add_row(
            _text(feature["name"]),
            feature["type"],
            feature["shape"],
            _text((feature["description"] or feature["content"]) + where),
        )
    console.print("", features)


def _show_groups(console: Console, title: str, found: list[Group]) -> None:
    if not found:
        return
    table = _table(title, "items", "where", "such as")
    table.columns[1].justify = "right"
    for group in found[:_GROUPS]:
        where = ", ".join(f"{split} {count:,}" for split, count in group.splits.items())
        table.add_row(_text(group.reason), f"{group.count:,}", _text(where), _text(group.keys[0]))
    console.print("", table)
    if len(found) > _GROUPS:
        rest = sum(group.count for group in found[_GROUPS:])
        console.print(f"and {rest:,} for {len(found) - _GROUPS} other reasons", style="dim")


def _show_rows(console: Console, shown: list[Row]) -> None:
    """The columns that no example has anything for are left out."""
    if not shown:
        return
    cells = {
        "split": [row.split for row in shown],
        "key": [row.key for row in shown],
        "label": [row.label for row in shown],
        "picture": [", ".join(row.pictures) for row in shown],
        "boxes": ["" if row.boxes is None else f"{row.boxes:,}" for row in shown],
        "masks": ["" if row.masks is None else f"{row.masks:,}" for row in shown],
        "text": [" / ".join(row.texts) for row in shown],
    }
    names = [name for name, column in cells.items() if any(column)]
    table = _table(*names)
    for column in table.columns:
        column.no_wrap = True
        if column.header in ("boxes", "masks"):
            column.justify = "right"
    for values in zip(*(cells[name] for name in names), strict=True):
        table.add_row(*(_text(_shortened(value)) for value in values))
    console.print("", table)


def _show_comparison(console: Console, first: Path, second: Path, found: Comparison) -> None:
    def say(text: str, style: str = "") -> None:
        console.print(_text(text), style=style, soft_wrap=True)

    for name, folder, side in (("A", first, 0), ("B", second, 1)):
        splits = ", ".join(f"{split} {counts[side]:,}" for split, counts in found.records.items())
        say(f"{name}  {folder}: {splits}", "dim")
    if found.equal:
        records = sum(count for count, _ in found.records.values())
        say(f"No difference in {_plural(records, 'record')}.")
        return
    for fact in found.facts:
        say(f"{fact.name}: {fact.first or 'nothing'} → {fact.second or 'nothing'}")
    features = ", ".join(f"{name} {count:,}" for name, count in found.changed_features.items())
    for what, kinds in (
        ("examples", found.examples),
        ("quarantine", found.quarantine),
        ("changes", found.changes),
    ):
        for kind, differences in kinds.items():
            if not differences.count:
                continue
            by = f" ({features})" if (what, kind) == ("examples", "changed") else ""
            say(f"{what} {kind}: {differences.count:,}{by}", "bold")
            for line, style in _differences(kind, differences):
                say(line, style)


def _differences(kind: str, differences: Differences) -> Iterator[tuple[str, str]]:
    """A line and its style for each difference that is named."""
    mark, style = {"removed": ("-", "red"), "added": ("+", "green")}.get(kind, ("~", "yellow"))
    for each in differences.named:
        if kind in ("removed", "added"):
            detail = f" ({each.first or each.second})"
        elif each.first or each.second:
            detail = f": {each.first or 'nothing'} → {each.second or 'nothing'}"
        else:
            detail = f": {', '.join(each.features)}"
        yield f"  {mark} {each.key}{detail}", style
    if differences.count > len(differences.named):
        yield f"  and {differences.count - len(differences.named):,} more", "dim"


def _console() -> Console:
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console.width = _WIDE
    return console


def _table(*columns: str) -> Table:
    from rich.table import Table

    return Table(*columns, box=None, pad_edge=False, header_style="dim")


def _text(value: str) -> Text:
    """Text of a dataset: no markup, and nothing that moves a terminal's cursor or its colours."""
    from rich.text import Text

    return Text(_CONTROLS.sub("\N{REPLACEMENT CHARACTER}", value))


def _shortened(text: str) -> str:
    return text if len(text) <= _CELL else f"{text[: _CELL - 1]}…"


def _plural(count: int, word: str) -> str:
    return f"{count:,} {word}{'' if count == 1 else 's'}"
