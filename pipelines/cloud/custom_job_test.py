import json

import pytest
import yaml

from pipelines.cloud.machines import parse_machine
from pipelines.cloud.placement import Placement
from pipelines.compile import compile_model
from trainer.errors import UserError


def compiled(tmp_path, machine, target="vertex", **placement):
    """The documents of regnety's pipeline with its training on a machine."""
    place = Placement(target, {"training": parse_machine(machine)}, **placement)
    file = compile_model("regnety", tmp_path / "pipeline.yaml", place)
    return list(yaml.safe_load_all(file.read_text()))


def job(spec):
    """Worker pool and further settings of the custom job that trains."""
    given = spec["components"]["comp-train"]["inputDefinitions"]["parameters"]
    (pool,) = given["worker_pool_specs"]["defaultValue"]
    return pool, {name: entry.get("defaultValue") for name, entry in given.items()}


@pytest.mark.parametrize(
    ("machine", "asked", "disk", "strategy"),
    [
        ("TPU_V5E:2x2", {"machine_type": "ct5lp-hightpu-4t", "tpu_topology": "2x2"}, "pd-ssd", ""),
        (
            "TPU_V6E:2x4,machine_type=ct6e-standard-4t",
            {"machine_type": "ct6e-standard-4t", "tpu_topology": "2x4"},
            "hyperdisk-balanced",
            "",
        ),
        (
            "TPU_V3:8",
            {"machine_type": "cloud-tpu", "accelerator_type": "TPU_V3", "accelerator_count": 8},
            "pd-ssd",
            "",
        ),
        (
            "NVIDIA_L4:2,strategy=spot,boot_disk=pd-standard,boot_disk_gigabytes=200",
            {
                "machine_type": "g2-standard-24",
                "accelerator_type": "NVIDIA_L4",
                "accelerator_count": 2,
            },
            "pd-standard",
            "SPOT",
        ),
        (
            "TPU_V5E:4x4,strategy=flex-start,wait=3600",
            {"machine_type": "ct5lp-hightpu-4t", "tpu_topology": "4x4"},
            "pd-ssd",
            "FLEX_START",
        ),
        ("cpu:16", {"machine_type": "n2-standard-16"}, "pd-ssd", ""),
    ],
)
def test_training_is_a_custom_job(tmp_path, machine, asked, disk, strategy):
    (spec,) = compiled(tmp_path, machine, service_account="runner@p", network="n")
    pool, settings = job(spec)
    assert pool["machine_spec"] == asked
    assert pool["disk_spec"]["boot_disk_type"] == disk
    # The slice is one worker pool of one replica, whatever its number of hosts.
    assert pool["replica_count"] == 1
    assert settings["strategy"] == (strategy or "STANDARD")
    assert settings["service_account"] == "runner@p"
    assert settings["network"] == "n"
    assert settings["restart_job_on_worker_restart"] == (strategy == "SPOT")
    if strategy == "FLEX_START":
        assert settings["max_wait_duration"] == "3600s"
    container = pool["container_spec"]
    image = container["image_uri"]
    wanted = (
        "trainer-tpu"
        if machine[:3] == "TPU"
        else "trainer-gpu"
        if machine[:6] == "NVIDIA"
        else "trainer"
    )
    assert image.startswith(f"paper2hub/{wanted}:")
    assert container["env"] == [{"name": "PAPER2HUB_GOES_ON", "value": "1"}]
    # Typed outputs stay, so that evaluate takes what the job has written.
    assert set(spec["components"]["comp-train"]["outputDefinitions"]["artifacts"]) == {
        "checkpoint",
        "logs",
    }
    backend = spec["root"]["dag"]["tasks"]["train"]["inputs"]["parameters"].get("backend")
    if machine[:3] == "TPU":
        assert backend == {"runtimeValue": {"constant": "jax"}}
    else:
        assert backend is None


def test_the_job_is_json_when_its_placeholders_are_filled_in(tmp_path):
    """Mappings would break it: their quotes are not escaped."""
    (spec,) = compiled(tmp_path, "cpu:8")
    pool, _ = job(spec)
    args = pool["container_spec"]["args"]
    assert not [arg for arg in args if arg.startswith(("--settings", "--training", "--stage"))]
    assert args[-2:] == ["--executor_input", "{{$.json_escape[1]}}"]
    assert [arg.partition("=")[0] for arg in args[:-2]] == [
        *("--model", "--transformed_examples", "--checkpoint", "--logs", "--backend"),
    ]
    json.dumps(pool)


def test_a_wrong_machine_is_told_when_the_pipeline_is_compiled(tmp_path):
    with pytest.raises(UserError, match="needs machine_type ct5lp-hightpu-4t"):
        compiled(tmp_path, "TPU_V5E:2x2,machine_type=ct5lp-hightpu-8t")


def test_on_kubeflow_a_step_goes_to_the_right_node(tmp_path):
    spec, platform = compiled(
        tmp_path, "TPU_V6E:2x2,strategy=spot", "kubeflow", volumes={"datasets": "/data"}
    )
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    train = executors["exec-train"]
    assert train["nodeSelector"]["labels"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v6e-slice",
        "cloud.google.com/gke-tpu-topology": "2x2",
        "cloud.google.com/gke-spot": "true",
    }
    assert {t["key"] for t in train["tolerations"]} == {
        "google.com/tpu",
        "cloud.google.com/gke-spot",
    }
    container = spec["deploymentSpec"]["executors"]["exec-train"]["container"]
    assert container["resources"]["accelerator"] == {
        "count": "4",
        "resourceCount": "4",
        "resourceType": "google.com/tpu",
        "type": "google.com/tpu",
    }
    mounted = {name: e["pvcMount"] for name, e in executors.items() if "pvcMount" in e}
    ((reader, (mount,)),) = mounted.items()
    assert reader == "exec-create-tfrecords"
    assert mount["mountPath"] == "/data" and "datasets" in json.dumps(mount)


def test_secrets_are_named_and_never_given(tmp_path):
    name = "projects/p/secrets/hub/versions/latest"
    (spec,) = compiled(tmp_path, "cpu:8", secrets={"HF_TOKEN": name})
    seen = {
        label: entry["container"].get("env", [])
        for label, entry in spec["deploymentSpec"]["executors"].items()
    }
    holders = {
        label
        for label, env in seen.items()
        if {"name": "PAPER2HUB_SECRETS", "value": json.dumps({"HF_TOKEN": name})} in env
    }
    assert holders == {"exec-create-tfrecords", "exec-export-hub"}
    _, platform = compiled(tmp_path, "cpu:8", "kubeflow", secrets={"HF_TOKEN": "hub/token"})
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    (secret,) = executors["exec-export-hub"]["secretAsEnv"]
    assert "hub" in json.dumps(secret)
    assert secret["keyToEnv"] == [{"envVar": "HF_TOKEN", "secretKey": "token"}]
