import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.local.resources import (
    Resources,
    bytes_of,
    in_words,
    machine_memory,
    quantity,
    read_resources,
)
from trainer.errors import UserError

PROPERTY = settings(
    deadline=None, database=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("2", 2),
        ("0.5", 0.5),
        ("500m", 0.5),
        ("1k", 1000),
        ("1K", 1000),
        ("500M", 500_000_000),
        ("4G", 4_000_000_000),
        ("2T", 2 * 10**12),
        ("512Ki", 512 * 1024),
        ("512Mi", 512 * 1024**2),
        ("1.5Gi", 1.5 * 1024**3),
        (" 1E ", 10**18),
        ("1Ei", 1024**6),
    ],
)
def test_quantities_are_those_of_kubernetes(text, number):
    assert quantity(text, "It") == number


@pytest.mark.parametrize(
    "text", ["", "G", "1GB", "-1G", "1 G", "1g", "1Mib", "1e3", "one", "1mi", "∞"]
)
def test_other_quantities_are_refused_by_name(text):
    with pytest.raises(UserError, match=f"The memory of train must be a number.*got {text}"):
        bytes_of(text, "The memory of train")


@PROPERTY
@given(st.integers(0, 10**6), st.sampled_from(["", "k", "M", "G", "Ki", "Mi", "Gi"]))
def test_whole_quantities_are_exact(number, unit):
    base = 1024 if unit.endswith("i") else 1000
    power = "KMG".index(unit[0].upper()) + 1 if unit else 0
    assert bytes_of(f"{number}{unit}", "It") == number * base**power


def test_both_forms_of_a_compiled_container_are_read():
    newer = {
        "resourceCpuLimit": "500m",
        "resourceMemoryLimit": "2Gi",
        "resourceMemoryRequest": "1G",
        "accelerator": {"resourceType": "nvidia.com/gpu", "resourceCount": "2"},
    }
    assert read_resources(newer, "t") == Resources("500m", "2Gi", "1G", "nvidia.com/gpu", "2")
    older = {
        "cpuLimit": 0.5,
        "memoryLimit": 2.0,
        "memoryRequest": 0.5,
        "accelerator": {"type": "TPU", "count": "1"},
    }
    assert read_resources(older, "t") == Resources("0.5", "2000000000", "500000000", "TPU", "1")
    assert read_resources({**older, **newer}, "t").memory == "2Gi"


def test_no_resources_are_none():
    assert read_resources({}, "t") == Resources()


def test_a_quantity_that_is_filled_in_later_is_left_alone():
    text = "{{$.inputs.parameters['memory']}}"
    assert read_resources({"resourceMemoryLimit": text}, "t").memory == text


def test_a_memory_that_cannot_be_read_is_refused_by_name():
    with pytest.raises(UserError, match="the memory of train"):
        read_resources({"resourceMemoryLimit": "much"}, "train")


def test_this_machine_has_memory():
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 2**20 < machine_memory() <= physical


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (0, "0.0 B"),
        (1023, "1023.0 B"),
        (1536, "1.5 KiB"),
        (25_232_932_864, "23.5 GiB"),
        (3 * 1024**4, "3.0 TiB"),
        (5000 * 1024**4, "5000.0 TiB"),
    ],
)
def test_sizes_are_told_in_words(size, words):
    assert in_words(size) == words
