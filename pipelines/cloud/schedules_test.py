import dataclasses
import datetime
from pathlib import Path

import pytest

from pipelines.cloud.account import Account
from pipelines.cloud.job import Request, Scheduled, schedule_digest
from pipelines.cloud.schedules import (
    Target,
    carry_out,
    find_ours,
    plan,
    read_entries,
    recurring,
    targets_of,
)
from trainer.errors import TryAgain, UserError

NOW = datetime.datetime(2026, 11, 22, 12, tzinfo=datetime.UTC)
MONDAY = "2026-11-23T03:00:00+00:00"
WEEKLY = {"model": "autoencoder", "target": "vertex", "cron": "'0 3 * * 1'"}


class Memory:
    """Schedules as a cloud has them; like Vertex AI it cannot change what one submits."""

    def __init__(self, updates=True):
        self.found = []
        self.calls = []
        self.updates = updates
        self.failing = {}
        self._number = 0

    def schedules(self):
        self._call("list", "")
        return list(self.found)

    def create_schedule(self, wanted):
        self._call("create", wanted.name)
        self._number += 1
        made = Scheduled(
            identifier=f"schedules/{self._number}",
            name=wanted.name,
            title=f"paper2hub {wanted.name}",
            digest=schedule_digest(wanted),
            cron=wanted.cron,
            time_zone=wanted.time_zone,
            paused=wanted.paused,
            most_at_once=wanted.most_at_once,
            most_runs=wanted.most_runs,
            start=wanted.start or NOW.isoformat(),
            end=wanted.end,
            next_run=MONDAY,
        )
        self.found.append(made)
        return made

    def update_schedule(self, found, wanted):
        self._call("update", found.name)
        if not self.updates:
            return False
        names = ("cron", "time_zone", "most_at_once", "most_runs", "end")
        self._change(found, **{name: getattr(wanted, name) for name in names})
        return True

    def delete_schedule(self, found):
        self._call("delete", found.name)
        self.found = [each for each in self.found if each.identifier != found.identifier]

    def pause_schedule(self, found):
        self._call("pause", found.name)
        self._change(found, paused=True)

    def resume_schedule(self, found):
        self._call("resume", found.name)
        self._change(found, paused=False)

    def by_hand(self, name, **changes):
        self._change(next(found for found in self.found if found.name == name), **changes)

    def _change(self, found, **changes):
        place = [each.identifier for each in self.found].index(found.identifier)
        self.found[place] = dataclasses.replace(self.found[place], **changes)

    def _call(self, what, name):
        if (what, name) in self.failing:
            raise self.failing[what, name]
        if what != "list":
            self.calls.append((what, name))


def prepare(entry):
    return recurring(entry, Request(entry.model, "a compiled pipeline", entry.values()))


def targets(**kinds):
    """A target for each name, of the kind."""
    return {name: Target(name, kind, Memory(), prepare) for name, kind in kinds.items()}


def entries(tmp_path, **fields):
    """Entries of a file; the values are YAML."""
    lines = []
    for name, of_name in fields.items():
        lines.append(f"{name.replace('_', '-')}:")
        lines += [f"  {key}: {value}" for key, value in {**WEEKLY, **of_name}.items()]
    file = tmp_path / "schedules.yaml"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return read_entries(file)


def synced(wanted, places):
    """Makes the targets match, and returns what was said and what failed."""
    lines = []
    failures = carry_out(
        plan(wanted, places, NOW), places, lambda change: lines.append(change.line())
    )
    return lines, failures


def lines_of(wanted, places, only=""):
    return [change.line() for change in plan(wanted, places, NOW, only)]


def test_that_a_file_says_all_of_an_entry(tmp_path):
    read = entries(
        tmp_path,
        weekly={
            "time_zone": "Europe/Paris",
            "settings": "{epochs: 20}",
            "training": "{precision: mixed_bfloat16}",
            "parameters": "{data: gs://bucket/digits}",
            "machines": "{training: 'TPU_V5E:2x2'}",
            "limits": "{most_at_once: 2, most_runs: 9, start: 2026-12-01, end: 2027-01-01T06:00}",
            "paused": "true",
        },
    )
    entry = read["weekly"]
    assert (entry.model, entry.target, entry.cron) == ("autoencoder", "vertex", "0 3 * * 1")
    # Midnight of Paris in winter is 23:00 of UTC.
    assert (entry.start, entry.end) == ("2026-11-30T23:00:00+00:00", "2027-01-01T05:00:00+00:00")
    assert (entry.most_at_once, entry.most_runs, entry.paused) == (2, 9, True)
    assert dict(entry.machines) == {"training": "TPU_V5E:2x2"}
    assert entry.values() == {
        "data": "gs://bucket/digits",
        "settings": {"epochs": 20},
        "training": {"precision": "mixed_bfloat16"},
    }


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"modell": "dcgan"}, "weekly has no field 'modell'. Did you mean 'model'"),
        ({"model": "autoencodr"}, "model of weekly must be one of .*did you mean 'autoencoder'"),
        ({"cron": "'0 3 * *'"}, "cron of weekly must have five fields"),
        ({"cron": "3"}, "cron of weekly must be text, in quotes; got 3"),
        ({"time_zone": "Paris"}, "time_zone of weekly must be .*did you mean 'Europe/Paris'"),
        ({"settings": "{epoch: 2}"}, "settings of weekly must fit: .*Did you mean 'epochs'"),
        ({"settings": "{epochs: many}"}, "settings of weekly must fit: epochs must be of type int"),
        ({"settings": "[2]"}, r"settings of weekly must be a mapping; got \[2\]"),
        ({"training": "{precison: float32}"}, "training of weekly .*Did you mean 'precision'"),
        ({"parameters": "{settings: 2}"}, "parameters of weekly must not have settings"),
        ({"machines": "{trainer: 'TPU_V5E:2x2'}"}, "machines of weekly must be for .*'trainer'"),
        ({"machines": "{training: 'TPU_V9:2x2'}"}, "machines of weekly must be machines: .*"),
        ({"target": "local", "machines": "{training: 'cpu:8'}"}, "machines of weekly .*left out"),
        ({"limits": "{most: 1}"}, "limits of weekly has no field 'most'. Did you mean 'most_runs'"),
        ({"limits": "{most_at_once: 0}"}, "most_at_once of weekly must be .* from 1 on; got 0"),
        ({"limits": "{most_runs: yes}"}, "most_runs of weekly must be .* from 0 on; got True"),
        ({"limits": "{start: soon}"}, "start of weekly must be a moment such as .*; got 'soon'"),
        ({"limits": "{start: 2027-01-02, end: 2027-01-01}"}, "end of weekly must be after its"),
        ({"paused": "'no'"}, "paused of weekly must be true or false; got 'no'"),
    ],
)
def test_that_a_wrong_field_is_told_with_its_file_and_entry(tmp_path, fields, told):
    with pytest.raises(UserError, match=rf"schedules\.yaml: {told}") as refusal:
        entries(tmp_path, weekly=fields)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("weekly: {}\nother: {}\nweekly: {}\n", "line 3: 'weekly' must stand there once"),
        ("weekly: {cron: 1, model: a, cron: 2}\n", "line 1: 'cron' must stand there once"),
        ("weekly:\n  cron: * 3 * * 1\n", "line 2 must be YAML: .*a cron must stand in quotes"),
        ("- weekly\n", "must map names to schedules; got list"),
        ("weekly: often\n", "weekly must be a mapping of fields; got 'often'"),
        ("Weekly run: {}\n", "name of a schedule must be lower-case .*; got 'Weekly run'"),
        (f"{'a' * 51}: {{}}\n", "at most 50 characters"),
        ("weekly: {model: autoencoder, target: local}\n", "weekly must have a cron"),
        ("weekly: {model: autoencoder, cron: '0 3 * * 1'}\n", "weekly must have a target"),
    ],
)
def test_that_what_is_no_file_of_schedules_is_refused(tmp_path, text, told):
    file = tmp_path / "schedules.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=told):
        read_entries(file)


def test_that_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(UserError, match="does not exist here"):
        read_entries(tmp_path / "schedules.yaml")


def test_that_an_empty_file_has_no_entries(tmp_path):
    (tmp_path / "schedules.yaml").write_text("# nothing yet\n", encoding="utf-8")
    assert read_entries(tmp_path / "schedules.yaml") == {}


def test_that_the_file_of_this_project_is_right():
    shipped = read_entries(Path(__file__).parents[1] / "schedules.yaml")
    assert shipped["weekly-autoencoder"].target == "local"
    assert all(entry.time_zone and not entry.paused for entry in shipped.values())


def test_that_what_is_not_there_is_made_and_then_nothing_is_left_to_do(tmp_path):
    wanted, places = (
        entries(tmp_path, weekly={}, monthly={"paused": "true"}),
        targets(vertex="vertex"),
    )
    lines, failures = synced(wanted, places)
    assert lines == [
        "create    weekly on vertex: there is none; 0 3 * * 1 UTC",
        "create    monthly on vertex: there is none; 0 3 * * 1 UTC, paused",
    ]
    assert not failures
    calls = list(places["vertex"].schedules.calls)
    assert synced(wanted, places)[0] == [
        "nothing   weekly on vertex: as the file says",
        "nothing   monthly on vertex: as the file says",
    ]
    assert places["vertex"].schedules.calls == calls


def test_that_every_drift_is_told_and_mended_and_foreign_schedules_are_left(tmp_path):
    names = ["edited", "gone", "paused", "running", "busy", "outdated"]
    fields = {name: {} for name in names}
    places = targets(vertex="vertex")
    cloud = places["vertex"].schedules
    synced(entries(tmp_path, **fields, forgotten={}), places)
    cloud.by_hand("edited", cron="0 4 * * 1", time_zone="Europe/Paris")
    cloud.found = [found for found in cloud.found if found.name != "gone"]
    cloud.by_hand("paused", paused=True)
    cloud.by_hand("busy", most_at_once=7, paused=True)
    foreign = Scheduled("schedules/77", "", "their backup", "", "0 1 * * *", "UTC", False)
    cloud.found.insert(0, foreign)
    old = next(found.identifier for found in cloud.found if found.name == "outdated")
    digest = schedule_digest(prepare(entries(tmp_path, outdated={})["outdated"]))
    fields["running"] = {"paused": "true"}
    fields["outdated"] = {"settings": "{epochs: 3}"}
    wanted = entries(tmp_path, **fields)
    new = schedule_digest(prepare(wanted["outdated"]))

    dry = lines_of(wanted, places)
    cloud.calls.clear()
    assert dry == [
        "update    edited on vertex: cron is 0 4 * * 1 and the file says 0 3 * * 1; "
        "time_zone is Europe/Paris and the file says UTC",
        "create    gone on vertex: there is none; 0 3 * * 1 UTC",
        "resume    paused on vertex: it is paused and the file says paused: false; what it missed "
        "stays missed",
        "pause     running on vertex: it is not paused and the file says paused: true",
        "update    busy on vertex: most_at_once is 7 and the file says 1",
        "resume    busy on vertex: it is paused and the file says paused: false; what it missed "
        "stays missed",
        f"recreate  outdated on vertex: what it submits has changed, {digest} to {new}",
        "leave     their backup on vertex: it is not ours",
        "delete    forgotten on vertex: the file does not have it",
    ]
    lines, failures = synced(wanted, places)
    assert (lines, failures) == (dry, [])
    assert cloud.calls == [
        ("update", "edited"),
        ("create", "gone"),
        ("resume", "paused"),
        ("pause", "running"),
        ("update", "busy"),
        ("resume", "busy"),
        ("create", "outdated"),
        ("delete", "outdated"),
        ("delete", "forgotten"),
    ]
    assert cloud.found[0] == foreign
    assert old not in [found.identifier for found in cloud.found]
    cloud.calls.clear()
    assert {line.split()[0] for line in synced(wanted, places)[0]} == {"nothing", "leave"}
    assert cloud.calls == []


def test_that_of_two_of_one_name_the_one_that_is_right_stays(tmp_path):
    wanted, places = entries(tmp_path, weekly={}), targets(vertex="vertex")
    cloud = places["vertex"].schedules
    stale = cloud.create_schedule(dataclasses.replace(prepare(wanted["weekly"]), cron="1 1 * * *"))
    right = cloud.create_schedule(prepare(wanted["weekly"]))
    lines, _ = synced(wanted, places)
    assert lines == [
        "nothing   weekly on vertex: as the file says",
        f"delete    weekly on vertex: there is another of this name: {stale.identifier}",
    ]
    assert cloud.found == [right]


def test_that_a_failure_between_making_and_deleting_loses_nothing(tmp_path):
    places = targets(vertex="vertex")
    cloud = places["vertex"].schedules
    synced(entries(tmp_path, weekly={}), places)
    wanted = entries(tmp_path, weekly={"settings": "{epochs: 3}"})
    cloud.failing["create", "weekly"] = TryAgain("busy")
    _, failures = synced(wanted, places)
    assert [str(error) for _, error in failures] == ["busy"]
    assert len(cloud.found) == 1  # the old one is still there
    cloud.failing = {("delete", "weekly"): TryAgain("busy")}
    synced(wanted, places)
    assert len(cloud.found) == 2
    cloud.failing = {}
    lines, failures = synced(wanted, places)
    assert [line.split()[0] for line in lines] == ["nothing", "delete"]
    assert [found.digest for found in cloud.found] == [schedule_digest(prepare(wanted["weekly"]))]
    assert not failures


def test_that_one_failure_does_not_keep_others_from_their_turn(tmp_path):
    wanted, places = entries(tmp_path, first={}, second={}), targets(vertex="vertex")
    cloud = places["vertex"].schedules
    cloud.failing["create", "first"] = UserError("first is refused")
    lines, failures = synced(wanted, places)
    assert len(lines) == 2
    assert [found.name for found in cloud.found] == ["second"]
    assert [(change.name, str(error)) for change, error in failures] == [
        ("first", "first is refused")
    ]


def test_that_what_a_target_says_cannot_be_changed_is_made_anew(tmp_path):
    wanted = entries(tmp_path, weekly={})
    places = {"vertex": Target("vertex", "vertex", Memory(updates=False), prepare)}
    cloud = places["vertex"].schedules
    synced(wanted, places)
    cloud.by_hand("weekly", cron="1 1 * * *")
    cloud.calls.clear()
    synced(wanted, places)
    assert cloud.calls == [("update", "weekly"), ("create", "weekly"), ("delete", "weekly")]


def test_that_an_entry_that_moves_is_made_there_before_it_goes_here(tmp_path):
    places = targets(here="vertex", there="vertex")
    synced(entries(tmp_path, weekly={"target": "here"}), places)
    moved = entries(tmp_path, weekly={"target": "there"})
    expected = [
        "create    weekly on there: there is none; 0 3 * * 1 UTC",
        "delete    weekly on here: the file has it on there",
    ]
    places["there"].schedules.failing["create", "weekly"] = UserError("refused")
    lines, failures = synced(moved, places)
    assert lines == expected
    assert len(failures) == 2
    assert len(places["here"].schedules.found) == 1
    places["there"].schedules.failing = {}
    assert synced(moved, places) == (expected, [])
    assert places["here"].schedules.found == []


def test_that_a_target_that_does_not_answer_keeps_only_its_own_from_being_synced(tmp_path):
    places = targets(a="vertex", b="vertex")
    synced(entries(tmp_path, weekly={"target": "a"}), places)
    wanted = entries(tmp_path, weekly={"target": "b"}, daily={"target": "a"})
    places["b"].schedules.failing["list", ""] = TryAgain("busy")
    lines, failures = synced(wanted, places)
    assert lines == [
        "refuse    every schedule on b: its schedules cannot be read: busy",
        "create    daily on a: there is none; 0 3 * * 1 UTC",
    ]
    assert [type(error) for _, error in failures] == [TryAgain]
    assert [found.name for found in places["a"].schedules.found] == ["weekly", "daily"]


def test_that_an_entry_whose_target_is_gone_is_refused_and_nothing_of_it_deleted(tmp_path):
    places = targets(vertex="vertex")
    synced(entries(tmp_path, weekly={}), places)
    wanted = entries(tmp_path, weekly={"target": "old-account"}, daily={})
    lines, failures = synced(wanted, places)
    assert lines == [
        "refuse    weekly on old-account: The target of weekly must be one of vertex; got "
        "'old-account'.",
        "create    daily on vertex: there is none; 0 3 * * 1 UTC",
    ]
    assert [type(error) for _, error in failures] == [UserError]
    assert [found.name for found in places["vertex"].schedules.found] == ["weekly", "daily"]


def test_that_what_cannot_be_prepared_now_stays_as_it_is(tmp_path):
    places = targets(vertex="vertex")
    wanted = entries(tmp_path, weekly={})
    synced(wanted, places)

    def no_registry(entry):
        raise TryAgain("The registry does not answer.")

    places["vertex"] = dataclasses.replace(places["vertex"], prepare=no_registry)
    lines, failures = synced(wanted, places)
    assert lines == ["refuse    weekly on vertex: The registry does not answer."]
    assert [type(error) for _, error in failures] == [TryAgain]
    assert len(places["vertex"].schedules.found) == 1


def test_that_a_target_may_be_named_by_its_kind_where_there_is_one(tmp_path):
    places = targets(research="vertex", cluster="kubeflow")
    lines, _ = synced(entries(tmp_path, weekly={"target": "vertex"}), places)
    assert lines == ["create    weekly on research: there is none; 0 3 * * 1 UTC"]


def test_that_one_target_alone_can_be_looked_at(tmp_path):
    places = targets(a="vertex", b="vertex")
    wanted = entries(tmp_path, first={"target": "a"}, second={"target": "b"})
    places["b"].schedules.failing["list", ""] = AssertionError("nobody asked for it")
    assert lines_of(wanted, places, only="a") == [
        "create    first on a: there is none; 0 3 * * 1 UTC"
    ]


def test_that_a_start_counts_until_it_has_come(tmp_path):
    places = targets(vertex="vertex")
    cloud = places["vertex"].schedules
    wanted = entries(tmp_path, weekly={"limits": "{start: 2026-12-01, end: 2027-02-01}"})
    synced(wanted, places)
    assert cloud.found[0].start == "2026-12-01T00:00:00+00:00"
    assert synced(wanted, places)[0] == ["nothing   weekly on vertex: as the file says"]
    cloud.by_hand("weekly", start="2027-01-01T00:00:00+00:00")
    (change,) = plan(wanted, places, NOW)
    assert change.action == "recreate"  # no cloud lets a start be changed
    later = datetime.datetime(2027, 1, 15, tzinfo=datetime.UTC)
    (change,) = plan(wanted, places, later)
    assert change.action == "nothing"


def test_that_what_has_ended_is_not_made_again(tmp_path):
    places = targets(vertex="vertex")
    wanted = entries(tmp_path, weekly={"limits": "{end: 2026-11-01}"})
    ended = "weekly on vertex: it ended at 2026-11-01T00:00:00+00:00"
    assert synced(wanted, places)[0] == [f"nothing   {ended}"]
    cloud = places["vertex"].schedules
    cloud.create_schedule(prepare(wanted["weekly"]))
    assert synced(wanted, places)[0] == [f"nothing   {ended}"]
    cloud.by_hand("weekly", end="")
    assert synced(wanted, places)[0] == [f"delete    {ended}"]
    assert cloud.found == []


def test_that_one_that_has_made_its_runs_is_left_or_made_anew(tmp_path):
    places = targets(vertex="vertex")
    fields = {"limits": "{most_runs: 2}"}
    synced(entries(tmp_path, weekly=fields), places)
    places["vertex"].schedules.by_hand("weekly", next_run="")
    for paused in ("false", "true"):  # there is nothing left to pause
        wanted = entries(tmp_path, weekly={**fields, "paused": paused})
        assert lines_of(wanted, places) == ["nothing   weekly on vertex: it has made its runs"]
    wanted = entries(tmp_path, weekly={"limits": "{most_runs: 3}"})
    assert lines_of(wanted, places) == [
        "recreate  weekly on vertex: most_runs is 2 and the file says 3"
    ]


def test_that_kubeflow_is_asked_in_utc_and_changes_nothing_in_place(tmp_path):
    places = targets(cluster="kubeflow")
    cloud = places["cluster"].schedules
    fields = {"target": "cluster", "time_zone": "Asia/Tokyo"}
    wanted = entries(tmp_path, weekly=fields)
    synced(wanted, places)
    assert (cloud.found[0].cron, cloud.found[0].time_zone) == ("0 18 * * 0", "UTC")
    assert synced(wanted, places)[0] == ["nothing   weekly on cluster: as the file says"]
    cloud.by_hand("weekly", cron="0 19 * * 0")
    cloud.calls.clear()
    synced(wanted, places)
    assert cloud.calls == [("create", "weekly"), ("delete", "weekly")]
    refused = entries(
        tmp_path,
        weekly={**fields, "time_zone": "Europe/Paris"},
        counted={"target": "cluster", "limits": "{most_runs: 3}"},
    )
    lines, failures = synced(refused, places)
    assert "'0 3 * * 1' in Europe/Paris has no equal in UTC, for clocks change there" in lines[0]
    assert "most_runs of counted must be 0 on Kubeflow" in lines[1]
    assert [type(error) for _, error in failures] == [UserError, UserError]
    assert [found.name for found in cloud.found] == ["weekly"]


def test_that_a_schedule_is_found_by_its_name_or_a_close_one_named(tmp_path):
    places = targets(a="vertex", b="vertex")
    synced(entries(tmp_path, weekly={"target": "b"}), places)
    ((target, found),) = find_ours("weekly", places)
    assert (target.name, found.name) == ("b", "weekly")
    with pytest.raises(UserError, match=r"one of weekly; got .weakly.\. Did you mean .weekly."):
        find_ours("weakly", places)


def test_that_no_account_has_the_name_of_this_machine():
    account = Account(name="local", kind="vertex", root="gs://bucket")
    with pytest.raises(UserError, match="must not be 'local'"):
        targets_of({"local": account}, Memory(), prepare)
