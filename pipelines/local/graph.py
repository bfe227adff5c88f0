"""Reads a compiled KFP v2 pipeline: its tasks, what each takes and gives, and what it waits for.

All of KFP's format is read: graphs within graphs, conditions, loops, exit tasks, imports. What
cannot be done on this machine is refused by name before anything starts; wishes that change no
result, such as the kind of a machine, are listed as `unobserved`.
"""

from __future__ import annotations

import dataclasses
import difflib
import graphlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any

import yaml

from pipelines.local import condition, placeholders
from pipelines.local.condition import Condition
from pipelines.local.custom_job import unwrapped
from pipelines.local.resources import Resources, read_resources
from trainer.errors import UserError

FINAL_STATUS = "TASK_FINAL_STATUS"
"""The type of a parameter that takes how another task ended."""

_TYPES: Mapping[str, type] = {
    "STRING": str,
    "NUMBER_INTEGER": int,
    "NUMBER_DOUBLE": float,
    "BOOLEAN": bool,
    "LIST": list,
    "STRUCT": dict,
    FINAL_STATUS: dict,
}
_TASK_KEYS = {
    *("componentRef", "dependentTasks", "inputs", "taskInfo", "cachingOptions", "retryPolicy"),
    *("triggerPolicy", "parameterIterator", "artifactIterator", "iteratorPolicy"),
}
_CONTAINER_KEYS = {"image", "command", "args", "env", "resources"}
_PLATFORM_WISHES = {
    *("nodeSelector", "nodeAffinity", "podAffinity", "tolerations", "imagePullPolicy"),
    *("imagePullSecret", "podMetadata", "securityContext"),
}
_SECRETS = {"secretAsEnv": "secretKey", "configMapAsEnv": "configMapKey"}
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_CHANNEL = "pipelinechannel--"
_ITEM = re.compile(r"(pipelinechannel--)?(.+-)?loop-item(-param-\d+)?(-subvar-.+)?")
_SELECTOR = re.compile(r"parseJson\(string_value\)((?:\[\"[^\"]+\"\])*)")


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
class ArtifactInput:
    """An artifact that a pipeline or a task takes, or a list of them."""

    type: Mapping[str, str]
    many: bool = False
    optional: bool = False


@dataclass(frozen=True)
class Constant:
    """A value written in the file; text in it may hold placeholders."""

    value: Any


@dataclass(frozen=True)
class GraphInput:
    """An input of the graph that the task belongs to.

    Attributes:
        name: of the input.
        keys: which part of it, where it is a JSON object or its text.
    """

    name: str
    keys: tuple[str, ...] = ()


@dataclass(frozen=True)
class TaskOutput:
    """What another task of the same graph gives: a parameter or an artifact."""

    task: str
    output: str
    keys: tuple[str, ...] = ()


@dataclass(frozen=True)
class FinalStatus:
    """How another task of the same graph has ended."""

    task: str


@dataclass(frozen=True)
class ItemPart:
    """A part of a loop's item, which KFP writes as if it were an input of the graph around it."""

    key: str


Source = Constant | GraphInput | TaskOutput | FinalStatus | ItemPart


@dataclass(frozen=True)
class Loop:
    """One execution per item.

    Attributes:
        item: the input that takes an item.
        items: the items themselves, or the name of the input that holds them.
        artifacts: the items are artifacts.
        parallelism: how many may run at once; 0 for any number.
    """

    item: str
    items: str | tuple[Any, ...]
    artifacts: bool
    parallelism: int


@dataclass(frozen=True)
class Retry:
    """Further attempts after a failure: how many, and the seconds to wait before each."""

    attempts: int
    wait: float = 0.0
    factor: float = 2.0
    longest: float = 3600.0

    def seconds(self, failures: int) -> float:
        """How long to wait after so many failures, the first being 1."""
        return min(self.wait * self.factor ** (failures - 1), self.longest)


@dataclass(frozen=True)
class Container:
    """What a container runs.

    Attributes:
        image: the image that it asks for.
        command: what is called, arguments included; may hold placeholders.
        environment: variables to set.
        resources: what it asks of the machine.
        secrets: variables that must come from the caller: name -> what of which secret it is.
        seconds: how long it may take; None for any time.
        shared_memory: bytes of /dev/shm, where it asks for them.
    """

    image: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    resources: Resources
    secrets: Mapping[str, str]
    seconds: float | None = None
    shared_memory: int | None = None


@dataclass(frozen=True)
class Importer:
    """An artifact that exists already.

    Attributes:
        uri: where it is; may hold placeholders.
        type: as KFP writes it.
        metadata: what to note beside it; may hold placeholders.
    """

    uri: str
    type: Mapping[str, str]
    metadata: Mapping[str, Any]


@dataclass(frozen=True)
class Dag:
    """A graph of tasks.

    Attributes:
        tasks: by name, each after those that it needs.
        parameters: what it gives: name -> outputs of its tasks, of which the first that is there
            counts.
        artifacts: likewise.
    """

    tasks: Mapping[str, Task]
    parameters: Mapping[str, tuple[TaskOutput, ...]]
    artifacts: Mapping[str, tuple[TaskOutput, ...]]


@dataclass(frozen=True)
class Task:
    """One task of a graph.

    Attributes:
        name: its name within the graph.
        work: what it does.
        parameters: the parameters that it takes.
        artifact_inputs: the artifacts that it takes.
        sources: parameter -> where its value comes from; others take their default.
        artifacts: input artifact -> where it comes from.
        output_parameters: output parameter -> its type.
        output_artifacts: output artifact -> its type, as KFP writes it (`schemaTitle`, …).
        after: the tasks that must have ended before.
        condition: it is skipped where this does not hold; None for none.
        always: it runs even if what it waits for has failed.
        loop: runs once per item; None for no loop.
        retry: what to do after a failure.
        cached: its result may be taken from an earlier run.
        cache_key: the caller's own key of the cache; empty for none.
    """

    name: str
    work: Container | Importer | Dag
    parameters: Mapping[str, Parameter]
    artifact_inputs: Mapping[str, ArtifactInput]
    sources: Mapping[str, Source]
    artifacts: Mapping[str, GraphInput | TaskOutput]
    output_parameters: Mapping[str, str]
    output_artifacts: Mapping[str, Mapping[str, str]]
    after: frozenset[str]
    condition: Condition | None = None
    always: bool = False
    loop: Loop | None = None
    retry: Retry = Retry(0)
    cached: bool = False
    cache_key: str = ""


@dataclass(frozen=True)
class Graph:
    """A pipeline.

    Attributes:
        name: the pipeline's name.
        parameters: what a run may set.
        artifacts: artifacts that a run must be given.
        dag: its tasks.
        unobserved: wishes of the file that a run on this machine does not follow.
    """

    name: str
    parameters: Mapping[str, Parameter]
    artifacts: Mapping[str, ArtifactInput]
    dag: Dag
    unobserved: tuple[str, ...]

    def containers(self) -> Iterator[tuple[str, Container]]:
        """Every container, with its path of task names such as `exit-handler-1/train`."""
        yield from _containers("", self.dag)


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
        return _Reader(spec, (documents[1] if len(documents) > 1 else None) or {}).graph()
    except (LookupError, TypeError, AttributeError, ValueError, OverflowError) as error:
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


def as_declared(value: Any, type_name: str, name: str) -> Any:
    """A value that came from another task or from an item, in the type that a task declares.

    Anything may be taken as text, which is then its JSON; text may be taken as what its JSON says.

    Raises:
        UserError: the value cannot be of the type.
    """
    if type_name == "STRING":
        return value if isinstance(value, str) else json.dumps(value)
    if isinstance(value, str):
        return convert_text(value, type_name, name)
    return convert(value, type_name, name)


def parse_json(text: str) -> Any:
    """The value of a JSON text; NaN and infinity, which are not JSON, are refused.

    Raises:
        ValueError: the text is no JSON.
    """

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON number")

    def finite(digits: str) -> float:
        number = float(digits)
        if not math.isfinite(number):
            raise ValueError(f"{digits} is too large a number")
        return number

    return json.loads(text, parse_constant=refuse, parse_float=finite)


def _loader() -> Any:
    """The quick loader where PyYAML was built with it."""
    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Reader:
    """Reads one file."""

    def __init__(self, spec: Mapping[str, Any], platform: Mapping[str, Any]):
        self.spec, jobs = unwrapped(spec)
        self.executors = self.spec["deploymentSpec"].get("executors", {})
        kubernetes = platform.get("platforms", {}).get("kubernetes", {})
        self.platform = kubernetes.get("deploymentSpec", {}).get("executors", {})
        self.unobserved: set[str] = set(kubernetes.get("pipelineConfig", {})) - {"workspace"}
        if jobs:
            self.unobserved.add("machines of custom jobs")

    def graph(self) -> Graph:
        root = self.spec["root"]
        parameters = _parameters(root.get("inputDefinitions", {}), "the pipeline")
        artifacts = _artifact_inputs(root.get("inputDefinitions", {}))
        for name, kind in artifacts.items():
            if kind.many:
                raise _refusal(f"the pipeline takes a list of artifacts, {name}")
        dag = self.dag(root, "the pipeline", parameters, artifacts, ())
        return Graph(
            name=_name(self.spec["pipelineInfo"]["name"]),
            parameters=parameters,
            artifacts=artifacts,
            dag=dag,
            unobserved=tuple(sorted(self.unobserved)),
        )

    def dag(
        self,
        component: Mapping[str, Any],
        owner: str,
        parameters: Mapping[str, Any],
        artifacts: Mapping[str, Any],
        within: tuple[str, ...],
        items: frozenset[str] = frozenset(),
    ) -> Dag:
        """The graph of a component.

        Args:
            component: as the file has it.
            owner: names it.
            parameters: by name, what it can pass on to its tasks.
            artifacts: likewise.
            within: the components that it is part of, to find one that contains itself.
            items: the items of the loops that it is part of.
        """
        spec = component["dag"]
        tasks = {
            name: self.task(name, task, within, items)
            for name, task in spec.get("tasks", {}).items()
        }
        known = {*parameters, *items}
        tasks = {name: _mended(task, known) for name, task in tasks.items()}
        for task in tasks.values():
            _check_sources(task, tasks, known, artifacts, owner)
        outputs = spec.get("outputs", {})
        given = component.get("outputDefinitions", {})
        _check_given(given, outputs, owner)
        dag = Dag(
            tasks={name: tasks[name] for name in _order(tasks)},
            parameters={k: _selectors(k, v) for k, v in outputs.get("parameters", {}).items()},
            artifacts={k: _selectors(k, v) for k, v in outputs.get("artifacts", {}).items()},
        )
        for kind, selected in (("parameters", dag.parameters), ("artifacts", dag.artifacts)):
            for name, selectors in selected.items():
                for selector in selectors:
                    if selector.task not in tasks:
                        raise UserError(
                            f"The output {name} of {owner} is from {selector.task!r}, "
                            "which it does not have."
                        )
                    outputs_of = tasks[selector.task]
                    known = getattr(outputs_of, f"output_{kind}")
                    _check_output(f"output {name} of {owner}", selector, known)
        return dag

    def task(
        self,
        name: str,
        spec: Mapping[str, Any],
        within: tuple[str, ...],
        items: frozenset[str],
    ) -> Task:
        """One task, whatever it does."""
        for key in sorted(set(spec) - _TASK_KEYS):
            raise _refusal(f"the task {name} has a {key}")
        reference = spec["componentRef"]["name"]
        if reference in within:
            raise UserError(f"A pipeline must not contain itself; {reference} does.")
        component = self.spec["components"][reference]
        inputs = component.get("inputDefinitions", {})
        outputs = component.get("outputDefinitions", {})
        given = spec.get("inputs", {})
        sources = {k: _source(name, k, v) for k, v in given.get("parameters", {}).items()}
        artifacts = {k: _artifact(name, k, v) for k, v in given.get("artifacts", {}).items()}
        loop = _loop(name, spec)
        if loop is not None:
            sources = {k: _of_the_item(source, loop.item) for k, source in sources.items()}
        parameters = _parameters(inputs, f"the task {name}")
        takes = _artifact_inputs(inputs)
        trigger = spec.get("triggerPolicy", {})
        strategy = trigger.get("strategy", "")
        if strategy not in (
            *("", "TRIGGER_STRATEGY_UNSPECIFIED"),
            *("ALL_UPSTREAM_TASKS_SUCCEEDED", "ALL_UPSTREAM_TASKS_COMPLETED"),
        ):
            raise _refusal(f"the task {name} has the trigger {strategy}")
        known = {
            f"{side}.{kind}.{key}"
            for side, definitions in (("inputs", inputs), ("inputs", given), ("outputs", outputs))
            for kind in ("parameters", "artifacts")
            for key in definitions.get(kind, {})
        }
        constants = [s.value for s in sources.values() if isinstance(s, Constant)]
        for text in placeholders.texts(constants):
            placeholders.check(text, known, f"the task {name}")
        if "dag" in component:
            known_parameters = {**parameters, **sources}
            known_artifacts = {**takes, **artifacts}
            work: Container | Importer | Dag = self.dag(
                component,
                f"the graph {name}",
                known_parameters,
                known_artifacts,
                (*within, reference),
                items | {loop.item} if loop is not None else items,
            )
            if "retryPolicy" in spec:
                self.unobserved.add("retryPolicy of a graph")
        else:
            work = self.executor(name, component["executorLabel"], known)
        waits = (*sources.values(), *artifacts.values())
        caching = spec.get("cachingOptions", {})
        held = trigger.get("condition", "")
        return Task(
            name=_name(name),
            work=work,
            parameters=parameters,
            artifact_inputs=takes,
            sources=sources,
            artifacts=artifacts,
            output_parameters={
                _name(k): v.type for k, v in _parameters(outputs, f"the task {name}").items()
            },
            output_artifacts={
                _name(k): dict(v["artifactType"]) for k, v in outputs.get("artifacts", {}).items()
            },
            after=frozenset(spec.get("dependentTasks", ())).union(
                s.task for s in waits if isinstance(s, TaskOutput | FinalStatus)
            ),
            condition=condition.parse(held) if held else None,
            always=strategy == "ALL_UPSTREAM_TASKS_COMPLETED",
            loop=loop,
            retry=_retry(spec.get("retryPolicy", {})),
            cached=bool(caching.get("enableCache")),
            cache_key=str(caching.get("cacheKey", "")),
        )

    def executor(self, name: str, label: str, known: set[str]) -> Container | Importer:
        """What a task that is no graph does."""
        executor = self.executors[label]
        if "importer" in executor:
            return _importer(name, executor["importer"], known)
        if "container" not in executor:
            raise _refusal(f"the task {name} is run by {', '.join(executor)}")
        container = executor["container"]
        for key in sorted(set(container) - _CONTAINER_KEYS):
            raise _refusal(f"the container of {name} has {key}")
        command = (*container.get("command", ()), *container.get("args", ()))
        for text in (*command, str(container.get("image", ""))):
            placeholders.check(text, known, f"the task {name}")
        cloud = "google_cloud_pipeline_components"
        image = str(container.get("image", ""))
        if any(cloud in text for text in command) or cloud.replace("_", "-") in image:
            raise _refusal(f"the task {name} asks Google Cloud to do its work")
        platform = self.platform.get(label, {})
        shared = platform.get("enabledSharedMemory")
        handled = {*_SECRETS, "enabledSharedMemory", "activeDeadlineSeconds", "emptyDirMounts"}
        for key in sorted(set(platform) - _PLATFORM_WISHES - handled):
            raise _refusal(f"the task {name} has the Kubernetes setting {key}")
        self.unobserved |= set(platform) & (_PLATFORM_WISHES | {"emptyDirMounts"})
        deadline = platform.get("activeDeadlineSeconds")
        return Container(
            image=image,
            command=command,
            environment={v["name"]: str(v.get("value", "")) for v in container.get("env", ())},
            resources=read_resources(container.get("resources", {}), name),
            secrets=_secrets(platform, name),
            seconds=None if deadline is None else float(deadline),
            shared_memory=None if shared is None else _shared_memory(shared),
        )


def _containers(path: str, dag: Dag) -> Iterator[tuple[str, Container]]:
    for name, task in dag.tasks.items():
        if isinstance(task.work, Container):
            yield f"{path}{name}", task.work
        elif isinstance(task.work, Dag):
            yield from _containers(f"{path}{name}/", task.work)


def _order(tasks: Mapping[str, Task]) -> list[str]:
    sorter = graphlib.TopologicalSorter({t.name: sorted(t.after) for t in tasks.values()})
    try:
        return list(sorter.static_order())
    except graphlib.CycleError as error:
        raise UserError(
            f"Tasks must not wait for each other in a circle; {' > '.join(error.args[1])} do."
        ) from error


def _importer(name: str, spec: Mapping[str, Any], known: set[str]) -> Importer:
    match spec.get("artifactUri", {}):
        case {"constant": uri}:
            uri = str(uri)
        case {"runtimeParameter": parameter}:
            uri = f"{{{{$.inputs.parameters['{parameter}']}}}}"
        case other:
            raise _refusal(f"the import {name} is from {', '.join(other) or 'nowhere'}")
    metadata = _whole_numbers(spec.get("metadata", {}))
    for text in (uri, *placeholders.texts([*metadata, metadata])):
        placeholders.check(text, known, f"the import {name}")
    return Importer(uri=uri, type=dict(spec["typeSchema"]), metadata=dict(metadata))


def _secrets(platform: Mapping[str, Any], name: str) -> dict[str, str]:
    """The variables that a secret or a configuration holds on a cluster."""
    secrets = {}
    for kind, key in _SECRETS.items():
        for entry in platform.get(kind, ()):
            source = next((str(v) for k, v in sorted(entry.items()) if k.endswith("Name")), "")
            for pair in entry.get("keyToEnv", ()):
                secrets[pair["envVar"]] = f"{pair.get(key, '')} of {source or 'a secret'}"
    return secrets


def _shared_memory(spec: Mapping[str, Any]) -> int:
    from pipelines.local.resources import bytes_of

    return bytes_of(spec.get("size") or "64Mi", "shared memory")


def _loop(name: str, spec: Mapping[str, Any]) -> Loop | None:
    limit = int(spec.get("iteratorPolicy", {}).get("parallelismLimit", 0))
    match spec:
        case {"parameterIterator": {"itemInput": item, "items": {"raw": text}}}:
            try:
                items = parse_json(text)
            except ValueError as error:
                raise UserError(f"The items of the loop {name} must be JSON; {error}.") from error
            if not isinstance(items, list):
                raise UserError(f"The items of the loop {name} must be a JSON list; got {text}.")
            return Loop(item, tuple(items), False, limit)
        case {"parameterIterator": {"itemInput": item, "items": {"inputParameter": source}}}:
            return Loop(item, source, False, limit)
        case {"artifactIterator": {"itemInput": item, "items": {"inputArtifact": source}}}:
            return Loop(item, source, True, limit)
    if "parameterIterator" in spec or "artifactIterator" in spec:
        raise _refusal(f"the loop {name} has no items")
    return None


def _retry(spec: Mapping[str, Any]) -> Retry:
    def seconds(key: str, default: float) -> float:
        return float(str(spec[key]).removesuffix("s")) if spec.get(key) else default

    if not spec:
        return Retry(0)
    return Retry(
        attempts=int(spec.get("maxRetryCount", 0)),
        wait=seconds("backoffDuration", 0.0),
        factor=float(spec.get("backoffFactor") or 2.0),
        longest=seconds("backoffMaxDuration", 3600.0),
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
            default=None if default is None else convert(_whole_numbers(default), kind, name),
        )
    return result


def _artifact_inputs(definitions: Mapping[str, Any]) -> dict[str, ArtifactInput]:
    return {
        name: ArtifactInput(
            type=dict(definition["artifactType"]),
            many=bool(definition.get("isArtifactList")),
            optional=bool(definition.get("isOptional")),
        )
        for name, definition in definitions.get("artifacts", {}).items()
    }


def _keys(task: str, name: str, spec: Mapping[str, Any]) -> tuple[str, ...]:
    text = spec.get("parameterExpressionSelector", "")
    match = _SELECTOR.fullmatch(text) if text else None
    if text and match is None:
        raise _refusal(f"the parameter {name} of the task {task} is the part {text}")
    return tuple(re.findall(r'\["([^"]+)"\]', match[1])) if match else ()


def _source(task: str, name: str, spec: Mapping[str, Any]) -> Source:
    keys = _keys(task, name, spec)
    match {key: value for key, value in spec.items() if key != "parameterExpressionSelector"}:
        case {"runtimeValue": {"constant": value}}:
            return Constant(_whole_numbers(value) if isinstance(value, list | dict) else value)
        case {"componentInputParameter": parameter}:
            return GraphInput(parameter, keys)
        case {"taskOutputParameter": {"producerTask": producer, "outputParameterKey": key}}:
            return TaskOutput(producer, key, keys)
        case {"taskFinalStatus": {"producerTask": producer}}:
            return FinalStatus(producer)
    raise _refusal(f"the parameter {name} of the task {task} comes from {', '.join(spec)}")


def is_item(name: str) -> bool:
    """Whether an input has the name of a loop's item, or of a part of one."""
    return _ITEM.fullmatch(name) is not None


def item_and_key(name: str) -> tuple[str, str]:
    """The names of an item and of the part of it that an input's name stands for."""
    item, found, key = name.rpartition("-subvar-")
    return (item, key) if found else (name, "")


def _of_the_item(source: Source, item: str) -> Source:
    """The source, or the part of the loop's own item that its name stands for."""
    if isinstance(source, GraphInput):
        name = source.name.removeprefix(_CHANNEL)
    elif isinstance(source, TaskOutput):
        name = f"{source.task}-{source.output}"
    else:
        return source
    of, key = item_and_key(name)
    return ItemPart(key) if key and of == item.removeprefix(_CHANNEL) else source


def _mended(task: Task, known: Set[str]) -> Task:
    """The task with what KFP's compiler gets wrong about the items of loops put right.

    The item of an inner loop leaks into the graphs around it, as an input that nothing gives and
    nothing but that loop uses: such inputs are taken away where there is no such item, and need not
    be given. Graphs within a loop are not always handed its item, although they use it: such inputs
    are looked for in the graphs around when the time comes (`is_item`).
    """
    if not isinstance(task.work, Dag):
        return task
    leaked = {
        name
        for name, source in task.sources.items()
        if isinstance(source, GraphInput)
        and is_item(source.name)
        and not {source.name, item_and_key(source.name)[0]} & known
    }
    return dataclasses.replace(
        task,
        sources={name: s for name, s in task.sources.items() if name not in leaked},
        parameters={
            name: dataclasses.replace(p, optional=True) if is_item(name) else p
            for name, p in task.parameters.items()
        },
    )


def _artifact(task: str, name: str, spec: Mapping[str, Any]) -> GraphInput | TaskOutput:
    match spec:
        case {"taskOutputArtifact": {"producerTask": producer, "outputArtifactKey": key}} if (
            len(spec) == 1
        ):
            return TaskOutput(producer, key)
        case {"componentInputArtifact": artifact} if len(spec) == 1:
            return GraphInput(artifact)
    raise _refusal(f"the artifact {name} of the task {task} comes from {', '.join(spec)}")


def _selectors(name: str, spec: Mapping[str, Any]) -> tuple[TaskOutput, ...]:
    match spec:
        case {"valueFromParameter": selector}:
            selectors = [selector]
        case {"valueFromOneof": {"parameterSelectors": selectors}}:
            pass
        case {"artifactSelectors": selectors}:
            pass
        case _:
            raise _refusal(f"the output {name} comes from {', '.join(spec)}")
    return tuple(
        TaskOutput(s["producerSubtask"], s.get("outputParameterKey") or s["outputArtifactKey"])
        for s in selectors
    )


def _check_given(given: Mapping[str, Any], outputs: Mapping[str, Any], owner: str) -> None:
    """Everything that a graph declares to give must come from one of its tasks."""
    for kind in ("parameters", "artifacts"):
        for name in sorted(set(given.get(kind, {})) - set(outputs.get(kind, {}))):
            raise UserError(f"The output {name} of {owner} must come from a task; it does not.")


def _check_sources(
    task: Task,
    tasks: Mapping[str, Task],
    parameters: Set[str],
    artifacts: Mapping[str, Any],
    owner: str,
) -> None:
    """Everything that a task takes must come from somewhere."""
    iterated = {task.loop.item} if task.loop else set()
    for name, parameter in task.parameters.items():
        if name not in {*task.sources, *iterated} and not parameter.optional:
            raise UserError(f"The task {task.name} must be given {name}; the file gives none.")
    for name, artifact in task.artifact_inputs.items():
        if name not in {*task.artifacts, *iterated} and not artifact.optional:
            raise UserError(f"The task {task.name} must be given {name}; the file gives none.")
    for needed in sorted(task.after - set(tasks)):
        raise UserError(f"The task {task.name} waits for {needed!r}, which the file does not have.")
    for name, source in (*task.sources.items(), *task.artifacts.items()):
        known: Set[str] = artifacts.keys() if name in task.artifacts else parameters
        if (
            isinstance(source, GraphInput)
            and not {source.name, item_and_key(source.name)[0]} & known
        ):
            raise UserError(
                f"The task {task.name} takes {name} from {source.name!r}, "
                f"which is no input of {owner}."
            )
        if isinstance(source, TaskOutput):
            producer = tasks[source.task]
            given: Mapping[str, Any] = (
                producer.output_artifacts if name in task.artifacts else producer.output_parameters
            )
            _check_output(f"{name} of the task {task.name}", source, given)
    for name in task.condition.references() if task.condition else ():
        if name not in {*task.sources, *task.parameters}:
            raise UserError(
                f"The condition of {task.name} needs {name!r}, which the task is not given."
            )


def _check_output(taker: str, source: TaskOutput, given: Mapping[str, Any]) -> None:
    if source.output not in given:
        raise UserError(
            f"The {taker} is from {source.output!r} of {source.task}, which does not give it."
        )


def _whole_numbers(value: Any) -> Any:
    """Lists and objects with 2.0 as 2 again: the file, being protobuf, has no whole numbers."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_whole_numbers(item) for item in value]
    if isinstance(value, dict):
        return {key: _whole_numbers(item) for key, item in value.items()}
    return value


def _name(name: str) -> str:
    """A name that may become a folder or a file."""
    if not _NAME.fullmatch(name):
        raise UserError(
            f"Names in a pipeline must be letters, digits, '_', '-' and '.'; got {name!r}."
        )
    return name


def _refusal(what: str) -> UserError:
    return UserError(
        "A pipeline run on this machine must do its work in containers or commands of its own; "
        f"here {what}. Run it on Kubeflow Pipelines or Vertex AI."
    )
