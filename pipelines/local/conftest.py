"""Compiled pipelines made for tests: the format of KFP's compiler without its import time."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import yaml


def container(
    script: str,
    *arguments: str,
    inputs: Mapping[str, Any] | None = None,
    outputs: Sequence[str] = (),
    artifacts: Sequence[str] = (),
    after: Sequence[str] = (),
) -> dict[str, Any]:
    """A task that runs a Python script.

    Args:
        script: the program.
        arguments: its arguments, from sys.argv[1] on.
        inputs: name -> "=<constant>", "pipeline:<parameter>" or "<task>.<output>" for a
            parameter, "<task>/<artifact>" for an artifact.
        outputs: names of output parameters, all text.
        artifacts: names of output artifacts.
        after: further tasks to wait for.
    """
    return {
        "command": [sys.executable, "-c", script, *arguments],
        "inputs": inputs or {},
        "outputs": outputs,
        "artifacts": artifacts,
        "after": after,
    }


def compiled(parameters: Mapping[str, Any] | None = None, **tasks: dict[str, Any]) -> str:
    """The text of a compiled pipeline `test` with text parameters and their defaults."""
    spec: dict[str, Any] = {
        "pipelineInfo": {"name": "test"},
        "schemaVersion": "2.1.0",
        "components": {},
        "deploymentSpec": {"executors": {}},
        "root": {
            "dag": {"tasks": {}},
            "inputDefinitions": {
                "parameters": {
                    name: {"parameterType": "STRING", "isOptional": True, "defaultValue": default}
                    for name, default in (parameters or {}).items()
                }
            },
        },
    }
    for name, task in tasks.items():
        definitions: dict[str, Any] = {"parameters": {}, "artifacts": {}}
        given: dict[str, Any] = {"parameters": {}, "artifacts": {}}
        for key, source in task["inputs"].items():
            kind, definition, value = _input(source)
            definitions[kind][key] = definition
            given[kind][key] = value
        spec["components"][f"comp-{name}"] = {
            "executorLabel": f"exec-{name}",
            "inputDefinitions": definitions,
            "outputDefinitions": {
                "parameters": {n: {"parameterType": "STRING"} for n in task["outputs"]},
                "artifacts": {n: {"artifactType": _ARTIFACT} for n in task["artifacts"]},
            },
        }
        spec["deploymentSpec"]["executors"][f"exec-{name}"] = {
            "container": {"image": "none", "command": task["command"]}
        }
        spec["root"]["dag"]["tasks"][name] = {
            "componentRef": {"name": f"comp-{name}"},
            "taskInfo": {"name": name},
            "inputs": given,
            "dependentTasks": list(task["after"]),
        }
    return yaml.safe_dump(spec)


_ARTIFACT = {"schemaTitle": "system.Artifact", "schemaVersion": "0.0.1"}


def _input(source: str) -> tuple[str, dict[str, Any], dict[str, Any]]:
    text = {"parameterType": "STRING"}
    if source.startswith("="):
        return "parameters", text, {"runtimeValue": {"constant": source[1:]}}
    if source.startswith("pipeline:"):
        return "parameters", text, {"componentInputParameter": source.removeprefix("pipeline:")}
    task, dot, output = source.partition(".")
    if dot:
        value = {"producerTask": task, "outputParameterKey": output}
        return "parameters", text, {"taskOutputParameter": value}
    task, _, artifact = source.partition("/")
    value = {"producerTask": task, "outputArtifactKey": artifact}
    return "artifacts", {"artifactType": _ARTIFACT}, {"taskOutputArtifact": value}


@pytest.fixture(name="container")
def container_fixture() -> Any:
    """The function `container`."""
    return container


@pytest.fixture(name="compiled")
def compiled_fixture() -> Any:
    """The function `compiled`."""
    return compiled
