import json

import pytest

from pipelines.local.placeholders import Scope, check, resolve_command, resolve_value
from trainer.errors import UserError

KNOWN = {
    "inputs.parameters.shards",
    "inputs.parameters.name",
    "inputs.parameters.settings",
    "inputs.parameters.absent",
    "inputs.artifacts.examples",
    "outputs.artifacts.checkpoint",
    "outputs.parameters.loss",
}
SCOPE = Scope(
    executor_input={
        "inputs": {
            "parameterValues": {"shards": 4, "name": "a {{$}} b", "settings": {"epochs": "2"}},
            "artifacts": {
                "examples": {
                    "artifacts": [{"name": "examples", "uri": "/in", "metadata": {"records": 7}}]
                }
            },
        },
        "outputs": {
            "parameters": {"loss": {"outputFile": "/task/loss"}},
            "artifacts": {
                "checkpoint": {"artifacts": [{"name": "c", "uri": "/out", "metadata": {}}]}
            },
            "outputFile": "/task/executor_output.json",
        },
    },
    facts={"pipeline_job_name": "run-1", "pipeline_task_name": "train"},
)


def resolve(*command):
    for argument in command:
        check(argument, KNOWN, "the task")
    return resolve_command(command, SCOPE)


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("plain {{text}}", "plain {{text}}"),
        ("--shards={{$.inputs.parameters['shards']}}", "--shards=4"),
        ("{{$.inputs.parameters['settings']}}", '{"epochs": "2"}'),
        ("{{$.inputs.parameters['absent']}}", "null"),
        ("{{$.inputs.artifacts['examples'].path}}", "/in"),
        ("{{$.inputs.artifacts['examples'].uri}}/x", "/in/x"),
        ("{{$.inputs.artifacts['examples'].metadata['records']}}", "7"),
        ("{{$.outputs.artifacts['checkpoint'].path}}", "/out"),
        ("{{$.outputs.parameters['loss'].output_file}}", "/task/loss"),
        ("{{$.outputs.output_file}}", "/task/executor_output.json"),
        ("{{$.pipeline_job_name}}/{{$.pipeline_task_name}}", "run-1/train"),
        # A value that looks like a placeholder is a value.
        ("{{$.inputs.parameters['name']}}", "a {{$}} b"),
    ],
)
def test_each_placeholder_stands_for_its_value(argument, expected):
    assert resolve(argument) == [expected]


def test_the_executor_input_is_given_whole():
    (text,) = resolve("{{$}}")
    assert json.loads(text) == SCOPE.executor_input


def test_optional_parts_follow_the_presence_of_their_input():
    present = {"IfPresent": {"InputName": "shards", "Then": ["-s", _shards()], "Else": "none"}}
    absent = {"IfPresent": {"InputName": "absent", "Then": ["-a"], "Else": ["without", "it"]}}
    nothing = {"IfPresent": {"InputName": "absent", "Then": "-a"}}
    artifact = {"IfPresent": {"InputName": "examples", "Then": "-e"}}
    texts = [json.dumps(s) for s in (present, absent, nothing, artifact)]
    assert resolve("x", *texts) == ["x", "-s", "4", "without", "it", "-e"]


def test_concatenation_is_one_argument():
    inner = {"IfPresent": {"InputName": "absent", "Then": "!"}}
    assert resolve(json.dumps({"Concat": ["--n=", _shards(), inner, "0"]})) == ["--n=40"]


def test_json_that_only_looks_similar_is_text():
    assert resolve('{"Concatenate": 1}', '{"Concat": oops') == [
        '{"Concatenate": 1}',
        '{"Concat": oops',
    ]


@pytest.mark.parametrize(
    "argument",
    [
        "{{$.json_escape[1]}}",
        "a {{$.workspace_path}}",
        "{{$.inputs.parameters['other']}}",
        "{{$.outputs.artifacts['examples'].path}}",
        '{"Concat": ["a", "{{$.nonsense}}"]}',
    ],
)
def test_what_will_not_be_filled_in_is_refused_by_name(argument):
    with pytest.raises(UserError, match=r"the task has \{\{\$\."):
        check(argument, KNOWN, "the task")


def test_constants_are_filled_in_at_any_depth_and_keep_their_types():
    value = {"a": ["{{$.inputs.parameters['shards']}}", 2, None], "b": True}
    assert resolve_value(value, SCOPE) == {"a": ["4", 2, None], "b": True}


def _shards():
    return "{{$.inputs.parameters['shards']}}"
