"""Recurring work of this machine: entries of a crontab, and what they start.

An entry is one line that ends in our marker, with the schedule's name, the digest of what it
submits and the project's folder it belongs to. All other lines, those of another folder's
schedules too, keep every byte. An entry that is paused is one that is commented out.

Cron on Debian knows no time zones (CRON_TZ is cronie's alone, and TZ changes only what a command
sees), so an entry comes round whenever it may be time, by this machine's clock, and what it starts,
`paper2hub schedules run-now NAME --if-due`, looks at the zone. It starts what the last sync has put
down in `runs/.schedules/NAME/`, as a cloud would, whatever the file has become since. What is more
than a few minutes late, as after a night of sleep, is missed and not made up for.

Where there is no cron the entries are lines of a file, and `paper2hub schedules serve` runs them.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pipelines.cloud import cron as crons
from pipelines.cloud.job import OURS, Recurring, Request, Scheduled, schedule_digest
from trainer.artifact import read_json, write_json
from trainer.errors import UserError

if TYPE_CHECKING:
    from crontab import CronItem

TABLE = "PAPER2HUB_CRONTAB"
"""Environment variable that names a file of entries, instead of the user's crontab."""

STATE = Path("runs/.schedules")
"""Where a project keeps what its schedules have done."""

LATEST = datetime.timedelta(minutes=5)
"""How late a run may start, where the machine was busy; what is later was missed (ours)."""

_MARKER = re.compile(
    rf"# {OURS} (?P<name>[a-z0-9-]+) (?P<digest>[0-9a-f]+) of (?P<project>[0-9a-f]+)\s*$"
)
_ENTRY = re.compile(r"\s*(?:@\w+|[\d*]\S*(?:\s+\S+){4})\s+\S")
_TITLE = 60  # characters of another's entry that are shown
_DEFINITION, _HISTORY, _LOG, _LOCK = "schedule.json", "history.json", "log", "lock"


class Table(Protocol):
    """Lines that cron, or what stands in for it, goes by."""

    where: str

    def read(self) -> str:
        """All lines."""

    def write(self, text: str) -> None:
        """Replaces all lines."""


class UserTable:
    """The crontab of this user.

    Args:
        program: what lists and replaces it.
    """

    where = "the user's crontab"

    def __init__(self, program: str = "crontab"):
        self._program = program

    def read(self) -> str:
        """All lines; none where the user has no crontab."""
        done = subprocess.run([self._program, "-l"], capture_output=True, check=False)
        if done.returncode and b"no crontab for" not in done.stderr:
            told = _decoded(done.stderr).strip()
            raise UserError(f"The crontab must be readable; `crontab -l`: {told}")
        return "" if done.returncode else _decoded(done.stdout)

    def write(self, text: str) -> None:
        """Replaces all lines."""
        done = subprocess.run(
            [self._program, "-"], input=_encoded(text), capture_output=True, check=False
        )
        if done.returncode:
            told = _decoded(done.stderr).strip()
            raise UserError(f"cron must take the entries; `crontab -`: {told}")


class FileTable:
    """A file of entries.

    Args:
        file: the file; it need not be there.
    """

    def __init__(self, file: Path):
        self._file = file
        self.where = str(file)

    def read(self) -> str:
        """All lines."""
        try:
            return _decoded(self._file.read_bytes())
        except FileNotFoundError:
            return ""
        except OSError as error:
            raise UserError(
                f"{self._file} must be a readable file of entries: {error.strerror}."
            ) from error

    def write(self, text: str) -> None:
        """Replaces all lines, at once."""
        draft = self._file.with_name(f".{self._file.name}.unfinished")
        try:
            draft.parent.mkdir(parents=True, exist_ok=True)
            draft.write_bytes(_encoded(text))
            os.replace(draft, self._file)
        except OSError as error:
            raise UserError(f"{self._file} must be writable: {error.strerror}.") from error


def find_table(folder: Path) -> Table:
    """The table of this machine: a file that is named, the user's crontab, or our own file."""
    if os.environ.get(TABLE):
        return FileTable(Path(os.environ[TABLE]))
    return UserTable() if shutil.which("crontab") else FileTable(folder / STATE / "crontab")


def request_here(model: str, values: Mapping[str, Any], folder: Path) -> Request:
    """What a schedule of this machine submits: a command, so that it runs the code that is here.

    Raises:
        UserError: the model's pipeline has no such parameters.
    """
    from pipelines.compiled import compiled_text
    from pipelines.local.graph import parameter_values, parse_graph

    graph = parse_graph(compiled_text(model, folder / "runs"))
    parameter_values(graph, values)
    return Request(model=model, text=f"paper2hub run {model}", parameters=dict(values))


def command_here(request: Request, folder: Path) -> list[str]:
    """The command that runs a request, with the environment's own interpreter."""
    command = [*_program(), "run", request.model, "--root", str(folder / "runs")]
    for name, value in request.parameters.items():
        if name in ("settings", "training"):
            option = "--set" if name == "settings" else "--training"
            for key, of_key in value.items():
                command += [option, f"{key}={_text(of_key)}"]
        else:
            command += ["--param", f"{name}={_text(value)}"]
    return command


class Crontab:
    """The schedules of one project on this machine; see `pipelines.cloud.job.Schedules`.

    Args:
        folder: the project's folder, in which its commands run.
        table: where the entries are; None for that of this machine.
        here: the zone by which cron goes; None for that of this machine.
        now: tells the time.
    """

    def __init__(
        self,
        folder: Path,
        table: Table | None = None,
        here: datetime.tzinfo | None = None,
        now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
    ):
        self.folder = folder.absolute()
        if "#" in str(self.folder) or "\n" in str(self.folder):
            raise UserError(
                f"The folder of a project with local schedules must have no #; got {self.folder}."
            )
        self.table = table or find_table(self.folder)
        self._here, self._now = here, now
        self._project = hashlib.sha256(str(self.folder).encode()).hexdigest()[:8]

    def schedules(self) -> list[Scheduled]:
        """All entries of the table, those that are not ours too."""
        found = []
        for line in _lines(self.table.read()):
            match = _MARKER.search(line)
            if match and match["project"] == self._project:
                found.append(self._scheduled(line, match["name"], match["digest"]))
            elif match or _ENTRY.match(line):
                found.append(_foreign(line))
        return found

    def create_schedule(self, recurring: Recurring) -> Scheduled:
        """Makes an entry, unless just this one is there."""
        self._define(recurring)
        line = self._line(recurring, recurring.paused)
        with self._changing() as lines:
            if line not in lines:
                lines.append(line)
        return next(found for found in self.schedules() if found.identifier == line)

    def update_schedule(self, found: Scheduled, recurring: Recurring) -> bool:
        """Puts another entry into the place of one; whether it is paused stays."""
        self._define(recurring)
        with self._changing() as lines:
            lines[self._place(found, lines)] = self._line(recurring, found.paused)
        return True

    def delete_schedule(self, found: Scheduled) -> None:
        """Deletes an entry; its log stays."""
        with self._changing() as lines:
            lines.pop(self._place(found, lines, last=True))
            others = any(self._is(found.name, line) for line in lines)
        if not others:
            for name in (_DEFINITION, _HISTORY):
                (self._state(found.name) / name).unlink(missing_ok=True)

    def pause_schedule(self, found: Scheduled) -> None:
        """Comments an entry out."""
        self._enable(found, False)

    def resume_schedule(self, found: Scheduled) -> None:
        """Makes an entry one again; what came round before does not count."""
        self._begin_now(found.name)
        self._enable(found, True)

    def log(self, name: str) -> Path:
        """What the runs of a schedule have printed."""
        return self._state(name) / _LOG

    def definition(self, name: str) -> Mapping[str, Any]:
        """What the last sync has put down of a schedule.

        Raises:
            UserError: there is none of this name.
        """
        found = self._read(name, _DEFINITION)
        if not found:
            raise UserError(
                f"The schedule {name} must be there; `paper2hub schedules sync` makes those of "
                "the file."
            )
        return found

    def due(
        self, name: str, now: datetime.datetime, after: datetime.datetime | None = None
    ) -> datetime.datetime | None:
        """When a run should have started that is not too late now.

        Args:
            name: of the schedule.
            now: the time.
            after: what was due until then does not count.
        """
        definition = self.definition(name)
        latest = now - LATEST
        after = latest if after is None else max(after, latest)
        return crons.due(definition["cron"], definition["time_zone"], after, now)

    def next_run(self, name: str, after: datetime.datetime) -> datetime.datetime | None:
        """When a schedule comes round after a moment; None for never again."""
        definition, history = self._read(name, _DEFINITION), self._read(name, _HISTORY)
        if not definition or self._is_through(definition, history):
            return None
        start = definition["start"]
        if start:
            begin = datetime.datetime.fromisoformat(start)
            after = max(after, begin - datetime.timedelta(seconds=1))
        moment = next(crons.following(definition["cron"], definition["time_zone"], after), None)
        return None if moment is None or _outside(definition, moment) else moment

    def start(self, name: str, planned: datetime.datetime | None) -> subprocess.Popen[bytes] | str:
        """Starts a run of a schedule, or says why there is none.

        Who calls goes by the table, so an entry that is paused or gone starts nothing. A moment is
        used once, whoever comes for it. The run itself holds one of as many locks as may be at
        work at once: it is free only when the run is gone.

        Args:
            name: of the schedule.
            planned: the moment for which it is; None for one that is asked for by hand, which
                counts as none of `most_runs`.
        """
        state, definition = self._state(name), self.definition(name)
        with _locked(state / _LOCK):
            history = dict(self._read(name, _HISTORY))
            if planned is not None:
                why = self._refusal(definition, history, planned)
                if why:
                    return why
                history["handled"] = planned.isoformat(timespec="seconds")
                write_json(state / _HISTORY, history)
            slot = _free_slot(state, definition["most_at_once"])
            if slot is None:
                return f"{definition['most_at_once']} of its runs are at work already"
            try:
                with open(state / _LOG, "ab") as log:
                    process = subprocess.Popen(
                        definition["command"],
                        cwd=self.folder,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        pass_fds=(slot,),
                        start_new_session=True,
                    )
            except OSError as error:
                raise UserError(
                    f"{definition['command'][0]} of schedule {name} must be there "
                    f"({error.strerror}); `paper2hub schedules sync` puts this environment's there."
                ) from error
            finally:
                os.close(slot)
            if planned is not None:
                history["runs"] = int(history.get("runs", 0)) + 1
                write_json(state / _HISTORY, history)
        return process

    def run_once(self, recurring: Recurring) -> tuple[subprocess.Popen[bytes] | None, str]:
        """Starts what the file asks for, now and by hand, with its output here.

        Returns:
            The run, or None and why there is none.
        """
        state = self._state(recurring.name)
        state.mkdir(parents=True, exist_ok=True)
        slot = _free_slot(state, recurring.most_at_once)
        if slot is None:
            return None, f"{recurring.most_at_once} of its runs are at work already"
        try:
            command = command_here(recurring.request, self.folder)
            return subprocess.Popen(command, cwd=self.folder, pass_fds=(slot,)), ""
        finally:
            os.close(slot)

    def _refusal(
        self,
        definition: Mapping[str, Any],
        history: Mapping[str, Any],
        planned: datetime.datetime,
    ) -> str:
        """Why a moment must not be used; empty if it may."""
        handled, since = history.get("handled", ""), history.get("since", "")
        if handled and planned <= datetime.datetime.fromisoformat(handled):
            return "its run of this moment has been seen to"
        if since and planned <= datetime.datetime.fromisoformat(since):
            return "it was made, changed or resumed only after this moment"
        if _outside(definition, planned):
            return "it is before its start or after its end"
        if self._is_through(definition, history):
            return f"it has made its {definition['most_runs']} runs"
        return ""

    def _is_through(self, definition: Mapping[str, Any], history: Mapping[str, Any]) -> bool:
        most = int(definition["most_runs"])
        return bool(most) and int(history.get("runs", 0)) >= most

    def _scheduled(self, line: str, name: str, digest: str) -> Scheduled:
        """One of our entries, compared with what was put down when it was made."""
        now, item = self._now(), _parsed(line)
        definition, history = self._read(name, _DEFINITION), self._read(name, _HISTORY)
        slices = item.slices.clean_render() if item.is_valid() else "what cron cannot read"
        cron, time_zone = slices, "this machine's"
        if definition:
            given = definition["cron"], definition["time_zone"]
            if slices == _normal(crons.covering(*given, now, self._here)):
                cron, time_zone = given
        right = bool(definition) and item.command == self._command(name)
        right = right and definition.get("digest") == digest
        right = right and definition.get("program") == _program()
        paused = line.lstrip().startswith("#")
        upcoming = None if paused else self.next_run(name, now)
        return Scheduled(
            identifier=line,
            name=name,
            title=f"{OURS} {name}",
            digest=digest if right else "",
            cron=cron,
            time_zone=time_zone,
            paused=paused,
            most_at_once=int(definition.get("most_at_once", 0)),
            most_runs=int(definition.get("most_runs", 0)),
            start=str(definition.get("start", "")),
            end=str(definition.get("end", "")),
            next_run="" if upcoming is None else upcoming.isoformat(timespec="seconds"),
            last_run=str(history.get("handled", "")),
        )

    def _line(self, recurring: Recurring, paused: bool) -> str:
        """The entry of a schedule."""
        from crontab import CronItem

        marker = f"{OURS} {recurring.name} {schedule_digest(recurring)} of {self._project}"
        item = CronItem(self._command(recurring.name), comment=marker)
        item.setall(crons.covering(recurring.cron, recurring.time_zone, self._now(), self._here))
        item.enable(not paused)
        return str(item.render())

    def _command(self, name: str) -> str:
        """What an entry has cron run."""
        words = [*_program(), "schedules", "run-now", name, "--if-due"]
        log = shlex.quote(str(STATE / name / _LOG))
        return f"cd {shlex.quote(str(self.folder))} && {shlex.join(words)} >>{log} 2>&1"

    def _define(self, recurring: Recurring) -> None:
        """Puts down what entries cannot say."""
        definition = {
            "cron": recurring.cron,
            "time_zone": recurring.time_zone,
            "most_at_once": recurring.most_at_once,
            "most_runs": recurring.most_runs,
            "start": recurring.start,
            "end": recurring.end,
            "digest": schedule_digest(recurring),
            "program": _program(),
            "command": command_here(recurring.request, self.folder),
        }
        write_json(self._state(recurring.name) / _DEFINITION, definition)
        self._begin_now(recurring.name)

    def _begin_now(self, name: str) -> None:
        """Has nothing count that came round before."""
        with _locked(self._state(name) / _LOCK):
            since = self._now().isoformat(timespec="seconds")
            write_json(self._state(name) / _HISTORY, {**self._read(name, _HISTORY), "since": since})

    def _enable(self, found: Scheduled, enabled: bool) -> None:
        with self._changing() as lines:
            place = self._place(found, lines)
            bare = lines[place].lstrip().lstrip("#").lstrip()
            lines[place] = bare if enabled else f"# {bare}"

    def _place(self, found: Scheduled, lines: Sequence[str], last: bool = False) -> int:
        """Where an entry is: the same line, or what has become of it since it was read."""
        same = [number for number, line in enumerate(lines) if line == found.identifier]
        same = same or [n for n, line in enumerate(lines) if self._is(found.name, line)]
        if not same:
            raise UserError(f"The entry of {found.name} must be there; it has just gone.")
        return same[-1 if last else 0]

    def _is(self, name: str, line: str) -> bool:
        match = _MARKER.search(line)
        return match is not None and (match["name"], match["project"]) == (name, self._project)

    def _state(self, name: str) -> Path:
        return self.folder / STATE / name

    def _read(self, name: str, file: str) -> Mapping[str, Any]:
        """What is known of a schedule; nothing where it was lost."""
        with contextlib.suppress(OSError, ValueError):
            found = read_json(self._state(name) / file)
            if isinstance(found, dict):
                return found
        return {}

    @contextlib.contextmanager
    def _changing(self) -> Iterator[list[str]]:
        """The lines of the table, written back when the block ends, one process at a time."""
        with _locked(self.folder / STATE / _LOCK):
            text = self.table.read()
            lines = _lines(text)
            yield lines
            changed = "".join(f"{line}\n" for line in lines)
            if changed != text:
                self.table.write(changed)


def _lines(text: str) -> list[str]:
    """Lines as cron has them: whatever else ends one for Python is part of it."""
    return text.removesuffix("\n").split("\n") if text else []


def _decoded(content: bytes) -> str:
    """Others' entries may be of any encoding, and keep it."""
    return content.decode("utf-8", "surrogateescape")


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _program() -> list[str]:
    return [sys.executable, "-m", "pipelines"]


def _text(value: Any) -> str:
    """A value as an option of the command takes it."""
    return value if isinstance(value, str) else "none" if value is None else json.dumps(value)


def _parsed(line: str) -> CronItem:
    """One of our lines as cron reads it; commented out or not."""
    import logging

    from crontab import LOG, CronItem, CronTab

    LOG.setLevel(logging.CRITICAL)  # that a line was broken by hand is told as what differs
    return CronItem.from_line(line, cron=CronTab(tab=""))


def _normal(cron: str) -> str:
    """An expression as the library writes it."""
    from crontab import CronSlices

    return str(CronSlices(cron).clean_render())


def _foreign(line: str) -> Scheduled:
    """An entry that is not ours, or not this project's."""
    title = " ".join(line.split())
    return Scheduled(
        identifier=line,
        name="",
        title=title if len(title) <= _TITLE else f"{title[: _TITLE - 1]}…",
        digest="",
        cron="",
        time_zone="",
        paused=title.startswith("#"),
    )


def _outside(definition: Mapping[str, Any], moment: datetime.datetime) -> bool:
    """Whether a moment is before the start or after the end."""
    start, end = definition["start"], definition["end"]
    return bool(
        (start and moment < datetime.datetime.fromisoformat(start))
        or (end and moment > datetime.datetime.fromisoformat(end))
    )


@contextlib.contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Waits for a lock, and holds it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _free_slot(state: Path, count: int) -> int | None:
    """A lock that nobody holds, of as many as may be at work; to be handed to the run."""
    for number in range(count):
        slot = os.open(state / f"slot-{number}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(slot, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return slot
        except BlockingIOError:
            os.close(slot)
    return None
