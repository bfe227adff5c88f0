"""Where a pipeline is compiled for, and what its steps find there."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import Literal

from pipelines.cloud.machines import Machine, check
from trainer.errors import UserError

Target = Literal["local", "kubeflow", "vertex"]
"""Where a pipeline runs: this machine, Kubeflow Pipelines on GKE, or Vertex AI Pipelines."""

Part = Literal["data", "training", "evaluation", "export"]
"""Parts of the work that have a machine: create_tfrecords and preprocess; train; evaluate; and
export_hub with report."""


@dataclasses.dataclass(frozen=True)
class Placement:
    """A target, and how this account uses it.

    Attributes:
        target: one of `Target`.
        machines: part of the work -> machine, where it is not the model's own.
        service_account: what custom jobs on Vertex AI run as; empty for the project's default.
        network: of custom jobs on Vertex AI; empty for none of one's own.
        volumes: on Kubeflow, claim of a persistent volume -> path where create_tfrecords reads it.
        secrets: environment variable -> name of a secret, which the two steps see that speak with
            the outside, create_tfrecords and export_hub. On Vertex AI it is one of Secret Manager,
            `projects/PROJECT/secrets/NAME/versions/VERSION`; on Kubeflow `NAME/KEY` of Kubernetes.
    """

    target: Target = "local"
    machines: Mapping[str, Machine] = dataclasses.field(default_factory=dict)
    service_account: str = ""
    network: str = ""
    volumes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    secrets: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def machine(self, part: Part, own: Machine) -> Machine:
        """The machine of a part of the work, checked.

        Args:
            part: which part.
            own: what the model asks for.

        Raises:
            UserError: there is no such machine, or not for this part.
        """
        machine = self.machines.get(part, own)
        if self.target == "local":
            return machine
        if part != "training":
            if machine.is_tpu:
                raise UserError(
                    f"Only training takes TPUs; {part} asks for {machine}. Give it a GPU or none."
                )
            if self.target == "vertex" and machine.strategy != "standard":
                raise UserError(
                    f"On Vertex AI only training, a custom job, can be had by {machine.strategy}; "
                    f"{part} asks for {machine}."
                )
        check(machine, self.target, "jax" if machine.is_tpu else "")
        return machine


Place = Target | Placement | str
"""A placement, or the name of a target for one without anything of its own."""


def placed(place: Place) -> Placement:
    """The placement that is meant.

    Raises:
        UserError: there is no such target, or no such part of the work.
    """
    placement = place if isinstance(place, Placement) else Placement(typing.cast(Target, place))
    if placement.target not in typing.get_args(Target):
        raise UserError(
            f"The target must be one of {', '.join(typing.get_args(Target))}; got "
            f"{placement.target!r}."
        )
    strange = sorted(set(placement.machines) - set(typing.get_args(Part)))
    if strange:
        raise UserError(
            f"A machine must be for one of {', '.join(typing.get_args(Part))}; got {strange[0]!r}."
        )
    return placement
