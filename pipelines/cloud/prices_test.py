import dataclasses
import datetime
import json

import pytest

from pipelines.cloud import machines
from pipelines.cloud.machines import Machine, machine_type
from pipelines.cloud.prices import FILE, Price, ours, read_prices
from trainer.errors import UserError

IOWA = "us-central1"


def _hour(machine: Machine, region: str = IOWA, name: str = "") -> Price | None:
    return ours().machine_hour(name or machine_type(machine), machine, region)


def test_processors_cost_what_google_publishes_for_whole_machines():
    # https://cloud.google.com/compute/vm-instance-pricing, us-central1
    published = {"n1-standard-4": 0.189999, "n2-standard-4": 0.194236, "n2-highcpu-8": 0.286784}
    published |= {"n2-highmem-96": 6.288672, "n2-standard-128": 6.215552}
    for name, price in published.items():
        hour = _hour(Machine(machine_type=name), name=name)
        assert hour is not None
        assert hour.on_demand == pytest.approx(price, abs=1e-6)


def test_vertex_ai_adds_its_fee():
    # https://cloud.google.com/vertex-ai/pricing: what training costs in us-central1
    for name, price in {"n1-standard-4": 0.21849885, "e2-standard-4": 0.154126276}.items():
        hour = _hour(Machine(machine_type=name), name=name)
        assert hour is not None
        assert hour.on_demand * (1 + ours().training_fee) == pytest.approx(price, rel=1e-6)


def test_gpus_come_with_their_machine():
    l4 = _hour(Machine(cpu="16", accelerator="NVIDIA_L4", accelerators=1))
    assert l4 == Price(pytest.approx(1.147208303), pytest.approx(0.688124))
    a100 = _hour(Machine(accelerator="NVIDIA_TESLA_A100", accelerators=8))
    assert a100 == Price(pytest.approx(8 * 3.673385), pytest.approx(8 * 2.12081))
    h100 = _hour(Machine(accelerator="NVIDIA_H100_80GB", accelerators=8))
    assert h100 is not None
    assert h100.on_demand == pytest.approx(88.49, abs=0.001)
    # n1-standard-8 and two T4: 8 x 0.04749975 + 2 x 0.35
    t4 = _hour(Machine(cpu="8", accelerator="NVIDIA_TESLA_T4", accelerators=2))
    assert t4 == Price(pytest.approx(1.079998), pytest.approx(0.52836))


def test_tpus_are_paid_by_the_chip():
    assert _hour(Machine(accelerator="TPU_V5E", topology="2x2")) == Price(4.8, 4 * 0.24493)
    pod = Machine(accelerator="TPU_V5E", topology="4x4")
    assert _hour(pod) == Price(pytest.approx(19.2), pytest.approx(16 * 0.24493))
    assert _hour(Machine(accelerator="TPU_V2", accelerators=8)) == Price(4.5, 1.35)
    assert _hour(Machine(accelerator="TPU_V2", accelerators=32)) == Price(24.0, 6.12)


def test_what_is_not_in_the_file_has_no_price():
    assert _hour(Machine(), "asia-east1") is None
    assert _hour(Machine(), "europe-west4", "e2-standard-8") is None
    assert _hour(Machine(), name="c3-standard-8") is None
    assert ours().disk_hour(machines.HYPERDISK, 100, IOWA) is None
    assert ours().dataflow_hour("europe-west4") is None


def test_a_spot_price_that_is_not_known_makes_that_of_the_whole_unknown():
    assert Price(1.0, 0.5).plus(Price(2.0)) == Price(3.0)
    assert Price(1.0, 0.5).plus(Price(2.0, 0.25)) == Price(3.0, 0.75)


def test_disks_and_dataflow():
    assert ours().disk_hour("pd-ssd", 100, IOWA) == pytest.approx(17 / 730)
    assert ours().dataflow_hour(IOWA) == (0.056, 0.003557)


def test_all_machines_of_the_two_regions_are_priced_but_those_that_are_named():
    missing = set()
    for region in ours().regions:
        for kind, numbers in machines.GPUS.items():
            for number, types in numbers.items():
                machine = Machine(accelerator=kind, accelerators=number)
                missing |= {(region, name) for name in types if not _hour(machine, region, name)}
        for kind, tpu in machines.TPUS.items():
            machine = Machine(accelerator=kind, topology=next(iter(tpu.slices)))
            if _hour(machine, region) is None:
                missing.add((region, kind))
    assert not missing


def test_old_prices_are_called_old():
    prices = dataclasses.replace(ours(), date=datetime.date(2026, 1, 1))
    assert prices.warning(datetime.date(2026, 6, 30)) == ""
    warning = prices.warning(datetime.date(2026, 7, 1))
    assert warning == "The prices are of 2026-01-01, 181 days ago; today's may differ."


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"date": "yesterday"}, "yesterday"),
        ({"vertex": {"training_fee": 0, "pipeline_run": 1, "source": "vertex"}}, "above 0"),
        ({"vertex": {"training_fee": 1, "pipeline_run": 1, "source": "me"}}, "source"),
        ({"regions": {"here": {"toys": {}}}}, "toys"),
        ({"regions": {"here": {"chips": {"A": {"on_demand": "1"}}}}}, "source"),
        ({"sources": {"a": {"url": "http://a", "read": "b", "date": ""}}}, "source a"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(tmp_path, change, said):
    file = tmp_path / "prices.json"
    file.write_text(json.dumps(json.loads(FILE.read_text()) | change))
    with pytest.raises(UserError, match=said) as refusal:
        read_prices(file)
    assert "\n" not in str(refusal.value)


def test_dearer_spot_and_missing_files_are_refused(tmp_path):
    content = json.loads(FILE.read_text())
    content["regions"][IOWA]["chips"]["TPU_V5E"]["spot"] = 2.0
    file = tmp_path / "prices.json"
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match="dearer"):
        read_prices(file)
    with pytest.raises(UserError, match="must be a file of JSON"):
        read_prices(tmp_path / "none.json")
