"""The Terraform files: they parse, explain themselves and grant nobody more than a part needs.

With Terraform and its provider at hand, infra/tests plans them as well; see infra/README.md.
"""

import dataclasses
import functools
import re
from pathlib import Path
from typing import Any

import hcl2
import pytest

from pipelines.cloud.account import Account

INFRA = Path(__file__).parents[1] / "infra"
FILES = sorted(INFRA.glob("*.tf"))
ENVIRONMENTS = sorted(INFRA.glob("environments/*.tfvars"))

# All that anybody is granted: (identity, on what, role) -> what for.
GRANTS = {
    ("runner", "project", "aiplatform.user"): "starts the custom jobs of its steps, on TPUs too",
    ("runner", "project", "dataflow.developer"): "preprocess starts a Dataflow job",
    ("runner", "project", "logging.logWriter"): "what steps print",
    ("runner", "data", "storage.objectViewer"): "create_tfrecords reads raw datasets",
    ("runner", "runs", "storage.objectUser"): "steps write, replace and delete what they pass on",
    ("runner", "runs", "storage.legacyBucketReader"): "Beam asks about the bucket of its files",
    ("runner", "exports", "storage.objectCreator"): "adds a model, and replaces none",
    ("runner", "images", "artifactregistry.reader"): "its steps are containers",
    ("runner", "act as worker", "iam.serviceAccountUser"): "Dataflow's machines run as the worker",
    ("runner", "act as runner", "iam.serviceAccountUser"): "its custom jobs run as itself",
    ("runner", "secrets", "secretmanager.secretAccessor"): "steps read the secrets that are named",
    ("worker", "project", "dataflow.worker"): "takes work of a job, writes logs and metrics",
    ("worker", "data", "storage.objectViewer"): "reads raw datasets",
    ("worker", "runs", "storage.objectUser"): "writes records and temporary files",
    ("worker", "images", "artifactregistry.reader"): "the workers are containers",
    ("scheduler", "project", "aiplatform.user"): "submits, cancels and schedules runs",
    ("scheduler", "project", "logging.logWriter"): "what its builds print",
    ("scheduler", "runs", "storage.objectViewer"): "looks at what a run has left",
    ("scheduler", "builds", "storage.objectViewer"): "Cloud Build takes the code from there",
    ("scheduler", "images", "artifactregistry.reader"): "asks for digests",
    ("scheduler", "act as runner", "iam.serviceAccountUser"): "runs run as the runner",
    ("builder", "project", "logging.logWriter"): "what its builds print",
    ("builder", "builds", "storage.objectViewer"): "Cloud Build takes the code from there",
    ("builder", "images", "artifactregistry.writer"): "pushes images, and deletes none",
    ("ci", "project", "aiplatform.viewer"): "compares schedules with what a change would make them",
    ("ci", "project", "logging.logWriter"): "what its builds print",
    ("ci", "builds", "storage.objectViewer"): "Cloud Build takes the code from there",
    ("ci", "images", "artifactregistry.reader"): "asks for digests",
}


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


def text() -> str:
    """All Terraform files."""
    return "\n".join(path.read_text(encoding="utf-8") for path in FILES)


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


def local(name: str) -> Any:
    """A local value."""
    (value,) = [block[name] for block in blocks("locals") if name in block]
    return value


def settings(path: Path) -> dict[str, Any]:
    """What an environment sets."""
    return {key: value for key, value in parsed(path).items() if not key.startswith("__")}


def account(reference: str) -> str:
    """The identity that an expression is about."""
    (name,) = re.findall(r"google_service_account\.(\w+)\.(?:member|name)", reference)
    return str(name)


def granted() -> list[tuple[str, str, str]]:
    """Every role that is granted: identity, on what, role."""
    found = []
    for grant in local("project_roles").values():
        found.append((account(grant["member"]), "project", grant["role"]))
    for grant in local("bucket_roles").values():
        (bucket,) = re.findall(r"google_storage_bucket\.(\w+)\.name", grant["bucket"])
        found.append((account(grant["member"]), bucket, grant["role"]))
    for grant in local("image_roles").values():
        found.append((account(grant["member"]), "images", grant["role"]))
    for grant in local("may_act_as").values():
        role = resources("google_service_account_iam_member")["act_as"]["role"]
        found.append((account(grant["member"]), f"act as {account(grant['account'])}", role))
    secret = resources("google_secret_manager_secret_iam_member")["runner"]
    found.append((account(secret["member"]), "secrets", secret["role"]))
    return [(who, what, role.removeprefix("roles/")) for who, what, role in found]


def test_every_variable_is_described_typed_and_validated() -> None:
    variables = named("variable")
    assert "project" in variables
    for name, variable in variables.items():
        assert {"description", "type", "validation"} <= set(variable), name


def test_every_output_is_described() -> None:
    outputs = named("output")
    assert "targets" in outputs
    assert [name for name, output in outputs.items() if not output.get("description")] == []


@pytest.mark.parametrize("path", ENVIRONMENTS, ids=lambda path: path.stem)
def test_environments_set_known_variables(path: Path) -> None:
    values = settings(path)
    assert values["environment"] == path.stem
    assert set(values) <= set(named("variable"))


def test_environments_differ_in_values_only() -> None:
    dev, prod = (settings(path) for path in ENVIRONMENTS)
    assert list(dev) == list(prod)
    assert prod["immutable_tags"] is True
    assert prod["delete_buckets_with_contents"] is False
    words = {path.name: set(re.findall(r'"(dev|prod)"', path.read_text())) for path in FILES}
    assert {name for name, found in words.items() if found} == {"variables.tf"}


def test_every_role_is_granted_for_a_reason() -> None:
    found = granted()
    assert len(found) == len(set(found))
    assert set(found) == set(GRANTS)


def test_roles_are_granted_nowhere_else() -> None:
    kinds = re.findall(r'resource "(google_\w+_iam_\w+)" "(\w+)"', text())
    assert sorted(kinds) == [
        ("google_artifact_registry_repository_iam_member", "images"),
        ("google_project_iam_audit_config", "audit"),
        ("google_project_iam_member", "project"),
        ("google_secret_manager_secret_iam_member", "runner"),
        ("google_service_account_iam_member", "act_as"),
        ("google_service_account_iam_member", "github"),
        ("google_storage_bucket_iam_member", "bucket"),
    ]
    github = resources("google_service_account_iam_member")["github"]
    assert github["role"] == "roles/iam.workloadIdentityUser"


def test_nobody_is_granted_more_than_a_part_needs() -> None:
    roles = set(re.findall(r'"(roles/[^"]+)"', text()))
    assert "roles/dataflow.worker" in roles
    assert {r for r in roles if re.search(r"owner|editor|admin|roles/viewer", r, re.I)} == set()
    assert re.findall(r"allUsers|allAuthenticatedUsers", text()) == []
    assert re.findall(r"_iam_(policy|binding)\b", text()) == []  # they would take roles from others
    assert "google_service_account_key" not in text()


def test_there_is_one_identity_for_each_part() -> None:
    accounts = set(resources("google_service_account"))
    assert accounts == {"runner", "worker", "scheduler", "builder", "ci"} == {g[0] for g in GRANTS}
    for name, body in resources("google_service_account").items():
        assert body["account_id"] == f"${{local.name}}-{name}"
        assert len(f"paper2hub-prod-{name}") <= 30  # what Google Cloud allows


def test_pull_requests_change_nothing() -> None:
    roles = {(what, role) for who, what, role in granted() if who == "ci"}
    assert {r for _, r in roles if not re.search(r"viewer|reader", r, re.I)} == {
        "logging.logWriter"
    }


def test_github_comes_in_by_repository_branch_and_environment() -> None:
    (provider,) = resources("google_iam_workload_identity_pool_provider").values()
    condition = provider["attribute_condition"]
    for claim in ("repository", "repository_id", "event_name", "ref", "environment"):
        assert f"assertion.{claim} == '" in condition, claim
    may_become = (INFRA / "github.tf").read_text(encoding="utf-8")
    pairs = re.findall(r"google_service_account\.(\w+)\.name\s+kind\s+= \"(\w+)\"", may_become)
    assert sorted(pairs) == [
        ("builder", "environment"),
        ("ci", "pull_request"),
        ("scheduler", "environment"),
    ]


def test_buckets_are_private_and_clean_up_after_themselves() -> None:
    buckets = resources("google_storage_bucket")
    assert set(buckets) == {"data", "runs", "exports", "builds"}
    for name, bucket in buckets.items():
        assert bucket["uniform_bucket_level_access"] is True, name
        assert bucket["public_access_prevention"] == "enforced", name
        assert bucket["lifecycle_rule"], name
        assert bucket["soft_delete_policy"], name
    for name in ("data", "exports"):
        assert buckets[name]["versioning"][0]["enabled"] is True, name
    actions = [rule["action"][0]["type"] for rule in buckets["exports"]["lifecycle_rule"]]
    assert "Delete" not in actions  # every version of a model is kept


def test_images_are_scanned_kept_and_cleaned_up() -> None:
    (images,) = resources("google_artifact_registry_repository").values()
    assert images["vulnerability_scanning_config"][0]["enablement_config"] == "INHERITED"
    assert "containerscanning.googleapis.com" in local("services")
    assert images["docker_config"][0]["immutable_tags"] == "${var.immutable_tags}"
    policies = {policy["id"]: policy["action"] for policy in images["cleanup_policies"]}
    assert policies == {"recent": "KEEP", "untagged": "DELETE"}


def test_a_failed_run_is_told() -> None:
    policies = resources("google_monitoring_alert_policy")
    (condition,) = policies["failed_run"]["conditions"]
    matched = condition["condition_matched_log"][0]["filter"]
    assert "aiplatform.googleapis.com/PipelineJob" in matched
    assert "PIPELINE_STATE_FAILED" in matched
    # Google Cloud refuses an alert on logs without it.
    assert policies["failed_run"]["alert_strategy"][0]["notification_rate_limit"]
    for policy in policies.values():
        assert policy["notification_channels"] == "${local.channels}"


def test_a_month_has_a_budget() -> None:
    (budget,) = resources("google_billing_budget").values()
    assert budget["budget_filter"][0]["projects"]
    assert "FORECASTED_SPEND" in (INFRA / "alerts.tf").read_text(encoding="utf-8")
    for path in ENVIRONMENTS:
        assert max(settings(path)["budget_thresholds"]) == 1


def test_secrets_have_names_and_no_values() -> None:
    assert "google_secret_manager_secret_version" not in text()
    (secret,) = resources("google_secret_manager_secret").values()
    assert secret["for_each"] == "${toset(values(var.secrets))}"


def test_targets_have_what_the_command_reads() -> None:
    outputs = (INFRA / "outputs.tf").read_text(encoding="utf-8")
    (body,) = re.findall(r"  target = merge\(\n(.*?)\n  \)\n", outputs, re.S)
    keys = set(re.findall(r"^      (\w+) +=", body, re.M)) | set(re.findall(r"{ (\w+) =", body))
    fields = {field.name for field in dataclasses.fields(Account)}
    assert keys <= fields
    assert keys >= {"kind", "project", "region", "root", "service_account", "images", "labels"}
    assert keys >= {"network", "secrets", "dataflow_service_account", "beam"}
    assert named("output")["targets"]["value"] == (
        "${yamlencode({(var.environment) = local.target})}"
    )


def test_versions_are_pinned() -> None:
    (terraform,) = blocks("terraform")
    assert "<" in terraform["required_version"]
    providers = terraform["required_providers"]
    pinned = {
        name: p["version"] for entry in providers for name, p in entry.items() if "__" not in name
    }
    assert pinned
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in pinned.values())


def test_what_checkov_skips_is_explained() -> None:
    skips = re.findall(r"#checkov:skip=(\w+)(.*)", text())
    assert skips
    for check, reason in skips:
        assert re.fullmatch(r":[A-Za-z].{30,}\.", reason), check
    for check in (INFRA / "checkov.yaml").read_text(encoding="utf-8").splitlines():
        assert not check.startswith("  - CKV") or re.search(r"CKV_\w+ # .{30,}", check), check
