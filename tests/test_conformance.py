"""The local engine does what KFP documents: one feature of its format after the other.

The pipelines are written in KFP's own language, compiled by its released compiler and run as
processes of this machine. What is expected is what KFP's documentation says of the feature.
"""

import datetime
import itertools
import json
import operator
import re
from pathlib import Path
from typing import Optional

import pytest
import yaml
from kfp import dsl, kubernetes

from tests.conformance import steps
from tests.conformance.running import (
    compile_text,
    ended_well,
    most_at_once,
    run,
    run_text,
    said,
)
from tests.conformance.steps import say
from trainer.errors import UserError


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Runs a pipeline once, however many tests look at how it went."""
    records = {}

    def run_once(function, **parameters):
        key = (function, json.dumps(parameters, sort_keys=True))
        if key not in records:
            records[key] = run(function, tmp_path_factory.mktemp("runs"), parameters)
        return records[key]

    return run_once


# Graphs: data, order, pipelines within pipelines.


@dsl.pipeline
def greeting(name: str, greeting: str = "Hello") -> str:
    return say(text=f"{greeting}, {name}!").output


@dsl.pipeline
def greeting_twice(name: str) -> str:
    first = greeting(name=name, greeting="Hej")
    return greeting(name=first.output).output


@dsl.pipeline
def written(text: str = "default") -> dsl.Artifact:
    return steps.write_page(text=text).outputs["page"]


@dsl.pipeline
def graphs(name: str = "Ada") -> str:
    first = say(text=name)
    second = say(text=first.output)
    third = say(text="after all").after(second)
    say(text="last").after(first, third)
    page = steps.write_page(text=f"{second.output} wrote")
    steps.read_page(page=page.outputs["page"])
    greeting(name="again")
    steps.read_page(page=written().output)
    steps.read_page(page=written(text="given").output)
    return greeting_twice(name=name).output


def test_data_and_order_make_the_graph(ran):
    tasks = ran(graphs).tasks
    assert tasks["say-2"].parameters == {"said": "Ada"}
    assert tasks["read-page"].parameters == {"said": "Ada wrote"}
    assert tasks["say-2"].started >= tasks["say"].ended
    assert tasks["say-3"].started >= tasks["say-2"].ended
    assert tasks["say-4"].started >= tasks["say-3"].ended


def test_pipelines_within_pipelines_take_give_and_have_defaults(ran):
    record = ran(graphs)
    assert record.status == "succeeded"
    assert record.tasks["greeting/say"].parameters == {"said": "Hello, again!"}
    assert record.tasks["greeting-twice/greeting/say"].parameters == {"said": "Hej, Ada!"}
    assert record.tasks["greeting-twice/greeting-2/say"].parameters == {"said": "Hello, Hej, Ada!!"}
    assert record.tasks["greeting-twice"].kind == "dag"
    assert record.tasks["greeting-twice"].parameters == {"Output": "Hello, Hej, Ada!!"}
    assert record.tasks["read-page-2"].parameters == {"said": "default"}
    assert record.tasks["read-page-3"].parameters == {"said": "given"}


def test_what_the_pipeline_gives_is_in_the_record_of_the_run(ran):
    assert ran(graphs).outputs == {"Output": "Hello, Hej, Ada!!"}
    page = ran(written, text="x").outputs["Output"]
    assert Path(page["uri"]).read_text() == "x"


@dsl.pipeline
def reads(data: dsl.Input[dsl.Dataset]) -> str:
    return steps.read_page(page=data).output


@dsl.pipeline
def takes_an_artifact(data: dsl.Input[dsl.Dataset]) -> str:
    return reads(data=data).output


def test_a_pipeline_may_be_given_an_artifact(tmp_path):
    (tmp_path / "data.csv").write_text("a,b")
    record = run(takes_an_artifact, tmp_path / "runs", {"data": str(tmp_path / "data.csv")})
    assert record.outputs == {"Output": "a,b"}
    with pytest.raises(UserError, match="data"):
        run(takes_an_artifact, tmp_path / "runs")
    with pytest.raises(UserError, match=r"data must exist; .*nowhere"):
        run(takes_an_artifact, tmp_path / "runs", {"data": str(tmp_path / "nowhere")})


# Values: every type, through everything that can carry it.


@dsl.pipeline
def carries(integer: int, number: float, flag: bool, text: str, items: list, table: dict):
    first = steps.pass_all(
        integer=integer, number=number, flag=flag, text=text, items=items, table=table
    )
    steps.pass_all(
        integer=steps.give_integer(value=first.outputs["integer"]).output,
        number=steps.give_number(value=first.outputs["number"]).output,
        flag=steps.give_flag(value=first.outputs["flag"]).output,
        text=say(text=first.outputs["text"]).output,
        items=steps.give_list(value=first.outputs["items"]).output,
        table=steps.give_object(value=first.outputs["table"]).output,
    )


VALUES = {
    "usual": (3, 0.5, True, "text", [1, "a", 2.5, None, True], {"a": {"b": [1, {"c": "d"}]}}),
    "unusual": (
        *(-7, 1e-05, False, ' it\'s "x" \\ && $HOME\r\n\tünï 🙂 {{$}} %s {{text}}'),
        *([-1, 1e-05, "it's", [], [[]], {}], {"ü 'k'": "\n", "": -0.5, "{{$}}": "{{$}}"}),
    ),
    "empty": (0, 0.0, False, "", [], {}),
    "large": (2**53, -1.7e308, True, "x" * 5000, list(range(500)), {"n": 10**15}),
    "text like a value": (1, 1.0, True, "true", ["1", "true", "null"], {"a": "1.0", "b": "[]"}),
}


@pytest.mark.parametrize("kind", VALUES)
def test_values_of_every_type_stay_as_they_are(kind, tmp_path):
    names = ("integer", "number", "flag", "text", "items", "table")
    given = dict(zip(names, VALUES[kind], strict=True))
    record = run(carries, tmp_path, given)
    assert record.status == "succeeded", record.tasks
    for task in ("pass-all", "pass-all-2"):
        passed = dict(record.tasks[task].parameters)
        assert passed == given
        assert {n: type(v) for n, v in passed.items()} == {n: type(v) for n, v in given.items()}
        assert json.dumps([passed["items"], passed["table"]]) == json.dumps(
            [given["items"], given["table"]]
        )


@dsl.pipeline
def whole_numbers(
    number: float = 2,
    text: str = 'a "text"',
    items: list = [1.0, 2.5, {"n": 3.0}],  # noqa: B006  KFP makes it JSON
) -> float:
    steps.shown(value=items)
    steps.shown(value=[4.0, 4.5, text, {"word": f"<{text}>"}])
    return steps.give_number(value=number).output


def test_whole_numbers_within_lists_are_as_in_json(ran):
    record = ran(whole_numbers)
    # KFP keeps lists as protobuf values, whose JSON knows no 1.0.
    assert record.tasks["shown"].parameters == {"Output": "[1, 2.5, {'n': 3}]"}
    assert record.tasks["shown-2"].parameters == {
        "Output": "[4, 4.5, 'a \"text\"', {'word': '<a \"text\">'}]"
    }
    assert record.outputs == {"Output": 2.0}
    assert isinstance(record.outputs["Output"], float)


# Conditions.


class Channels:
    """Values, at compile time and as plain Python has them."""

    def __init__(self, **values):
        self.__dict__.update(values)


TRICKY = {
    "an apostrophe": "it's ok",
    "a quoted word": 'say "hello"',
    "both quotes": 'it\'s "it"',
    "a backslash": "a\\b\\",
    "and": "a && b",
    "a newline": "one\ntwo",
    "unicode": "naïve 🙂",
    "nothing": "",
    "a space": " ",
    "a number": "1.0",
    "braces": "a{b}c",
    "brackets": "(a) == [b]",
    "an exclamation mark": "!(a)",
}

SIGNS = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}

COMPARED = {
    "an integer and a number written here": lambda v, sign: sign(v.integer, 3),
    "an integer and a negative one": lambda v, sign: sign(v.integer, -3),
    "two integers": lambda v, sign: sign(v.integer, v.other_integer),
    "an integer and a float written here": lambda v, sign: sign(v.integer, 3.0),
    "an integer and a float": lambda v, sign: sign(v.integer, v.number),
    "a float and one written here": lambda v, sign: sign(v.number, 1e-05),
    "a float and a negative one": lambda v, sign: sign(v.number, -2.5),
    "a float and an integer written here": lambda v, sign: sign(v.other_number, 0),
    "two floats": lambda v, sign: sign(v.number, v.other_number),
    "a text and one written here": lambda v, sign: sign(v.text, "morning"),
    "two texts": lambda v, sign: sign(v.text, v.other_text),
    "what a task gave and a parameter": lambda v, sign: sign(v.given_integer, v.integer),
    "what two tasks gave": lambda v, sign: sign(v.given_integer, v.given_number),
    "a text that a task gave and a parameter": lambda v, sign: sign(v.given_text, v.text),
}

EQUAL = {
    "a truth value": lambda v, sign: sign(v.flag, True),
    "a truth value and false": lambda v, sign: sign(v.flag, False),
    "two truth values": lambda v, sign: sign(v.flag, v.other_flag),
    "a truth value that a task gave": lambda v, sign: sign(v.given_flag, v.flag),
}

COMPARISONS = {
    **{(name, sign): what for name, what in COMPARED.items() for sign in SIGNS},
    **{(name, sign): what for name, what in EQUAL.items() for sign in ("==", "!=")},
}

SETS = (
    {
        "integer": 3,
        "other_integer": 3,
        "number": 1e-05,
        "other_number": 0.5,
        "text": "morning",
        "other_text": "evening",
        "flag": True,
        "other_flag": True,
        "given_integer": 3,
        "given_number": 3.0,
        "given_text": "morning",
        "given_flag": True,
    },
    {
        "integer": -3,
        "other_integer": 12,
        "number": -2.5,
        "other_number": -2.5,
        "text": "it's",
        "other_text": "it's",
        "flag": False,
        "other_flag": True,
        "given_integer": 4,
        "given_number": -1e-05,
        "given_text": "a && b",
        "given_flag": True,
    },
    {
        "integer": 40,
        "other_integer": 5,
        "number": 40.0,
        "other_number": 7.25,
        "text": "",
        "other_text": "Ä",
        "flag": True,
        "other_flag": False,
        "given_integer": 2,
        "given_number": 4.5,
        "given_text": "b",
        "given_flag": False,
    },
    {
        "integer": -8,
        "other_integer": 0,
        "number": -1e300,
        "other_number": 0.0,
        "text": "zebra",
        "other_text": 'a "z"',
        "flag": False,
        "other_flag": False,
        "given_integer": -9,
        "given_number": 0.0,
        "given_text": "Zulu",
        "given_flag": False,
    },
)


@dsl.pipeline
def comparisons(
    integer: int,
    other_integer: int,
    number: float,
    other_number: float,
    text: str,
    other_text: str,
    flag: bool,
    other_flag: bool,
    given_integer: int,
    given_number: float,
    given_text: str,
    given_flag: bool,
):
    values = Channels(
        integer=integer,
        other_integer=other_integer,
        number=number,
        other_number=other_number,
        text=text,
        other_text=other_text,
        flag=flag,
        other_flag=other_flag,
        given_integer=steps.give_integer(value=given_integer).output,
        given_number=steps.give_number(value=given_number).output,
        given_text=say(text=given_text).output,
        given_flag=steps.give_flag(value=given_flag).output,
    )
    for (_, sign), what in COMPARISONS.items():
        with dsl.If(what(values, SIGNS[sign])):
            steps.bare()


@pytest.mark.parametrize("values", SETS, ids=("equal", "negative", "more", "less"))
def test_comparisons_hold_as_they_do_in_python(values, ran):
    record = ran(comparisons, **values)
    assert record.status == "succeeded"
    for number, ((name, sign), what) in enumerate(COMPARISONS.items(), start=1):
        holds = what(Channels(**values), SIGNS[sign])
        status = record.tasks[f"condition-{number}"].status
        assert status == ("succeeded" if holds else "skipped"), (name, sign, values)


def test_the_comparisons_are_put_to_both_tests():
    for (name, sign), what in COMPARISONS.items():
        outcomes = {what(Channels(**values), SIGNS[sign]) for values in SETS}
        assert outcomes == {True, False}, (name, sign)


@dsl.pipeline
def texts(text: str):
    for tricky in TRICKY.values():
        with dsl.If(text == tricky):
            say(text=tricky)
        with dsl.Else():
            steps.bare()


@pytest.mark.parametrize("name", [*TRICKY, "none of them"])
def test_a_condition_takes_texts_as_they_are(name, tmp_path):
    record = run(texts, tmp_path, {"text": TRICKY.get(name, "something else")})
    assert record.status == "succeeded"
    assert said(record) == ([TRICKY[name]] if name in TRICKY else [])
    others = [
        p for p, t in record.tasks.items() if "bare" in p and t.status in ("succeeded", "cached")
    ]
    assert len(others) == len(TRICKY) - (name in TRICKY)


@dsl.pipeline
def branches(n: int, word: str = "x") -> str:
    with dsl.If(n == 1):
        one = say(text="one")
        first = steps.write_page(text="page one")
    with dsl.Elif(n == 2):
        with dsl.If(word == "deep"):
            say(text="deeper")
        two = say(text="two")
        second = steps.write_page(text="page two")
    with dsl.Elif(n < 5):
        few = say(text="few")
        third = steps.write_page(text="page few")
    with dsl.Else():
        many = say(text="many")
        fourth = steps.write_page(text="page many")
    chosen = dsl.OneOf(one.output, two.output, few.output, many.output)
    pages = [task.outputs["page"] for task in (first, second, third, fourth)]
    steps.read_page(page=dsl.OneOf(*pages))
    say(text=chosen)
    return chosen


@pytest.mark.parametrize(("n", "word"), [(1, "one"), (2, "two"), (4, "few"), (50, "many")])
def test_exactly_one_branch_is_taken_and_gives_its_outputs(n, word, ran):
    record = ran(branches, n=n)
    assert record.outputs == {"Output": word}
    tasks = record.tasks
    assert tasks["read-page"].parameters == {"said": f"page {word}"}
    assert tasks["say-6"].parameters == {"said": word}
    taken = [t.status for p, t in tasks.items() if re.search(r"(^|/)condition-\d+$", p)]
    # The condition within the second branch is one more that does not hold.
    assert sorted(taken) == ["skipped"] * (4 if n == 2 else 3) + ["succeeded"]
    assert len([p for p in ended_well(record) if "/write-page" in p]) == 1


def test_a_condition_may_lie_within_another(ran):
    assert "deeper" in said(ran(branches, n=2, word="deep"))
    assert "deeper" not in said(ran(branches, n=1, word="deep"))


# Loops.


@dsl.pipeline
def loops(
    numbers: list = [3, 1.5, "a", {"b": [1]}],  # noqa: B006
    nothing: list = [],  # noqa: B006
):
    with dsl.ParallelFor([3, 1, 2]) as item:
        integer = steps.give_integer(value=item)
    steps.total(numbers=dsl.Collected(integer.output))
    with dsl.ParallelFor([0.5, 2.0]) as item:
        number = steps.give_number(value=item)
    steps.shown(value=dsl.Collected(number.output))
    with dsl.ParallelFor(["it's", "", '"b" \\ &&', "7"]) as item:
        say(text=item)
    with dsl.ParallelFor([{"a": "x", "b": "it's"}, {"a": "y", "b": ""}]) as item:
        say(text=item.b)
    with dsl.ParallelFor([{"a": 1, "b": 5}, {"a": 2, "b": 6}]) as item:
        steps.give_integer(value=item.b)
    with dsl.ParallelFor(numbers) as item:
        say(text=item)
    objects = steps.give_list(value=[{"part": {"x": 1}}, {"part": {}}])
    with dsl.ParallelFor(objects.output) as item:
        steps.give_object(value=item.part)
    with dsl.ParallelFor(steps.give_list(value=["u", "v"]).output) as item:
        element = say(text=item)
        say(text=f"<{item}> <{element.output}>")
    with dsl.ParallelFor(nothing) as item:
        none = say(text=item)
    steps.shown(value=dsl.Collected(none.output))
    with dsl.ParallelFor(["c", "a", "b"]) as item:
        page = steps.write_page(text=item)
    steps.join_pages(pages=dsl.Collected(page.outputs["page"]))
    with dsl.ParallelFor(["1", "2"]) as outer, dsl.ParallelFor(["x", "y"]) as inner:
        steps.join(one=outer, other=inner)


def loop_of(record, start):
    """The name of the loop that has the task."""
    return next(p.split("/")[0] for p in record.tasks if p.endswith(f"/0/{start}"))


@pytest.mark.parametrize(
    ("task", "output", "expected"),
    [
        ("give-integer", "given", [3, 1, 2]),
        ("give-number", "given", [0.5, 2.0]),
        ("say", "said", ["it's", "", '"b" \\ &&', "7"]),
        ("say-2", "said", ["it's", ""]),
        ("give-integer-2", "given", [5, 6]),
        ("say-3", "said", ["3", "1.5", "a", '{"b": [1]}']),
        ("give-object", "given", [{"x": 1}, {}]),
        ("say-5", "said", ["<u> <u>", "<v> <v>"]),
    ],
)
def test_a_loop_runs_once_per_item_in_the_order_of_the_items(task, output, expected, ran):
    record = ran(loops)
    assert record.status == "succeeded"
    loop = loop_of(record, task)
    given = [
        record.tasks[f"{loop}/{number}/{task}"].parameters[output]
        for number in range(len(expected))
    ]
    assert given == expected
    assert [type(g) for g in given] == [type(e) for e in expected]
    assert f"{loop}/{len(expected)}" not in record.tasks


def test_what_a_loop_gives_is_collected_in_order(ran):
    tasks = ran(loops).tasks
    assert tasks["total"].input_parameters == {"numbers": [3, 1, 2]}
    assert tasks["total"].parameters == {"Output": 6}
    assert tasks["shown"].input_parameters == {"value": [0.5, 2]}
    assert tasks["join-pages"].parameters == {"Output": "c a b"}


def test_a_loop_over_nothing_gives_nothing(ran):
    tasks = ran(loops).tasks
    assert tasks["shown-2"].parameters == {"Output": "[]"}


def test_a_loop_within_a_loop_runs_for_every_pair(ran):
    record = ran(loops)
    loop = next(p for p in record.tasks if p.endswith("/1/join")).split("/")[0]
    assert said(record, f"{loop}/") == ["1-x", "1-y", "2-x", "2-y"]


@dsl.pipeline
def many_pages() -> list[dsl.Artifact]:
    with dsl.ParallelFor(["a", "b", "c"]) as item:
        page = steps.write_page(text=item)
    return dsl.Collected(page.outputs["page"])


@dsl.pipeline
def over_artifacts() -> list[dsl.Artifact]:
    pages = many_pages().output
    with dsl.ParallelFor(pages) as page:
        steps.read_page(page=page)
    return pages


def test_a_loop_may_go_over_artifacts(ran):
    record = ran(over_artifacts)
    assert said(record) == ["a", "b", "c"]
    pages = [Path(artifact["uri"]).read_text() for artifact in record.outputs["Output"]]
    assert pages == ["a", "b", "c"]


@dsl.pipeline
def many_in_one() -> list[int]:
    with dsl.ParallelFor([10, 20]) as item:
        number = steps.give_integer(value=item)
    return dsl.Collected(number.output)


@dsl.pipeline
def collects_within() -> list:
    numbers = many_in_one()
    steps.total(numbers=numbers.output)
    with dsl.ParallelFor(numbers.output) as item:
        say(text=f"{item}")
    return numbers.output


def test_a_pipeline_within_may_give_a_list(ran):
    record = ran(collects_within)
    assert record.tasks["total"].parameters == {"Output": 30}
    assert said(record) == ["10", "20"]
    assert record.outputs == {"Output": [10, 20]}


@dsl.pipeline
def nested_collection():
    with dsl.ParallelFor(["a", "b"]) as outer, dsl.ParallelFor(["x", "y"]) as inner:
        joined = steps.join(one=outer, other=inner)
        page = steps.write_page(text=inner)
    steps.shown(value=dsl.Collected(joined.output))
    steps.join_pages(pages=dsl.Collected(page.outputs["page"]))


def test_a_collection_across_two_loops_keeps_the_order_of_both(ran):
    tasks = ran(nested_collection).tasks
    # A list per outer item for parameters; KFP hands on lists of artifacts without their nesting.
    assert tasks["shown"].parameters == {"Output": "[['a-x', 'a-y'], ['b-x', 'b-y']]"}
    assert tasks["join-pages"].parameters == {"Output": "x y x y"}


@dsl.pipeline
def two_at_once():
    with dsl.ParallelFor([0.11, 0.12, 0.13, 0.14, 0.15], parallelism=2) as item:
        steps.sleep(seconds=item)
    with dsl.ParallelFor([0.05, 0.06, 0.07], parallelism=1) as item:
        steps.sleep(seconds=item)


def test_no_more_iterations_run_at_once_than_the_loop_allows(tmp_path):
    record = run(two_at_once, tmp_path, jobs=8)
    for task, most in (("sleep", 2), ("sleep-2", 1)):
        iterations = [t for p, t in record.tasks.items() if p.endswith(f"/{task}")]
        assert len(iterations) == (5 if most == 2 else 3)
        assert most_at_once(iterations) == most


@dsl.pipeline
def parts_of_items(n: int = 2, items: list = [{"c": "x"}, {"c": "it's"}]):  # noqa: B006
    with dsl.ParallelFor([{"a": 1, "b": 5}, {"a": 2, "b": 6}]) as item:
        say(text=f"a is {item.a}, b is {item.b}")
        with dsl.If(item.a == n):
            say(text="a is n")
        with dsl.If(item.b == 5):
            say(text="b is 5")
    with dsl.ParallelFor(items) as item:
        say(text=f"c is {item.c}")


def test_parts_of_items_may_stand_anywhere(ran):
    # KFP compiles them to inputs that the graph around the loop does not have, see
    # https://github.com/kubeflow/pipelines/issues/13273; what is meant is beyond doubt.
    record = ran(parts_of_items)
    assert record.status == "succeeded"
    assert sorted(said(record)) == [
        *("a is 1, b is 5", "a is 2, b is 6", "a is n", "b is 5", "c is it's", "c is x")
    ]


@dsl.pipeline
def conditions_on_items(
    n: int = 2,
    flag: bool = True,
    number: float = 2.0,
    text: str = "2",
    items: list = [1, 2, 2.5, "a", True],  # noqa: B006
):
    with dsl.ParallelFor([1, 2, 3]) as item:
        with dsl.If(item == n):
            say(text=f"constant integer {item} is n")
        with dsl.If(item > 2):
            say(text=f"constant integer {item} is more than 2")
        with dsl.If(item == text):
            say(text=f"constant integer {item} is text")
    with dsl.ParallelFor([1.0, 2.0, 2.5]) as item:
        with dsl.If(item == n):
            say(text=f"constant float {item} is n")
        with dsl.If(item == number):
            say(text=f"constant float {item} is number")
    with dsl.ParallelFor(["1", "2", "true", "it's"]) as item:
        with dsl.If(item == n):
            say(text=f"constant text {item} is n")
        with dsl.If(item == flag):
            say(text=f"constant text {item} is flag")
        with dsl.If(item == "it's"):
            say(text=f"constant text {item} is it's")
    with dsl.ParallelFor(items) as item:
        with dsl.If(item == n):
            say(text=f"item {item} is n")
        with dsl.If(item == number):
            say(text=f"item {item} is number")
        with dsl.If(item == 2.5):
            say(text=f"item {item} is 2.5")
        with dsl.If(item == "a"):
            say(text=f"item {item} is a")
        with dsl.If(item == flag):
            say(text=f"item {item} is flag")
        with dsl.If(item != n):
            say(text=f"item {item} is not n")


def test_items_are_compared_as_what_they_are_compared_with(ran):
    record = ran(conditions_on_items)
    assert record.status == "succeeded"
    assert sorted(said(record)) == sorted(
        [
            "constant integer 2 is n",
            "constant integer 3 is more than 2",
            "constant integer 2 is text",
            "constant float 2.0 is n",
            "constant float 2.0 is number",
            "constant text 2 is n",
            "constant text true is flag",
            "constant text it's is it's",
            "item 2 is n",
            "item 2 is number",
            "item 2.5 is 2.5",
            "item a is a",
            "item true is flag",
            *("item 1 is not n", "item 2.5 is not n", "item a is not n", "item true is not n"),
        ]
    )


# Endings: failures, exit tasks, further attempts.


@dsl.pipeline
def with_exit(code: int, word: str = "bye"):
    with dsl.ExitHandler(steps.say_how_it_ended(word=word), name="guarded"):
        first = steps.leave(text="first", code=code)
        say(text=first.output)
        say(text="beside")


def test_the_exit_task_is_told_of_success(ran):
    record = ran(with_exit, code=0)
    assert (record.status, record.exit_code) == ("succeeded", 0)
    told = json.loads(record.tasks["say-how-it-ended"].parameters["Output"])
    assert (told["state"], told["code"], told["message"]) == ("SUCCEEDED", None, None)
    assert (told["job"], told["word"]) == (record.run, "bye")


def test_the_exit_task_is_told_of_failure_and_the_run_has_failed(ran):
    record = ran(with_exit, code=3)
    assert (record.status, record.exit_code) == ("failed", 1)
    (group,) = {p.split("/")[0] for p in record.tasks if "/" in p}
    tasks = record.tasks
    assert tasks["say-how-it-ended"].status == "succeeded"
    told = json.loads(tasks["say-how-it-ended"].parameters["Output"])
    assert told["state"] == "FAILED"
    assert told["task"] == group
    assert told["code"] == 3
    assert f"{group}/leave" in told["message"]
    assert tasks[f"{group}/leave"].exit_code == 3
    assert tasks[f"{group}/say"].status == "cancelled"
    assert tasks[f"{group}/say-2"].status == "succeeded"


@dsl.pipeline
def exits_badly():
    with dsl.ExitHandler(steps.leave(text="bad end", code=4)):
        say(text="well")


def test_a_failure_of_the_exit_task_fails_the_run(ran):
    record = ran(exits_badly)
    assert (record.status, record.exit_code) == ("failed", 1)
    assert record.tasks["leave"].exit_code == 4


@dsl.pipeline
def clean_up(word: str = "cleaned"):
    say(text=word)


@dsl.pipeline
def guarded():
    with dsl.ExitHandler(steps.say_how_it_ended()):
        steps.leave(text="x", code=5)


@dsl.pipeline
def exits_within():
    inner = guarded()
    say(text="after").after(inner)
    with dsl.ExitHandler(clean_up()):
        steps.leave(text="x", code=6)


def test_exit_tasks_may_be_pipelines_and_be_within_pipelines(ran):
    record = ran(exits_within)
    tasks = record.tasks
    assert record.status == "failed"
    assert tasks["clean-up/say"].parameters == {"said": "cleaned"}
    told = json.loads(tasks["guarded/say-how-it-ended"].parameters["Output"])
    assert (told["state"], told["code"]) == ("FAILED", 5)
    assert "guarded/exit-handler-1/leave" in told["message"]
    # A pipeline has failed where a task of it has, whatever its exit task did.
    assert (tasks["guarded"].status, tasks["say"].status) == ("failed", "cancelled")


@dsl.pipeline
def goes_on_regardless(code: int = 1):
    first = steps.leave(text="given", code=code)
    steps.say_or_default(text=first.output).ignore_upstream_failure()
    say(text="x").after(first).ignore_upstream_failure()


@pytest.mark.parametrize(("code", "text"), [(0, "given"), (1, "default")])
def test_a_task_may_ignore_a_failure_before_it_and_takes_its_default(code, text, ran):
    record = ran(goes_on_regardless, code=code)
    assert record.status == ("failed" if code else "succeeded")
    assert record.tasks["say"].parameters == {"said": "x"}
    assert record.tasks["say-or-default"].parameters == {"said": text}


@dsl.pipeline
def attempts(folder: str):
    again = steps.fail_twice(count=f"{folder}/waiting")
    again.set_retry(num_retries=5, backoff_duration="1s", backoff_factor=1.0)
    at_once = steps.fail_twice(count=f"{folder}/at once")
    at_once.set_retry(num_retries=2)
    never = steps.leave(text="x", code=9)
    never.set_retry(num_retries=2, backoff_duration="0s")
    say(text=again.output)
    say(text=never.output)


def test_a_failed_task_is_tried_again_after_a_while(tmp_path):
    record = run(attempts, tmp_path / "runs", {"folder": str(tmp_path)})
    tasks = record.tasks
    assert (record.status, record.exit_code) == ("failed", 1)  # because of the one below
    for name, wait in (("fail-twice", 1.0), ("fail-twice-2", 0.0)):
        assert (tasks[name].status, tasks[name].attempts) == ("succeeded", 3)
        moments = [float(line) for line in tasks[name].parameters["said"].split()]
        pauses = [after - before for before, after in itertools.pairwise(moments)]
        assert len(pauses) == 2
        assert all(pause >= wait for pause in pauses)
    assert tasks["say"].parameters == tasks["fail-twice"].parameters
    assert (tasks["leave"].status, tasks["leave"].attempts) == ("failed", 3)
    assert tasks["leave"].exit_code == 9
    assert tasks["say-2"].status == "cancelled"


@dsl.pipeline
def failing(code: int):
    bad = steps.leave(text="bad", code=code)
    dependent = say(text=bad.output)
    say(text="after").after(dependent)
    good = say(text="good")
    say(text=good.output)
    with dsl.ParallelFor([0, 1, 0]) as item:
        inner = steps.leave(text="x", code=item)
        say(text=inner.output)
    with dsl.If(code == 1):
        steps.write_page(text="branch").after(good)


@pytest.mark.parametrize(("code", "expected"), [(2, 2), (75, 75), (1, 1), (200, 1)])
def test_a_failure_stops_what_depends_on_it_and_nothing_else(code, expected, ran):
    record = ran(failing, code=code)
    tasks = record.tasks
    assert (record.status, record.exit_code) == ("failed", expected)
    assert (tasks["leave"].status, tasks["leave"].exit_code) == ("failed", code)
    assert {tasks["say"].status, tasks["say-2"].status} == {"cancelled"}
    assert (tasks["say-3"].status, tasks["say-4"].parameters) == ("succeeded", {"said": "good"})
    loop = next(p.split("/")[0] for p in tasks if p.endswith("/leave-2"))
    assert tasks[loop].status == "failed"
    statuses = [tasks[f"{loop}/{number}/say-5"].status for number in range(3)]
    assert [s in ("succeeded", "cached") for s in statuses] == [True, False, True]
    assert statuses[1] == "cancelled"


@dsl.pipeline
def killed():
    steps.be_killed()


def test_a_signal_is_named(ran):
    record = ran(killed)
    task = record.tasks["be-killed"]
    assert (record.status, record.exit_code) == ("failed", 1)
    assert (task.status, task.exit_code) == ("failed", 128 + 15)
    assert "SIGTERM" in task.reason


@dsl.pipeline
def gives_nothing():
    steps.say_nothing()


@dsl.pipeline
def gives(text: str):
    steps.say_wrongly(text=text)


@dsl.pipeline
def gives_a_number(text: str):
    steps.say_a_number_wrongly(text=text)


def test_an_output_that_was_not_written_is_named(ran):
    record = ran(gives_nothing)
    assert (record.status, record.exit_code) == ("failed", 2)
    assert "said" in record.tasks["say-nothing"].reason


@pytest.mark.parametrize("text", ["abc", "1.5", "true", "", "[1]", "NaN", "1e400"])
def test_an_output_of_another_type_is_named(text, tmp_path):
    record = run(gives, tmp_path, {"text": text})
    assert record.status == "failed"
    assert "given must be of type NUMBER_INTEGER" in record.tasks["say-wrongly"].reason


@pytest.mark.parametrize("text", ["NaN", "nan", "Infinity", "-inf", "1e400"])
def test_a_number_that_is_none_is_no_output(text, tmp_path):
    record = run(gives_a_number, tmp_path, {"text": text})
    assert record.status == "failed"
    assert "given must be" in record.tasks["say-a-number-wrongly"].reason


@dsl.pipeline
def metrics_without_a_number():
    steps.measure_nothing()


def test_a_metric_that_is_no_number_fails_the_task(ran):
    record = ran(metrics_without_a_number)
    assert (record.status, record.exit_code) == ("failed", 2)
    assert "NaN" in record.tasks["measure-nothing"].reason


# Imports, optional inputs, artifacts.


@dsl.pipeline
def imports(place: str, origin: str):
    imported = dsl.importer(
        artifact_uri=place,
        artifact_class=dsl.Dataset,
        metadata={"origin": origin, "fixed": 7, "from": {"deep": [f"<{origin}>"]}},
    )
    steps.read_page(page=imported.output)
    steps.show_metadata(data=imported.output)


def test_an_import_takes_its_place_and_metadata_from_parameters(tmp_path):
    (tmp_path / "data").write_text("here")
    record = run(imports, tmp_path / "runs", {"place": str(tmp_path / "data"), "origin": "it's"})
    assert record.status == "succeeded"
    assert record.tasks["importer"].kind == "importer"
    assert record.tasks["read-page"].parameters == {"said": "here"}
    shown = json.loads(record.tasks["show-metadata"].parameters["Output"])
    assert shown == {"origin": "it's", "fixed": 7, "from": {"deep": ["<it's>"]}}
    assert isinstance(shown["fixed"], int)


def test_an_import_of_what_is_not_there_is_refused_by_name(tmp_path):
    record = run(imports, tmp_path / "runs", {"place": str(tmp_path / "no"), "origin": ""})
    assert (record.status, record.exit_code) == ("failed", 2)
    assert str(tmp_path / "no") in record.tasks["importer"].reason
    assert record.tasks["read-page"].status == "cancelled"


def test_an_import_may_be_of_a_place_that_the_file_names(tmp_path):
    (tmp_path / "data").write_text("here")

    @dsl.pipeline
    def imports_constant():
        imported = dsl.importer(
            artifact_uri=str(tmp_path / "data"), artifact_class=dsl.Artifact, reimport=True
        )
        steps.read_page(page=imported.output)

    record = run(imports_constant, tmp_path / "runs")
    assert record.tasks["read-page"].parameters == {"said": "here"}


@dsl.pipeline
def inner_optional(word: Optional[str] = None):  # noqa: UP045
    steps.options(word=word)


@dsl.pipeline
def optional(word: Optional[str] = None, given: str = "given"):  # noqa: UP045
    page = steps.write_page(text="x").outputs["page"]
    steps.options()
    steps.options(word="a word", page=page, always="")
    steps.options(word=word)
    steps.options(word=given)
    steps.optional_values()
    steps.optional_values(word=word, number=0, items=[])
    steps.optional_values(word="", page=page)
    inner_optional()
    inner_optional(word=given)


@pytest.mark.parametrize(
    ("task", "arguments"),
    [
        ("options", ["--without", "<default>"]),
        ("options-2", ["--word", "a word", "--page", "<>"]),
        ("options-3", ["--without", "<default>"]),
        ("options-4", ["--word", "given", "<default>"]),
        ("inner-optional/options", ["--without", "<default>"]),
        ("inner-optional-2/options", ["--word", "given", "<default>"]),
    ],
)
def test_what_is_left_out_leaves_its_arguments_out(task, arguments, ran):
    record = ran(optional)
    assert record.status == "succeeded"
    assert record.tasks[task].parameters["said"].splitlines() == arguments


def test_a_python_component_has_its_own_defaults(ran):
    tasks = ran(optional).tasks
    assert tasks["optional-values"].parameters == {"Output": "(None, None, [1, 2], None)"}
    assert tasks["optional-values-2"].parameters == {"Output": "(None, 0, [], None)"}
    assert tasks["optional-values-3"].parameters["Output"].startswith("('', None, [1, 2], <")


@dsl.pipeline
def artifacts():
    measured = steps.measure()
    steps.inspect_artifacts(
        metrics=measured.outputs["metrics"],
        model=measured.outputs["model"],
        table=measured.outputs["table"],
        word=measured.outputs["word"],
    )
    steps.show_framework(model=measured.outputs["model"])
    steps.read_page(page=steps.return_data().output)
    steps.read_page(page=steps.return_text().output)


def test_artifacts_of_all_kinds_carry_their_content_and_metadata(ran):
    record = ran(artifacts)
    assert record.status == "succeeded"
    given = record.tasks["measure"].artifacts
    kinds = {name: artifact["type"]["schemaTitle"] for name, artifact in given.items()}
    assert kinds == {
        "metrics": "system.Metrics",
        "classes": "system.ClassificationMetrics",
        "page": "system.HTML",
        "notes": "system.Markdown",
        "model": "system.Model",
        "table": "system.Dataset",
    }
    assert given["metrics"]["metadata"] == {"accuracy": 0.75, "records": 12}
    matrix = given["classes"]["metadata"]["confusionMatrix"]
    assert [row["row"] for row in matrix["rows"]] == [[3, 1], [0, 4]]
    assert Path(given["page"]["uri"]).read_text(encoding="utf-8") == "<p>Ünï</p>"
    assert Path(given["notes"]["uri"]).read_text(encoding="utf-8") == "# A 'title'"
    assert json.loads(record.tasks["inspect-artifacts"].parameters["Output"]) == {
        "accuracy": 0.75,
        "model": {"framework": "keras", "layers": [1, {"units": 2.5}]},
        "type": "Model",
        "table": "a,b",
        "word": "a word",
    }
    assert record.tasks["show-framework"].parameters == {"said": "keras"}


def test_a_component_may_return_an_artifact_or_its_content(ran):
    tasks = ran(artifacts).tasks
    assert tasks["read-page"].parameters == {"said": "chosen"}
    assert tasks["return-data"].artifacts["Output"]["metadata"] == {"rows": 1}
    assert tasks["read-page-2"].parameters == {"said": "content"}


# What else a task may ask for.


@dsl.pipeline
def settings(memory: str = "64M"):
    steps.bare()
    steps.variables().set_env_variable("GREETING", 'it\'s "me" && $HOME').set_env_variable(
        "PASSWORD", ""
    )
    named = say(text="shown under another name").set_display_name("A name / of its own")
    say(text="never cached").set_caching_options(False)
    limited = say(text="limited").set_cpu_limit("500m").set_memory_limit("100Mi")
    limited.set_cpu_request("250m").set_memory_request("32M")
    limited.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(1)
    say(text="by parameter").set_memory_limit(memory).after(named)
    say(text=dsl.PIPELINE_JOB_NAME_PLACEHOLDER)
    say(text=dsl.PIPELINE_JOB_ID_PLACEHOLDER)
    say(text=dsl.PIPELINE_JOB_RESOURCE_NAME_PLACEHOLDER)
    say(text=f"<{dsl.PIPELINE_TASK_NAME_PLACEHOLDER}>")
    say(text=dsl.PIPELINE_TASK_ID_PLACEHOLDER)
    say(text=dsl.PIPELINE_JOB_CREATE_TIME_UTC_PLACEHOLDER)
    say(text=dsl.PIPELINE_JOB_SCHEDULE_TIME_UTC_PLACEHOLDER)
    say(text=dsl.PIPELINE_ROOT_PLACEHOLDER)
    steps.say_where()
    greeting(name=dsl.PIPELINE_JOB_NAME_PLACEHOLDER)


def test_settings_of_tasks_are_followed_or_do_no_harm(ran):
    record = ran(settings)
    assert record.status == "succeeded"
    assert record.tasks["variables"].parameters == {"said": 'it\'s "me" && $HOME '}
    assert [record.tasks[f"say{n}"].parameters["said"] for n in ("", "-2", "-3", "-4")] == [
        *("shown under another name", "never cached", "limited", "by parameter")
    ]


def test_placeholders_of_the_run_and_the_task_are_filled_in(ran):
    record = ran(settings)
    texts = [record.tasks[f"say-{n}"].parameters["said"] for n in range(5, 13)]
    job, identity, resource, task, task_identity, created, scheduled, root = texts
    assert job == record.run
    assert identity
    assert resource == record.run
    assert task == "<say-8>"
    assert task_identity not in ("", task)
    for moment in (created, scheduled):
        assert datetime.datetime.fromisoformat(moment).tzinfo is not None
    assert Path(root).is_dir()
    assert not [t for t in texts if "{{$" in t]
    assert record.tasks["say-where"].parameters == {"said": f"say-where of {record.run}"}
    assert record.tasks["greeting/say"].parameters == {"said": f"Hello, {record.run}!"}


def test_caching_is_as_the_pipeline_says(tmp_path):
    first, second = (run(settings, tmp_path) for _ in range(2))
    assert first.tasks["say"].status == "succeeded"
    assert second.tasks["say"].status == "cached"
    assert second.tasks["say"].parameters == first.tasks["say"].parameters
    assert second.tasks["say-2"].status == "succeeded"


@dsl.pipeline(
    pipeline_config=dsl.PipelineConfig(workspace=dsl.WorkspaceConfig(size="1Gi")),
)
def shares_a_workspace():
    left = steps.leave_in_workspace(folder=dsl.WORKSPACE_PATH_PLACEHOLDER)
    steps.find_in_workspace(folder=dsl.WORKSPACE_PATH_PLACEHOLDER).after(left)


def test_tasks_of_a_run_share_its_workspace(ran):
    assert ran(shares_a_workspace).tasks["find-in-workspace"].parameters == {"said": "shared"}


@dsl.pipeline
def takes_a_secret():
    task = steps.variables()
    kubernetes.use_secret_as_env(task, "my-secret", {"key": "PASSWORD"})


def test_a_secret_must_come_from_the_caller_and_is_not_written_down(tmp_path):
    with pytest.raises(UserError, match=r"PASSWORD \(key of my-secret\).*--env-file"):
        run(takes_a_secret, tmp_path)
    assert not list(tmp_path.iterdir())
    record = run(takes_a_secret, tmp_path, variables={"PASSWORD": "open sesame", "GREETING": "x"})
    assert record.tasks["variables"].parameters == {"said": "x open sesame"}
    folder = Path(record.folder)
    written = (folder / "run.json", folder / "pipeline.yaml", record.log("variables"))
    assert not [file for file in written if "sesame" in file.read_text()]


# What cannot be done here is refused before anything starts.


def refused(text, root, **options):
    """Why a pipeline is refused, nothing having been started."""
    with pytest.raises(UserError) as refusal:
        run_text(text, root, **options)
    assert not list(root.iterdir())
    return str(refusal.value)


@dsl.pipeline
def two_steps():
    first = say(text="a")
    say(text=first.output)


def changed(change):
    """The pipeline of two steps with a change."""
    spec = yaml.safe_load(compile_text(two_steps))
    change(spec)
    return yaml.safe_dump(spec)


def executor(**kind):
    def change(spec):
        spec["deploymentSpec"]["executors"]["exec-say-2"] = kind

    return change


def command(*words):
    def change(spec):
        spec["deploymentSpec"]["executors"]["exec-say-2"]["container"]["command"] = list(words)

    return change


def task(**entries):
    def change(spec):
        spec["root"]["dag"]["tasks"]["say-2"].update(entries)

    return change


def circle(spec):
    spec["root"]["dag"]["tasks"]["say"]["dependentTasks"] = ["say-2"]


def within_itself(spec):
    spec["components"]["comp-say-2"].pop("executorLabel")
    spec["components"]["comp-say-2"]["dag"] = {
        "tasks": {"inner": {"componentRef": {"name": "comp-say-2"}, "taskInfo": {"name": "inner"}}}
    }


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (executor(customJob={"customJob": {}}), ["say-2", "customJob"]),
        (executor(resolver={"outputArtifactQueries": {}}), ["say-2", "resolver"]),
        (
            command("python3", "-m", "google_cloud_pipeline_components.container.v1.custom_job"),
            ["say-2", "Google Cloud"],
        ),
        (
            executor(
                container={
                    "image": "gcr.io/ml-pipeline/google-cloud-pipeline-components:2.20.0",
                    "command": ["launch"],
                }
            ),
            ["say-2", "Google Cloud"],
        ),
        (command("sh", "{{$.json_escape[1]}}"), ["say-2", "{{$.json_escape[1]}}"]),
        (command("sh", "{{$.inputs.parameters['other']}}"), ["say-2", "other"]),
        (task(triggerPolicy={"strategy": "SOMETIMES"}), ["say-2", "SOMETIMES"]),
        (task(surprise=1), ["say-2", "surprise"]),
        (task(triggerPolicy={"condition": "nonsense(1)"}), ["nonsense(1)"]),
        (circle, ["say", "say-2", "circle"]),
        (within_itself, ["comp-say-2", "itself"]),
    ],
    ids=lambda value: "" if callable(value) else value[-1],
)
def test_what_cannot_be_done_here_is_refused_by_name(change, names, tmp_path):
    refusal = refused(changed(change), tmp_path)
    for name in names:
        assert name in refusal


def test_a_wrong_parameter_is_refused_by_name(tmp_path):
    text = compile_text(failing)
    for parameters in ({"code": "1"}, {"cod": 1}, {}, {"code": True}, {"code": 1.5}):
        refusal = refused(text, tmp_path, parameters=parameters)
        assert "cod" in refusal


@dsl.pipeline
def items_beyond_their_loop():
    with dsl.ExitHandler(steps.bare()), dsl.ParallelFor([{"a": "1"}, {"a": "2"}]) as item:
        say(text=f"item {item.a}")
    with dsl.ParallelFor(["x", "y"]) as outer, dsl.ParallelFor([3, 4]) as inner:
        say(text=f"{outer}{inner}")


def test_items_that_kfp_takes_from_nowhere_are_those_that_are_meant(tmp_path):
    # The graphs around a loop take its item from the pipeline, which has none; on a cluster this
    # fails: https://github.com/kubeflow/pipelines/issues/13273
    record = run(items_beyond_their_loop, tmp_path)
    assert sorted(said(record)) == ["item 1", "item 2", "x3", "x4", "y3", "y4"]


PAIRS = [{"a": "1", "b": "x"}, {"a": "2", "b": "y"}]


def loop_in_an_exit_handler():
    with dsl.ExitHandler(steps.bare()), dsl.ParallelFor(PAIRS) as item:
        say(text=f"{item.a}")
        say(text=item.b)


def loop_in_a_condition(n: int = 1):
    with dsl.If(n == 1), dsl.ParallelFor(PAIRS) as item:
        say(text=f"{item.a}")


def loop_in_a_loop():
    with dsl.ParallelFor(PAIRS) as one, dsl.ParallelFor([{"c": "3"}, {"c": "4"}]) as other:
        say(text=f"{one.a}{other.c}")


def condition_in_a_condition():
    with dsl.ParallelFor(PAIRS) as item, dsl.If(item.a == "1"), dsl.If(item.b == "x"):
        say(text=f"{item.a}{item.b}")


def condition_in_a_loop_in_a_loop():
    with (
        dsl.ParallelFor(PAIRS) as one,
        dsl.ParallelFor(["r", "x"]) as other,
        dsl.If(one.b == other),
    ):
        say(text=f"{one.a}{other}")


def loops_over_parameters(names: list = ["u", "v"], objects: list = [{"k": "1"}]):  # noqa: B006
    with dsl.ParallelFor(names) as name, dsl.ParallelFor(objects) as thing:
        steps.join(one=name, other=thing.k)


def loop_over_what_a_task_in_a_loop_gave(names: list = ["u", "v"]):  # noqa: B006
    with dsl.ParallelFor(names) as name:
        given = steps.give_list(value=["1", "2"])
        with dsl.ParallelFor(given.output) as item:
            steps.join(one=name, other=item)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (loop_in_an_exit_handler, ["1", "2", "x", "y"]),
        (loop_in_a_condition, ["1", "2"]),
        (loop_in_a_loop, ["13", "14", "23", "24"]),
        (condition_in_a_condition, ["1x"]),
        (condition_in_a_loop_in_a_loop, ["1x"]),
        (loops_over_parameters, ["u-1", "v-1"]),
        (loop_over_what_a_task_in_a_loop_gave, ["u-1", "u-2", "v-1", "v-2"]),
    ],
)
def test_items_are_those_of_their_loops_wherever_they_are_used(function, expected, tmp_path):
    record = run(function, tmp_path)
    assert record.status == "succeeded"
    assert sorted(said(record)) == expected
