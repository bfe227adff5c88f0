import pytest
import yaml
from kfp import compiler, dsl

from pipelines.local.graph import (
    Constant,
    PipelineInput,
    TaskOutput,
    convert_text,
    parameter_values,
    parse_graph,
)
from trainer.errors import UserError


@dsl.container_component
def count(
    numbers: list,
    options: dict,
    page: dsl.Output[dsl.HTML],
    total: dsl.OutputPath(int),
    times: int = 3,
    loud: bool = False,
    word: str = "",
):
    return dsl.ContainerSpec(
        image="none",
        command=["python", "-c", "pass"],
        args=[
            numbers,
            options,
            page.path,
            total,
            f"--times={times}",
            loud,
            dsl.IfPresentPlaceholder("word", then=["--word", word]),
            dsl.ConcatPlaceholder(["<", word, ">"]),
            "{{$}}",
        ],
    )


@dsl.container_component
def show(page: dsl.Input[dsl.HTML], total: int, name: str):
    return dsl.ContainerSpec(image="none", command=["cat"], args=[page.path, total, name])


def compile_text(function, tmp_path):
    file = tmp_path / "pipeline.yaml"
    compiler.Compiler().compile(function, str(file))
    return file.read_text()


def test_a_compiled_pipeline_is_read_whole(tmp_path):
    @dsl.pipeline(name="My pipeline")
    def pipeline(options: dict = {"a": [1, "2"]}, times: int = 4, share: float = 1):  # noqa: B006
        counting = count(numbers=[1, 2], options=options, times=times)
        counting.set_memory_limit("1G").set_retry(2)
        last = show(
            page=counting.outputs["page"],
            total=counting.outputs["total"],
            name=f"{counting.outputs['total']} of {times}",
        )
        count(numbers=[], options={}).after(last)

    graph = parse_graph(compile_text(pipeline, tmp_path))
    assert graph.name == "my-pipeline"
    assert list(graph.tasks) == ["count", "show", "count-2"]
    counting, showing, again = graph.tasks.values()
    assert counting.sources == {
        "numbers": Constant([1, 2]),
        "options": PipelineInput("options"),
        "times": PipelineInput("times"),
    }
    assert (counting.output_parameters, set(counting.output_artifacts)) == (
        {"total": "NUMBER_INTEGER"},
        {"page"},
    )
    assert showing.artifacts == {"page": TaskOutput("count", "page")}
    assert showing.sources["total"] == TaskOutput("count", "total")
    assert (showing.after, again.after) == ({"count"}, {"show"})
    assert graph.unobserved == ("resources", "retryPolicy")
    values = parameter_values(graph, {})
    assert values == {"options": {"a": [1, "2"]}, "times": 4, "share": 1.0}
    assert (type(values["times"]), type(values["share"])) == (int, float)


def condition(tmp_path):
    with dsl.If(_number() == "1"):
        show_nothing()


def loop(tmp_path):
    with dsl.ParallelFor([1, 2]):
        show_nothing()


def importer(tmp_path):
    dsl.importer(artifact_uri="/x", artifact_class=dsl.Dataset)


def exit_handler(tmp_path):
    with dsl.ExitHandler(show_nothing()):
        show_nothing()


def nested(tmp_path):
    inner()


def entry_point(tmp_path):
    @dsl.container_component
    def bare():
        return dsl.ContainerSpec(image="none")

    bare()


def workspace(tmp_path):
    @dsl.container_component
    def places():
        return dsl.ContainerSpec(image="none", command=["ls", "{{$.workspace_path}}"])

    places()


def secret(tmp_path):
    from kfp import kubernetes

    kubernetes.use_secret_as_env(show_nothing(), "name", {"key": "VARIABLE"})


@dsl.container_component
def show_nothing():
    return dsl.ContainerSpec(image="none", command=["true"])


@dsl.pipeline
def inner():
    show_nothing()


@dsl.container_component
def write_number(number: dsl.OutputPath(str)):
    return dsl.ContainerSpec(image="none", command=["touch", number])


def _number():
    return write_number().outputs["number"]


@pytest.mark.parametrize(
    ("part", "name"),
    [
        (condition, "dag"),
        (loop, "dag"),
        (importer, "importer"),
        (exit_handler, "dag|triggerPolicy"),
        (nested, "dag"),
        (entry_point, "no command"),
        (workspace, "workspace_path"),
        (secret, "secretAsEnv"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_cannot_be_run_here_is_refused_by_name(part, name, tmp_path):
    def pipeline():
        part(tmp_path)

    with pytest.raises(UserError, match=name):
        parse_graph(compile_text(dsl.pipeline(name="x")(pipeline), tmp_path))


@pytest.mark.parametrize("text", ["", "a: [", "a: 1", "[]", "just text"])
def test_what_is_no_compiled_pipeline_is_refused(text):
    with pytest.raises(UserError, match="A pipeline must be"):
        parse_graph(text)


def test_a_damaged_pipeline_is_refused(compiled, container):
    spec = yaml.safe_load(compiled(a=container("")))
    del spec["components"]["comp-a"]
    with pytest.raises(UserError, match="damaged near 'comp-a'"):
        parse_graph(yaml.safe_dump(spec))


def test_a_circle_is_refused(compiled, container):
    with pytest.raises(UserError, match="circle"):
        parse_graph(compiled(a=container("", after=["b"]), b=container("", after=["a"])))


def test_what_comes_from_nowhere_is_refused(compiled, container):
    for source in ("b.number", "b/page", "pipeline:data"):
        with pytest.raises(UserError, match="which"):
            parse_graph(compiled(a=container("", inputs={"x": source}), b=container("")))
    with pytest.raises(UserError, match="waits for 'c'"):
        parse_graph(compiled(a=container("", after=["c"])))


def test_a_name_that_leads_elsewhere_is_refused(compiled, container):
    with pytest.raises(UserError, match=r"\.\./a"):
        parse_graph(compiled(**{"../a": container("")}))


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("7", "STRING", "7"),
        ("7", "NUMBER_INTEGER", 7),
        ("7.0", "NUMBER_INTEGER", 7),
        ("7", "NUMBER_DOUBLE", 7.0),
        ("True", "BOOLEAN", True),
        ("[1]", "LIST", [1]),
        ('{"a": "1"}', "STRUCT", {"a": "1"}),
    ],
)
def test_text_becomes_a_value_of_its_type(text, kind, value):
    converted = convert_text(text, kind, "x")
    assert (converted, type(converted)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("7.5", "NUMBER_INTEGER"),
        ("true", "NUMBER_INTEGER"),
        ("NaN", "NUMBER_DOUBLE"),
        ("1", "BOOLEAN"),
        ("{}", "LIST"),
        ("a", "STRUCT"),
    ],
)
def test_text_that_is_no_value_of_its_type_is_refused(text, kind):
    with pytest.raises(UserError, match=f"x must be of type {kind}"):
        convert_text(text, kind, "x")
