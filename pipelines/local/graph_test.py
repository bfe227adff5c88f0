import json

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kfp import compiler, dsl, kubernetes

from pipelines.local.graph import (
    Constant,
    Container,
    Dag,
    FinalStatus,
    GraphInput,
    Importer,
    Loop,
    Retry,
    TaskOutput,
    as_declared,
    convert,
    convert_text,
    parameter_values,
    parse_graph,
    parse_json,
)
from trainer.errors import UserError

PROPERTY = settings(
    deadline=None, database=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)


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
        image="image",
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


@dsl.container_component
def show_nothing():
    return dsl.ContainerSpec(image="none", command=["true"])


@dsl.container_component
def write_number(number: dsl.OutputPath(int)):
    return dsl.ContainerSpec(image="none", command=["touch", number])


@dsl.component(base_image="none")
def end(status: dsl.PipelineTaskFinalStatus):
    print(status)


def compile_text(function, tmp_path):
    file = tmp_path / "pipeline.yaml"
    compiler.Compiler().compile(dsl.pipeline(name="My pipeline")(function), str(file))
    return file.read_text()


@pytest.fixture
def graph_of(tmp_path):
    """Reads what KFP compiles of a function."""
    return lambda function: parse_graph(compile_text(function, tmp_path))


def test_a_compiled_pipeline_is_read_whole(graph_of):
    def pipeline(options: dict = {"a": [1, "2"]}, times: int = 4, share: float = 1):  # noqa: B006
        counting = count(numbers=[1, 2], options=options, times=times)
        last = show(
            page=counting.outputs["page"],
            total=counting.outputs["total"],
            name=f"{counting.outputs['total']} of {times}",
        )
        count(numbers=[], options={}).after(last).set_caching_options(False)

    graph = graph_of(pipeline)
    assert graph.name == "my-pipeline"
    assert list(graph.dag.tasks) == ["count", "show", "count-2"]
    counting, showing, again = graph.dag.tasks.values()
    assert counting.sources == {
        "numbers": Constant([1, 2]),
        "options": GraphInput("options"),
        "times": GraphInput("times"),
    }
    assert counting.output_parameters == {"total": "NUMBER_INTEGER"}
    assert counting.output_artifacts["page"]["schemaTitle"] == "system.HTML"
    assert showing.artifacts == {"page": TaskOutput("count", "page")}
    assert showing.sources["total"] == TaskOutput("count", "total")
    assert (showing.after, again.after) == ({"count"}, {"show"})
    assert (counting.cached, again.cached) == (True, False)
    assert (counting.retry, counting.loop, counting.condition) == (Retry(0), None, None)
    assert isinstance(counting.work, Container)
    assert (counting.work.image, counting.work.command[:3]) == ("image", ("python", "-c", "pass"))
    assert graph.unobserved == ()
    values = parameter_values(graph, {})
    assert values == {"options": {"a": [1, "2"]}, "times": 4, "share": 1.0}
    assert (type(values["times"]), type(values["share"])) == (int, float)


def test_graphs_within_graphs_are_read(graph_of):
    @dsl.pipeline
    def inner(number: int = 2) -> int:
        count(numbers=[], options={}, times=number)
        return write_number().outputs["number"]

    def pipeline():
        inner(number=inner().output)

    graph = graph_of(pipeline)
    first, second = graph.dag.tasks.values()
    assert isinstance(first.work, Dag)
    assert list(first.work.tasks) == ["count", "write-number"]
    assert first.work.parameters == {"Output": (TaskOutput("write-number", "number"),)}
    assert first.parameters["number"].default == 2
    assert second.sources == {"number": TaskOutput("inner", "Output")}
    assert [path for path, _ in graph.containers()] == [
        *("inner/count", "inner/write-number", "inner-2/count", "inner-2/write-number")
    ]


def test_conditions_loops_and_exit_tasks_are_read(graph_of):
    def pipeline(items: list = ["a"]):  # noqa: B006
        number = write_number().outputs["number"]
        with dsl.If(number == 1):
            one = write_number()
        with dsl.Else():
            other = write_number()
        chosen = dsl.OneOf(one.outputs["number"], other.outputs["number"])
        with dsl.ParallelFor([1.0, 2.5], parallelism=3):
            show_nothing()
        with dsl.ParallelFor(items) as item:
            count(numbers=[], options={}, word=item)
        with dsl.ExitHandler(end()):
            count(numbers=[], options={}, times=chosen)

    tasks = graph_of(pipeline).dag.tasks
    branches = tasks["condition-branches-1"].work
    name = next(iter(branches.parameters))
    assert branches.parameters[name] == (
        TaskOutput("condition-2", "pipelinechannel--write-number-2-number"),
        TaskOutput("condition-3", "pipelinechannel--write-number-3-number"),
    )
    texts = [task.condition.text for task in branches.tasks.values()]
    assert texts[0].endswith("== 1")
    assert texts[1] == f"!({texts[0]})"
    assert tasks["for-loop-5"].loop == Loop(
        "pipelinechannel--loop-item-param-4", (1, 2.5), False, 3
    )
    by_parameter = next(t for t in tasks.values() if t.loop and isinstance(t.loop.items, str))
    assert (by_parameter.loop.items, by_parameter.loop.parallelism) == (
        "pipelinechannel--items",
        0,
    )
    ending = tasks["end"]
    (group,) = ending.after
    assert ending.always
    assert ending.sources == {"status": FinalStatus(group)}
    assert not tasks[group].always


def test_imports_are_read(graph_of):
    def pipeline(place: str, author: str = "a"):
        dsl.importer(artifact_uri="/x", artifact_class=dsl.Dataset)
        dsl.importer(
            artifact_uri=place,
            artifact_class=dsl.Artifact,
            metadata={"by": author, "rows": 2},
        )

    first, second = (task.work for task in graph_of(pipeline).dag.tasks.values())
    assert isinstance(first, Importer)
    assert (first.uri, first.type["schemaTitle"], first.metadata) == ("/x", "system.Dataset", {})
    assert second.uri == "{{$.inputs.parameters['uri']}}"
    assert second.metadata["rows"] == 2
    assert isinstance(second.metadata["rows"], int)
    assert second.metadata["by"].startswith("{{$.inputs.parameters[")


def test_what_a_task_asks_for_is_read(graph_of):
    def pipeline():
        task = show_nothing().set_retry(3, "5s", 1.5, "1m").set_env_variable("A", "1")
        task.set_cpu_limit("500m").set_memory_limit("1G").set_memory_request("500M")
        task.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(2)
        kubernetes.use_secret_as_env(task, "passwords", {"key": "PASSWORD"})
        kubernetes.use_config_map_as_env(task, "settings", {"level": "LEVEL"})
        kubernetes.set_timeout(task, 90)
        kubernetes.add_node_selector(task, "a", "b")
        kubernetes.set_image_pull_policy(task, "Always")
        kubernetes.empty_dir_mount(task, "scratch", "/scratch")
        show_nothing().set_retry(2)

    graph = graph_of(pipeline)
    task, other = graph.dag.tasks.values()
    assert task.retry == Retry(3, 5.0, 1.5, 60.0)
    assert other.retry == Retry(2, 0.0, 2.0, 3600.0)
    asked = task.work.resources
    assert (asked.cpu, asked.memory, asked.memory_request) == ("500m", "1G", "500M")
    assert (asked.accelerator, asked.accelerators) == ("nvidia.com/gpu", "2")
    assert task.work.environment == {"A": "1"}
    assert task.work.secrets == {"PASSWORD": "key of passwords", "LEVEL": "level of settings"}
    assert task.work.seconds == 90.0
    assert graph.unobserved == ("emptyDirMounts", "imagePullPolicy", "nodeSelector")


def test_the_waits_between_attempts_grow_up_to_a_limit():
    retry = Retry(5, wait=2.0, factor=3.0, longest=10.0)
    assert [retry.seconds(failures) for failures in (1, 2, 3)] == [2.0, 6.0, 10.0]
    assert Retry(5).seconds(4) == 0.0


def volume(task):
    kubernetes.mount_pvc(task, "claim", "/data")


def secret_as_volume(task):
    kubernetes.use_secret_as_volume(task, "name", "/secret")


def field_of_the_pod(task):
    kubernetes.use_field_path_as_env(task, "VARIABLE", "metadata.name")


@pytest.mark.parametrize(
    ("setting", "name"),
    [
        (volume, "pvcMount"),
        (secret_as_volume, "secretAsVolume"),
        (field_of_the_pod, "fieldPathAsEnv"),
    ],
)
def test_a_cluster_that_would_be_needed_is_refused_by_name(setting, name, graph_of):
    def pipeline():
        setting(show_nothing())

    with pytest.raises(UserError, match=f"show-nothing has the Kubernetes setting {name}"):
        graph_of(pipeline)


def change(text, function):
    spec = yaml.safe_load(text)
    function(spec)
    return yaml.safe_dump(spec)


@pytest.mark.parametrize("text", ["", "a: [", "a: 1", "[]", "just text", "---\n---\n", "\x00"])
def test_what_is_no_compiled_pipeline_is_refused(text):
    with pytest.raises(UserError, match="A pipeline must be"):
        parse_graph(text)


def test_a_damaged_pipeline_is_refused(compiled, container):
    def without_component(spec):
        del spec["components"]["comp-a"]

    def tasks_that_are_none(spec):
        spec["root"]["dag"]["tasks"] = {"a": 3}

    def without_executor(spec):
        spec["deploymentSpec"]["executors"] = None

    for damage, place in (
        (without_component, "'comp-a'"),
        (tasks_that_are_none, ""),
        (without_executor, ""),
    ):
        with pytest.raises(UserError, match=f"damaged near {place}"):
            parse_graph(change(compiled(a=container("")), damage))


def test_any_damage_is_an_error_of_the_file_or_does_no_harm(tmp_path):
    def pipeline(place: str = "/x", numbers: list = [1, 2]):  # noqa: B006
        dsl.importer(artifact_uri=place, artifact_class=dsl.Dataset, metadata={"by": "a"})
        task = write_number().set_retry(3, "5s", 1.5, "1m").set_env_variable("A", "1")
        task.set_cpu_limit("500m").set_memory_limit("1G").set_accelerator_limit(1)
        kubernetes.use_secret_as_env(task, "passwords", {"key": "PASSWORD"})
        kubernetes.set_timeout(task, 90)
        with dsl.ParallelFor(numbers, parallelism=2), dsl.If(task.output == 1):
            show_nothing()

    text = compile_text(pipeline, tmp_path)
    parse_graph(text)
    spec, platform = yaml.safe_load_all(text)
    refused = []
    for number, path in enumerate(_paths([spec, platform])):
        for replacement in ("nothing", ("x", None, [1])[number % 3]):
            documents = json.loads(json.dumps([spec, platform]))
            _damage(documents, path, replacement)
            try:
                # JSON is YAML, too.
                parse_graph("\n---\n".join(json.dumps(document) for document in documents))
            except UserError:
                refused.append(path)
    assert len(refused) > 100


def _paths(value, path=()):
    for key in value if isinstance(value, dict) else range(len(value)):
        yield (*path, key)
        if isinstance(value[key], dict | list):
            yield from _paths(value[key], (*path, key))


def _damage(value, path, replacement):
    for key in path[:-1]:
        value = value[key]
    if replacement == "nothing":
        del value[path[-1]]
    else:
        value[path[-1]] = replacement


def test_a_circle_is_refused(compiled, container):
    with pytest.raises(UserError, match="circle"):
        parse_graph(compiled(a=container("", after=["b"]), b=container("", after=["a"])))
    with pytest.raises(UserError, match="circle"):
        parse_graph(compiled(a=container("", after=["a"])))


def test_what_comes_from_nowhere_is_refused(compiled, container):
    for source in ("b.number", "b/page", "pipeline:data"):
        with pytest.raises(UserError, match="which"):
            parse_graph(compiled(a=container("", inputs={"x": source}), b=container("")))
    with pytest.raises(UserError, match="waits for 'c'"):
        parse_graph(compiled(a=container("", after=["c"])))


def test_an_input_that_nothing_gives_is_refused(compiled, container):
    def without_source(spec):
        spec["root"]["dag"]["tasks"]["a"]["inputs"]["parameters"].clear()

    text = compiled(a=container("", inputs={"x": "=1"}))
    with pytest.raises(UserError, match="a must be given x"):
        parse_graph(change(text, without_source))


def test_a_condition_needs_what_its_task_is_given(compiled, container):
    def conditional(spec):
        spec["root"]["dag"]["tasks"]["a"]["triggerPolicy"] = {
            "condition": "inputs.parameter_values['y'] == 'b'"
        }

    text = compiled(a=container("", inputs={"x": "=1"}))
    with pytest.raises(UserError, match="The condition of a needs 'y'"):
        parse_graph(change(text, conditional))


@pytest.mark.parametrize("name", ["../a", "a/b", "", ".hidden", "-x", "a b"])
def test_a_name_that_leads_elsewhere_is_refused(name, compiled, container):
    with pytest.raises(UserError, match="Names in a pipeline must be"):
        parse_graph(compiled(**{name: container("")}))
    with pytest.raises(UserError, match="Names in a pipeline must be"):
        parse_graph(compiled(a=container("", outputs=[name])))
    with pytest.raises(UserError, match="Names in a pipeline must be"):
        parse_graph(compiled(a=container("", artifacts=[name])))


@pytest.mark.parametrize("raw", ["{}", "3", "[NaN]", "[", "", '"ab"'])
def test_items_that_are_no_list_are_refused(raw, compiled, container):
    def looped(spec):
        spec["root"]["dag"]["tasks"]["a"]["parameterIterator"] = {
            "itemInput": "x",
            "items": {"raw": raw},
        }

    with pytest.raises(UserError, match=r"The items of the loop a must be"):
        parse_graph(change(compiled(a=container("", inputs={"x": "=1"})), looped))


def test_parameters_of_a_run_are_checked_by_name(graph_of):
    def pipeline(count: int, word: str = "x"):
        count_ = count
        show_nothing().set_display_name(f"{count_} {word}")

    graph = graph_of(pipeline)
    assert parameter_values(graph, {"count": 2.0}) == {"count": 2, "word": "x"}
    with pytest.raises(UserError, match=r"got 'cuont'.* Did you mean 'count'\?"):
        parameter_values(graph, {"cuont": 1})
    with pytest.raises(UserError, match="count of my-pipeline must be given"):
        parameter_values(graph, {})
    for wrong in ("1", True, 1.5, None, [1]):
        with pytest.raises(UserError, match="count must be of type NUMBER_INTEGER"):
            parameter_values(graph, {"count": wrong})


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("7", "STRING", "7"),
        (" a\n", "STRING", " a\n"),
        ("", "STRING", ""),
        ("7", "NUMBER_INTEGER", 7),
        ("-7\n", "NUMBER_INTEGER", -7),
        ("7.0", "NUMBER_INTEGER", 7),
        ("7", "NUMBER_DOUBLE", 7.0),
        ("1e-05", "NUMBER_DOUBLE", 1e-05),
        ("True", "BOOLEAN", True),
        ("false", "BOOLEAN", False),
        ("[1]", "LIST", [1]),
        ("[1.0, 1.5]", "LIST", [1.0, 1.5]),
        ('{"a": "1"}', "STRUCT", {"a": "1"}),
    ],
)
def test_text_becomes_a_value_of_its_type(text, kind, value):
    converted = convert_text(text, kind, "x")
    assert (converted, type(converted)) == (value, type(value))
    assert repr(converted) == repr(value)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("7.5", "NUMBER_INTEGER"),
        ("true", "NUMBER_INTEGER"),
        ("", "NUMBER_INTEGER"),
        ("NaN", "NUMBER_DOUBLE"),
        ("-Infinity", "NUMBER_DOUBLE"),
        ("1e400", "NUMBER_DOUBLE"),
        ("1", "BOOLEAN"),
        ("yes", "BOOLEAN"),
        ("{}", "LIST"),
        ("[1e999]", "LIST"),
        ('{"a": NaN}', "STRUCT"),
        ("a", "STRUCT"),
    ],
)
def test_text_that_is_no_value_of_its_type_is_refused(text, kind):
    with pytest.raises(UserError, match=f"x must be of type {kind}"):
        convert_text(text, kind, "x")


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (3, "STRING", "3"),
        (True, "STRING", "true"),
        ([1, "a"], "STRING", '[1, "a"]'),
        ("3", "NUMBER_INTEGER", 3),
        ("[1]", "LIST", [1]),
        (3, "NUMBER_DOUBLE", 3.0),
        ({"a": 1.0}, "STRUCT", {"a": 1.0}),
    ],
)
def test_what_comes_from_elsewhere_becomes_what_is_declared(value, kind, expected):
    taken = as_declared(value, kind, "x")
    assert repr(taken) == repr(expected)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)


@PROPERTY
@given(st.lists(JSON, max_size=3) | st.dictionaries(st.text(), JSON, max_size=3))
def test_converting_changes_no_value(value):
    kind = "LIST" if isinstance(value, list) else "STRUCT"
    assert convert(value, kind, "x") == value


@PROPERTY
@given(st.text())
def test_text_that_is_no_json_is_refused_and_nothing_else_happens(text):
    try:
        value = parse_json(text)
    except ValueError:
        return
    assert value == value  # which NaN is not
