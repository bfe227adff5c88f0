import operator

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from kfp.compiler import pipeline_spec_builder
from kfp.dsl.pipeline_channel import ConditionOperation, PipelineParameterChannel

from pipelines.local.condition import Comparison, Reference, parse
from trainer.errors import UserError

PROPERTY = settings(
    deadline=None, database=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)

X = "inputs.parameter_values['pipelinechannel--x']"
Y = "inputs.parameter_values['pipelinechannel--y']"


def holds(text, **values):
    return parse(text).holds({f"pipelinechannel--{name}": v for name, v in values.items()})


def compiled(*operations):
    """What KFP's own compiler makes of comparisons of a parameter `x` of type text.

    Each is a sign, a value and whether it must not hold.
    """
    channel = PipelineParameterChannel("x", "String")
    return pipeline_spec_builder._binary_operations_to_cel_conjunctive(
        [
            ConditionOperation(
                operator=sign, left_operand=channel, right_operand=value, negate=negate
            )
            for sign, value, negate in operations
        ]
    )


@pytest.mark.parametrize(
    ("text", "comparisons"),
    [
        (f"{X} == 'a'", [(Reference("pipelinechannel--x"), "==", "a")]),
        (f"int({X}) >= 3", [(Reference("pipelinechannel--x", "int"), ">=", 3)]),
        (f"{X} < 1e-05", [(Reference("pipelinechannel--x"), "<", 1e-05)]),
        (f"double(int({X})) <= -2.5", [(Reference("pipelinechannel--x", "double"), "<=", -2.5)]),
        (f"{X} > double(3)", [(Reference("pipelinechannel--x"), ">", 3.0)]),
        (f"{X} != true", [(Reference("pipelinechannel--x"), "!=", True)]),
        (f"{X} == ''", [(Reference("pipelinechannel--x"), "==", "")]),
        (
            f"{X} == int({Y})",
            [(Reference("pipelinechannel--x"), "==", Reference("pipelinechannel--y", "int"))],
        ),
        (
            f"{X} == '{Y}'",
            [(Reference("pipelinechannel--x"), "==", Reference("pipelinechannel--y"))],
        ),
        (
            f"'int({Y})' == {X}",
            [(Reference("pipelinechannel--y", "int"), "==", Reference("pipelinechannel--x"))],
        ),
        (
            f"!({X} == 'it's') && int({Y}) == 1",
            [
                (Reference("pipelinechannel--x"), "==", "it's", True),
                (Reference("pipelinechannel--y", "int"), "==", 1),
            ],
        ),
    ],
)
def test_what_kfp_writes_is_read_as_meant(text, comparisons):
    condition = parse(text)
    assert condition.comparisons == tuple(Comparison(*each) for each in comparisons)
    assert condition.text == text


def test_a_condition_names_the_inputs_that_it_needs():
    assert parse(f"!({X} == 'a') && int({Y}) == 1").references() == {
        *("pipelinechannel--x", "pipelinechannel--y")
    }


@pytest.mark.parametrize(
    "text",
    [
        "",
        X,
        f"{X} ==",
        f"{X} = 'a'",
        f"{X} == a",
        f"{X} == 'a",
        f"{X} == 'a' || {Y} == 'b'",
        f"({X} == 'a')",
        f"!({X} == 'a'",
        f"int({X} == 3",
        f"{X} == 3)",
        f"size({X}) == 3",
        "'a' == 'a'",
        "1 == 1",
    ],
)
def test_what_is_no_condition_is_refused(text):
    with pytest.raises(UserError, match="has 0"):
        parse(text)


SIGNS = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@pytest.mark.parametrize("sign", SIGNS)
@pytest.mark.parametrize(("left", "right"), [(1, 2), (2, 2), (3, 2), (-3, -2), (2.5, 2), (2, 2.5)])
def test_numbers_are_compared_as_numbers(sign, left, right):
    expected = SIGNS[sign](left, right)
    assert holds(f"{X} {sign} {right}", x=left) is expected
    assert holds(f"!({X} {sign} {right})", x=left) is not expected
    assert holds(f"{X} {sign} {Y}", x=left, y=right) is expected
    # What an item or a parameter of another type may be:
    assert holds(f"{X} {sign} '{Y}'", x=str(left), y=right) is expected
    assert holds(f"{X} {sign} {right}", x=str(left)) is expected


@pytest.mark.parametrize(
    ("value", "text", "expected"),
    [
        (True, "true", True),
        (False, "true", False),
        ("true", "true", True),
        ("True", "true", True),
        ("yes", "true", False),
        (1, "true", False),
        (1.0, "true", False),
        ("1", "true", False),
        (0, "false", False),
        (None, "false", False),
        (True, "'true'", True),
        (2, "'2'", True),
        (2, "'2.0'", True),
        (2.0, "'2'", True),
        (2, "'two'", False),
        ("2.0", "'2'", False),
        ("2.0", "2", True),
        (None, "'a'", False),
        (["a"], "'a'", False),
    ],
)
def test_equality_is_of_what_is_meant(value, text, expected):
    assert holds(f"{X} == {text}", x=value) is expected
    assert holds(f"{X} != {text}", x=value) is not expected


def test_casts_make_numbers():
    assert holds(f"int({X}) == 3", x="3")
    assert holds(f"int({X}) == 3", x=3.0)
    assert holds(f"double(int({X})) < 3.5", x="3")
    assert not holds(f"double({X}) < 2.4", x=2.5)
    assert not holds(f"int({X}) < 2", x=2.9)
    with pytest.raises(UserError, match=r"needs a number for pipelinechannel--x; got 'three'"):
        holds(f"int({X}) == 3", x="three")
    with pytest.raises(UserError, match="got None"):
        holds(f"int({X}) == 3", x=None)


@pytest.mark.parametrize(
    ("value", "text"), [("a", "3"), (None, "3"), (True, "3"), (3, "true"), ("a", "true"), ([], "3")]
)
def test_what_has_no_order_is_refused(value, text):
    with pytest.raises(UserError, match="two numbers or two texts"):
        holds(f"{X} < {text}", x=value)


def test_texts_come_in_the_order_of_their_letters_unless_they_are_numbers():
    assert holds(f"{X} < 'b'", x="a")
    assert holds(f"{X} < '10'", x="a") is False
    assert holds(f"{X} < '9'", x="8")
    with pytest.raises(UserError, match="as numbers come in the other order"):
        holds(f"{X} < '9'", x="10")


PIECES = st.sampled_from(
    [
        *("'", '"', "\\", " ", " && ", "&&", " == ", " != ", " < ", "!(", "(", ")", "!", "\n"),
        *("a", "b", "1", "1.0", "-", "true", "false", "e5", "ü", "🙂", "'a'", "' == '", "inputs."),
        *("double(", "int(", "[", "]", "parameter_values", "{{$}}", "nan", "inf", ""),
    ]
)
TEXTS = st.one_of(st.text(), st.lists(PIECES, max_size=8).map("".join)).filter(
    lambda text: "inputs.parameter_values[" not in text
)


def decided(text, value):
    """Whether a condition holds for a value; None where it is refused by name."""
    try:
        return parse(text).holds({"pipelinechannel--x": value})
    except UserError as error:
        assert repr(text)[1:-1] in str(error) or text in str(error)
        return None


@settings(PROPERTY, max_examples=400)
@given(constant=TEXTS, value=TEXTS)
@example(constant="a' && 'b' == 'b", value="a")
@example(constant="a' == 'a", value="a")
def test_any_text_is_equal_to_itself_alone(constant, value):
    for sign, negate in (("==", False), ("!=", False), ("==", True)):
        for other in (constant, value):
            expected = SIGNS[sign](other, constant) is not negate
            assert decided(compiled((sign, constant, negate)), other) in (expected, None)


@settings(PROPERTY, max_examples=400)
@given(first=TEXTS, second=TEXTS, third=TEXTS, value=TEXTS)
@example(first="a', b", second="c'", third="", value="a")
@example(first="a'", second="b'", third="'", value="a'")
def test_branches_are_told_apart_whatever_their_texts(first, second, third, value):
    text = compiled(("==", first, True), ("==", second, True), ("==", third, False))
    for other in (first, second, third, value):
        expected = other not in (first, second) and other == third
        assert decided(text, other) in (expected, None)


@PROPERTY
@given(st.text(alphabet="abc'\"\\ &=!()äü1\n", max_size=12))
def test_a_text_without_an_operator_between_quotes_is_not_refused(constant):
    if "' " not in constant:
        assert decided(compiled(("==", constant, False)), constant) is True


@PROPERTY
@given(st.floats(allow_nan=False), st.floats(allow_nan=False))
def test_any_number_is_compared_as_python_does(constant, value):
    for sign, compare in SIGNS.items():
        assert holds(f"{X} {sign} {constant}", x=value) is compare(value, constant)


@PROPERTY
@given(st.integers(-(2**53), 2**53), st.integers(-(2**53), 2**53))
def test_any_whole_number_is_compared_as_python_does(constant, value):
    for sign, compare in SIGNS.items():
        assert holds(f"int({X}) {sign} {constant}", x=value) is compare(value, constant)
