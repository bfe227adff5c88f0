"""Fills in the placeholders of KFP's commands, such as `{{$.inputs.parameters['shards']}}`."""

from __future__ import annotations

import json
import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainer.errors import UserError

RUN_FACTS = (
    "pipeline_job_name",
    "pipeline_job_uuid",
    "pipeline_job_resource_name",
    "pipeline_job_create_time_utc",
    "pipeline_job_schedule_time_utc",
    "pipeline_root",
    "pipeline_task_name",
    "pipeline_task_uuid",
    "workspace_path",
)
"""Facts about a run and a task that have a placeholder of their own."""

_PLACEHOLDER = re.compile(r"\{\{\$(.*?)\}\}", re.DOTALL)
_FORM = re.compile(
    rf"""
    (?P<everything>)
    | \.(?P<fact>{"|".join(RUN_FACTS)})
    | \.inputs\.parameters\['(?P<parameter>[^']+)'\]
    | \.outputs\.parameters\['(?P<output_parameter>[^']+)'\]\.output_file
    | \.(?P<output_file>outputs\.output_file|outputMetadataUri)
    | \.(?P<side>inputs|outputs)\.artifacts\['(?P<artifact>[^']+)'\]
      \.(?:(?P<field>path|uri|name|metadata)|metadata\['(?P<key>[^']+)'\])
    """,
    re.VERBOSE,
)
_STRUCTURES = ("Concat", "IfPresent")


@dataclass(frozen=True)
class Scope:
    """What placeholders stand for in one task.

    Attributes:
        executor_input: KFP's ExecutorInput message: `inputs` with `parameterValues` and
            `artifacts`, `outputs` with `parameters`, `artifacts` and `outputFile`.
        facts: `RUN_FACTS` by name.
    """

    executor_input: Mapping[str, Any]
    facts: Mapping[str, str]


def resolve_command(command: Sequence[str], scope: Scope) -> list[str]:
    """The command with every placeholder filled in; an optional part without its input is left out.

    What is filled in is never read as a placeholder again.
    """
    return [text for argument in command for text in _resolve_argument(_parse(argument), scope)]


def resolve_value(value: Any, scope: Scope) -> Any:
    """A constant of the pipeline with the placeholders in its texts filled in."""
    if isinstance(value, str):
        return _fill_in(value, scope)
    if isinstance(value, list):
        return [resolve_value(item, scope) for item in value]
    if isinstance(value, dict):
        return {key: resolve_value(item, scope) for key, item in value.items()}
    return value


def check(argument: str, known: Container[str], where: str) -> None:
    """Refuses an argument with a placeholder that will not be filled in.

    Args:
        argument: one part of a command.
        known: what the task takes and gives, such as "inputs.parameters.shards".
        where: names the task.

    Raises:
        UserError: names the placeholder.
    """
    for text in texts(_parse(argument)):
        for match in _PLACEHOLDER.finditer(text):
            form = _FORM.fullmatch(match[1])
            reference = _reference(form) if form else match[0]
            if reference and reference not in known:
                raise UserError(
                    "Placeholders must be those of the task's own inputs and outputs, of the run "
                    f"and of the task; {where} has {match[0]}."
                )


def path_of(uri: str) -> str:
    """Where an artifact is on a machine that mounts buckets as Vertex AI and KFP do."""
    scheme, separator, rest = uri.partition("://")
    mounts = {"gs": "gcs", "s3": "s3", "minio": "minio"}
    return f"/{mounts[scheme]}/{rest}" if separator and scheme in mounts else uri


def texts(value: Any) -> Iterator[str]:
    """All texts within a JSON value, keys left out."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from texts(item)


def facts_used(arguments: Iterable[str]) -> set[str]:
    """The facts about the run that commands or constants ask for."""
    return {
        form["fact"]
        for argument in arguments
        for match in _PLACEHOLDER.finditer(argument)
        if (form := _FORM.fullmatch(match[1])) and form["fact"]
    }


def _parse(argument: str) -> Any:
    """The text itself, or the structure that KFP writes as JSON within an argument."""
    if argument.startswith(tuple(f'{{"{name}": ' for name in _STRUCTURES)):
        try:
            return json.loads(argument)
        except json.JSONDecodeError:
            return argument
    return argument


def _resolve_argument(argument: Any, scope: Scope) -> list[str]:
    match argument:
        case None:
            return []
        case str():
            return [_fill_in(argument, scope)]
        case list():
            return [text for item in argument for text in _resolve_argument(item, scope)]
        case {"Concat": parts}:
            return ["".join(_resolve_argument(parts, scope))]
        case {"IfPresent": {"InputName": name, "Then": then, **others}}:
            chosen = then if _present(name, scope) else others.get("Else")
            return _resolve_argument(chosen, scope)
    raise UserError(f"An optional argument must be Concat or IfPresent; got {argument}.")


def _reference(form: re.Match[str]) -> str:
    """The input or output that a placeholder names, such as "inputs.parameters.shards"."""
    if form["parameter"]:
        return f"inputs.parameters.{form['parameter']}"
    if form["output_parameter"]:
        return f"outputs.parameters.{form['output_parameter']}"
    return f"{form['side']}.artifacts.{form['artifact']}" if form["artifact"] else ""


def _present(name: str, scope: Scope) -> bool:
    inputs = scope.executor_input["inputs"]
    return inputs["parameterValues"].get(name) is not None or name in inputs["artifacts"]


def _fill_in(text: str, scope: Scope) -> str:
    return _PLACEHOLDER.sub(lambda match: _text(_value(match, scope)), text)


def _value(placeholder: re.Match[str], scope: Scope) -> Any:
    """What one placeholder stands for."""
    form = _FORM.fullmatch(placeholder[1])
    if form is None:
        raise UserError(f"The placeholder {placeholder[0]} is not known.")
    inputs, outputs = scope.executor_input["inputs"], scope.executor_input["outputs"]
    if form["fact"]:
        return scope.facts[form["fact"]]
    if form["parameter"]:
        return inputs["parameterValues"].get(form["parameter"])
    if form["output_parameter"]:
        return outputs["parameters"][form["output_parameter"]]["outputFile"]
    if form["output_file"]:
        return outputs["outputFile"]
    if form["artifact"]:
        artifacts = scope.executor_input[form["side"]]["artifacts"]
        if form["artifact"] not in artifacts:
            return None  # an optional input that is not given
        artifact = artifacts[form["artifact"]]["artifacts"][0]
        if form["key"]:
            return artifact["metadata"].get(form["key"])
        return path_of(artifact["uri"]) if form["field"] == "path" else artifact[form["field"]]
    return scope.executor_input


def _text(value: Any) -> str:
    """Text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)
