import datetime
import os
import signal
import subprocess
import sys
import time

import pytest

from pipelines.cloud import crontab as module
from pipelines.cloud.crontab import Crontab, FileTable
from pipelines.cloud.job import Recurring, Request
from pipelines.cloud.serve import end, serve
from trainer.errors import TryAgain

UTC = datetime.UTC
NOON = datetime.datetime(2026, 11, 22, 12, tzinfo=UTC)
MINUTE = datetime.timedelta(minutes=1)


class Hours:
    """Time that passes as soon as somebody waits, until a moment at which the server is to end."""

    def __init__(self, until, begin=NOON):
        self.moment, self.until, self.events = begin, until, {}

    def now(self):
        return self.moment

    def wait(self, seconds):
        assert seconds <= 30
        # Nobody wakes on the dot.
        self.moment += datetime.timedelta(seconds=seconds, milliseconds=40)
        for due in sorted(due for due in self.events if due <= self.moment):
            self.events.pop(due)()
        return self.moment >= self.until


@pytest.fixture
def entries(tmp_path, monkeypatch):
    """A project whose runs end at once."""
    monkeypatch.setattr(module, "command_here", lambda *_: [sys.executable, "-c", "print('run')"])
    return Crontab(tmp_path, FileTable(tmp_path / "table"), UTC, lambda: NOON)


def hourly(name="hourly", cron="0 * * * *", **limits):
    return Recurring(name, Request("autoencoder", "paper2hub run autoencoder"), cron, **limits)


def served(entries, clock):
    """What a server says while the time passes, without where the logs are."""
    lines = []
    serve(entries, clock, lines.append)
    return [line.partition(";")[0] for line in lines]


def started(lines):
    return [line.partition(" started for ")[2] for line in lines if " started for " in line]


def test_that_each_moment_is_served_once(entries):
    entries.create_schedule(hourly(most_at_once=9))
    entries.create_schedule(hourly("half", "*/30 13 * * *", most_at_once=9))
    lines = served(entries, Hours(NOON + 181 * MINUTE))
    assert [line for line in lines if " started " in line] == [
        "hourly: started for 2026-11-22T13:00:00+00:00",
        "half: started for 2026-11-22T13:00:00+00:00",
        "half: started for 2026-11-22T13:30:00+00:00",
        "hourly: started for 2026-11-22T14:00:00+00:00",
        "hourly: started for 2026-11-22T15:00:00+00:00",
    ]
    for line in lines:
        assert " started for " in line or line.endswith((" ended with 0", " ended with -15"))


def test_that_a_moment_is_missed_while_the_server_is_gone(entries):
    entries.create_schedule(hourly(most_at_once=9))
    assert started(served(entries, Hours(NOON + 59 * MINUTE))) == []
    lines = served(entries, Hours(NOON + 121 * MINUTE, begin=NOON + 61 * MINUTE))
    assert started(lines) == ["2026-11-22T14:00:00+00:00"]


def test_that_a_restart_in_the_minute_of_a_run_does_not_repeat_it(entries):
    entries.create_schedule(hourly(most_at_once=9))
    at_work = NOON + 60 * MINUTE + datetime.timedelta(seconds=5)
    assert len(started(served(entries, Hours(at_work)))) == 1
    again = Hours(NOON + 70 * MINUTE, begin=NOON + 59 * MINUTE)  # even if its clock is behind
    lines = served(entries, again)
    assert lines == [
        "hourly: not started at 2026-11-22T13:00:00+00:00: its run of this moment has been seen to"
    ]


def test_that_what_a_sleeping_machine_missed_is_told_and_not_made_up_for(entries):
    entries.create_schedule(hourly(most_at_once=9))
    clock = Hours(NOON + 301 * MINUTE)

    def sleep():
        clock.moment = NOON + 250 * MINUTE

    clock.events[NOON + 50 * MINUTE] = sleep
    lines = served(entries, clock)
    assert lines[0] == "hourly: missed at 2026-11-22T13:00:00+00:00, and not made up for"
    assert started(lines) == ["2026-11-22T17:00:00+00:00"]


def test_that_a_machine_that_wakes_a_little_late_starts_the_last_run_only(entries):
    entries.create_schedule(hourly("often", "* * * * *", most_at_once=9))
    clock = Hours(NOON + 65 * MINUTE - datetime.timedelta(seconds=1))

    def sleep():
        clock.moment = NOON + 63 * MINUTE + datetime.timedelta(seconds=30)

    clock.events[NOON] = sleep
    lines = served(entries, clock)
    assert started(lines) == ["2026-11-22T13:03:00+00:00", "2026-11-22T13:04:00+00:00"]


def test_that_entries_may_change_while_they_are_served(entries):
    entries.create_schedule(hourly(most_at_once=9))
    clock = Hours(NOON + 301 * MINUTE)

    def change(action):
        return lambda: action(entries.schedules()[0])

    quarter = hourly(cron="15 * * * *", most_at_once=9)
    clock.events = {
        NOON + 70 * MINUTE: change(entries.pause_schedule),
        NOON + 130 * MINUTE: change(entries.resume_schedule),
        NOON + 190 * MINUTE: change(lambda found: entries.update_schedule(found, quarter)),
        NOON + 210 * MINUTE: change(entries.delete_schedule),
    }
    assert [moment[11:16] for moment in started(served(entries, clock))] == [
        "13:00",
        "15:00",
        "15:15",
    ]


def test_that_limits_hold(entries):
    end = (NOON + 240 * MINUTE).isoformat()
    entries.create_schedule(hourly(most_runs=2, most_at_once=9))
    start = (NOON + 150 * MINUTE).isoformat()
    entries.create_schedule(hourly("between", most_at_once=9, start=start, end=end))
    lines = served(entries, Hours(NOON + 361 * MINUTE))
    runs = [line for line in lines if " started for " in line]
    assert [line[:8] + line[-14:-9] for line in runs] == [
        "hourly: 13:00",
        "hourly: 14:00",
        "between:15:00",
        "between:16:00",
    ]
    assert not [line for line in lines if "missed" in line]


def test_that_a_run_that_lasts_keeps_the_next_from_starting_and_ends_with_the_server(
    entries, monkeypatch
):
    sleeping = [sys.executable, "-c", "import time; time.sleep(60)"]
    monkeypatch.setattr(module, "command_here", lambda *_: sleeping)
    entries.create_schedule(hourly())
    began = time.monotonic()
    lines = served(entries, Hours(NOON + 121 * MINUTE))
    assert lines == [
        "hourly: started for 2026-11-22T13:00:00+00:00",
        "hourly: not started at 2026-11-22T14:00:00+00:00: 1 of its runs are at work already",
    ]
    assert time.monotonic() - began < 30
    process = entries.start("hourly", None)  # the lock is free: the run is gone
    assert not isinstance(process, str)
    end([process])
    assert process.returncode == -signal.SIGTERM


def test_that_a_run_that_does_not_end_is_ended(tmp_path):
    ready = tmp_path / "ready"
    script = (
        "import pathlib, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "pathlib.Path(sys.argv[1]).touch()\n"
        "time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(ready)])
    _wait_for(ready.exists)
    end([process], grace=0.2)
    assert process.returncode == -signal.SIGKILL


def test_that_a_broken_entry_does_not_end_the_server(entries, tmp_path):
    entries.create_schedule(hourly("broken", most_at_once=9))
    entries.create_schedule(hourly(most_at_once=9))
    (tmp_path / "runs/.schedules/broken/schedule.json").write_text("{")
    lines = served(entries, Hours(NOON + 61 * MINUTE))
    assert started(lines) == ["2026-11-22T13:00:00+00:00"]
    assert any(line.startswith("broken: The schedule broken must be there") for line in lines)


def test_that_a_project_has_one_server(entries):
    entries.create_schedule(hourly())
    clock = Hours(NOON + 10 * MINUTE)
    refused = []

    def second():
        with pytest.raises(TryAgain, match="one is running") as error:
            serve(entries, Hours(NOON + 20 * MINUTE), refused.append)
        refused.append(error)

    clock.events[NOON + MINUTE] = second
    serve(entries, clock, refused.append)
    assert len(refused) == 1


SERVER = """
import datetime, pathlib, sys
from pipelines.cloud import serve as server
from pipelines.cloud.crontab import Crontab, FileTable

folder = pathlib.Path(sys.argv[1])
real = server.RealClock()


class Hurried:
    '''A minute before one o'clock when the server begins, and a second later than asked.'''

    def __init__(self):
        self.moment = datetime.datetime.fromisoformat(sys.argv[2])

    def now(self):
        return self.moment

    def wait(self, seconds):
        self.moment += datetime.timedelta(seconds=seconds)
        return real.wait(0.05)


with real.listening():
    print("ready", flush=True)
    entries = Crontab(folder, FileTable(folder / "table"), datetime.UTC)
    server.serve(entries, Hurried(), lambda line: print(line, flush=True))
"""


@pytest.fixture
def server(entries, tmp_path, monkeypatch):
    """Starts a server of its own process, whose time passes quickly; its run writes its number."""
    script = (
        "import os, pathlib, sys, time\n"
        f"pathlib.Path({str(tmp_path / 'run')!r}).write_text(str(os.getpid()))\n"
        "time.sleep(60)\n"
    )
    monkeypatch.setattr(module, "command_here", lambda *_: [sys.executable, "-c", script])
    entries.create_schedule(hourly())
    processes = []

    def begin(moment):
        command = [sys.executable, "-c", SERVER, str(tmp_path), moment.isoformat()]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout.readline() == "ready\n"
        return process

    yield begin
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()


def test_that_sigterm_ends_the_server_and_its_runs(server, tmp_path):
    process = server(NOON + 59 * MINUTE)
    assert process.stdout.readline().startswith("hourly: started for 2026-11-22T13:00:00+00:00")
    _wait_for((tmp_path / "run").exists)
    _wait_for((tmp_path / "run").read_text)
    run = int((tmp_path / "run").read_text())
    assert _lives(run)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    assert not _lives(run)


def test_that_a_server_that_was_killed_is_taken_over_from_without_doing_anything_again(
    server, tmp_path
):
    process = server(NOON + 59 * MINUTE)
    process.stdout.readline()
    _wait_for((tmp_path / "run").exists)
    _wait_for((tmp_path / "run").read_text)
    run = int((tmp_path / "run").read_text())
    process.kill()
    process.wait()
    try:
        assert _lives(run)  # its work is not lost
        second = server(NOON + 178 * MINUTE)
        line = second.stdout.readline()
        # What was missed in between is not started, and the next waits for what is at work.
        assert line == (
            "hourly: not started at 2026-11-22T15:00:00+00:00: 1 of its runs are at work already\n"
        )
    finally:
        os.kill(run, signal.SIGKILL)


def _lives(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _wait_for(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
