"""What a task is called with and what it gives back, in KFP's own format."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.local.graph import Constant, Task, as_declared, convert, convert_text, parse_json
from pipelines.local.placeholders import Scope, resolve_value
from trainer.errors import UserError

Artifact = Mapping[str, Any]
"""`name`, `type` (`schemaTitle`, `schemaVersion`), `uri` and `metadata`; the uri is a path."""


@dataclass(frozen=True)
class Inputs:
    """What a task takes: values of its parameters, and lists of artifacts."""

    parameters: Mapping[str, Any]
    artifacts: Mapping[str, Sequence[Artifact]]


@dataclass(frozen=True)
class Outputs:
    """What a task has given: values of its parameters, and its artifacts."""

    parameters: Mapping[str, Any]
    artifacts: Mapping[str, Any]


@dataclass(frozen=True)
class TaskFolder:
    """Where a task finds and leaves things.

    Attributes:
        path: the folder; holds the task's record and log, and is where its command runs.
    """

    path: Path

    @property
    def outputs(self) -> Path:
        """Holds one file or folder per output artifact."""
        return self.path / "outputs"

    @property
    def parameters(self) -> Path:
        """Holds one file per output parameter."""
        return self.path / "parameters"

    @property
    def executor_output(self) -> Path:
        """The file that takes metadata of the outputs."""
        return self.path / "executor_output.json"

    @property
    def work(self) -> Path:
        """Where the command runs."""
        return self.path / "work"

    def empty(self, keep_outputs: bool = False) -> None:
        """Makes it ready for a new attempt; the log and the record stay.

        Args:
            keep_outputs: leave what an earlier attempt has put into the output artifacts.
        """
        for folder in (self.outputs, self.parameters, self.work):
            if not (keep_outputs and folder == self.outputs):
                shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True, exist_ok=True)
        for file in (self.executor_output, self.path / "progress.json"):
            file.unlink(missing_ok=True)


def executor_input(task: Task, inputs: Inputs, folder: TaskFolder) -> dict[str, Any]:
    """KFP's ExecutorInput of a task."""
    return {
        "inputs": {
            "parameterValues": dict(inputs.parameters),
            "artifacts": {
                name: {"artifacts": [dict(a) for a in artifacts]}
                for name, artifacts in inputs.artifacts.items()
            },
        },
        "outputs": {
            "parameters": {
                name: {"outputFile": str(folder.parameters / name)}
                for name in task.output_parameters
            },
            "artifacts": {
                name: {
                    "artifacts": [
                        {
                            "name": name,
                            "type": dict(kind),
                            "uri": str(folder.outputs / name),
                            "metadata": {},
                        }
                    ]
                }
                for name, kind in task.output_artifacts.items()
            },
            "outputFile": str(folder.executor_output),
        },
    }


def scope_of(
    task: Task,
    values: Mapping[str, Any],
    artifacts: Mapping[str, Sequence[Artifact]],
    folder: TaskFolder,
    facts: Mapping[str, str],
) -> Scope:
    """What the placeholders of a task stand for.

    Args:
        task: the task.
        values: parameter -> what came from the graph or from another task; None for nothing.
        artifacts: input artifact -> what came likewise.
        folder: where to put what it gives.
        facts: about the run and the task, by `placeholders.RUN_FACTS`.

    Raises:
        UserError: a value is of another type than the task declares, or is missing.
    """
    filled = {name: p.default for name, p in task.parameters.items() if p.default is not None}
    filled.update({name: _typed(task, name, v) for name, v in values.items() if v is not None})
    scope = Scope(executor_input(task, Inputs(filled, artifacts), folder), facts)
    held = scope.executor_input["inputs"]["parameterValues"]
    for name, source in task.sources.items():
        if isinstance(source, Constant):
            held[name] = _typed(task, name, resolve_value(source.value, scope))
    for name, parameter in task.parameters.items():
        if name not in held and not parameter.optional:
            raise UserError(f"The task {task.name} must be given {name}; there is none.")
    return scope


def read_outputs(task: Task, scope: Scope) -> Outputs:
    """What a task that ended well has left.

    A parameter is read from its file, or else from executor_output.json; an artifact is as it was
    announced unless executor_output.json says more of it.

    Raises:
        UserError: an output parameter is missing or of another type, or executor_output.json is no
            JSON object.
    """
    announced = scope.executor_input["outputs"]
    noted = _read_executor_output(Path(announced["outputFile"]))
    parameters = {}
    for name, kind in task.output_parameters.items():
        file = Path(announced["parameters"][name]["outputFile"])
        if file.is_file():
            parameters[name] = convert_text(_text(file, name), kind, name)
        elif name in noted.get("parameterValues", {}):
            parameters[name] = convert(noted["parameterValues"][name], kind, name)
        else:
            raise UserError(f"The task must write its output parameter {name}; it did not.")
    artifacts = {}
    for name in task.output_artifacts:
        artifact = announced["artifacts"][name]["artifacts"][0]
        more = (noted.get("artifacts", {}).get(name, {}).get("artifacts") or [{}])[0]
        artifacts[name] = {
            **artifact,
            "name": more.get("name") or artifact["name"],
            "uri": more.get("uri") or artifact["uri"],
            "metadata": {**artifact["metadata"], **more.get("metadata", {})},
        }
    return Outputs(parameters, artifacts)


def _text(file: Path, name: str) -> str:
    try:
        return file.read_bytes().decode("utf-8")  # as it is, ends of lines included
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The output parameter {name} must be UTF-8 text; {error}.") from error


def _typed(task: Task, name: str, value: Any) -> Any:
    """The value in the type that the task declares; helpers of KFP's own text are not declared."""
    if value is None or name not in task.parameters:
        return value
    return as_declared(value, task.parameters[name].type, name)


def _read_executor_output(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        content = parse_json(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"executor_output.json must be JSON; {error}.") from error
    if not _is_executor_output(content):
        raise UserError(
            "executor_output.json must be an object with parameterValues and artifacts, each of "
            "which has a list of objects; it is not."
        )
    return dict(content)


def _is_executor_output(content: Any) -> bool:
    if not isinstance(content, dict):
        return False
    artifacts = content.get("artifacts", {})
    if not isinstance(content.get("parameterValues", {}), dict) or not isinstance(artifacts, dict):
        return False
    lists = [a.get("artifacts", []) if isinstance(a, dict) else None for a in artifacts.values()]
    return all(
        isinstance(each, list)
        and all(isinstance(a, dict) and isinstance(a.get("metadata", {}), dict) for a in each)
        for each in lists
    )
