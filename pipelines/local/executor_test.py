import json

import pytest

from pipelines.local.executor import (
    Inputs,
    TaskFolder,
    executor_input,
    read_outputs,
    scope_of,
)
from pipelines.local.graph import Constant, Container, GraphInput, Parameter, Task
from pipelines.local.placeholders import RUN_FACTS
from pipelines.local.resources import Resources
from trainer.errors import UserError

FACTS = {**dict.fromkeys(RUN_FACTS, ""), "pipeline_job_name": "run-1"}
KIND = {"schemaTitle": "system.Dataset", "schemaVersion": "0.0.1"}


def task(**fields):
    given = {
        "parameters": {},
        "artifact_inputs": {},
        "sources": {},
        "artifacts": {},
        "output_parameters": {},
        "output_artifacts": {},
        **fields,
    }
    work = Container("image", ("true",), {}, Resources(), {})
    return Task(name="t", work=work, after=frozenset(), **given)


GIVING = task(
    output_parameters={"word": "STRING", "number": "NUMBER_INTEGER"},
    output_artifacts={"page": KIND},
)


@pytest.fixture
def folder(tmp_path):
    made = TaskFolder(tmp_path / "task")
    made.empty()
    return made


@pytest.fixture
def scope(folder):
    return scope_of(GIVING, {}, {}, folder, FACTS)


def test_the_executor_input_is_as_kfp_writes_it(folder):
    artifact = {"name": "a", "type": KIND, "uri": "/a", "metadata": {"rows": 1}}
    message = executor_input(GIVING, Inputs({"n": 1}, {"data": [artifact]}), folder)
    assert message == {
        "inputs": {
            "parameterValues": {"n": 1},
            "artifacts": {"data": {"artifacts": [artifact]}},
        },
        "outputs": {
            "parameters": {
                "word": {"outputFile": f"{folder.path}/parameters/word"},
                "number": {"outputFile": f"{folder.path}/parameters/number"},
            },
            "artifacts": {
                "page": {
                    "artifacts": [
                        {
                            "name": "page",
                            "type": KIND,
                            "uri": f"{folder.path}/outputs/page",
                            "metadata": {},
                        }
                    ]
                }
            },
            "outputFile": f"{folder.path}/executor_output.json",
        },
    }
    assert json.loads(json.dumps(message)) == message


def test_values_are_in_the_types_that_the_task_declares(folder):
    taking = task(
        parameters={
            "integer": Parameter("NUMBER_INTEGER"),
            "number": Parameter("NUMBER_DOUBLE"),
            "text": Parameter("STRING"),
            "items": Parameter("LIST"),
            "left_out": Parameter("STRING", optional=True),
            "with_default": Parameter("STRING", optional=True, default="default"),
            "constant": Parameter("STRING"),
            "number_constant": Parameter("NUMBER_INTEGER"),
        },
        sources={
            **{name: GraphInput(name) for name in ("integer", "number", "text", "items")},
            "left_out": GraphInput("left_out"),
            "with_default": GraphInput("with_default"),
            "constant": Constant("{{$.pipeline_job_name}}: {{$.inputs.parameters['text']}}"),
            "number_constant": Constant(3.0),
        },
    )
    values = {
        "integer": "4",
        "number": 2,
        "text": [1],
        "items": "[1.0]",
        "left_out": None,
        "with_default": None,
    }
    held = scope_of(taking, values, {}, folder, FACTS).executor_input["inputs"]["parameterValues"]
    assert held == {
        "integer": 4,
        "number": 2.0,
        "text": "[1]",
        "items": [1],
        "with_default": "default",
        "constant": "run-1: [1]",
        "number_constant": 3,
    }
    assert isinstance(held["number"], float)
    assert isinstance(held["number_constant"], int)


@pytest.mark.parametrize("value", ["x", True, 1.5])
def test_a_value_of_another_type_is_refused_by_name(value, folder):
    taking = task(parameters={"n": Parameter("NUMBER_INTEGER")}, sources={"n": GraphInput("n")})
    with pytest.raises(UserError, match="n must be of type NUMBER_INTEGER"):
        scope_of(taking, {"n": value}, {}, folder, FACTS)


def test_a_value_that_is_not_there_is_refused_by_name(folder):
    taking = task(parameters={"n": Parameter("STRING")}, sources={"n": GraphInput("n")})
    for values in ({}, {"n": None}):
        with pytest.raises(UserError, match="The task t must be given n; there is none"):
            scope_of(taking, values, {}, folder, FACTS)


def note(folder, content):
    text = content if isinstance(content, str) else json.dumps(content)
    folder.executor_output.write_text(text, encoding="utf-8")


def write(folder, **values):
    for name, value in values.items():
        (folder.parameters / name).write_bytes(value)


def test_outputs_are_read_from_their_files(folder, scope):
    write(folder, word=" ü\r\n".encode(), number=b"7\n")
    outputs = read_outputs(GIVING, scope)
    assert outputs.parameters == {"word": " ü\r\n", "number": 7}
    assert outputs.artifacts == {
        "page": {
            "name": "page",
            "type": KIND,
            "uri": str(folder.outputs / "page"),
            "metadata": {},
        }
    }


def test_outputs_may_be_noted_instead(folder, scope):
    write(folder, number=b"7")
    artifact = {"name": "other", "uri": "/elsewhere", "metadata": {"rows": 2}}
    note(
        folder,
        {
            "parameterValues": {"word": "noted", "number": 8, "unknown": 1},
            "artifacts": {"page": {"artifacts": [artifact]}, "unknown": {"artifacts": []}},
        },
    )
    outputs = read_outputs(GIVING, scope)
    assert outputs.parameters == {"word": "noted", "number": 7}  # the file counts
    assert outputs.artifacts == {"page": {**artifact, "type": KIND}}


def test_what_is_noted_only_in_part_leaves_the_rest_as_announced(folder, scope):
    write(folder, word=b"", number=b"0")
    for noted in ({"artifacts": []}, {}, {"artifacts": [{"name": "", "uri": ""}]}):
        note(folder, {"artifacts": {"page": noted}})
        outputs = read_outputs(GIVING, scope)
        assert outputs.parameters == {"word": "", "number": 0}
        assert outputs.artifacts["page"]["name"] == "page"
        assert outputs.artifacts["page"]["uri"] == str(folder.outputs / "page")


def test_an_output_that_is_missing_is_named(folder, scope):
    write(folder, word=b"x")
    with pytest.raises(UserError, match="must write its output parameter number; it did not"):
        read_outputs(GIVING, scope)


@pytest.mark.parametrize("content", [b"x", b"1.5", b"", b"NaN", b"true", b"1 2"])
def test_an_output_of_another_type_is_named(content, folder, scope):
    write(folder, word=b"x", number=content)
    with pytest.raises(UserError, match="number must be of type NUMBER_INTEGER"):
        read_outputs(GIVING, scope)


def test_text_that_is_not_utf_8_is_named(folder, scope):
    write(folder, word=b"\xff", number=b"1")
    with pytest.raises(UserError, match="The output parameter word must be UTF-8 text"):
        read_outputs(GIVING, scope)


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "",
        "[]",
        "3",
        "\x00",
        '{"parameterValues": {"word": NaN}}',
        {"parameterValues": None},
        {"parameterValues": ["word"]},
        {"artifacts": []},
        {"artifacts": {"page": []}},
        {"artifacts": {"page": {"artifacts": {}}}},
        {"artifacts": {"page": {"artifacts": ["x"]}}},
        {"artifacts": {"page": {"artifacts": [{"metadata": 3}]}}},
    ],
    ids=str,
)
def test_notes_that_are_not_as_kfp_writes_them_are_refused_by_name(content, folder, scope):
    write(folder, word=b"x", number=b"1")
    note(folder, content)
    with pytest.raises(UserError, match=r"executor_output\.json must be"):
        read_outputs(GIVING, scope)


def test_a_new_attempt_begins_with_empty_folders(folder):
    kept = folder.path / "log.txt"
    for file in (
        *(kept, folder.executor_output, folder.path / "progress.json"),
        *(folder.outputs / "page", folder.parameters / "word", folder.work / "left"),
    ):
        file.write_text("x")
    folder.empty()
    assert [file for file in folder.path.rglob("*") if file.is_file()] == [kept]
    assert folder.outputs.is_dir()
    assert folder.parameters.is_dir()
    assert folder.work.is_dir()
