import datetime
import hashlib
import os
import stat
import subprocess
import sys
import time
import zoneinfo
from pathlib import Path

import pytest

from pipelines.cloud import crontab as module
from pipelines.cloud.crontab import Crontab, FileTable, UserTable, command_here, find_table
from pipelines.cloud.job import Recurring, Request, schedule_digest
from pipelines.cloud.schedules import LOCAL, Target, carry_out, plan, read_entries, recurring
from trainer.errors import UserError

UTC = datetime.UTC
NOW = datetime.datetime(2026, 11, 22, 12, tzinfo=UTC)
MONDAY = datetime.datetime(2026, 11, 23, 2, tzinfo=UTC)  # three o'clock in Paris

FOREIGN = (
    "MAILTO=me@example.com\n"
    'SPACED = "two words"   \n'
    "# 0 1 * * * a comment that looks like an entry\n"
    "\n"
    "@every_minute  something-that-only-some-crons-know\n"
    "@reboot /bin/true # at the start\n"
    "  */5 *\t* * *   backup   --percent \\%   # nightly  \n"
    "0 0 * * 7 odd\x0cbut allowed \xe9\r\n"
    "0 3 * * 1 cd /other && run # paper2hub weekly 0123456789ab of 00000000\n"
)


class Time:
    """A clock that is set by hand."""

    def __init__(self):
        self.moment = NOW

    def __call__(self):
        return self.moment


def wanted(name="weekly", **changes):
    request = Request("autoencoder", "paper2hub run autoencoder", {"settings": {"epochs": 2}})
    fields = {"cron": "0 3 * * 1", "time_zone": "Europe/Paris", **changes}
    return Recurring(name=name, request=request, **fields)


@pytest.fixture
def now():
    return Time()


@pytest.fixture
def entries(tmp_path, now):
    """The entries of a project on a machine whose clock shows UTC."""
    table = FileTable(tmp_path / "table")
    return Crontab(tmp_path / "project", table, zoneinfo.ZoneInfo("UTC"), now)


@pytest.fixture
def script(monkeypatch):
    """Has schedules run a Python script instead of the command."""

    def use(text):
        monkeypatch.setattr(module, "command_here", lambda *_: [sys.executable, "-c", text])

    return use


def text_of(entries):
    return entries.table.read()


def test_that_an_entry_is_one_line_with_the_environments_own_interpreter(entries, tmp_path):
    made = entries.create_schedule(wanted())
    project = tmp_path / "project"
    digest = schedule_digest(wanted())
    of = hashlib.sha256(str(project).encode()).hexdigest()[:8]
    # Paris is one or two hours before UTC, so three o'clock there is one or two here.
    assert text_of(entries) == (
        f"0 1,2 * * * cd {project} && {sys.executable} -m pipelines schedules run-now weekly "
        f"--if-due >>runs/.schedules/weekly/log 2>&1 # paper2hub weekly {digest} of {of}\n"
    )
    assert (made.name, made.digest, made.cron, made.time_zone, made.paused) == (
        "weekly",
        digest,
        "0 3 * * 1",
        "Europe/Paris",
        False,
    )
    assert made.next_run == MONDAY.isoformat()


def test_that_a_folder_with_odd_characters_survives_cron_and_the_shell(tmp_path, now, script):
    script("")
    folder = tmp_path / "50% of it's"
    entries = Crontab(folder, FileTable(tmp_path / "table"), UTC, now)
    made = entries.create_schedule(wanted())
    assert entries.schedules() == [made]
    assert made.digest  # the command is read as it was written
    line = text_of(entries).split(" ", 5)[5]
    command = line.partition(" && ")[0].replace("\\%", "%")  # what cron makes of it
    done = subprocess.run(["sh", "-c", f"{command} && pwd"], capture_output=True, text=True)
    assert done.stdout.strip() == str(folder)


def test_that_a_folder_that_no_entry_can_hold_is_refused(tmp_path):
    with pytest.raises(UserError, match="must have no #"):
        Crontab(tmp_path / "a #1", FileTable(tmp_path / "table"))


def test_that_foreign_lines_keep_every_byte(entries, tmp_path):
    before = FOREIGN.encode("latin-1")  # not even UTF-8
    (tmp_path / "table").write_bytes(before)
    found = entries.create_schedule(wanted())
    steps = [
        lambda: entries.pause_schedule(found),
        lambda: entries.resume_schedule(found),
        lambda: entries.update_schedule(found, wanted(cron="0 4 * * 1")),
        lambda: entries.create_schedule(wanted("other")),
    ]
    for step in steps:
        step()
        assert (tmp_path / "table").read_bytes().startswith(before)
    for each in entries.schedules():
        if each.name:
            entries.delete_schedule(each)
    assert (tmp_path / "table").read_bytes() == before


def test_that_foreign_entries_are_told_and_those_of_another_folder_are_foreign(entries, tmp_path):
    (tmp_path / "table").write_bytes(FOREIGN.encode())
    titles = [found.title for found in entries.schedules()]
    assert [found.name for found in entries.schedules()] == [""] * 5
    assert titles[0] == "@every_minute something-that-only-some-crons-know"
    assert titles[2] == "*/5 * * * * backup --percent \\% # nightly"
    assert titles[4].startswith("0 3 * * 1 cd /other && run # paper2hub weekly")


def test_that_a_paused_entry_is_commented_out(entries):
    made = entries.create_schedule(wanted(paused=True))
    line = text_of(entries)
    assert line.startswith("# 0 1,2 * * * cd ")
    assert made.paused
    assert made.next_run == ""
    entries.resume_schedule(made)
    assert text_of(entries) == line.removeprefix("# ")
    (found,) = entries.schedules()
    entries.pause_schedule(found)
    assert text_of(entries) == line
    entries.update_schedule(entries.schedules()[0], wanted(cron="0 5 * * 1"))
    assert text_of(entries).startswith("# 0 3,4 * * * cd ")  # a change does not resume it


def test_that_making_an_entry_twice_makes_one(entries):
    assert entries.create_schedule(wanted()) == entries.create_schedule(wanted())
    assert len(text_of(entries).splitlines()) == 1


@pytest.mark.parametrize(
    ("edit", "drift"),
    [
        (lambda line: line.replace("0 1,2 *", "30 5 *"), {"cron": "30 5 * * *"}),
        (lambda line: line.replace("0 1,2 *", "often *"), {"cron": "what cron cannot read"}),
        (lambda line: line.replace("--if-due", ""), {"digest": ""}),
        (lambda line: line.replace(sys.executable, "/usr/bin/python"), {"digest": ""}),
        (lambda line: f"#{line}", {"paused": True}),
    ],
)
def test_that_what_was_changed_by_hand_is_seen_and_mended(entries, tmp_path, edit, drift):
    entries.create_schedule(wanted())
    right = text_of(entries)
    (tmp_path / "table").write_text(edit(right), encoding="utf-8")
    (found,) = entries.schedules()
    assert {name: getattr(found, name) for name in drift} == drift
    assert entries.update_schedule(found, wanted())
    if found.paused:
        entries.resume_schedule(entries.schedules()[0])
    assert text_of(entries) == right


def test_that_a_lost_definition_is_seen(entries, tmp_path):
    made = entries.create_schedule(wanted())
    (tmp_path / "project/runs/.schedules/weekly/schedule.json").unlink()
    (found,) = entries.schedules()
    assert (found.name, found.digest) == ("weekly", "")
    entries.update_schedule(found, wanted())
    assert entries.schedules() == [made]


def test_that_of_two_equal_entries_one_is_deleted(entries, tmp_path):
    made = entries.create_schedule(wanted())
    (tmp_path / "table").write_text(text_of(entries) * 2, encoding="utf-8")
    assert entries.schedules() == [made, made]
    entries.delete_schedule(made)
    assert entries.schedules() == [made]  # with its definition
    entries.delete_schedule(made)
    assert text_of(entries) == ""
    with pytest.raises(UserError, match="it has just gone"):
        entries.delete_schedule(made)


def test_that_a_file_and_a_drifted_table_are_synced_as_any_target(entries, tmp_path):
    file = tmp_path / "schedules.yaml"
    entry = "{model: autoencoder, target: local, cron: '0 3 * * 1', time_zone: Europe/Paris}"
    names = ["edited", "gone", "paused", "twice"]
    file.write_text("".join(f"{name}: {entry}\n" for name in [*names, "forgotten"]))

    def prepare(entry):
        return recurring(entry, Request(entry.model, "a command", entry.values()))

    def sync():
        places = {LOCAL: Target(LOCAL, LOCAL, entries, prepare)}
        changes = plan(read_entries(file), places, NOW)
        lines = []
        failures = carry_out(changes, places, lambda change: lines.append(change.line()))
        assert lines == [change.line() for change in changes]
        assert not failures
        return lines

    table = tmp_path / "table"
    table.write_text("17 * * * * theirs\n")
    assert [line.split()[0] for line in sync()] == ["create"] * 5 + ["leave"]
    right = table.read_text()
    lines = right.splitlines()
    drifted = [
        lines[0],
        lines[1].replace("0 1,2 ", "0 7 "),
        *lines[4:6],
        f"# {lines[3]}",
        lines[4],
    ]
    table.write_text("".join(f"{line}\n" for line in drifted))
    file.write_text("".join(f"{name}: {entry}\n" for name in names))
    twice = lines[4]
    assert sync() == [
        "update    edited on local: cron is 0 7 * * * and the file says 0 3 * * 1; time_zone is "
        "this machine's and the file says Europe/Paris",
        "create    gone on local: there is none; 0 3 * * 1 Europe/Paris",
        "resume    paused on local: it is paused and the file says paused: false; what it missed "
        "stays missed",
        "nothing   twice on local: as the file says",
        f"delete    twice on local: there is another of this name: {twice}",
        "leave     17 * * * * theirs on local: it is not ours",
        "delete    forgotten on local: the file does not have it",
    ]
    assert sorted(table.read_text().splitlines()) == sorted(lines[:5])
    before = table.read_text()
    assert {line.split()[0] for line in sync()} == {"nothing", "leave"}
    assert table.read_text() == before


def test_that_a_run_is_due_for_some_minutes_in_its_zone(entries, now):
    entries.create_schedule(wanted())
    minute = datetime.timedelta(minutes=1)
    assert entries.due("weekly", MONDAY - minute) is None
    assert entries.due("weekly", MONDAY) == MONDAY
    assert entries.due("weekly", MONDAY + 4 * minute) == MONDAY
    assert entries.due("weekly", MONDAY + 5 * minute) is None  # missed
    assert entries.due("weekly", MONDAY - 60 * minute) is None  # the other of the two hours
    with pytest.raises(UserError, match="The schedule daily must be there"):
        entries.due("daily", MONDAY)


def test_that_a_moment_is_used_once(entries, tmp_path, script):
    script("print('at work')")
    entries.create_schedule(wanted())
    process = entries.start("weekly", MONDAY)
    assert process.wait() == 0
    assert entries.log("weekly").read_text() == "at work\n"
    assert entries.start("weekly", MONDAY) == "its run of this moment has been seen to"
    assert entries.schedules()[0].last_run == MONDAY.isoformat()


def test_that_nothing_counts_from_before_an_entry_was_made_or_resumed(entries, now, script):
    script("")
    now.moment = MONDAY + datetime.timedelta(minutes=1)
    made = entries.create_schedule(wanted())
    late = "it was made, changed or resumed only after this moment"
    assert entries.start("weekly", MONDAY) == late
    week = datetime.timedelta(days=7)
    entries.pause_schedule(made)
    now.moment = MONDAY + week + datetime.timedelta(minutes=1)
    entries.resume_schedule(entries.schedules()[0])
    assert entries.start("weekly", MONDAY + week) == late
    assert entries.start("weekly", MONDAY + 2 * week).wait() == 0


def test_that_runs_are_limited_in_number_and_time(entries, script):
    script("")
    week = datetime.timedelta(days=7)
    limits = {
        "most_runs": 2,
        "start": (MONDAY + week).isoformat(),
        "end": (MONDAY + 9 * week).isoformat(),
    }
    entries.create_schedule(wanted(**limits))
    assert entries.next_run("weekly", NOW) == MONDAY + week
    assert entries.start("weekly", MONDAY) == "it is before its start or after its end"
    for number in (1, 2):
        assert entries.start("weekly", MONDAY + number * week).wait() == 0
    assert entries.start("weekly", MONDAY + 3 * week) == "it has made its 2 runs"
    assert entries.next_run("weekly", MONDAY) is None
    entries.update_schedule(entries.schedules()[0], wanted(**{**limits, "most_runs": 3}))
    assert entries.start("weekly", MONDAY + 10 * week) == "it is before its start or after its end"
    assert entries.start("weekly", MONDAY + 9 * week).wait() == 0


def test_that_no_more_runs_are_at_work_than_may_be(entries, script):
    script("import sys; sys.stdin.read(); import time; time.sleep(60)")
    entries.create_schedule(wanted(cron="* * * * *", most_at_once=2))
    moments = [MONDAY + datetime.timedelta(minutes=n) for n in range(5)]
    processes = [entries.start("weekly", moment) for moment in moments[:2]]
    try:
        assert entries.start("weekly", moments[2]) == "2 of its runs are at work already"
        assert entries.start("weekly", None) == "2 of its runs are at work already"
        processes[0].kill()
        processes[0].wait()
        third = entries.start("weekly", moments[3])
        processes.append(third)
        assert third.poll() is None
        assert entries.start("weekly", moments[2]) == "its run of this moment has been seen to"
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_that_a_run_whose_starter_is_gone_still_counts(entries, tmp_path, script):
    script("import time; time.sleep(60)")
    entries.create_schedule(wanted())
    starter = (
        "import datetime, os, pathlib, sys\n"
        "from pipelines.cloud.crontab import Crontab, FileTable\n"
        "entries = Crontab(pathlib.Path(sys.argv[1]), FileTable(pathlib.Path(sys.argv[2])))\n"
        "run = entries.start('weekly', datetime.datetime.fromisoformat(sys.argv[3]))\n"
        "print(run.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    given = [str(tmp_path / "project"), str(tmp_path / "table"), MONDAY.isoformat()]
    done = subprocess.run([sys.executable, "-c", starter, *given], capture_output=True, text=True)
    pid = int(done.stdout)
    try:
        week = MONDAY + datetime.timedelta(days=7)
        assert entries.start("weekly", week) == "1 of its runs are at work already"
    finally:
        os.kill(pid, 9)
    deadline = time.monotonic() + 10
    while isinstance(last := entries.start("weekly", None), str):
        assert time.monotonic() < deadline, last
        time.sleep(0.05)
    last.kill()
    last.wait()


def test_that_a_program_that_is_gone_is_told(entries, monkeypatch):
    monkeypatch.setattr(module, "command_here", lambda *_: ["/gone/python", "-m", "pipelines"])
    entries.create_schedule(wanted())
    with pytest.raises(UserError, match="/gone/python of schedule weekly must be there"):
        entries.start("weekly", MONDAY)


def test_that_the_command_is_paper2hub_run_with_all_that_the_entry_says(tmp_path):
    parameters = {
        "settings": {"epochs": 2, "widths": [8, 4], "name": "a b"},
        "training": {"accumulation": 4},
        "data": "/data/digits",
        "shards": 8,
        "check": None,
    }
    assert command_here(Request("autoencoder", "", parameters), tmp_path) == [
        *(sys.executable, "-m", "pipelines", "run", "autoencoder"),
        *("--root", str(tmp_path / "runs")),
        *("--set", "epochs=2", "--set", "widths=[8, 4]", "--set", "name=a b"),
        *("--training", "accumulation=4"),
        *("--param", "data=/data/digits", "--param", "shards=8", "--param", "check=none"),
    ]


CRONTAB = """#!/bin/sh
# Behaves as Debian's: -l lists, - replaces.
if [ "$1" = -l ]; then
    [ -e "$TABLE" ] || { echo "no crontab for somebody" >&2; exit 1; }
    exec cat "$TABLE"
fi
new=$(mktemp) && cat > "$new"
grep -q "^bad" "$new" && { echo "errors in crontab file, can't install" >&2; exit 1; }
mv "$new" "$TABLE"
"""


@pytest.fixture
def program(tmp_path, monkeypatch):
    """A crontab program of a user who has none yet."""
    file = tmp_path / "bin/crontab"
    file.parent.mkdir()
    file.write_text(CRONTAB)
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("TABLE", str(tmp_path / "spool"))
    return str(file)


def test_that_the_crontab_of_the_user_is_read_and_replaced(program, tmp_path):
    table = UserTable(program)
    assert table.read() == ""
    entries = Crontab(tmp_path / "project", table, UTC)
    made = entries.create_schedule(wanted())
    assert (tmp_path / "spool").read_text() == f"{made.identifier}\n"
    assert entries.schedules() == [made]
    entries.delete_schedule(made)
    assert (tmp_path / "spool").read_text() == ""
    with pytest.raises(UserError, match="errors in crontab file, can't install"):
        table.write("bad line\n")
    (tmp_path / "spool").unlink()
    (tmp_path / "spool").mkdir()
    with pytest.raises(UserError, match="must be readable"):
        table.read()


def test_which_table_is_that_of_this_machine(program, tmp_path, monkeypatch):
    monkeypatch.delenv("PAPER2HUB_CRONTAB", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert find_table(tmp_path).where == str(tmp_path / "runs/.schedules/crontab")
    monkeypatch.setenv("PATH", str(Path(program).parent))
    assert isinstance(find_table(tmp_path), UserTable)
    monkeypatch.setenv("PAPER2HUB_CRONTAB", "/etc/mine")
    assert find_table(tmp_path).where == "/etc/mine"
