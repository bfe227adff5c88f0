import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.local.placeholders import (
    RUN_FACTS,
    Scope,
    check,
    facts_used,
    path_of,
    resolve_command,
    resolve_value,
    texts,
)
from trainer.errors import UserError

PROPERTY = settings(
    deadline=None, database=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)

KNOWN = {
    "inputs.parameters.shards",
    "inputs.parameters.name",
    "inputs.parameters.settings",
    "inputs.parameters.absent",
    "inputs.parameters.small",
    "inputs.parameters.whole",
    "inputs.parameters.flag",
    "inputs.parameters.items",
    "inputs.artifacts.examples",
    "inputs.artifacts.bucket",
    "inputs.artifacts.left_out",
    "outputs.artifacts.checkpoint",
    "outputs.parameters.loss",
}
SCOPE = Scope(
    executor_input={
        "inputs": {
            "parameterValues": {
                "shards": 4,
                "name": "a {{$}} b",
                "settings": {"epochs": "2"},
                "small": 1e-05,
                "whole": -2.0,
                "flag": True,
                "items": ["ü", 1, None],
            },
            "artifacts": {
                "examples": {
                    "artifacts": [
                        {"name": "examples", "uri": "/in", "metadata": {"records": 7, "n": "x"}}
                    ]
                },
                "bucket": {"artifacts": [{"name": "b", "uri": "gs://bucket/data", "metadata": {}}]},
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
    facts={**dict.fromkeys(RUN_FACTS, "?"), "pipeline_job_name": "run-1", "workspace_path": "/w"},
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
        ("{{$.outputMetadataUri}}", "/task/executor_output.json"),
        ("{{$.pipeline_job_name}}/{{$.pipeline_task_name}}", "run-1/?"),
        ("{{$.workspace_path}}/x", "/w/x"),
        ("{{$.inputs.parameters['small']}}", "1e-05"),
        ("{{$.inputs.parameters['whole']}}", "-2.0"),
        ("{{$.inputs.parameters['flag']}}", "true"),
        ("{{$.inputs.artifacts['examples'].name}}", "examples"),
        ("{{$.inputs.artifacts['examples'].metadata}}", '{"records": 7, "n": "x"}'),
        ("{{$.inputs.artifacts['examples'].metadata['n']}}", "x"),
        ("{{$.inputs.artifacts['examples'].metadata['absent']}}", "null"),
        ("{{$.inputs.artifacts['left_out'].path}}", "null"),
        # Buckets are where Vertex AI and KFP mount them.
        ("{{$.inputs.artifacts['bucket'].path}}", "/gcs/bucket/data"),
        ("{{$.inputs.artifacts['bucket'].uri}}", "gs://bucket/data"),
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
        "a {{$.nothing_known}}",
        "{{$.workspace_path }}",
        "{{$.outputs.parameters['loss']}}",
        "{{$.inputs.artifacts['examples'].size}}",
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


def test_a_list_as_json_is_read_back_as_it_was():
    (text,) = resolve("{{$.inputs.parameters['items']}}")
    assert json.loads(text) == ["ü", 1, None]


def test_keys_are_left_as_they_are():
    assert resolve_value({"{{$.pipeline_job_name}}": 1}, SCOPE) == {"{{$.pipeline_job_name}}": 1}


def test_an_unknown_placeholder_is_refused_where_it_was_not_checked():
    with pytest.raises(UserError, match=r"\{\{\$\.nonsense\}\}"):
        resolve_value("{{$.nonsense}}", SCOPE)


def test_an_odd_structure_is_refused():
    with pytest.raises(UserError, match="Concat or IfPresent"):
        resolve('{"Concat": [{"Other": 1}]}')


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("gs://bucket/a/b", "/gcs/bucket/a/b"),
        ("s3://bucket/a", "/s3/bucket/a"),
        ("minio://bucket/a", "/minio/bucket/a"),
        ("/a/b", "/a/b"),
        ("https://example.com/a", "https://example.com/a"),
        ("gs:", "gs:"),
    ],
)
def test_a_bucket_is_a_folder_where_it_is_mounted(uri, path):
    assert path_of(uri) == path


def test_texts_are_found_at_any_depth():
    assert list(texts({"key": ["a", {"other": "b"}, 1], "more": "c"})) == ["a", "b", "c"]


def test_the_facts_that_a_command_asks_for_are_known():
    command = ["{{$.pipeline_job_name}}-{{$.workspace_path}}", _shards(), "{{$}}", "{{$.other}}"]
    assert facts_used(command) == {"pipeline_job_name", "workspace_path"}


@PROPERTY
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=6,
    ).filter(lambda value: value is not None)
)
def test_any_value_arrives_in_one_argument_as_itself(value):
    inputs = {"parameterValues": {"shards": value}, "artifacts": {}}
    scope = Scope({**SCOPE.executor_input, "inputs": inputs}, SCOPE.facts)
    (argument,) = resolve_command([_shards()], scope)
    assert (argument if isinstance(value, str) else json.loads(argument)) == value


def _shards():
    return "{{$.inputs.parameters['shards']}}"
