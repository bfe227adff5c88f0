"""What a task is called with and what it gives back, in KFP's own format."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.local.graph import Constant, Task, convert, convert_text, parse_json
from pipelines.local.placeholders import Scope, resolve_value
from trainer.errors import UserError

Artifact = Mapping[str, Any]
"""`name`, `type` (`schemaTitle`, `schemaVersion`), `uri` and `metadata`; the uri is a path."""


@dataclass(frozen=True)
class Outputs:
    """What a task has given: values of its parameters, and its artifacts."""

    parameters: Mapping[str, Any]
    artifacts: Mapping[str, Artifact]


@dataclass(frozen=True)
class TaskFolders:
    """Where a task finds and leaves things.

    Attributes:
        artifacts: holds one file or folder per output artifact.
        work: the working folder; holds executor_output.json and the files of output parameters.
    """

    artifacts: Path
    work: Path

    @property
    def executor_output(self) -> Path:
        """The file that takes metadata of the outputs."""
        return self.work / "executor_output.json"


def prepare(
    task: Task,
    values: Mapping[str, Any],
    artifacts: Mapping[str, Artifact],
    folders: TaskFolders,
    facts: Mapping[str, str],
) -> Scope:
    """Makes the task's folders and says what its placeholders stand for.

    Args:
        task: the task.
        values: parameter -> what came from the pipeline or from another task; None for nothing.
        artifacts: input artifact -> what came from another task.
        folders: where to put what it gives; emptied first.
        facts: about the run and the task, by `placeholders.RUN_FACTS`.

    Raises:
        UserError: a value is of another type than the task declares.
    """
    for folder in (folders.artifacts, folders.work):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    executor_input: dict[str, Any] = {
        "inputs": {
            "parameterValues": {},
            "artifacts": {name: {"artifacts": [dict(a)]} for name, a in artifacts.items()},
        },
        "outputs": {
            "parameters": {
                name: {"outputFile": str(folders.work / "parameters" / name)}
                for name in task.output_parameters
            },
            "artifacts": {
                name: {
                    "artifacts": [
                        {
                            "name": name,
                            "type": dict(kind),
                            "uri": str(folders.artifacts / name),
                            "metadata": {},
                        }
                    ]
                }
                for name, kind in task.output_artifacts.items()
            },
            "outputFile": str(folders.executor_output),
        },
    }
    (folders.work / "parameters").mkdir()
    scope = Scope(executor_input, facts)
    filled = executor_input["inputs"]["parameterValues"]
    filled.update({name: p.default for name, p in task.parameters.items() if p.default is not None})
    filled.update({name: _typed(task, name, v) for name, v in values.items() if v is not None})
    for name, source in task.sources.items():
        if isinstance(source, Constant):
            filled[name] = _typed(task, name, resolve_value(source.value, scope))
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
            parameters[name] = convert_text(file.read_text(encoding="utf-8"), kind, name)
        elif name in noted.get("parameterValues", {}):
            parameters[name] = convert(noted["parameterValues"][name], kind, name)
        else:
            raise UserError(f"The task must write its output parameter {name}; it did not.")
    artifacts = {}
    for name in task.output_artifacts:
        artifact = announced["artifacts"][name]["artifacts"][0]
        more = noted.get("artifacts", {}).get(name, {}).get("artifacts", [{}])[0]
        metadata = {**artifact["metadata"], **more.get("metadata", {})}
        artifacts[name] = {
            **artifact,
            "uri": more.get("uri") or artifact["uri"],
            "metadata": metadata,
        }
    return Outputs(parameters, artifacts)


def _typed(task: Task, name: str, value: Any) -> Any:
    """The value in the type that the task declares; helpers of KFP's own text are not declared."""
    if value is None or name not in task.parameters:
        return value
    return convert(value, task.parameters[name].type, name)


def _read_executor_output(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        content = parse_json(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"executor_output.json must be JSON; {error}.") from error
    if not isinstance(content, dict):
        raise UserError("executor_output.json must be a JSON object; it is not.")
    return content
