"""Unfolds a graph as it goes: conditions are decided, loops get their iterations, results travel.

A `Plan` knows nothing of processes: it tells its host which containers have all they need and is
told how they ended.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from pipelines.local import placeholders
from pipelines.local.executor import Inputs, TaskFolder, executor_input
from pipelines.local.graph import (
    FINAL_STATUS,
    Constant,
    Container,
    Dag,
    FinalStatus,
    GraphInput,
    Importer,
    ItemPart,
    Task,
    TaskOutput,
    as_declared,
    is_item,
    item_and_key,
    parse_json,
)
from pipelines.local.placeholders import Scope
from trainer.errors import UserError

Artifacts = Mapping[str, Sequence[Mapping[str, Any]]]


class Host(Protocol):
    """Whoever runs the containers and keeps the account."""

    def appeared(self, node: Node) -> None:
        """A task has become known."""

    def began_group(self, node: Node) -> None:
        """A graph or a loop has begun."""

    def ready(self, node: Node) -> None:
        """A container has all it needs."""

    def settled(self, node: Node, reason: str) -> None:
        """A task has ended without having been run by the host."""

    def stopping(self, node: Node) -> str:
        """Why nothing new may start, if so."""

    def facts(self, node: Node) -> dict[str, str]:
        """What the placeholders about run and task stand for."""


class Node:
    """One execution of a task.

    Attributes:
        task: what is executed.
        path: names it within the run.
        parent: the graph or loop that it is part of.
        status: as in `TaskRecord`.
        values: its input parameters.
        given: its input artifacts.
        parameters: what it gave.
        artifacts: likewise.
        exempt: it belongs to what runs even after a failure.
        memory: bytes that it is counted with while it runs.
        code: exit code of the first failure within it.
        why: how it came to its end, for the exit task.
    """

    def __init__(self, task: Task, path: str, parent: _Frame | Node, exempt: bool):
        self.task = task
        self.path = path
        self.parent = parent
        self.exempt = exempt or task.always
        self.status = "waiting"
        self.values: dict[str, Any] = {}
        self.given: dict[str, Sequence[Mapping[str, Any]]] = {}
        self.parameters: Mapping[str, Any] = {}
        self.artifacts: Mapping[str, Any] = {}
        self.waits = set(task.after)
        self.iterations: list[Node] = []
        self.items: Sequence[Any] = ()
        self.running = 0
        self.memory = 0
        self.code: int | None = None
        self.why = ""

    @property
    def kind(self) -> str:
        """container, importer, dag or loop."""
        if self.task.loop:
            return "loop"
        work = self.task.work
        return "container" if isinstance(work, Container) else type(work).__name__.lower()


class _Frame:
    """One execution of a graph."""

    def __init__(
        self,
        dag: Dag,
        prefix: str,
        owner: Node | None,
        values: Mapping[str, Any],
        given: Artifacts,
    ):
        exempt = owner is not None and owner.exempt
        self.dag = dag
        self.owner = owner
        self.values = values
        self.given = given
        self.nodes = {
            name: Node(task, f"{prefix}{name}", self, exempt) for name, task in dag.tasks.items()
        }
        self.left = len(self.nodes)
        self.dependents: dict[str, list[str]] = {name: [] for name in dag.tasks}
        for name, task in dag.tasks.items():
            for needed in task.after:
                self.dependents[needed].append(name)

    def value(self, name: str) -> Any:
        """The value of an input; the item of a loop may be that of a graph around this one."""
        if name in self.values or not is_item(name):
            return self.values.get(name)
        item, key = item_and_key(name)
        for values in self._around():
            if name in values:
                return values[name]
            if key and item in values:
                return _part(values[item], (key,), name)
        return None

    def _around(self) -> Iterator[Mapping[str, Any]]:
        """The inputs of this graph and of those around it, from the inside to the outside."""
        place: _Frame | Node | None = self
        while place is not None:
            if isinstance(place, _Frame):
                yield place.values
                place = place.owner
            else:
                place = place.parent


class _Missing(Exception):
    """An input that will never be there: which one, and whose it is."""

    def __init__(self, name: str, producer: Node):
        super().__init__(name)
        self.name = name
        self.producer = producer


class Plan:
    """The tasks of a run, as far as they are known.

    Args:
        dag: the pipeline's graph.
        host: runs the containers.
    """

    def __init__(self, dag: Dag, host: Host):
        self._dag = dag
        self._host = host
        self._ended: collections.deque[Node] = collections.deque()
        self._going_on = False
        self.ended = False
        self.parameters: Mapping[str, Any] = {}
        self.artifacts: Mapping[str, Any] = {}

    def begin(self, values: Mapping[str, Any], given: Artifacts) -> None:
        """Starts with the values of the pipeline's parameters and its artifacts."""
        self._going_on = True
        self._open(_Frame(self._dag, "", None, values, given))
        self._going_on = False
        self._go_on()

    def settle(
        self,
        node: Node,
        status: str,
        parameters: Mapping[str, Any],
        artifacts: Mapping[str, Any],
        *,
        reason: str = "",
        told: bool = False,
        code: int | None = None,
    ) -> None:
        """Is told how a task has ended, and goes on from there.

        Args:
            node: the task.
            status: how it ended.
            parameters: what it gave.
            artifacts: likewise.
            reason: why, where it was not run.
            told: the host knows already.
            code: exit code of the failure.
        """
        node.status, node.parameters, node.artifacts = status, parameters, artifacts
        node.code, node.why = code, reason
        if not told:
            self._host.settled(node, reason)
        self._ended.append(node)
        self._go_on()

    def _go_on(self) -> None:
        """Draws the consequences of all ends, those included that they bring about themselves.

        One after another: a loop of thousands of items that are skipped is no deep recursion.
        """
        if self._going_on:
            return
        self._going_on = True
        try:
            while self._ended:
                self._pass_on(self._ended.popleft())
        finally:
            self._going_on = False

    def _pass_on(self, node: Node) -> None:
        """Tells what a task is part of, and what waits for it, that it has ended."""
        parent = node.parent
        if isinstance(parent, Node):
            self._iterated(parent)
            return
        parent.left -= 1
        for name in parent.dependents[node.task.name]:
            dependent = parent.nodes[name]
            dependent.waits.discard(node.task.name)
            if not dependent.waits:
                self._consider(dependent)
        if parent.left == 0:
            self._close(parent)

    def _open(self, frame: _Frame) -> None:
        for node in frame.nodes.values():
            self._host.appeared(node)
        if not frame.nodes:
            self._close(frame)
        for node in [n for n in frame.nodes.values() if not n.waits]:
            self._consider(node)

    def _close(self, frame: _Frame) -> None:
        """All tasks of a graph have ended."""
        nodes = list(frame.nodes.values())
        parameters = _selected(frame, frame.dag.parameters, "parameters")
        artifacts = _selected(frame, frame.dag.artifacts, "artifacts")
        if frame.owner is None:
            self.parameters, self.artifacts, self.ended = parameters, artifacts, True
            return
        self._settle_group(frame.owner, nodes, parameters, artifacts)

    def _settle_group(
        self,
        group: Node,
        nodes: Sequence[Node],
        parameters: Mapping[str, Any],
        artifacts: Mapping[str, Any],
    ) -> None:
        """A graph or a loop ends as its tasks did."""
        worst = next((n for s in ("failed", "cancelled") for n in nodes if n.status == s), None)
        if worst is None:
            self.settle(group, "succeeded", parameters, artifacts)
            return
        reason = worst.why if "/" in worst.why else f"{worst.path} {worst.status}."
        self.settle(group, worst.status, {}, {}, reason=reason, code=worst.code)

    def _consider(self, node: Node) -> None:
        """All that a task waits for has ended: decides what becomes of it."""
        frame = node.parent
        if isinstance(frame, Node):
            raise TypeError("Iterations are begun by their loop.")
        reason = self._host.stopping(node)
        if reason:
            self.settle(node, "cancelled", {}, {}, reason=f"{reason[0].upper()}{reason[1:]}.")
            return
        upstream = [frame.nodes[name] for name in sorted(node.task.after)]
        broken = next((n for n in upstream if n.status in ("failed", "cancelled")), None)
        if broken is not None and not node.task.always:
            self.settle(node, "cancelled", {}, {}, reason=f"{broken.path} {broken.status}.")
            return
        try:
            node.values = self._values(node, frame)
            node.given = self._given(node, frame)
            if node.task.condition is not None and not node.task.condition.holds(node.values):
                text = f"Its condition did not hold: {node.task.condition.text}."
                self.settle(node, "skipped", {}, {}, reason=text)
                return
        except _Missing as missing:
            ended = {"failed": "failed", "cancelled": "was cancelled", "skipped": "was skipped"}
            how = ended.get(missing.producer.status, "did not give it")
            text = f"It needs {missing.name} of {missing.producer.path}, which {how}."
            status = "skipped" if missing.producer.status == "skipped" else "failed"
            self.settle(node, status, {}, {}, reason=text, code=1)
            return
        except UserError as error:
            self.settle(node, "failed", {}, {}, reason=str(error), code=UserError.exit_code)
            return
        self._enter(node)

    def _enter(self, node: Node) -> None:
        """Begins a task whose inputs are known."""
        try:
            if node.task.loop is not None:
                self._begin_loop(node)
            elif isinstance(node.task.work, Dag):
                self._host.began_group(node)
                values = _declared(node)
                prefix = f"{node.path}/"
                self._open(_Frame(node.task.work, prefix, node, values, node.given))
            elif isinstance(node.task.work, Importer):
                self.settle(node, "succeeded", {}, self._import(node, node.task.work))
            else:
                self._host.ready(node)
        except UserError as error:
            self.settle(node, "failed", {}, {}, reason=str(error), code=UserError.exit_code)

    def _begin_loop(self, node: Node) -> None:
        loop = node.task.loop
        if loop is None:
            raise TypeError(f"{node.path} is no loop.")
        if not isinstance(loop.items, str):
            node.items = loop.items
        elif loop.artifacts:
            node.items = list(node.given.get(loop.items, ()))
        else:
            items = node.values.get(loop.items)
            node.items = as_declared([] if items is None else items, "LIST", loop.items)
        self._host.began_group(node)
        if not node.items:
            self._end_loop(node)
            return
        limit = loop.parallelism or len(node.items)
        for _ in range(min(limit, len(node.items))):
            self._iterate(node)

    def _iterate(self, node: Node) -> None:
        """Begins the next iteration of a loop."""
        loop = node.task.loop
        if loop is None:
            raise TypeError(f"{node.path} is no loop.")
        number = len(node.iterations)
        body = dataclasses.replace(node.task, loop=None, condition=None, after=frozenset())
        iteration = Node(body, f"{node.path}/{number}", node, node.exempt)
        node.iterations.append(iteration)
        node.running += 1
        self._host.appeared(iteration)
        item = node.items[number]
        iteration.values, iteration.given = dict(node.values), dict(node.given)
        try:
            if loop.artifacts:
                iteration.given[loop.item] = [item]
            else:
                iteration.values[loop.item] = item
                for name, source in node.task.sources.items():
                    if isinstance(source, ItemPart):
                        iteration.values[name] = _part(item, (source.key,), name)
        except UserError as error:
            code = UserError.exit_code
            self.settle(iteration, "failed", {}, {}, reason=str(error), code=code)
            return
        reason = self._host.stopping(iteration)
        if reason:
            self.settle(iteration, "cancelled", {}, {}, reason=f"{reason[0].upper()}{reason[1:]}.")
        else:
            self._enter(iteration)

    def _iterated(self, loop: Node) -> None:
        """An iteration has ended."""
        loop.running -= 1
        if len(loop.iterations) < len(loop.items):
            self._iterate(loop)
        elif loop.running == 0:
            self._end_loop(loop)

    def _end_loop(self, loop: Node) -> None:
        """A loop gives lists: values one per iteration, artifacts all in one list."""
        parameters = {
            name: [i.parameters[name] for i in loop.iterations if name in i.parameters]
            for name in loop.task.output_parameters
        }
        artifacts: dict[str, Any] = {}
        for name in loop.task.output_artifacts:
            found = [i.artifacts[name] for i in loop.iterations if name in i.artifacts]
            artifacts[name] = list(_flat(found))
        self._settle_group(loop, loop.iterations, parameters, artifacts)

    def _values(self, node: Node, frame: _Frame) -> dict[str, Any]:
        """The values of a task's parameters; constants that need filling in are left to it."""
        values: dict[str, Any] = {}
        for name, source in node.task.sources.items():
            if isinstance(source, FinalStatus):
                values[name] = self._final_status(node, frame.nodes[source.task])
            elif isinstance(source, GraphInput):
                values[name] = _part(frame.value(source.name), source.keys, name)
            elif isinstance(source, TaskOutput):
                producer = frame.nodes[source.task]
                if source.output in producer.parameters:
                    values[name] = _part(producer.parameters[source.output], source.keys, name)
                else:
                    _check_optional(node.task.parameters, name, producer)
        if not isinstance(node.task.work, Container):
            values = self._with_constants(node, values)
        return values

    def _with_constants(self, node: Node, values: dict[str, Any]) -> dict[str, Any]:
        """Fills in the constants of a task that is no container."""
        scope = self._scope(node, values)
        for name, source in node.task.sources.items():
            if isinstance(source, Constant):
                values[name] = placeholders.resolve_value(source.value, scope)
        return values

    def _given(self, node: Node, frame: _Frame) -> dict[str, Sequence[Mapping[str, Any]]]:
        """The artifacts that a task takes, each as a list."""
        given: dict[str, Sequence[Mapping[str, Any]]] = {}
        for name, source in node.task.artifacts.items():
            if isinstance(source, GraphInput):
                if source.name in frame.given:
                    given[name] = frame.given[source.name]
                continue
            producer = frame.nodes[source.task]
            if source.output in producer.artifacts:
                given[name] = list(_flat([producer.artifacts[source.output]]))
            else:
                _check_optional(node.task.artifact_inputs, name, producer)
        return given

    def _import(self, node: Node, importer: Importer) -> dict[str, Any]:
        """The artifact that an importer names."""
        scope = self._scope(node, node.values)
        uri = str(placeholders.resolve_value(importer.uri, scope)).removeprefix("file://")
        if "://" not in uri:
            uri = str(Path(uri).absolute())
            if not Path(uri).exists():
                raise UserError(f"The artifact to import must exist; {uri} does not.")
        (name,) = node.task.output_artifacts
        metadata = placeholders.resolve_value(dict(importer.metadata), scope)
        artifact = {"name": name, "type": dict(importer.type), "uri": uri, "metadata": metadata}
        return {name: artifact}

    def _scope(self, node: Node, values: Mapping[str, Any]) -> Scope:
        inputs = Inputs({k: v for k, v in values.items() if v is not None}, {})
        message = executor_input(node.task, inputs, TaskFolder(Path("/")))
        return Scope(message, self._host.facts(node))

    def _final_status(self, node: Node, of: Node) -> dict[str, Any]:
        """How a task has ended, as KFP tells the exit task."""
        states = {"failed": "FAILED", "cancelled": "CANCELLED", "skipped": "SKIPPED"}
        status: dict[str, Any] = {
            "state": states.get(of.status, "SUCCEEDED"),
            "pipelineJobResourceName": self._host.facts(node)["pipeline_job_resource_name"],
            "pipelineTaskName": of.task.name,
        }
        if of.status in ("failed", "cancelled"):
            status["error"] = {"code": of.code or 1, "message": of.why or f"{of.path} failed."}
        return status


def _selected(
    frame: _Frame, outputs: Mapping[str, tuple[TaskOutput, ...]], kind: str
) -> dict[str, Any]:
    """What a graph gives: of several producers, that which has run."""
    found = {}
    for name, selectors in outputs.items():
        for selector in selectors:
            given = getattr(frame.nodes[selector.task], kind)
            if selector.output in given:
                found[name] = given[selector.output]
                break
    return found


def _declared(node: Node) -> dict[str, Any]:
    """A graph's inputs with its defaults; what is declared as text may be anything inside."""
    values = {
        name: parameter.default
        for name, parameter in node.task.parameters.items()
        if parameter.default is not None
    }
    for name, value in node.values.items():
        parameter = node.task.parameters.get(name)
        if value is None:
            continue
        of_item = isinstance(node.task.sources.get(name), ItemPart)  # KFP guesses its type
        if parameter is None or of_item or parameter.type in ("STRING", FINAL_STATUS):
            values[name] = value
        else:
            values[name] = as_declared(value, parameter.type, f"{name} of {node.path}")
    for name, parameter in node.task.parameters.items():
        if name not in values and not parameter.optional:
            raise UserError(f"The graph {node.path} must be given {name}; there is none.")
    return values


def _check_optional(declared: Mapping[str, Any], name: str, producer: Node) -> None:
    if name not in declared or not declared[name].optional:
        raise _Missing(name, producer)


def _part(value: Any, keys: Sequence[str], name: str) -> Any:
    """The part of a JSON object, or of its text, that keys lead to."""
    for key in keys:
        if isinstance(value, str):
            try:
                value = parse_json(value)
            except ValueError as error:
                raise UserError(f"{name} must be JSON with the key {key!r}; {error}.") from error
        if not isinstance(value, Mapping) or key not in value:
            shown = ", ".join(value) if isinstance(value, Mapping) else repr(value)
            raise UserError(f"{name} must have the key {key!r}; got {shown}.")
        value = value[key]
    return value


def _flat(values: Sequence[Any]) -> Iterator[Mapping[str, Any]]:
    """All artifacts of lists within lists."""
    for value in values:
        if isinstance(value, Mapping):
            yield value
        else:
            yield from _flat(value)
