from pathlib import Path

import pytest

from pipelines.cloud.account import FILE, find_account, read_accounts
from trainer.errors import UserError

GOOD = """
vertex:
  project: my-project
  region: europe-west4
  root: gs://my-project-runs/pipelines
  service_account: runner@my-project.iam.gserviceaccount.com
  images: europe-west4-docker.pkg.dev/my-project/paper2hub-dev
  beam: dataflow
  machines: {training: "TPU_V5E:2x2"}
  secrets: {HF_TOKEN: hub-token}
  labels: {team: vision}
cluster:
  kind: kubeflow
  host: https://kubeflow.example.org
  root: minio://mlpipeline/runs
  volumes: {datasets: /data}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "targets.yaml"
    path.write_text(GOOD)
    return path


def test_accounts_are_found_by_name_and_by_kind(file: Path, monkeypatch) -> None:
    assert set(read_accounts(file)) == {"vertex", "cluster"}
    assert find_account("kubeflow", file).name == "cluster"
    monkeypatch.setenv(FILE, str(file))
    account = find_account("vertex")
    assert (account.kind, account.region) == ("vertex", "europe-west4")
    place = account.placement({"training": "NVIDIA_L4:1"})
    assert place.machines["training"].accelerator == "NVIDIA_L4"
    assert account.placement().machines["training"].topology == "2x2"
    assert place.secrets == {"HF_TOKEN": "projects/my-project/secrets/hub-token/versions/latest"}
    assert account.parameters("r/data@sha256:0") == {
        "beam_options": "--runner=DataflowRunner --project=my-project --region=europe-west4 "
        "--temp_location=gs://my-project-runs/pipelines/dataflow "
        "--service_account_email=runner@my-project.iam.gserviceaccount.com "
        "--sdk_container_image=r/data@sha256:0"
    }
    assert find_account("cluster").parameters("") == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("vertex: {project: p, region: r, root: gs://b, regoin: x}", "Did you mean 'region'"),
        ("vertex: {project: p, root: gs://b}", "target vertex must have region"),
        ("vertex: {project: p, region: r, root: /tmp}", "root of target vertex must be a bucket"),
        ("cloud: {kind: moon, root: gs://b}", "kind of target cloud must be"),
        ("cloud: {root: gs://b}", "kind of target cloud must be vertex or kubeflow; got 'cloud'"),
        ("vertex: {project: 3, region: r, root: gs://b}", "project of target vertex must be text"),
        ("vertex: {project: p, region: r, root: gs://b, labels: x}", "must be a mapping; got 'x'"),
        ("vertex: {project: p, region: r, root: gs://b, beam: x}", "must be local or dataflow"),
        (
            "vertex: {project: p, region: r, root: gs://b, machines: {all: cpu}}",
            "machines of target",
        ),
        ("- vertex", "must map names of targets"),
        ("vertex: {", "must be a YAML file of accounts"),
    ],
)
def test_what_is_wrong_is_told(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "targets.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=message):
        read_accounts(file)


def test_a_value_is_no_name_of_a_secret_and_is_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "targets.yaml"
    file.write_text(
        "vertex: {project: p, region: r, root: gs://b, secrets: {HF_TOKEN: 'hf_+very/secret'}}"
    )
    with pytest.raises(UserError, match="never values") as caught:
        find_account("vertex", file).placement()
    assert "very" not in str(caught.value)


def test_a_missing_file_or_target_is_told(file: Path) -> None:
    with pytest.raises(UserError, match="terraform output"):
        read_accounts(file.with_name("none.yaml"))
    with pytest.raises(UserError, match="one of vertex, cluster; got 'moon'"):
        find_account("moon", file)
