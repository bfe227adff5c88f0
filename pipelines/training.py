"""The one graph that all models share, from raw files to an exported model and its report.

create_tfrecords > preprocess > train > evaluate > export_hub > report
"""

import dataclasses
import typing
from typing import Any, Literal

from kfp import dsl, kubernetes

from components.create_tfrecords.component import create_tfrecords
from components.evaluate.component import evaluate
from components.export_hub.component import export_hub
from components.images import TRAINER_GPU
from components.preprocess.component import preprocess
from components.report.component import report
from components.train.component import train
from trainer.errors import UserError
from trainer.progress import GOES_ON

Target = Literal["local", "kubeflow", "vertex"]
"""Where a pipeline runs: this machine, Kubeflow Pipelines on GKE, or Vertex AI Pipelines."""


@dataclasses.dataclass(frozen=True)
class Machine:
    """What a step asks of the machine it runs on, away from this one.

    Attributes:
        cpu: number of virtual CPUs.
        memory: bytes with a unit, such as "16G".
        accelerator: kind of accelerator as Vertex AI names it, such as "NVIDIA_L4"; empty for none.
        accelerators: how many of them.
    """

    cpu: str
    memory: str
    accelerator: str = ""
    accelerators: int = 0

    def __post_init__(self) -> None:
        if bool(self.accelerator) != (self.accelerators > 0):
            raise ValueError(
                "A machine must have both a kind and a number of accelerators, or neither; "
                f"got {self.accelerator!r} and {self.accelerators}."
            )


@dataclasses.dataclass(frozen=True)
class Machines:
    """The machine of each part of the work; all sizes are ours.

    Attributes:
        data: for create_tfrecords and preprocess.
        training: for train.
        evaluation: for evaluate.
        export: for export_hub and report, which check what a CPU serves.
    """

    data: Machine = Machine(cpu="8", memory="32G")
    training: Machine = Machine(cpu="8", memory="32G")
    evaluation: Machine = Machine(cpu="8", memory="32G")
    export: Machine = Machine(cpu="4", memory="16G")


DEFAULT_MACHINES = Machines()


def training_pipeline(
    model: str,
    *,
    dataset: str,
    description: str,
    machines: Machines = DEFAULT_MACHINES,
    target: str = "local",
) -> Any:
    """The pipeline that trains, evaluates and exports a model.

    Args:
        model: name of the model.
        dataset: adapter that reads the data unless the run names another.
        description: one sentence for the consoles.
        machines: what the steps ask for on Kubeflow and Vertex AI.
        target: one of `Target`.

    Returns:
        A KFP pipeline with the parameters `data`, `dataset` and `settings`, those of
        create_tfrecords (`shards`, `max_bad_fraction`, `unusual`, `check`, `duplicates`) and
        `beam_options` of preprocess.

    Raises:
        UserError: there is no such target.
    """
    if target not in typing.get_args(Target):
        raise UserError(
            f"The target must be one of {', '.join(typing.get_args(Target))}; got {target!r}."
        )

    def graph(
        data: str = "",
        dataset: str = dataset,
        settings: dict[str, Any] = {},  # noqa: B006  KFP reads it as JSON and changes nothing
        shards: int = 0,
        max_bad_fraction: float = 0.01,
        unusual: str = "quarantine",
        check: str = "decode",
        duplicates: str = "quarantine",
        beam_options: str = "--runner=FnApiRunner",
    ) -> None:
        records = create_tfrecords(
            data=data,
            dataset=dataset,
            shards=shards,
            max_bad_fraction=max_bad_fraction,
            unusual=unusual,
            check=check,
            duplicates=duplicates,
        )
        examples = records.outputs["examples"]
        transform = preprocess(
            model=model,
            examples=examples,
            settings=settings,
            beam_options=beam_options,
            max_bad_fraction=max_bad_fraction,
        )
        transformed_examples = transform.outputs["transformed_examples"]
        training = train(model=model, transformed_examples=transformed_examples, settings=settings)
        for task in (records, transform, training):
            task.set_env_variable(GOES_ON, "1")
        checkpoint = training.outputs["checkpoint"]
        scores = evaluate(
            model=model, transformed_examples=transformed_examples, checkpoint=checkpoint
        )
        export = export_hub(
            model=model,
            examples=examples,
            transformed_examples=transformed_examples,
            transform_graph=transform.outputs["transform_graph"],
            checkpoint=checkpoint,
            evaluation=scores.outputs["evaluation"],
        )
        page = report(
            model=model,
            examples=examples,
            checkpoint=checkpoint,
            evaluation=scores.outputs["evaluation"],
            export=export.outputs["export"],
        )
        for task, machine in (
            (records, machines.data),
            (transform, machines.data),
            (training, machines.training),
            (scores, machines.evaluation),
            (export, machines.export),
            (page, machines.export),
        ):
            _place(task, machine, target)

    return dsl.pipeline(name=model, description=description)(graph)


def _place(task: Any, machine: Machine, target: str) -> None:
    """Asks for the machine where the target has machines to choose from."""
    if target == "local":
        return
    task.set_cpu_limit(machine.cpu)
    task.set_memory_limit(machine.memory)
    # Machines in a cloud are taken away now and then; 1, 2 and 4 minutes outlast most troubles.
    task.set_retry(3, backoff_duration="60s", backoff_factor=2, backoff_max_duration="600s")
    if not machine.accelerator:
        return
    task.set_container_image(TRAINER_GPU)
    if target == "vertex":
        task.set_accelerator_type(machine.accelerator)
    else:
        # Kubernetes counts devices by vendor; GKE tells their kinds apart by a label of the node.
        task.set_accelerator_type("nvidia.com/gpu")
        kind = machine.accelerator.lower().replace("_", "-")
        kubernetes.add_node_selector(task, "cloud.google.com/gke-accelerator", kind)
    task.set_accelerator_limit(machine.accelerators)
