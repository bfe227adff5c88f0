"""The one graph that all models share, from raw files to an exported model and its report.

create_tfrecords > preprocess > train > evaluate > export_hub > report

Training may come in stages, each of which begins with the networks of the one before; the last one
is evaluated and exported. What a stage sets of the model's Config holds where the run does not set
it: settings of a run (`--set`) hold in all stages, and win.
"""

import copy
import dataclasses
import re
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from kfp import dsl, kubernetes

from components.create_tfrecords.component import create_tfrecords
from components.evaluate.component import evaluate
from components.export_hub.component import export_hub
from components.images import TRAINER_GPU
from components.preprocess.component import preprocess
from components.report.component import report
from components.train.component import train, train_from
from trainer.catalog import load_config
from trainer.config import with_settings
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

LOCAL_RETRIES = 3
"""How often a training on this machine goes on by itself after it was ended (ours)."""


@dataclasses.dataclass(frozen=True)
class Stage:
    """One training run inside a pipeline.

    Attributes:
        name: that of its task, such as "train" or "fine_tune".
        settings: changes to the model's Config in this stage alone.
        preprocess: these settings change what preprocessing does, so the stage has transformed
            examples of its own; if not, it trains on those of the stage before. The first stage
            always has its own.
    """

    name: str
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    preprocess: bool = False

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", self.name) or self.name in _STEPS:
            raise ValueError(
                "The name of a stage must be lower-case words joined by _, and not that of another "
                f"step; got {self.name!r}."
            )


_STEPS = ("create_tfrecords", "preprocess", "evaluate", "export_hub", "report")


def training_pipeline(
    model: str,
    *,
    dataset: str,
    description: str,
    stages: Sequence[Stage] = (Stage("train"),),
    machines: Machines = DEFAULT_MACHINES,
    target: str = "local",
) -> Any:
    """The pipeline that trains, evaluates and exports a model.

    Args:
        model: name of the model.
        dataset: adapter that reads the data unless the run names another.
        description: one sentence for the consoles.
        stages: the training runs, in their order.
        machines: what the steps ask for on Kubeflow and Vertex AI.
        target: one of `Target`.

    Returns:
        A KFP pipeline with the parameters `data`, `dataset`, `settings` and `training`, those of
        create_tfrecords (`shards`, `max_bad_fraction`, `unusual`, `check`, `duplicates`) and
        `beam_options` of preprocess.

    Raises:
        UserError: there is no such target, or the model has no such setting.
        ValueError: there is no stage, or two have the same name.
    """
    if target not in typing.get_args(Target):
        raise UserError(
            f"The target must be one of {', '.join(typing.get_args(Target))}; got {target!r}."
        )
    names = [stage.name for stage in stages]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"There must be stages, each with a name of its own; got {names}.")
    for stage in stages:
        with_settings(load_config(model), stage.settings)

    def graph(
        data: str = "",
        dataset: str = dataset,
        settings: dict[str, Any] = {},  # noqa: B006  KFP reads it as JSON and changes nothing
        training: dict[str, Any] = {},  # noqa: B006
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
        data_tasks, training_tasks = [records], []
        transformed: Mapping[str, Any] = {}
        trained: Mapping[str, Any] = {}
        for stage in stages:
            own = {"stage_settings": dict(stage.settings)} if stage.settings else {}
            if stage.preprocess or not transformed:
                step = _named(
                    preprocess, f"preprocess_{stage.name}" if transformed else "preprocess"
                )
                task = step(
                    model=model,
                    examples=examples,
                    settings=settings,
                    beam_options=beam_options,
                    max_bad_fraction=max_bad_fraction,
                    **own,
                )
                data_tasks.append(task)
                transformed = task.outputs
            step = _named(train_from if trained else train, stage.name)
            task = step(
                model=model,
                transformed_examples=transformed["transformed_examples"],
                settings=settings,
                training=training,
                **own,
                **({"initial": trained["checkpoint"]} if trained else {}),
            )
            training_tasks.append(task)
            trained = task.outputs
        for task in (*data_tasks, *training_tasks):
            task.set_env_variable(GOES_ON, "1")
        transformed_examples, checkpoint = (
            transformed["transformed_examples"],
            trained["checkpoint"],
        )
        scores = evaluate(
            model=model, transformed_examples=transformed_examples, checkpoint=checkpoint
        )
        export = export_hub(
            model=model,
            examples=examples,
            transformed_examples=transformed_examples,
            transform_graph=transformed["transform_graph"],
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
        for tasks, machine in (
            (data_tasks, machines.data),
            (training_tasks, machines.training),
            ([scores], machines.evaluation),
            ([export, page], machines.export),
        ):
            for task in tasks:
                _place(task, machine, target)
        if target == "local":
            for task in training_tasks:
                # A process that another one than the user has ended: it is saved, and goes on.
                task.set_retry(LOCAL_RETRIES)

    return dsl.pipeline(name=model, description=description)(graph)


def _named(component: Any, name: str) -> Any:
    """The component under a name of its own, which becomes that of its task."""
    renamed = copy.copy(component)
    renamed.name = name.replace("_", "-")
    renamed.component_spec = dataclasses.replace(component.component_spec, name=renamed.name)
    return renamed


def _place(task: Any, machine: Machine, target: str) -> None:
    """Asks for the machine where the target has machines to choose from."""
    if target == "local":
        return
    task.set_cpu_limit(machine.cpu)
    task.set_memory_limit(machine.memory)
    # Machines in a cloud are taken away now and then; 1, 2 and 4 minutes outlast most troubles. On
    # Vertex AI another attempt finds what the last had written, as it does on this machine; on
    # Kubeflow it begins anew, since KFP's launcher uploads outputs only of what has ended well.
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
