"""Recurring work, synced with clouds that others change too, by the clients that talk to them."""

import contextlib
import datetime
import fcntl
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google.auth
import kfp
import pytest
import yaml
from typer.testing import CliRunner

from components.images import VERSION
from pipelines.cloud import crontab
from pipelines.cloud.job import Recurring, Request
from pipelines.cloud.schedules_cli import app
from tests.cloud.cloud import Cloud
from trainer.errors import TryAgain, UserError

pytestmark = [
    # Google's client for schedules logs by a method with an old name.
    pytest.mark.filterwarnings("ignore:The 'warn' method:DeprecationWarning"),
    # KFP's client tells everybody which versions it can talk to.
    pytest.mark.filterwarnings("ignore:This client only works with:FutureWarning"),
]

UTC = datetime.UTC
SUNDAY = datetime.datetime(2026, 11, 22, 12, tzinfo=UTC)
CHANGES = ("POST", "PATCH", "PUT", "DELETE")


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    """A cloud whose jobs end at once; it has an account of Vertex AI and one of Kubeflow."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PAPER2HUB_CRONTAB", str(tmp_path / "crontab"))
    monkeypatch.delenv("PAPER2HUB_TARGETS", raising=False)
    with Cloud(tmp_path / "cloud", start=SUNDAY, execute="instant") as made:
        for name, value in made.environment().items():
            monkeypatch.setenv(name, value)
        digest = f"sha256:{VERSION.replace('.', ''):0>64}"
        names = ("data", "trainer", "trainer-gpu", "trainer-tpu")
        (tmp_path / "images.json").write_text(
            json.dumps({name: f"registry.example/{name}@{digest}" for name in names})
        )
        common = {"root": "gs://bucket/runs", "images": "images.json"}
        account = {"project": made.project, "region": made.location, "endpoint": made.url}
        targets = {"vertex": {**account, **common}, "kubeflow": {"host": made.url, **common}}
        (tmp_path / "targets.yaml").write_text(yaml.safe_dump(targets, sort_keys=False))
        yield made


def write(entries: dict[str, Any]) -> None:
    """Writes the file of all recurring work; what entries leave out is a daily autoencoder."""
    daily = {"model": "autoencoder", "target": "vertex", "cron": "0 3 * * *"}
    Path("pipelines").mkdir(exist_ok=True)
    whole = {name: {**daily, **fields} for name, fields in entries.items()}
    Path("pipelines/schedules.yaml").write_text(yaml.safe_dump(whole, sort_keys=False))


def schedules(*arguments: str) -> tuple[int, list[str], str]:
    """What `paper2hub schedules …` leaves with, prints, and says of errors."""
    done = CliRunner().invoke(app, list(arguments))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        if not isinstance(done.exception, UserError | TryAgain):
            raise done.exception
        return done.exception.exit_code, done.stdout.splitlines(), str(done.exception)
    return done.exit_code, done.stdout.splitlines(), done.stderr


@contextlib.contextmanager
def requests(cloud: Cloud) -> Iterator[list[str]]:
    """The requests of the block that change schedules or runs."""
    before, made = len(cloud.requests), list[str]()
    yield made
    made += [
        f"{request.method} {request.path}"
        for request in cloud.requests[before:]
        if request.method in CHANGES and re.search(r"schedules|Jobs|runs", request.path)
    ]


def vertex_schedules(cloud: Cloud) -> dict[str, Any]:
    """The schedules of Vertex AI by their display names, as JSON."""
    return {s.display_name: type(s).to_dict(s) for s in cloud.schedules.resources()}


def by_hand(cloud: Cloud) -> Any:
    """Vertex AI's client for schedules, as somebody else uses it."""
    from google.cloud.aiplatform_v1.services.schedule_service import ScheduleServiceClient

    return ScheduleServiceClient(
        transport="rest",
        client_options={"api_endpoint": cloud.url},
        credentials=google.auth.default(["https://www.googleapis.com/auth/cloud-platform"])[0],
    )


def test_a_drifted_account_is_mended_as_the_dry_run_says_and_nothing_foreign_touched(
    cloud: Cloud, tmp_path: Path
) -> None:
    write(
        {
            "steady": {"time_zone": "Europe/Paris"},
            "edited": {"cron": "0 3 * * 1", "time_zone": "Europe/Paris"},
            "deleted": {},
            "paused": {},
            "outdated": {},
            "forgotten": {},
            "moved": {},
            "cluster-steady": {"target": "kubeflow"},
            "cluster-paused": {"target": "kubeflow"},
            "cluster-outdated": {"target": "kubeflow"},
            "cluster-deleted": {"target": "kubeflow", "time_zone": "Asia/Tokyo"},
            "here": {"target": "local", "time_zone": "Europe/Paris"},
        }
    )
    with requests(cloud) as made:
        code, promised, _ = schedules("sync", "--dry-run")
    assert (code, made) == (1, [])
    assert {line.split()[0] for line in promised} == {"create"} and len(promised) == 12
    assert schedules("sync") == (0, promised, "")
    with requests(cloud) as made:
        assert schedules("sync", "--dry-run")[0] == 0
        code, lines, _ = schedules("sync")
    assert code == 0 and {line.split()[0] for line in lines} == {"nothing"}
    assert made == []

    # Somebody else is at work in the accounts, beside and upon what is ours.
    theirs = by_hand(cloud)
    ours = vertex_schedules(cloud)
    edited = {"name": ours["paper2hub edited"]["name"], "cron": "TZ=Asia/Tokyo 0 4 * * 2"}
    theirs.update_schedule(
        schedule={**edited, "max_concurrent_run_count": 3},
        update_mask="cron,maxConcurrentRunCount",
    )
    theirs.delete_schedule(name=ours["paper2hub deleted"]["name"])
    theirs.pause_schedule(name=ours["paper2hub paused"]["name"])
    foreign = dict(ours["paper2hub steady"])
    job = dict(foreign["create_pipeline_job_request"]["pipeline_job"], labels={"team": "others"})
    asked = {"parent": cloud.parent, "pipeline_job": job}
    copy = {"cron": "0 5 * * *", "max_concurrent_run_count": 1}
    copy["create_pipeline_job_request"] = asked
    of_parent = {"parent": cloud.parent}
    theirs.create_schedule(**of_parent, schedule={**copy, "display_name": "paper2hub alike"})
    copy["create_pipeline_job_request"] = foreign["create_pipeline_job_request"]
    theirs.create_schedule(**of_parent, schedule={**copy, "display_name": "paper2hub twice"})
    client = kfp.Client(host=cloud.url)
    runs = {run["display_name"]: run for run in cloud.kubeflow.recurring()}
    client.disable_recurring_run(runs["paper2hub cluster-paused"]["recurring_run_id"])
    client.delete_recurring_run(runs["paper2hub cluster-deleted"]["recurring_run_id"])
    package = tmp_path / "theirs.yaml"
    package.write_text(yaml.safe_dump(runs["paper2hub cluster-steady"]["pipeline_spec"]))
    client.create_recurring_run(
        experiment_id=client.create_experiment("theirs").experiment_id,
        job_name="paper2hub alike",
        cron_expression="0 0 1 * * *",
        pipeline_package_path=str(package),
        no_catchup=True,
    )
    table = tmp_path / "crontab"
    entry = table.read_text()
    drifted = "MAILTO = somebody\n17 * * * * theirs # paper2hub\n" + f"# {entry}"
    table.write_text(drifted)
    # And the file has gone on.
    changed = {"settings": {"epochs": 3}}
    write(
        {
            "steady": {"time_zone": "Europe/Paris"},
            "edited": {"cron": "0 3 * * 1", "time_zone": "Europe/Paris"},
            "deleted": {},
            "paused": {},
            "outdated": changed,
            "moved": {"target": "kubeflow"},
            "cluster-steady": {"target": "kubeflow"},
            "cluster-paused": {"target": "kubeflow"},
            "cluster-outdated": {"target": "kubeflow", **changed},
            "cluster-deleted": {"target": "kubeflow", "time_zone": "Asia/Tokyo"},
            "here": {"target": "local", "time_zone": "Europe/Paris"},
        }
    )
    with requests(cloud) as made:
        code, promised, _ = schedules("sync", "--dry-run")
    assert (code, made) == (1, []) and table.read_text() == drifted
    resumed = "it is paused and the file says paused: false; what it missed stays missed"
    told = [re.sub(r"[0-9a-f]{12} to [0-9a-f]{12}", "A to B", line) for line in promised]
    told = [re.sub(r"projects/\S+", "PROJECT", line) for line in told]
    assert told == [
        "nothing   steady on vertex: as the file says",
        "update    edited on vertex: cron is 0 4 * * 2 and the file says 0 3 * * 1; time_zone is "
        "Asia/Tokyo and the file says Europe/Paris; most_at_once is 3 and the file says 1",
        "create    deleted on vertex: there is none; 0 3 * * * UTC",
        f"resume    paused on vertex: {resumed}",
        "recreate  outdated on vertex: what it submits has changed, A to B",
        "create    moved on kubeflow: there is none; 0 3 * * * UTC",
        "nothing   cluster-steady on kubeflow: as the file says",
        f"resume    cluster-paused on kubeflow: {resumed}",
        "recreate  cluster-outdated on kubeflow: what it submits has changed, A to B",
        # Three o'clock in Tokyo is six in the evening before.
        "create    cluster-deleted on kubeflow: there is none; 0 18 * * * UTC",
        f"resume    here on local: {resumed}",
        "delete    steady on vertex: there is another of this name: PROJECT",
        "leave     17 * * * * theirs # paper2hub on local: it is not ours",
        "leave     paper2hub alike on vertex: it is not ours",
        "delete    moved on vertex: the file has it on kubeflow",
        "delete    forgotten on vertex: the file does not have it",
        "leave     paper2hub alike on kubeflow: it is not ours",
    ]
    alike = vertex_schedules(cloud)["paper2hub alike"]
    steady = vertex_schedules(cloud)["paper2hub steady"]
    recurring = {run["display_name"]: run for run in cloud.kubeflow.recurring()}
    of_theirs = recurring["paper2hub alike"]
    with requests(cloud) as made:
        assert schedules("sync") == (0, promised, "")
    assert vertex_schedules(cloud)["paper2hub alike"] == alike
    assert vertex_schedules(cloud)["paper2hub steady"] == steady
    assert of_theirs in cloud.kubeflow.recurring()
    assert table.read_text() == drifted.replace(f"# {entry}", entry)
    identifiers = (alike["name"], of_theirs["recurring_run_id"])
    assert not [request for request in made if any(name in request for name in identifiers)]
    names = ("alike", "deleted", "edited", "outdated", "paused", "steady")
    assert sorted(vertex_schedules(cloud)) == [f"paper2hub {name}" for name in names]
    with requests(cloud) as made:
        assert schedules("sync", "--dry-run")[0] == 0
        code, lines, _ = schedules("sync")
    assert code == 0 and {line.split()[0] for line in lines} == {"nothing", "leave"}
    assert made == []
    assert cloud.pipeline_jobs.works == {}  # nothing was launched by any of it


def fired(cloud: Cloud) -> list[str]:
    """When the runs of schedules were started, in UTC."""
    return sorted(name[-14:-2] for name in cloud.pipeline_jobs.works)


def test_schedules_fire_in_their_zone_and_never_for_what_was_missed(cloud: Cloud) -> None:
    # Clocks of Paris change on 2027-03-28; three o'clock is two of UTC before and one after.
    weekly = {"cron": "0 3 * * 1", "time_zone": "Europe/Paris", "settings": {"epochs": 2}}
    write({"weekly": weekly})
    assert schedules("sync")[0] == 0
    cloud.clock.advance(datetime.datetime(2026, 12, 8, tzinfo=UTC) - SUNDAY)
    cloud.wait()
    assert fired(cloud) == ["202611230200", "202611300200", "202612070200"]
    assert schedules("sync", "--dry-run")[0] == 0  # firing is no drift
    by_hand(cloud).pause_schedule(name=cloud.schedules.resources()[0].name)
    cloud.clock.advance(datetime.timedelta(days=21))
    assert schedules("sync")[0] == 0
    assert not cloud.schedules.resources()[0].catch_up
    assert len(fired(cloud)) == 3
    cloud.clock.advance(datetime.datetime(2027, 3, 30, tzinfo=UTC) - cloud.clock.now())
    cloud.wait()
    later = fired(cloud)[3:]
    assert later[0] == "202701040200" and later[-2:] == ["202703220200", "202703290100"]
    labels = dict(cloud.pipeline_jobs.resource(next(iter(cloud.pipeline_jobs.works))).labels)
    assert labels["paper2hub"] == "autoencoder" and labels["paper2hub-schedule"] == "weekly"
    with requests(cloud) as made:
        code, lines, _ = schedules("run-now", "weekly")
    assert code == 0 and lines[0].startswith("Job: autoencoder-")
    assert len(made) == 1


def test_a_schedule_that_has_made_its_runs_is_through_until_it_may_make_more(cloud: Cloud) -> None:
    write({"twice": {"limits": {"most_runs": 2}}})
    assert schedules("sync")[0] == 0
    cloud.clock.advance(datetime.timedelta(days=5))
    assert fired(cloud) == ["202611230300", "202611240300"]
    assert schedules("sync")[:2] == (0, ["nothing   twice on vertex: it has made its runs"])
    write({"twice": {"limits": {"most_runs": 3}}})
    assert schedules("sync")[1][0].startswith("recreate  twice on vertex: most_runs is 2")
    assert schedules("sync")[:2] == (0, ["nothing   twice on vertex: as the file says"])


def test_what_a_cloud_loses_on_the_way_leaves_one_schedule_in_the_end(cloud: Cloud) -> None:
    write({"daily": {}, "hourly": {"cron": "0 * * * *"}})
    cloud.faults.next("lost", path="/schedules", method="POST")
    assert schedules("sync")[0] == 0
    assert len(cloud.schedules.resources()) == 2
    write({"daily": {"settings": {"epochs": 3}}, "hourly": {"cron": "30 * * * *"}})
    cloud.faults.next("403", path="/schedules", method="POST")
    code, lines, told = schedules("sync")
    assert code == 2 and "gcloud projects add-iam-policy-binding" in told
    assert [line.split()[0] for line in lines] == ["recreate", "update"]
    times = [schedule.cron for schedule in cloud.schedules.resources()]
    assert times == ["TZ=UTC 0 3 * * *", "TZ=UTC 30 * * * *"]
    cloud.faults.next("403", path="/schedules/", method="DELETE")
    code, _, _ = schedules("sync")
    assert code == 2 and len(cloud.schedules.resources()) == 3  # the new one beside the old one
    code, lines, _ = schedules("sync")
    assert code == 0 and [line.split()[0] for line in lines] == ["nothing", "nothing", "delete"]
    assert len(cloud.schedules.resources()) == 2
    assert schedules("sync", "--dry-run")[0] == 0


def test_an_account_that_is_gone_keeps_nothing_else_from_being_synced(cloud: Cloud) -> None:
    paris = {"target": "kubeflow", "time_zone": "Europe/Paris"}
    write({"daily": {}, "elsewhere": {"target": "old-account"}, "paris": paris})
    code, lines, told = schedules("sync")
    assert code == 2
    assert [line.split()[:2] for line in lines] == [
        ["create", "daily"],
        ["refuse", "elsewhere"],
        ["refuse", "paris"],
    ]
    assert "must be one of local, vertex, kubeflow; got 'old-account'" in told
    assert "clocks change there" in told


def test_schedules_are_listed_paused_and_resumed(cloud: Cloud) -> None:
    write({"daily": {}, "nightly": {"target": "kubeflow"}, "here": {"target": "local"}})
    code, lines, _ = schedules("list")
    assert code == 0 and all("not there: sync makes it" in line for line in lines[1:])
    schedules("sync")
    assert schedules("pause", "daily") == (
        0,
        [
            "daily on vertex is paused.",
            "pipelines/schedules.yaml says paused: false, which the next sync follows.",
        ],
        "",
    )
    for name in ("nightly", "here"):
        assert schedules("pause", name)[0] == 0
    listed = {line.split()[0]: line for line in schedules("list")[1][1:]}
    assert all(" paused " in listed[name] for name in ("daily", "nightly", "here"))
    document = json.loads("\n".join(schedules("list", "--json")[1]))
    assert {n: [s["paused"] for s in those] for n, those in document["targets"].items()} == {
        "local": [True],
        "vertex": [True],
        "kubeflow": [True],
    }
    for name in ("daily", "nightly", "here"):
        assert schedules("resume", name)[0] == 0
    assert schedules("resume", "daily")[1] == ["daily on vertex was not paused."]
    assert schedules("sync", "--dry-run")[0] == 0
    code, _, told = schedules("pause", "dayly")
    assert code == 2 and "Did you mean 'daily'?" in told
    assert schedules("sync", "--target", "nowhere")[0] == 2


def test_an_entry_of_cron_starts_its_run_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PAPER2HUB_CRONTAB", str(tmp_path / "crontab"))
    script = "import sys; print('at work'); sys.exit(3)"
    monkeypatch.setattr(crontab, "command_here", lambda *_: [sys.executable, "-c", script])
    now = datetime.datetime.now(UTC)
    entries = crontab.Crontab(tmp_path, now=lambda: now - datetime.timedelta(hours=1))
    request = Request("autoencoder", "paper2hub run autoencoder")
    entries.create_schedule(Recurring("now", request, f"{now.minute} * * * *"))
    later = (now + datetime.timedelta(minutes=30)).minute
    entries.create_schedule(Recurring("later", request, f"{later} * * * *"))
    assert schedules("run-now", "later", "--if-due")[:2] == (0, [])
    code, lines, _ = schedules("run-now", "now", "--if-due")
    assert code == 3 and lines[0].startswith("now: started for ")
    assert entries.log("now").read_text() == "at work\n"
    assert schedules("run-now", "now", "--if-due")[:2] == (
        0,
        ["now: not started: its run of this moment has been seen to"],
    )
    assert schedules("run-now", "never", "--if-due")[0] == 2


def test_a_run_by_hand_is_that_of_the_file_and_waits_for_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PAPER2HUB_CRONTAB", str(tmp_path / "crontab"))
    write({"here": {"target": "local", "settings": {"epochs": 2}}})
    asked = list[list[str]]()

    def command(request: Request, folder: Path) -> list[str]:
        asked.append([request.model, *request.parameters["settings"].items()])
        return [sys.executable, "-c", f"import sys; sys.exit({len(asked)})"]

    monkeypatch.setattr(crontab, "command_here", command)
    assert schedules("run-now", "here")[0] == 1
    assert schedules("run-now", "here")[0] == 2
    assert asked == [["autoencoder", ("epochs", 2)]] * 2
    slot = tmp_path / "runs/.schedules/here/slot-0"
    with open(slot, "ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        code, _, told = schedules("run-now", "here")
    assert code == 75 and "here must wait: 1 of its runs are at work already" in told


def test_a_server_says_what_it_serves_and_ends_when_it_is_asked(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-c",
        "from pipelines.cloud.schedules_cli import app; app()",
        "serve",
    ]
    variables = {**os.environ, "PAPER2HUB_CRONTAB": str(tmp_path / "crontab")}
    server = subprocess.Popen(
        command, cwd=tmp_path, env=variables, stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == f"Serving nothing yet of {tmp_path / 'crontab'}.\n"
        server.terminate()
        assert server.wait(20) == 0
        server.stdout.close()
    finally:
        server.kill()
        server.wait()


def test_help_imports_no_client() -> None:
    script = (
        "import sys\n"
        "from pipelines.cloud.schedules_cli import app\n"
        "heavy = {'google.auth', 'kfp', 'yaml', 'crontab', 'tensorflow'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
