import itertools

import pytest

from pipelines.cloud.machines import (
    BOOT_DISKS,
    GPUS,
    TPUS,
    Machine,
    boot_disk,
    check,
    hosts,
    machine_type,
    parse_machine,
)
from pipelines.cloud.placement import Placement, placed
from trainer.errors import UserError

# Topology, machine type -> hosts, as the tables of Vertex AI (v5e, v6e) and GKE (v5p) have them.
LENT = {
    "TPU_V5E": {
        ("1x1", "ct5lp-hightpu-1t"): 1,
        ("2x2", "ct5lp-hightpu-4t"): 1,
        ("2x4", "ct5lp-hightpu-8t"): 1,
        ("4x4", "ct5lp-hightpu-4t"): 4,
        ("4x8", "ct5lp-hightpu-4t"): 8,
        ("8x8", "ct5lp-hightpu-4t"): 16,
        ("8x16", "ct5lp-hightpu-4t"): 32,
        ("16x16", "ct5lp-hightpu-4t"): 64,
    },
    "TPU_V6E": {
        ("1x1", "ct6e-standard-1t"): 1,
        ("2x2", "ct6e-standard-4t"): 1,
        ("2x4", "ct6e-standard-8t"): 1,
        ("2x4", "ct6e-standard-4t"): 2,
        ("4x4", "ct6e-standard-4t"): 4,
    },
    "TPU_V5P": {
        ("2x2x2", "ct5p-hightpu-4t"): 2,
        ("2x2x4", "ct5p-hightpu-4t"): 4,
        ("2x4x4", "ct5p-hightpu-4t"): 8,
    },
}
TOPOLOGIES = sorted({topology for table in LENT.values() for topology, _ in table} | {"3x3", "4x2"})
TYPES = sorted(
    {kind for table in LENT.values() for _, kind in table} | {"cloud-tpu", "n2-standard-8"}
)


def refused(machine: Machine, cloud: str = "vertex", backend: str = "") -> str:
    """Why there is no such machine; empty where there is."""
    try:
        check(machine, cloud, backend)
    except UserError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("generation", TPUS)
@pytest.mark.parametrize("cloud", ["vertex", "kubeflow"])
def test_every_combination_of_topology_and_machine_type(generation: str, cloud: str) -> None:
    """Of all of them those are lent, and no others, that the tables have."""
    for topology, kind in itertools.product(TOPOLOGIES, TYPES):
        machine = Machine(accelerator=generation, topology=topology, machine_type=kind)
        number = LENT[generation].get((topology, kind), 0)
        lent = number > 0
        if cloud == "vertex":
            lent &= generation != "TPU_V5P"
        else:
            lent &= number == 1  # a step is one pod
        assert (refused(machine, cloud) == "") == lent, machine
        if lent:
            assert hosts(machine) == number


@pytest.mark.parametrize("generation", ["TPU_V5E", "TPU_V6E"])
def test_spot_is_for_one_host(generation: str) -> None:
    for (topology, kind), number in LENT[generation].items():
        machine = Machine(
            accelerator=generation, topology=topology, machine_type=kind, strategy="spot"
        )
        assert ("spot is for one host" in refused(machine)) == (number > 1)


def test_each_generation_takes_its_own_boot_disks() -> None:
    for disk in (*BOOT_DISKS, "floppy"):
        for generation, right in (
            ("TPU_V6E", disk == "hyperdisk-balanced"),
            ("TPU_V5E", disk[:3] == "pd-"),
        ):
            machine = Machine(accelerator=generation, topology="2x2", boot_disk=disk)
            assert (refused(machine) == "") == right
    assert boot_disk(Machine(accelerator="TPU_V6E", topology="1x1")) == "hyperdisk-balanced"
    assert boot_disk(Machine(accelerator="TPU_V5E", topology="1x1")) == "pd-ssd"


def test_tensorflow_is_not_proven_on_v6e() -> None:
    for backend, right in (("tensorflow", False), ("jax", True)):
        machine = Machine(accelerator="TPU_V6E", topology="2x2")
        assert (refused(machine, backend=backend) == "") == right
        assert refused(Machine(accelerator="TPU_V5E", topology="2x2"), backend=backend) == ""


@pytest.mark.parametrize(
    ("cores", "lent"), [(1, False), (4, False), (8, True), (16, False), (32, True), (40, False)]
)
def test_old_tpus_come_in_eights_or_pods(cores: int, lent: bool) -> None:
    machine = Machine(accelerator="TPU_V3", accelerators=cores)
    assert (refused(machine) == "") == lent
    if lent:
        assert machine_type(machine) == "cloud-tpu"
        assert hosts(machine) == cores // 8
        spot = Machine(accelerator="TPU_V3", accelerators=cores, strategy="spot")
        assert (refused(spot) == "") == (cores == 8)
    assert "GKE lends" in refused(machine, "kubeflow")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("NVIDIA_L4:1,cpu=16", "g2-standard-16"),
        ("NVIDIA_L4", "g2-standard-8"),
        ("NVIDIA_L4:1,cpu=64", "g2-standard-32"),
        ("nvidia-l4:4", "g2-standard-48"),
        ("NVIDIA_TESLA_A100:8", "a2-highgpu-8g"),
        ("NVIDIA_TESLA_T4:2,cpu=10", "n1-standard-16"),
        ("cpu:16", "n2-standard-16"),
        ("cpu:8,memory=60G", "n2-highmem-8"),
        ("cpu:32,memory=16G", "n2-highcpu-32"),
        ("cpu:1,machine_type=e2-micro", "e2-micro"),
        ("TPU_V6E:2x4", "ct6e-standard-8t"),
        ("tpu_v6e:2x4,machine_type=ct6e-standard-4t", "ct6e-standard-4t"),
    ],
)
def test_the_machine_type_follows(text: str, kind: str) -> None:
    machine = parse_machine(text)
    check(machine, "vertex")
    assert machine_type(machine) == kind


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("TPU_V5E:2x2,machine_type=ct5lp-hightpu-8t", "needs machine_type ct5lp-hightpu-4t; got"),
        ("TPU_V5E:3x3", "its topology must be one of 1x1, 2x2"),
        ("TPU_V5E:2x2x2", "one of 1x1, .*, of 2 numbers"),
        ("TPU_V5P:2x2", "one of 2x2x2, .*, of 3 numbers"),
        ("TPU_V5P:2x2x2", "not known to lend it; compile for kubeflow"),
        ("NVIDIA_L4:3", "there must be 1, 2, 4 or 8 of them; got 3"),
        ("NVIDIA_L4:2,machine_type=g2-standard-8", "2 of them need machine_type g2-standard-24"),
        ("NVIDIA_H100_80GB:1", "strategy=spot or strategy=flex-start only"),
        ("cpu:7", "cpu must be 2, 4, .* or 128, or machine_type be given; got 7"),
        ("cpu:4,memory=64G", "come with 32G of memory at most; got 64G"),
        ("cpu:4,machine_type=ct5lp-hightpu-4t", "is one for accelerators: name them"),
        ("cpu:4,strategy=flex-start", "flex-start lends GPUs and TPUs of v5e or newer"),
        ("TPU_V2:8,strategy=flex-start", "flex-start lends GPUs and TPUs of v5e or newer"),
        ("NVIDIA_L4:1,strategy=flex-start,wait=0", "wait must be from 1 to 604800"),
        ("NVIDIA_L4:1,boot_disk_gigabytes=10", "100 GB or more; got 10"),
        ("TPU_V5E", "TPU_V5E must have a topology"),
        ("TPU_V9:2x2", "must begin with NVIDIA_A100_80GB"),
        ("NVIDIA_L4:many", "accelerators of a machine must be a whole number; got 'many'"),
        ("NVIDIA_L4:1,colour=red", "must be FIELD=VALUE, with a field of boot_disk,"),
        ("NVIDIA_L4:1,strategy=cheap", "strategy must be one of standard, spot, flex-start"),
    ],
)
def test_what_is_not_lent_is_refused_with_the_reason(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check(parse_machine(text), "vertex")


def test_every_gpu_that_is_known_is_lent() -> None:
    for kind, numbers in GPUS.items():
        for number, types in numbers.items():
            for chosen in ("", *types):
                machine = Machine(
                    accelerator=kind, accelerators=number, machine_type=chosen, strategy="spot"
                )
                assert refused(machine) == ""


def test_a_part_of_the_work_gets_what_it_can_use() -> None:
    tpu, spot = parse_machine("TPU_V5E:2x2"), parse_machine("NVIDIA_L4:1,strategy=spot")
    own = Machine()
    assert Placement("vertex", {"training": tpu}).machine("training", own) == tpu
    assert Placement("vertex").machine("training", own) == own
    with pytest.raises(UserError, match="Only training takes TPUs"):
        Placement("vertex", {"evaluation": tpu}).machine("evaluation", own)
    with pytest.raises(UserError, match="only training, a custom job"):
        Placement("vertex", {"evaluation": spot}).machine("evaluation", own)
    assert Placement("kubeflow", {"evaluation": spot}).machine("evaluation", own) == spot
    with pytest.raises(UserError, match="must be for one of data, training"):
        placed(Placement("vertex", {"cooking": tpu}))
    with pytest.raises(UserError, match="got 'moon'"):
        placed("moon")
