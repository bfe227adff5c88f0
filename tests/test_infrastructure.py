"""The Terraform files: they parse, explain themselves and grant nobody more than a part needs."""

import functools
import re
from pathlib import Path
from typing import Any

import hcl2
import pytest

INFRA = Path(__file__).parents[1] / "infra"
FILES = sorted(INFRA.glob("*.tf"))
ENVIRONMENTS = sorted(INFRA.glob("environments/*.tfvars"))


def bare(value: Any) -> Any:
    """A parsed value without the quotation marks that python-hcl2 keeps around text."""
    if isinstance(value, dict):
        return {bare(key): bare(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [bare(entry) for entry in value]
    return value.strip('"') if isinstance(value, str) else value


@functools.cache
def parsed(path: Path) -> dict[str, Any]:
    """A Terraform file as nested dicts and lists."""
    file: dict[str, Any] = bare(hcl2.loads(path.read_text(encoding="utf-8")))
    return file


def blocks(kind: str) -> list[dict[str, Any]]:
    """All blocks of one kind, such as `variable`, in all files."""
    return [block for path in FILES for block in parsed(path).get(kind, [])]


def named(kind: str) -> dict[str, dict[str, Any]]:
    """Blocks with one label, by their label."""
    return {name: body for block in blocks(kind) for name, body in block.items()}


def resources(kind: str) -> dict[str, dict[str, Any]]:
    """Resources of one type, by name."""
    return {
        name: body
        for block in blocks("resource")
        if kind in block
        for name, body in block[kind].items()
    }


def test_every_variable_is_described_typed_and_validated() -> None:
    variables = named("variable")
    assert "project" in variables
    for name, variable in variables.items():
        assert {"description", "type", "validation"} <= set(variable), name


def test_every_output_is_described() -> None:
    outputs = named("output")
    assert "pipeline_root" in outputs
    assert [name for name, output in outputs.items() if not output.get("description")] == []


@pytest.mark.parametrize("path", ENVIRONMENTS, ids=lambda path: path.stem)
def test_environments_set_known_variables(path: Path) -> None:
    values = parsed(path)
    assert values["environment"] == path.stem
    assert set(values) <= set(named("variable"))


def test_nobody_is_granted_more_than_a_part_needs() -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in FILES)
    roles = set(re.findall(r'"(roles/[^"]+)"', text))
    assert "roles/dataflow.worker" in roles
    assert {r for r in roles if re.search(r"owner|editor|admin|roles/viewer", r, re.I)} == set()
    assert re.findall(r"allUsers|allAuthenticatedUsers", text) == []
    assert re.findall(r"_iam_(policy|binding)\b", text) == []  # they would take roles from others


def test_every_role_goes_to_one_of_the_three_identities() -> None:
    accounts = set(resources("google_service_account"))
    assert accounts == {"runner", "worker", "scheduler"}
    text = (INFRA / "identities.tf").read_text(encoding="utf-8")
    granted = set(re.findall(r"google_service_account\.(\w+)\.member", text))
    assert granted == accounts


def test_buckets_are_private() -> None:
    buckets = resources("google_storage_bucket")
    assert set(buckets) == {"data", "runs", "exports"}
    for name, bucket in buckets.items():
        assert bucket["uniform_bucket_level_access"] is True, name
        assert bucket["public_access_prevention"] == "enforced", name


def test_versions_are_pinned() -> None:
    (terraform,) = blocks("terraform")
    assert "<" in terraform["required_version"]
    providers = terraform["required_providers"]
    pinned = {
        name: p["version"] for entry in providers for name, p in entry.items() if "__" not in name
    }
    assert pinned
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in pinned.values())
