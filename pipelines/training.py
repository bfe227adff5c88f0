"""The one graph that all models share, from raw files to an exported model and its report.

create_tfrecords > preprocess > train > evaluate > export_hub > report

Training may come in stages, each of which begins with the networks of the one before; the last one
is evaluated and exported. What a stage sets of the model's Config holds where the run does not set
it: settings of a run (`--set`) hold in all stages, and win.
"""

import copy
import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from kfp import dsl, kubernetes

from components.create_tfrecords.component import create_tfrecords
from components.evaluate.component import evaluate
from components.export_hub.component import export_hub
from components.images import TRAINER, TRAINER_GPU, TRAINER_TPU
from components.preprocess.component import preprocess
from components.report.component import report
from components.secret_manager import SECRETS
from components.train.component import train, train_from
from pipelines.cloud import machines as lent
from pipelines.cloud.machines import Machine
from pipelines.cloud.placement import Place, Placement, placed
from trainer.catalog import load_config
from trainer.config import with_settings
from trainer.progress import GOES_ON

__all__ = ["Machine", "Machines", "Place", "Stage", "training_pipeline"]

_LARGE, _SMALL = Machine(cpu="8", memory="32G"), Machine(cpu="4", memory="16G")


@dataclasses.dataclass(frozen=True)
class Machines:
    """The machine of each part of the work; all sizes are ours.

    Attributes:
        data: for create_tfrecords and preprocess.
        training: for train.
        evaluation: for evaluate.
        export: for export_hub and report, which check what a CPU serves.
    """

    data: Machine = _LARGE
    training: Machine = _LARGE
    evaluation: Machine = _LARGE
    export: Machine = _SMALL


DEFAULT_MACHINES = Machines()

LOCAL_RETRIES = 3
"""How often a training on this machine goes on by itself after it was ended (ours)."""

RETRIES, SPOT_RETRIES = 3, 10
"""How often a step in a cloud is tried again; on machines that are taken away, too (ours)."""


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
    target: Place = "local",
) -> Any:
    """The pipeline that trains, evaluates and exports a model.

    Args:
        model: name of the model.
        dataset: adapter that reads the data unless the run names another.
        description: one sentence for the consoles.
        stages: the training runs, in their order.
        machines: what the steps ask for on Kubeflow and Vertex AI.
        target: one of `Target`, or a placement with what the account has of its own.

    Returns:
        A KFP pipeline with the parameters `data`, `dataset`, `settings` and `training`, those of
        create_tfrecords (`shards`, `max_bad_fraction`, `unusual`, `check`, `duplicates`) and
        `beam_options` of preprocess.

    Raises:
        UserError: there is no such target or machine, or the model has no such setting.
        ValueError: there is no stage, or two have the same name.
    """
    place = placed(target)
    machine_of = {
        "data": place.machine("data", machines.data),
        "training": place.machine("training", machines.training),
        "evaluation": place.machine("evaluation", machines.evaluation),
        "export": place.machine("export", machines.export),
    }
    backend = {"backend": "jax"} if machine_of["training"].is_tpu else {}
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
            if place.target == "vertex":
                step = _custom_job(step, machine_of["training"], place)
            task = step(
                model=model,
                transformed_examples=transformed["transformed_examples"],
                settings=settings,
                training=training,
                **own,
                **backend,
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
        for part, tasks in (
            ("data", data_tasks),
            ("training", training_tasks),
            ("evaluation", [scores]),
            ("export", [export, page]),
        ):
            for task in tasks:
                _place(task, machine_of[part], place, part)
        for task in (records, export):
            _give_secrets(task, place)
        if place.target == "kubeflow":
            for claim, path in place.volumes.items():
                kubernetes.mount_pvc(records, claim, path)
        if place.target == "local":
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


def _custom_job(step: Any, machine: Machine, place: Placement) -> Any:
    """A training step as a custom job of Vertex AI."""
    from pipelines.cloud.custom_job import as_custom_job

    environment = {GOES_ON: "1"}
    job = as_custom_job(
        step, machine, _image(machine), environment, place.service_account, place.network
    )
    return _named(job, step.name)


def _place(task: Any, machine: Machine, place: Placement, part: str) -> None:
    """Asks for the machine where the target has machines to choose from."""
    if place.target == "local":
        return
    # Machines in a cloud are taken away now and then; 1, 2 and 4 minutes outlast most troubles. On
    # Vertex AI another attempt finds what the last had written, as it does on this machine; on
    # Kubeflow it begins anew, since KFP's launcher uploads outputs only of what has ended well.
    retries = SPOT_RETRIES if machine.strategy == "spot" else RETRIES
    task.set_retry(retries, backoff_duration="60s", backoff_factor=2, backoff_max_duration="600s")
    if place.target == "vertex" and part == "training":
        return  # the custom job has the machine, and its launcher next to nothing
    task.set_cpu_limit(machine.cpu)
    task.set_memory_limit(machine.memory)
    if place.target == "kubeflow":
        _select_node(task, machine)
    if not machine.accelerator:
        return
    task.set_container_image(_image(machine))
    if place.target == "vertex":
        task.set_accelerator_type(machine.accelerator)
    else:
        # Kubernetes counts devices by vendor; GKE tells their kinds apart by a label of the node.
        task.set_accelerator_type("google.com/tpu" if machine.is_tpu else "nvidia.com/gpu")
    task.set_accelerator_limit(machine.chips)


def _select_node(task: Any, machine: Machine) -> None:
    """Names the kind of GKE's nodes that a pod goes to, and what it tolerates of them."""
    labels, tainted = {}, []
    if machine.is_tpu:
        labels["cloud.google.com/gke-tpu-accelerator"] = lent.TPUS[machine.accelerator].node
        labels["cloud.google.com/gke-tpu-topology"] = machine.topology
        tainted.append("google.com/tpu")
    elif machine.accelerator:
        kind = machine.accelerator.lower().replace("_", "-")
        labels["cloud.google.com/gke-accelerator"] = kind
        tainted.append("nvidia.com/gpu")
    if machine.strategy != "standard":
        by = {"spot": "cloud.google.com/gke-spot", "flex-start": "cloud.google.com/gke-flex-start"}
        labels[by[machine.strategy]] = "true"
        tainted.append(by[machine.strategy])
    for key, value in labels.items():
        kubernetes.add_node_selector(task, key, value)
    for key in tainted:
        kubernetes.add_toleration(task, key=key, operator="Exists", effect="NoSchedule")


def _image(machine: Machine) -> str:
    """The trainer's image that has the libraries of a machine's accelerators."""
    if machine.is_tpu:
        return TRAINER_TPU
    return TRAINER_GPU if machine.accelerator else TRAINER


def _give_secrets(task: Any, place: Placement) -> None:
    """Names the secrets that a step sees; none of their values is in the pipeline."""
    if place.target == "vertex" and place.secrets:
        task.set_env_variable(SECRETS, json.dumps(dict(sorted(place.secrets.items()))))
    elif place.target == "kubeflow":
        for variable, secret in place.secrets.items():
            name, _, key = secret.partition("/")
            kubernetes.use_secret_as_env(task, name, {key or variable: variable})
