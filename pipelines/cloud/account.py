"""The accounts that pipelines are submitted to, as `targets.yaml` describes them."""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml

from pipelines.cloud.machines import parse_machine
from pipelines.cloud.placement import Part, Placement
from trainer.errors import UserError

FILE = "PAPER2HUB_TARGETS"
"""Environment variable that names the file of accounts; without it, `targets.yaml` here."""

Kind = Literal["kubeflow", "vertex"]

_NEEDED = {"vertex": ("project", "region", "root"), "kubeflow": ("host", "root")}
_SECRET = re.compile(r"[A-Za-z0-9_-]+")


@dataclasses.dataclass(frozen=True)
class Account:
    """Where and as whom pipelines run.

    Attributes:
        name: what commands call it, as `--target`.
        kind: vertex or kubeflow.
        root: where runs keep what passes between their steps: gs://, s3:// or minio://.
        images: the images of the steps: the prefix of a registry, or a lock file.
        project: identifier of the Google Cloud project.
        region: region of Vertex AI, such as europe-west4.
        service_account: what the steps run as.
        network: full name of the network that steps are in; empty for none of one's own.
        host: address of the Kubeflow Pipelines API.
        namespace: of a Kubeflow that many share.
        experiment: what runs are filed under on Kubeflow.
        endpoint: address of the API, where it is not Google's own.
        beam: local, or dataflow to have preprocess run there.
        dataflow_service_account: what Dataflow's machines run as.
        labels: put on every job, beside ours.
        machines: part of the work -> machine as text, such as training: TPU_V5E:2x2.
        volumes: on Kubeflow, claim -> path where create_tfrecords finds its data.
        secrets: environment variable -> name of a secret.
    """

    name: str
    kind: Kind
    root: str
    images: str = ""
    project: str = ""
    region: str = ""
    service_account: str = ""
    network: str = ""
    host: str = ""
    namespace: str = ""
    experiment: str = "paper2hub"
    endpoint: str = ""
    beam: Literal["local", "dataflow"] = "local"
    dataflow_service_account: str = ""
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    machines: Mapping[str, str] = dataclasses.field(default_factory=dict)
    volumes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    secrets: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def placement(self, machines: Mapping[str, str] | None = None) -> Placement:
        """What pipelines for this account are compiled for.

        Args:
            machines: part of the work -> machine as text, where it is not the account's.

        Raises:
            UserError: one of the machines is none.
        """
        texts = {**self.machines, **(machines or {})}
        return Placement(
            target=self.kind,
            machines={part: parse_machine(text) for part, text in texts.items()},
            service_account=self.service_account,
            network=self.network,
            volumes=self.volumes,
            secrets={key: self._secret(name) for key, name in self.secrets.items()},
        )

    def parameters(self, data_image: str) -> dict[str, Any]:
        """Values of pipeline parameters that follow from the account.

        Args:
            data_image: the image of the steps that make data, which Dataflow's machines run.
        """
        if self.beam != "dataflow":
            return {}
        options = {
            "runner": "DataflowRunner",
            "project": self.project,
            "region": self.region,
            "temp_location": f"{self.root.rstrip('/')}/dataflow",
            "service_account_email": self.dataflow_service_account or self.service_account,
            "sdk_container_image": data_image,
        }
        given = (f"--{name}={value}" for name, value in options.items() if value)
        return {"beam_options": " ".join(given)}

    def _secret(self, name: str) -> str:
        """The full name of a secret."""
        if self.kind == "kubeflow" or name.startswith("projects/"):
            return name
        if not _SECRET.fullmatch(name):
            raise UserError(
                f"secrets of target {self.name} must be names of Secret Manager, never values; "
                f"one is not a name ({len(name)} characters)."
            )
        return f"projects/{self.project}/secrets/{name}/versions/latest"


def read_accounts(file: Path | None = None) -> dict[str, Account]:
    """All accounts of a file, by their names.

    Args:
        file: the file; None for the one that `PAPER2HUB_TARGETS` names, or `targets.yaml`.

    Raises:
        UserError: there is no such file, or it describes an account wrongly.
    """
    path = file or Path(os.environ.get(FILE) or "targets.yaml")
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(
            f"The accounts must be described in a file; {path} does not exist. "
            "`terraform output -raw targets` in infra/ writes it, or name one by --targets."
        ) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        what = getattr(error, "problem", None) or getattr(error, "strerror", None) or error
        raise UserError(f"{path} must be a YAML file of accounts: {what}.") from error
    if not isinstance(found, dict) or not all(isinstance(v, dict) for v in found.values()):
        raise UserError(f"{path} must map names of targets to their descriptions.")
    return {str(name): _account(str(name), fields, path) for name, fields in found.items()}


def find_account(name: str, file: Path | None = None) -> Account:
    """The account that a command means.

    Raises:
        UserError: there is none of this name, and not just one of this kind.
    """
    accounts = read_accounts(file)
    if name in accounts:
        return accounts[name]
    of_kind = [account for account in accounts.values() if account.kind == name]
    if len(of_kind) == 1:
        return of_kind[0]
    raise UserError(
        f"The target must be one of {', '.join(accounts) or 'those that targets.yaml has: none'}; "
        f"got {name!r}."
    )


def _account(name: str, fields: Mapping[str, Any], path: Path) -> Account:
    types = typing.get_type_hints(Account)
    known = {field.name for field in dataclasses.fields(Account)} - {"name"}
    for key, value in fields.items():
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise UserError(f"{path}: target {name} has no field {key!r}.{hint}")
        choices = typing.get_args(types[key]) if typing.get_origin(types[key]) is Literal else ()
        if choices and value not in choices:
            raise UserError(
                f"{path}: {key} of target {name} must be {' or '.join(choices)}; got {value!r}."
            )
        wanted = dict if typing.get_origin(types[key]) not in (None, Literal) else str
        if not isinstance(value, wanted):
            what = "text" if wanted is str else "a mapping"
            raise UserError(f"{path}: {key} of target {name} must be {what}; got {value!r}.")
    kind = fields.get("kind", name)
    if kind not in _NEEDED:
        raise UserError(f"{path}: kind of target {name} must be vertex or kubeflow; got {kind!r}.")
    missing = [key for key in _NEEDED[kind] if not fields.get(key)]
    if missing:
        raise UserError(f"{path}: target {name} must have {', '.join(missing)}.")
    if not re.match("gs://|s3://|minio://" if kind == "kubeflow" else "gs://", fields["root"]):
        raise UserError(
            f"{path}: root of target {name} must be a bucket, gs://BUCKET/FOLDER; got "
            f"{fields['root']!r}."
        )
    parts = typing.get_args(Part)
    strange = [part for part in fields.get("machines", {}) if part not in parts]
    if strange:
        raise UserError(
            f"{path}: machines of target {name} must be for {', '.join(parts)}; got {strange[0]!r}."
        )
    maps = {
        k: {str(a): str(b) for a, b in v.items()} for k, v in fields.items() if isinstance(v, dict)
    }
    return Account(**{**fields, **maps, "name": name, "kind": kind})
