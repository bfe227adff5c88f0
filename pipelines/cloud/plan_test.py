import copy
import dataclasses
import datetime
import io
import json

import pytest
import yaml
from rich.console import Console

from pipelines.cloud import plan as planning
from pipelines.cloud import plan_cli, prices
from pipelines.cloud.account import Account
from pipelines.cloud.compiled_steps import Step, differences, read_steps
from pipelines.cloud.job import Earlier, Job, Request
from pipelines.cloud.machines import Machine, parse_machine
from pipelines.cloud.placement import Placement
from pipelines.cloud.plan import Duration, Range, plan
from pipelines.cloud.quota import Quota, quotas
from pipelines.local.record import TaskRecord
from trainer.errors import UserError

DIGEST = "0123456789abcdef" * 4
TODAY = datetime.date(2026, 11, 22)
VERTEX = Account(
    name="vertex", kind="vertex", root="gs://bucket/runs", project="p", region="us-central1"
)
KUBEFLOW = Account(
    name="gke", kind="kubeflow", root="gs://bucket/runs", host="http://kfp", region="us-central1"
)
ORDER = ["create-tfrecords", "preprocess", "train", "evaluate", "export-hub", "report"]


class InMemory:
    """A cloud that remembers what has succeeded there, and is only asked."""

    def __init__(self, *jobs: Earlier):
        self.jobs = list(jobs)
        self.asked: list[str] = []

    def earlier(self, pipeline: str, most: int = 5) -> list[Earlier]:
        self.asked.append(pipeline)
        return self.jobs[:most]


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """A pipeline for three places, compiled once; its images as if pinned."""
    from pipelines.compile import compile_model

    folder = tmp_path_factory.mktemp("compiled")
    places = {
        "l4": Placement("vertex"),
        "tpu": Placement("vertex", {"training": parse_machine("TPU_V5E:2x2,strategy=spot")}),
        "gke": Placement("kubeflow", {"training": parse_machine("TPU_V6E:2x4,strategy=spot")}),
        "cpu": Placement("vertex", {part: parse_machine("cpu:8") for part in ("training",)}),
    }
    found = {}
    for name, place in places.items():
        text = compile_model("regnety", folder / f"{name}.yaml", place).read_text()
        for image in ("data", "trainer", "trainer-gpu", "trainer-tpu"):
            text = text.replace(
                f"paper2hub/{image}:0.1.0\n", f"host.example/{image}@sha256:{DIGEST}\n"
            )
        found[name] = text
    return found


def _request(text, **fields):
    return Request(model="regnety", text=text, **fields)


def _earlier(text, parameters=None, name="regnety-000000000001", seconds=600.0, status="succeeded"):
    tasks = {step: TaskRecord(status, seconds=seconds) for step in ORDER}
    job = Job(name, "succeeded", created="2026-11-20T08:00:00+00:00", tasks=tasks)
    specification = next(yaml.safe_load_all(text))
    # Clouds keep pipelines as protobuf, whose numbers are all fractions.
    kept = json.loads(json.dumps(specification), parse_int=float)
    documents = list(yaml.safe_load_all(text))
    platform = documents[1] if len(documents) > 1 else {}
    return Earlier(job, kept, parameters or {}, platform)


def _plan(request, *jobs, account=VERTEX, **options):
    return plan(request, account, InMemory(*jobs), today=TODAY, **options)


def _whys(made):
    return {step.step: ("cached: " if step.cached else "runs: ") + step.why for step in made.steps}


def test_without_an_earlier_job_everything_runs(texts):
    made = _plan(_request(texts["l4"]))
    assert [step.step for step in made.steps] == ORDER
    assert set(_whys(made).values()) == {"runs: no earlier job of this pipeline has succeeded"}
    assert made.compared_with == ""
    assert all(step.seconds is None and step.cost is None for step in made.steps)
    assert made.unknown == tuple(ORDER)
    assert made.cost == Range(0.03, 0.03)  # the run itself
    assert made.valid


def test_the_same_again_is_cached_and_costs_the_run_alone(texts):
    cloud = InMemory(_earlier(texts["l4"]))
    made = plan(_request(texts["l4"]), VERTEX, cloud, today=TODAY)
    assert set(_whys(made).values()) == {
        "cached: the same as in regnety-000000000001 of 2026-11-20"
    }
    assert made.cost == Range(0.03, 0.03)
    assert made.unknown == ()
    assert cloud.asked == ["regnety"]
    assert any("removed" in note for note in made.notes)


def test_what_has_changed_is_named_and_what_follows_runs_too(texts):
    before = _earlier(texts["l4"], {"training": {"precision": "float32"}, "shards": 8.0})
    request = _request(
        texts["l4"], parameters={"training": {"precision": "mixed_bfloat16"}, "shards": 8}
    )
    whys = _whys(_plan(request, before))
    assert whys["create-tfrecords"].startswith("cached")
    assert whys["preprocess"].startswith("cached")
    assert whys["train"] == "runs: parameter training.precision float32 → mixed_bfloat16"
    assert whys["evaluate"] == "runs: train before it runs"
    assert whys["report"] == "runs: train before it runs"


def test_a_setting_of_a_run_and_a_default_of_another_are_compared(texts):
    request = _request(texts["l4"], parameters={"settings": {"learning_rate": 0.05}})
    before = _earlier(texts["l4"], {"settings": {"learning_rate": 0.1}})
    whys = _whys(_plan(request, before))
    assert whys["preprocess"] == "runs: parameter settings.learning_rate 0.1 → 0.05"
    whys = _whys(_plan(request, _earlier(texts["l4"])))
    assert whys["preprocess"] == "runs: parameter settings.learning_rate nothing → 0.05"


def test_another_image_digest_is_named(texts):
    now = texts["l4"].replace(f"/data@sha256:{DIGEST}", f"/data@sha256:{'f' * 64}")
    whys = _whys(_plan(_request(now), _earlier(texts["l4"])))
    assert whys["create-tfrecords"] == "runs: image digest changed (01234567 → ffffffff)"
    assert whys["preprocess"] == "runs: image digest changed (01234567 → ffffffff)"
    assert whys["train"] == "runs: preprocess before it runs"


def test_another_machine_of_a_custom_job_is_named(texts):
    why = _whys(_plan(_request(texts["tpu"]), _earlier(texts["l4"])))["train"]
    assert "machine_type g2-standard-16 → ct5lp-hightpu-4t" in why
    assert "tpu_topology none → 2x2" in why
    assert "strategy STANDARD → SPOT" in why
    assert "trainer-gpu@" in why


def test_a_changed_variable_counts_on_vertex_alone(texts):
    before, now = (
        read_steps(yaml.safe_load(text), {}, "vertex")[0]
        for text in (
            texts["l4"],
            texts["l4"].replace("value: '1'", "value: '2'"),
        )
    )
    assert differences(before, now) == ["variable PAPER2HUB_GOES_ON 1 → 2"]
    documents = list(yaml.safe_load_all(texts["gke"]))
    changed = copy.deepcopy(documents[0])
    container = changed["deploymentSpec"]["executors"]["exec-create-tfrecords"]["container"]
    container["env"][0]["value"] = "2"
    before, now = (read_steps(d, {}, "kubeflow", documents[1])[0] for d in (documents[0], changed))
    assert differences(before, now) == []


def test_caching_can_be_off(texts):
    made = _plan(_request(texts["l4"], cache=False), _earlier(texts["l4"]))
    assert set(_whys(made).values()) == {"runs: caching is off"}
    off = texts["l4"].replace("enableCache: true", "enableCache: false")
    assert set(_whys(_plan(_request(off), _earlier(off))).values()) == {"runs: caching is off"}
    on = _plan(_request(off, cache=True), _earlier(off))
    assert all(step.cached for step in on.steps)


def test_time_and_cost_of_a_gpu_by_hand(texts):
    jobs = [
        _earlier(texts["l4"], {"shards": 1}, f"regnety-{n:012d}", seconds)
        for n, seconds in enumerate((7200.0, 3600.0))
    ]
    step = {s.step: s for s in _plan(_request(texts["l4"]), *jobs).steps}["train"]
    assert (step.machine_type, step.hosts, step.strategy) == ("g2-standard-16", 1, "standard")
    assert (step.seconds, step.time_source) == (Range(3600.0, 7200.0), "2 earlier jobs")
    # 15 % above 16 x 0.036698004 + 0.560040239 USD, and a disk of 100 GB at 0.17 USD a month
    hour = 1.15 * (1.147208303 + 17 / 730)
    assert step.hour == Range(pytest.approx(hour), pytest.approx(hour))
    assert step.cost == Range(pytest.approx(hour), pytest.approx(2 * hour))


def test_spot_costs_from_its_own_price_to_the_list_price(texts):
    jobs = [_earlier(texts["tpu"], {"shards": 1}, seconds=1800.0)]
    made = _plan(_request(texts["tpu"]), *jobs)
    step = {s.step: s for s in made.steps}["train"]
    disk = 17 / 730
    low, high = 1.15 * (4 * 0.24493 + disk), 1.15 * (4 * 1.2 + disk)
    assert step.hour == Range(pytest.approx(low), pytest.approx(high))
    assert step.cost == Range(pytest.approx(low / 2), pytest.approx(high / 2))
    assert (step.machine, step.strategy) == ("TPU_V5E 2x2, spot", "spot")


def test_ordinary_steps_are_reckoned_as_e2_and_the_sum_is_that_of_all(texts):
    made = _plan(_request(texts["l4"], parameters={"shards": 2}), _earlier(texts["l4"]))
    steps = {step.step: step for step in made.steps}
    # 8 processors with 32 GB: 15 % above 8 x 0.03350571 USD, for ten minutes
    assert steps["create-tfrecords"].machine_type == "e2-standard-8"
    ten_minutes = 1.15 * 8 * 0.03350571 / 6
    assert steps["create-tfrecords"].cost == Range(
        pytest.approx(ten_minutes), pytest.approx(ten_minutes)
    )
    assert steps["export-hub"].machine_type == "e2-standard-4"
    costs = sum(step.cost.high for step in made.steps)
    assert made.cost.high == pytest.approx(0.03 + costs)
    assert made.unknown == ()


def test_times_of_the_same_settings_are_better_than_others(texts):
    slow = _earlier(texts["l4"], {"training": {"precision": "float32"}}, seconds=9000.0)
    request = _request(texts["l4"], parameters={"training": {"precision": "mixed_bfloat16"}})
    step = {s.step: s for s in _plan(request, slow).steps}["train"]
    assert step.time_source == "an earlier job with other settings"
    same = _earlier(texts["l4"], request.parameters, seconds=60.0)
    step = {s.step: s for s in _plan(request, slow, same).steps}["train"]
    assert (step.seconds, step.time_source) == (Range(60.0, 60.0), "an earlier job")


def test_cached_tasks_and_other_machines_tell_no_time(texts):
    request = _request(texts["tpu"])
    on_l4 = {s.step: s for s in _plan(request, _earlier(texts["l4"])).steps}["train"]
    assert on_l4.seconds is None
    assert on_l4.hour is not None
    assert on_l4.cost is None
    cached = _earlier(texts["l4"], {"shards": 1}, status="cached")
    assert all(s.seconds is None for s in _plan(_request(texts["l4"]), cached).steps)


def test_a_ledger_is_asked_where_jobs_do_not_tell_and_this_machine_is_only_shown(texts):
    class Ledger:
        def of(self, step: Step) -> Duration | None:
            known = step.name == "train" and step.machine_type == "ct5lp-hightpu-4t"
            return Duration(Range(100.0, 200.0), "the ledger") if known else None

    made = _plan(_request(texts["tpu"]), durations=[Ledger()], here={"evaluate": 90.0})
    steps = {step.step: step for step in made.steps}
    assert (steps["train"].seconds, steps["train"].time_source) == (
        Range(100.0, 200.0),
        "the ledger",
    )
    assert (steps["evaluate"].seconds, steps["evaluate"].seconds_here) == (None, 90.0)


def test_a_machine_that_there_is_not_is_a_row_with_its_reason(texts):
    account = dataclasses.replace(VERTEX, machines={"training": "TPU_V5E:3x3"})
    place = account.placement({"evaluation": "TPU_V5E:1x1"})
    refused = plan_cli.refused_machines(place)
    assert set(refused) == {"training", "evaluation"}
    made = _plan(_request(texts["l4"]), _earlier(texts["l4"]), refused=refused)
    steps = {step.step: step for step in made.steps}
    assert not made.valid
    assert (steps["train"].valid, steps["train"].machine) == (False, "TPU_V5E 3x3")
    assert "topology must be one of 1x1, 2x2" in steps["train"].problem
    assert steps["evaluate"].problem.startswith("Only training takes TPUs")
    assert steps["preprocess"].valid
    assert made.unknown == ("train", "evaluate")


def test_a_compiled_machine_that_there_is_not_is_found(texts):
    wrong = texts["tpu"].replace("tpu_topology: 2x2", "tpu_topology: 2x4")
    step = {s.step: s for s in _plan(_request(wrong)).steps}["train"]
    assert not step.valid
    assert "ct5lp-hightpu-8t" in step.problem


def test_what_is_not_in_the_price_file_is_not_invented(texts):
    elsewhere = dataclasses.replace(VERTEX, region="asia-east1")
    made = _plan(_request(texts["l4"]), _earlier(texts["l4"], {"shards": 1}), account=elsewhere)
    assert {step.hour for step in made.steps if not step.cached} == {None}
    step = {s.step: s for s in made.steps}["train"]
    assert step.price_note == "price not known: g2-standard-16 in asia-east1"
    assert step.cost is None
    assert step.seconds == Range(600.0, 600.0)


def test_dataflow_is_named_beside_preprocess(texts):
    account = dataclasses.replace(VERTEX, beam="dataflow")
    step = {s.step: s for s in _plan(_request(texts["l4"]), account=account).steps}["preprocess"]
    assert "without Dataflow's workers: 0.056 USD for a virtual CPU" in step.price_note


def test_kubeflow_machines_come_from_the_nodes(texts):
    made = _plan(_request(texts["gke"]), account=KUBEFLOW)
    steps = {step.step: step for step in made.steps}
    assert (steps["train"].machine, steps["train"].hosts) == ("TPU_V6E 2x4, spot", 1)
    assert steps["train"].machine_type == "ct6e-standard-8t"
    assert steps["train"].hour == Range(pytest.approx(8 * 0.54421), pytest.approx(21.6))
    assert (steps["evaluate"].machine, steps["evaluate"].machine_type) == (
        "NVIDIA_L4 1",
        "g2-standard-16",
    )
    assert steps["report"].price_note == "price not known: the cluster has the machine"
    assert made.run_fee == 0.0
    again = _plan(_request(texts["gke"]), _earlier(texts["gke"]), account=KUBEFLOW)
    assert all(step.cached for step in again.steps)


def test_quotas_have_the_names_that_google_has_for_them():
    def of(text, machine_type, kind="vertex", hosts=1):
        return quotas(parse_machine(text), machine_type, hosts, kind)

    vertex, compute = "aiplatform.googleapis.com/custom_model_training_", "compute.googleapis.com/"
    l4, cpus = of("NVIDIA_L4:1", "g2-standard-16")
    assert (l4.number, l4.name) == (1, f"{vertex}nvidia_l4_gpus")
    assert (cpus.number, cpus.name) == (16, f"{vertex}g2_cpus")
    l4, cpus = of("NVIDIA_L4:1,strategy=spot", "g2-standard-16")
    assert l4.name == f"{vertex}preemptible_nvidia_l4_gpus"
    assert (cpus.name, cpus.words) == ("", "preemptible g2 virtual CPUs for custom model training")
    assert of("NVIDIA_TESLA_A100:8", "a2-highgpu-8g")[1] == Quota(
        96, f"{vertex}a2_cpus", "a2 virtual CPUs for custom model training"
    )
    assert of("cpu:8", "n2-standard-8")[0].name == f"{vertex}n2_cpus"
    assert of("cpu:4", "e2-standard-4")[0].name == f"{vertex}cpus"
    assert [(q.number, q.name) for q in of("TPU_V5E:4x4", "ct5lp-hightpu-4t", hosts=4)] == [
        (16, f"{vertex}tpu_v5e")
    ]
    (v6e,) = of("TPU_V6E:2x2", "ct6e-standard-4t")
    assert (v6e.number, v6e.name) == (4, "")
    assert str(v6e) == "4 of TPU_V6E chips for custom model training (Vertex AI)"
    (gke,) = of("NVIDIA_L4:1,strategy=spot", "g2-standard-16", "kubeflow")
    assert gke.name == f"{compute}preemptible_nvidia_l4_gpus"
    (tpu,) = of("TPU_V5E:2x2", "ct5lp-hightpu-4t", "kubeflow")
    assert tpu.words == "TPU v5 Lite PodSlice chips (Compute Engine)"


def test_an_earlier_job_that_cannot_be_read_is_no_job_to_compare_with(texts):
    strange = Earlier(Job("regnety-old", "succeeded", created="2026-01-01"), {"jobSpec": 1}, {})
    whys = _whys(_plan(_request(texts["l4"]), strange))
    assert set(whys.values()) == {"runs: regnety-old has no such step"}


def test_the_table_fits_100_columns_and_says_all_in_words(texts):
    made = _plan(
        _request(texts["tpu"], parameters={"shards": 2}),
        _earlier(texts["tpu"]),
        refused={"evaluation": planning.Refused(Machine(), "There is no such machine: test.")},
    )
    console = Console(file=io.StringIO(), width=100)
    plan_cli.show(made, console)
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= 100
    assert "create-tfrecords runs: parameter shards 0 → 2." in text
    assert "export-hub and report" in text
    assert "ct5lp-hightpu-4t" in text
    assert "invalid" in text
    assert "evaluate: There is no such machine: test." in text
    assert "List prices of 2026-08-20" in " ".join(text.split())
    assert "without evaluate, not known" in " ".join(text.split())


def test_a_request_that_has_succeeded_is_named(texts):
    request = _request(texts["l4"])
    notes = _plan(request, _earlier(texts["l4"], name=f"{request.identifier()}-2")).notes
    assert notes[0].startswith(f"This very request has succeeded as {request.identifier()}-2")
    assert not any("very request" in n for n in _plan(request, _earlier(texts["l4"])).notes)


def test_old_prices_are_a_note(texts):
    old = dataclasses.replace(prices.ours(), date=datetime.date(2025, 11, 22))
    notes = _plan(_request(texts["l4"]), listed=old).notes
    assert notes[-1] == "The prices are of 2025-11-22, 365 days ago; today's may differ."


def test_the_command_prints_json_and_leaves_with_2_for_a_wrong_machine(
    texts, tmp_path, monkeypatch, capsys
):
    from pipelines.cloud import submission

    asked = []

    def request_for(model, account, values, **options):
        asked.append((model, account.machines, options["machines"]))
        return _request(texts["l4"], parameters=values)

    monkeypatch.setattr(submission, "request_for", request_for)
    monkeypatch.setattr(submission, "cloud_of", lambda account: InMemory(_earlier(texts["l4"])))
    account = dataclasses.replace(VERTEX, machines={"training": "TPU_V5E:2x2"})
    options = {"pinned_by": "", "cache": None, "root": tmp_path, "as_json": True}

    def run(machines):
        code = plan_cli.plan(
            "regnety", account, {}, machines=machines, console=Console(), **options
        )
        return code, json.loads(capsys.readouterr().out)

    code, content = run({})
    assert (code, content["valid"], len(content["steps"])) == (0, True, 6)
    assert asked == [("regnety", {}, {"training": "TPU_V5E:2x2"})]
    code, content = run({"training": "TPU_V5E:5x5"})
    assert (code, content["valid"]) == (2, False)
    assert asked[-1][2] == {}
    with pytest.raises(UserError, match="must be for one of data"):
        run({"trainig": "TPU_V5E:2x2"})
