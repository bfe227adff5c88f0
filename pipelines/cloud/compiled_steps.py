"""What a compiled pipeline asks of a cloud: its steps, what their results depend on, and machines.

A pipeline that was submitted once comes back from the cloud in the same form, so two of them can be
compared step by step, as the cloud's own cache does
(https://cloud.google.com/vertex-ai/docs/pipelines/configure-caching; on Kubeflow Pipelines the
backend's `cache.go`).
"""

from __future__ import annotations

import dataclasses
import graphlib
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.cloud import machines
from pipelines.cloud.account import Kind
from pipelines.cloud.machines import Machine, Strategy
from pipelines.cloud.placement import Part
from pipelines.local import cache
from pipelines.local.resources import bytes_of, read_resources

_STRATEGIES: Mapping[str, Strategy] = {
    "STANDARD": "standard",
    "SPOT": "spot",
    "FLEX_START": "flex-start",
}
_NODES = "cloud.google.com/gke-"
_E2_SIZES = (2, 4, 8, 16, 32)
_GIBIBYTE = 2**30


@dataclasses.dataclass(frozen=True)
class Step:
    """A step of a compiled pipeline.

    Attributes:
        name: that of its task.
        part: the part of the work that its machine is chosen for.
        takes: the steps whose outputs it takes.
        cached: whether the pipeline lets the cloud use an earlier result.
        image: what it runs.
        asked: what is asked of its machine where that is a parameter of the step, as the custom
            jobs of Vertex AI have it; it is in the key of the cache then.
        key: what else its result depends on, by kind, as `pipelines.local.cache.key_of` has it.
        machine: what it runs on; None where the pipeline does not say it in one place.
        machine_type: as Google Cloud names it; empty where the cluster has one.
        custom_job: whether it is a custom job of Vertex AI.
        problem: why its machine cannot be read; empty where it can.
    """

    name: str
    part: Part
    takes: tuple[str, ...]
    cached: bool
    image: str
    asked: Mapping[str, Any]
    key: Mapping[str, Any]
    machine: Machine | None
    machine_type: str
    custom_job: bool = False
    problem: str = ""


def read_steps(
    specification: Mapping[str, Any],
    parameters: Mapping[str, Any],
    kind: Kind,
    platform: Mapping[str, Any] | None = None,
) -> list[Step]:
    """The steps of a compiled pipeline, each after those that it needs.

    Args:
        specification: the pipeline's first document, or what a cloud has kept of it.
        parameters: values of its parameters that are not the defaults.
        kind: of the cloud.
        platform: its second document, which says what Kubernetes is to do.
    """
    specification, parameters = plain(specification), plain(parameters)
    defined = specification["root"].get("inputDefinitions", {}).get("parameters", {})
    values = {name: d["defaultValue"] for name, d in defined.items() if "defaultValue" in d}
    values |= parameters
    nodes = (platform or {}).get("platforms", {}).get("kubernetes", {})
    nodes = nodes.get("deploymentSpec", {}).get("executors", {})
    tasks = specification["root"]["dag"]["tasks"]
    waits = {name: task.get("dependentTasks", ()) for name, task in tasks.items()}
    return [
        _step(name, tasks[name], specification, values, kind, nodes)
        for name in graphlib.TopologicalSorter(waits).static_order()
    ]


def differences(before: Step, now: Step) -> list[str]:
    """What the result of a step depends on and what has changed of it, in words."""
    found = []
    if before.image != now.image:
        old, _, old_digest = before.image.partition("@")
        new, _, new_digest = now.image.partition("@")
        if old == new and old_digest and new_digest:
            found.append(f"image digest changed ({_short(old_digest)} → {_short(new_digest)})")
        else:
            found.append(f"image {before.image} → {now.image}")
    found += [
        f"{name} {before.asked.get(name, 'none')} → {now.asked.get(name, 'none')}"
        for name in sorted({*before.asked, *now.asked})
        if before.asked.get(name) != now.asked.get(name)
    ]
    return found + cache.differences(before.key, now.key)


def plain(value: Any) -> Any:
    """A value without the fractions .0 that numbers get where a cloud keeps them as protobuf."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(inner) for inner in value]
    return value


def _step(
    name: str,
    task: Mapping[str, Any],
    specification: Mapping[str, Any],
    values: Mapping[str, Any],
    kind: Kind,
    nodes: Mapping[str, Any],
) -> Step:
    component = specification["components"][task["componentRef"]["name"]]
    parameters, inputs, takes = _inputs(task, component, values)
    label = component.get("executorLabel", "")
    executors = specification["deploymentSpec"].get("executors", {})
    container = executors.get(label, {}).get("container")
    step = Step(
        name=name,
        part=part_of(name),
        takes=takes,
        cached=bool(task.get("cachingOptions", {}).get("enableCache")),
        image="",
        asked={},
        key={"inputs": inputs, "outputs": component.get("outputDefinitions", {})},
        machine=None,
        machine_type="",
    )
    if container is None:  # a graph within the graph: all of it is what the result depends on
        return dataclasses.replace(
            step, key={**step.key, "parameters": parameters, "command": [component, executors]}
        )
    image, environment = container["image"], container.get("env", ())
    command = [*container.get("command", ()), *container.get("args", ())]
    pools = parameters.pop("worker_pool_specs", None)
    asked: dict[str, Any] = {}
    if pools:
        # Google's launcher starts the job: what runs in it is what the pool says.
        inner = pools[0]["container_spec"]
        command = [image, *command, *inner.get("command", ()), *inner.get("args", ())]
        image, environment = inner["image_uri"], inner.get("env", ())
        asked = {**pools[0]["machine_spec"], **pools[0].get("disk_spec", {})}
        asked["strategy"] = parameters.pop("strategy", "")
    key = {
        **step.key,
        "parameters": parameters,
        "command": command,
        # Kubeflow's cache does not look at variables.
        "environment": {e["name"]: e.get("value") for e in environment} if kind == "vertex" else {},
    }
    step = dataclasses.replace(step, image=image, asked=asked, key=key, custom_job=bool(pools))
    try:
        if pools:
            machine = _of_pool(asked, parameters)
            return dataclasses.replace(step, machine=machine, machine_type=machine.machine_type)
        machine = _of_container(container, name, nodes.get(label, {}), kind)
    except (LookupError, ValueError) as error:
        return dataclasses.replace(step, problem=str(error))
    return dataclasses.replace(step, machine=machine, machine_type=_machine_type(machine, kind))


def part_of(step: str) -> Part:
    """The part of the work that a step belongs to, by its name."""
    name = step.replace("-", "_")
    if name == "create_tfrecords" or name.startswith("preprocess"):
        return "data"
    if name == "evaluate":
        return "evaluation"
    return "export" if name in ("export_hub", "report") else "training"


def _inputs(
    task: Mapping[str, Any], component: Mapping[str, Any], values: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, str], tuple[str, ...]]:
    """Values of parameters, where the rest comes from, and the steps that it comes from."""
    defined = component.get("inputDefinitions", {}).get("parameters", {})
    parameters = {name: d["defaultValue"] for name, d in defined.items() if "defaultValue" in d}
    given = task.get("inputs", {})
    inputs, takes = {}, []
    for name, source in given.get("parameters", {}).items():
        output = source.get("taskOutputParameter")
        if output:
            parameters.pop(name, None)
            inputs[name] = f"{output['outputParameterKey']} of {output['producerTask']}"
            takes.append(output["producerTask"])
        elif "runtimeValue" in source:
            parameters[name] = source["runtimeValue"].get("constant")
        else:
            parameters[name] = values.get(source.get("componentInputParameter", ""))
    for name, source in given.get("artifacts", {}).items():
        output = source.get("taskOutputArtifact")
        if output:
            inputs[name] = f"{output['outputArtifactKey']} of {output['producerTask']}"
            takes.append(output["producerTask"])
        else:
            inputs[name] = str(source.get("componentInputArtifact", "many"))
    return parameters, inputs, tuple(dict.fromkeys(takes))


def _of_pool(asked: Mapping[str, Any], parameters: Mapping[str, Any]) -> Machine:
    """The machine that the worker pool of a custom job asks for."""
    name, topology = str(asked["machine_type"]), str(asked.get("tpu_topology", ""))
    of_tpu = (
        kind
        for kind, tpu in machines.TPUS.items()
        if any(name in types for types in tpu.slices.values())
    )
    accelerator = next(of_tpu, "") if topology else str(asked.get("accelerator_type", ""))
    return Machine(
        accelerator=accelerator,
        accelerators=int(asked.get("accelerator_count", 0)),
        topology=topology,
        machine_type=name,
        boot_disk=str(asked.get("boot_disk_type", "")),
        boot_disk_gigabytes=int(asked.get("boot_disk_size_gb", 100)),
        strategy=_STRATEGIES.get(str(asked.get("strategy")), "standard"),
        wait=int(str(parameters.get("max_wait_duration", "86400s")).removesuffix("s")),
    )


def _of_container(
    container: Mapping[str, Any], name: str, node: Mapping[str, Any], kind: Kind
) -> Machine:
    """The machine that a container of a pipeline asks for, and its node's labels on Kubeflow."""
    wanted = read_resources(container.get("resources", {}), name)
    cpu, memory = wanted.cpu or "4", wanted.memory or "16G"  # those of an e2-standard-4
    labels = node.get("nodeSelector", {}).get("labels", {})
    strategy: Strategy = "spot" if f"{_NODES}spot" in labels else "standard"
    if f"{_NODES}flex-start" in labels:
        strategy = "flex-start"
    node_of_tpu = labels.get(f"{_NODES}tpu-accelerator")
    if node_of_tpu:
        tpu = next(kind for kind, tpu in machines.TPUS.items() if tpu.node == node_of_tpu)
        topology = labels.get(f"{_NODES}tpu-topology", "")
        return Machine(cpu, memory, accelerator=tpu, topology=topology, strategy=strategy)
    gpu = wanted.accelerator
    if kind == "kubeflow":
        gpu = str(labels.get(f"{_NODES}accelerator", "")).upper().replace("-", "_")
    number = int(float(wanted.accelerators or 0)) if gpu else 0
    return Machine(cpu, memory, accelerator=gpu, accelerators=number, strategy=strategy)


def _machine_type(machine: Machine, kind: Kind) -> str:
    """The machine type of a step that is no custom job; empty where the cloud's own is not known.

    Vertex AI chooses one for the processors and the memory; without a wish it is an e2-standard-4,
    and so it is reckoned with that series (https://cloud.google.com/vertex-ai/docs/pipelines/
    machine-types). On Kubeflow the nodes are the cluster's.
    """
    if machine.accelerator:
        try:
            return machines.machine_type(machine)
        except LookupError:
            return ""  # there is none: the check tells why
    if kind == "kubeflow":
        return ""
    memory = bytes_of(machine.memory, "memory") / _GIBIBYTE
    fits = (n for n in _E2_SIZES if n >= float(machine.cpu) and 4 * n >= memory)
    size = next(fits, None)
    return f"e2-standard-{size}" if size else ""


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:8]
