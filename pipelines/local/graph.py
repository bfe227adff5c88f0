"""Reads a compiled KFP v2 pipeline: its tasks, what each takes and gives, and their order.

What a run on this machine cannot do faithfully is refused by name when the file is read. Wishes
about machines, caching and retries change no result; they are listed as `unobserved`.
"""

from __future__ import annotations

import difflib
import graphlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from pipelines.local import placeholders
from trainer.errors import UserError

_TYPES: Mapping[str, type] = {
    "STRING": str,
    "NUMBER_INTEGER": int,
    "NUMBER_DOUBLE": float,
    "BOOLEAN": bool,
    "LIST": list,
    "STRUCT": dict,
}
_TASK_KEYS = {"componentRef", "dependentTasks", "inputs", "taskInfo"}
_TASK_WISHES = {"cachingOptions", "retryPolicy"}
_CONTAINER_KEYS = {"image", "command", "args", "env"}
_CONTAINER_WISHES = {"resources"}
_PLATFORM_WISHES = {"nodeSelector", "nodeAffinity", "tolerations", "imagePullPolicy", "podMetadata"}
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Parameter:
    """A value that a pipeline or a task takes.

    Attributes:
        type: KFP's name of its type, such as "NUMBER_INTEGER".
        optional: may be left out.
        default: taken where it is left out; None where there is no default.
    """

    type: str
    optional: bool = False
    default: Any = None


@dataclass(frozen=True)
class Constant:
    """A value written in the file; text in it may hold placeholders."""

    value: Any


@dataclass(frozen=True)
class PipelineInput:
    """A value of one of the pipeline's own parameters."""

    parameter: str


@dataclass(frozen=True)
class TaskOutput:
    """What another task gives: a parameter or an artifact."""

    task: str
    output: str


@dataclass(frozen=True)
class Task:
    """One container of the pipeline.

    Attributes:
        name: its name within the pipeline.
        image: the container image that it asks for.
        command: what is called, arguments included; may hold placeholders.
        environment: variables to set.
        parameters: the parameters that it takes.
        sources: parameter -> where its value comes from; others take their default.
        artifacts: input artifact -> the output that it is.
        output_parameters: output parameter -> its type.
        output_artifacts: output artifact -> its type, as KFP writes it (`schemaTitle`, …).
        after: the tasks that must have succeeded before.
    """

    name: str
    image: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    parameters: Mapping[str, Parameter]
    sources: Mapping[str, Constant | PipelineInput | TaskOutput]
    artifacts: Mapping[str, TaskOutput]
    output_parameters: Mapping[str, str]
    output_artifacts: Mapping[str, Mapping[str, str]]
    after: frozenset[str]


@dataclass(frozen=True)
class Graph:
    """A pipeline.

    Attributes:
        name: the pipeline's name.
        parameters: what a run may set.
        tasks: by name, each after those that it needs.
        unobserved: wishes of the file that a run on this machine does not follow.
    """

    name: str
    parameters: Mapping[str, Parameter]
    tasks: Mapping[str, Task]
    unobserved: tuple[str, ...]


def parse_graph(text: str) -> Graph:
    """Reads the text of a compiled pipeline, platform settings included.

    Raises:
        UserError: it is no compiled pipeline, or it has what a run on this machine cannot do.
    """
    try:
        documents = list(yaml.load_all(text, Loader=_loader()))
    except yaml.YAMLError as error:
        raise UserError(
            f"A pipeline must be a YAML file; {' '.join(str(error).split())}"
        ) from error
    spec = documents[0] if documents else None
    if not isinstance(spec, dict) or not {"pipelineInfo", "root", "deploymentSpec"} <= set(spec):
        raise UserError(
            "A pipeline must be compiled KFP v2 YAML with pipelineInfo, deploymentSpec and root; "
            "got something else. `paper2hub compile MODEL` writes one."
        )
    try:
        return _graph(spec, documents[1] if len(documents) > 1 else {})
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"A pipeline must be as KFP's compiler writes it; this one is damaged near {error}. "
            "Compile it again."
        ) from error


def parameter_values(graph: Graph, given: Mapping[str, Any]) -> dict[str, Any]:
    """The value of every pipeline parameter: what is given, or else its default.

    Raises:
        UserError: a name is no parameter of the pipeline, a value is missing or of another type.
    """
    for name in given:
        if name not in graph.parameters:
            close = difflib.get_close_matches(name, graph.parameters, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise UserError(
                f"Parameters of {graph.name} must be among "
                f"{', '.join(graph.parameters) or 'none at all'}; got {name!r}.{hint}"
            )
    values = {}
    for name, parameter in graph.parameters.items():
        if name in given:
            values[name] = convert(given[name], parameter.type, name)
        elif parameter.optional:
            values[name] = parameter.default
        else:
            raise UserError(f"The parameter {name} of {graph.name} must be given; got none.")
    return values


def convert(value: Any, type_name: str, name: str) -> Any:
    """A value as a parameter's type wants it; a whole number may be written 2.0, as JSON may.

    Raises:
        UserError: the value is of another type.
    """
    wanted = _TYPES[type_name]
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if wanted is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, wanted) and not (wanted is int and isinstance(value, bool)):
        return value
    raise UserError(f"{name} must be of type {type_name}; got {value!r}.")


def convert_text(text: str, type_name: str, name: str) -> Any:
    """A value written as text: itself where text is wanted, JSON otherwise.

    Raises:
        UserError: the text is no value of the type.
    """
    if type_name == "STRING":
        return text
    if type_name == "BOOLEAN":
        text = text.lower()  # Python's own way to write it is common in output files
    try:
        value = parse_json(text)
    except ValueError:
        value = text
    return convert(value, type_name, name)


def parse_json(text: str) -> Any:
    """The value of a JSON text; NaN and infinity, which are not JSON, are refused.

    Raises:
        ValueError: the text is no JSON.
    """

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON number")

    return json.loads(text, parse_constant=refuse)


def _loader() -> Any:
    """The quick loader where PyYAML was built with it."""
    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _graph(spec: Mapping[str, Any], platform: Mapping[str, Any]) -> Graph:
    root = spec["root"]
    if root.get("inputDefinitions", {}).get("artifacts"):
        raise _refusal("the pipeline takes artifacts as inputs")
    parameters = _parameters(root.get("inputDefinitions", {}), "the pipeline")
    executors = spec["deploymentSpec"].get("executors", {})
    tasks, unobserved = {}, set()
    for name, task in root["dag"]["tasks"].items():
        component = spec["components"][task["componentRef"]["name"]]
        tasks[name] = _task(name, task, component, executors)
        container = executors[component["executorLabel"]]["container"]
        unobserved |= (_TASK_WISHES & set(task)) | (_CONTAINER_WISHES & set(container))
    # Caching is a permission rather than a wish.
    unobserved.discard("cachingOptions")
    unobserved |= _platform_wishes(platform or {})
    for task in tasks.values():
        _check_sources(task, tasks, parameters)
    sorter = graphlib.TopologicalSorter({t.name: sorted(t.after) for t in tasks.values()})
    try:
        order = list(sorter.static_order())
    except graphlib.CycleError as error:
        raise UserError(
            f"Tasks must not wait for each other in a circle; {' > '.join(error.args[1])} do."
        ) from error
    return Graph(
        name=_name(spec["pipelineInfo"]["name"]),
        parameters=parameters,
        tasks={name: tasks[name] for name in order},
        unobserved=tuple(sorted(unobserved)),
    )


def _task(
    name: str,
    task: Mapping[str, Any],
    component: Mapping[str, Any],
    executors: Mapping[str, Any],
) -> Task:
    if "dag" in component:
        raise _refusal(f"the task {name} is a pipeline of its own (dag)")
    for key in sorted(set(task) - _TASK_KEYS - _TASK_WISHES):
        raise _refusal(f"the task {name} has a {key}")
    executor = executors[component["executorLabel"]]
    if "container" not in executor:
        raise _refusal(f"the task {name} is run by {', '.join(executor)}")
    container = executor["container"]
    for key in sorted(set(container) - _CONTAINER_KEYS - _CONTAINER_WISHES):
        raise _refusal(f"the container of {name} has {key}")
    if not container.get("command"):
        raise _refusal(f"the container of {name} has no command and relies on its image's own")
    command = (*container["command"], *container.get("args", ()))
    inputs, outputs = component.get("inputDefinitions", {}), component.get("outputDefinitions", {})
    given = task.get("inputs", {})
    known = {
        f"{side}.{kind}.{key}"
        for side, definitions in (("inputs", inputs), ("inputs", given), ("outputs", outputs))
        for kind in ("parameters", "artifacts")
        for key in definitions.get(kind, {})
    }
    sources = {k: _source(name, k, v) for k, v in given.get("parameters", {}).items()}
    artifacts = {k: _artifact(name, k, v) for k, v in given.get("artifacts", {}).items()}
    constants = [s.value for s in sources.values() if isinstance(s, Constant)]
    for text in (*command, *placeholders.texts(constants)):
        placeholders.check(text, known, f"the task {name}")
    for key, artifact in {**inputs.get("artifacts", {}), **outputs.get("artifacts", {})}.items():
        if artifact.get("isArtifactList"):
            raise _refusal(f"{key} of the task {name} is a list of artifacts")
    parameters = _parameters(inputs, f"the task {name}")
    produced = _parameters(outputs, f"the task {name}")
    return Task(
        name=_name(name),
        image=container.get("image", ""),
        command=command,
        environment={v["name"]: str(v.get("value", "")) for v in container.get("env", ())},
        parameters=parameters,
        sources=sources,
        artifacts=artifacts,
        output_parameters={_name(k): v.type for k, v in produced.items()},
        output_artifacts={
            _name(k): dict(v["artifactType"]) for k, v in outputs.get("artifacts", {}).items()
        },
        after=frozenset(task.get("dependentTasks", ())).union(
            s.task for s in (*sources.values(), *artifacts.values()) if isinstance(s, TaskOutput)
        ),
    )


def _parameters(definitions: Mapping[str, Any], owner: str) -> dict[str, Parameter]:
    result = {}
    for name, definition in definitions.get("parameters", {}).items():
        kind = definition["parameterType"]
        if kind not in _TYPES:
            raise _refusal(f"the parameter {name} of {owner} is a {kind}")
        default = definition.get("defaultValue")
        result[name] = Parameter(
            type=kind,
            optional=bool(definition.get("isOptional")) or default is not None,
            default=None if default is None else convert(default, kind, name),
        )
    return result


def _source(task: str, name: str, spec: Mapping[str, Any]) -> Constant | PipelineInput | TaskOutput:
    match spec:
        case {"runtimeValue": {"constant": value}}:
            return Constant(value)
        case {"componentInputParameter": parameter} if len(spec) == 1:
            return PipelineInput(parameter)
        case {"taskOutputParameter": {"producerTask": producer, "outputParameterKey": key}} if (
            len(spec) == 1
        ):
            return TaskOutput(producer, key)
    raise _refusal(f"the parameter {name} of the task {task} comes from {', '.join(spec)}")


def _artifact(task: str, name: str, spec: Mapping[str, Any]) -> TaskOutput:
    match spec:
        case {"taskOutputArtifact": {"producerTask": producer, "outputArtifactKey": key}} if (
            len(spec) == 1
        ):
            return TaskOutput(producer, key)
    raise _refusal(f"the artifact {name} of the task {task} comes from {', '.join(spec)}")


def _check_sources(
    task: Task, tasks: Mapping[str, Task], parameters: Mapping[str, Parameter]
) -> None:
    """Everything that a task takes must come from somewhere."""
    for name, parameter in task.parameters.items():
        if name not in task.sources and not parameter.optional:
            raise UserError(f"The task {task.name} must be given {name}; the file gives none.")
    for needed in sorted(task.after - set(tasks)):
        raise UserError(f"The task {task.name} waits for {needed!r}, which the file does not have.")
    for name, source in task.sources.items():
        if isinstance(source, PipelineInput) and source.parameter not in parameters:
            raise UserError(
                f"The task {task.name} takes {name} from {source.parameter!r}, "
                "which is no parameter of the pipeline."
            )
        if isinstance(source, TaskOutput):
            _check_output(task, name, source, tasks[source.task].output_parameters)
    for name, source in task.artifacts.items():
        _check_output(task, name, source, tasks[source.task].output_artifacts)


def _check_output(task: Task, name: str, source: TaskOutput, given: Mapping[str, Any]) -> None:
    if source.output not in given:
        raise UserError(
            f"The task {task.name} takes {name} from {source.output!r} of {source.task}, "
            "which does not give it."
        )


def _platform_wishes(platform: Mapping[str, Any]) -> set[str]:
    """The platform settings of all tasks; those that could change a result are refused."""
    kubernetes = platform.get("platforms", {}).get("kubernetes", {})
    wishes: set[str] = set()
    for label, settings in kubernetes.get("deploymentSpec", {}).get("executors", {}).items():
        for key in sorted(set(settings) - _PLATFORM_WISHES):
            raise _refusal(f"{label} has the Kubernetes setting {key}")
        wishes |= set(settings)
    return wishes


def _name(name: str) -> str:
    """A name that may become a folder or a file."""
    if not _NAME.fullmatch(name):
        raise UserError(
            f"Names in a pipeline must be letters, digits, '_', '-' and '.'; got {name!r}."
        )
    return name


def _refusal(what: str) -> UserError:
    return UserError(
        "A pipeline run on this machine must be one graph of containers that take values and "
        f"artifacts from each other; here {what}. Run it on Kubeflow Pipelines or Vertex AI."
    )
