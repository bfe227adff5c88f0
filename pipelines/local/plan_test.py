import collections

import pytest

from pipelines.local import condition
from pipelines.local.graph import (
    ArtifactInput,
    Constant,
    Container,
    Dag,
    FinalStatus,
    GraphInput,
    Importer,
    Loop,
    Parameter,
    Task,
    TaskOutput,
)
from pipelines.local.placeholders import RUN_FACTS
from pipelines.local.plan import Plan
from pipelines.local.resources import Resources

COMMAND = Container("image", ("true",), {}, Resources(), {})
FAILED = ("failed", {}, {}, 3)


def task(name, work=COMMAND, **fields):
    """A task that takes anything that it is given as an optional text."""
    sources, artifacts = fields.get("sources", {}), fields.get("artifacts", {})
    needed = [s for s in (*sources.values(), *artifacts.values()) if hasattr(s, "task")]
    after = {*fields.pop("after", ()), *(source.task for source in needed)}
    given = {
        "parameters": {name: Parameter("STRING") for name in sources},
        "artifact_inputs": {name: ArtifactInput({}) for name in artifacts},
        "sources": {},
        "artifacts": {},
        "output_parameters": {},
        "output_artifacts": {},
        **fields,
    }
    return Task(name=name, work=work, after=frozenset(after), **given)


def dag(*tasks, parameters=None, artifacts=None):
    return Dag({t.name: t for t in tasks}, parameters or {}, artifacts or {})


class Machine:
    """A host that runs nothing: a container ends as it is told to, in the order of their starts.

    Attributes:
        outcomes: path -> status, parameters, artifacts and exit code; others succeed.
        most: so many were there at once.
    """

    def __init__(self, graph, outcomes=None, values=None, given=None, stopping=""):
        self.outcomes = outcomes or {}
        self.reason = stopping
        self.nodes = {}
        self.started = []
        self.reasons = {}
        self.queue = collections.deque()
        self.most = 0
        self.plan = Plan(graph, self)
        self.plan.begin(values or {}, given or {})
        while self.queue:
            self.most = max(self.most, len(self.queue))
            node = self.queue.popleft()
            status, parameters, artifacts, code = self.outcomes.get(
                node.path, self.outcomes.get(node.task.name, ("succeeded", {}, {}, 0))
            )
            if callable(parameters):
                parameters = parameters(node)
            self.plan.settle(node, status, parameters, artifacts, told=True, code=code)

    def appeared(self, node):
        assert node.path not in self.nodes
        self.nodes[node.path] = node

    def began_group(self, node):
        self.started.append(node.path)

    def ready(self, node):
        self.started.append(node.path)
        self.queue.append(node)

    def settled(self, node, reason):
        self.reasons[node.path] = reason

    def stopping(self, node):
        return "" if node.exempt else self.reason

    def facts(self, node):
        return {**dict.fromkeys(RUN_FACTS, "?"), "pipeline_job_resource_name": "job"}

    @property
    def statuses(self):
        return {path: node.status for path, node in self.nodes.items()}


def gives(**parameters):
    return ("succeeded", parameters, {}, 0)


def test_a_task_begins_when_all_that_it_waits_for_has_ended():
    machine = Machine(dag(task("a"), task("b"), task("c", after=["a", "b"]), task("d")))
    assert machine.started == ["a", "b", "d", "c"]
    assert machine.plan.ended


def test_values_and_artifacts_travel_from_task_to_task():
    page = {"name": "page", "uri": "/page"}
    graph = dag(
        task("a", output_parameters={"n": "NUMBER_INTEGER"}, output_artifacts={"page": {}}),
        task(
            "b",
            sources={"n": TaskOutput("a", "n"), "word": GraphInput("word"), "c": Constant("x")},
            artifacts={"page": TaskOutput("a", "page"), "data": GraphInput("data")},
        ),
        parameters={"out": (TaskOutput("a", "n"),)},
        artifacts={"pages": (TaskOutput("a", "page"),)},
    )
    data = {"name": "data", "uri": "/data"}
    machine = Machine(
        graph,
        {"a": ("succeeded", {"n": 7}, {"page": page}, 0)},
        {"word": "hello"},
        {"data": [data]},
    )
    assert machine.nodes["b"].values == {"n": 7, "word": "hello"}  # constants are the task's own
    assert machine.nodes["b"].given == {"page": [page], "data": [data]}
    assert machine.plan.parameters == {"out": 7}
    assert machine.plan.artifacts == {"pages": page}


def test_parts_of_values_are_found():
    sources = {
        "deep": TaskOutput("a", "n", ("k", "m")),
        "text": TaskOutput("a", "text", ("k",)),
    }
    graph = dag(task("a"), task("b", sources=sources))
    machine = Machine(graph, {"a": gives(n={"k": {"m": [1]}}, text='{"k": 2}')})
    assert machine.nodes["b"].values == {"deep": [1], "text": 2}
    for given in ({"other": 1}, {"k": {}}, 3, "no json", None):
        machine = Machine(graph, {"a": gives(n=given, text='{"k": 2}')})
        assert machine.statuses["b"] == "failed"
        assert "deep must" in machine.reasons["b"]


def test_a_failure_cancels_what_depends_on_it_alone():
    graph = dag(
        task("a"),
        task("b", after=["a"]),
        task("c", after=["b"]),
        task("d"),
        task("e", after=["d"]),
    )
    machine = Machine(graph, {"a": FAILED})
    assert machine.statuses == {
        "a": "failed",
        "b": "cancelled",
        "c": "cancelled",
        "d": "succeeded",
        "e": "succeeded",
    }
    assert machine.reasons["b"] == "a failed."
    assert machine.reasons["c"] == "b cancelled."


def test_a_group_ends_as_its_tasks_did():
    inner = dag(task("x"), task("y", after=["x"]), task("z"))
    machine = Machine(dag(task("g", inner), task("h", after=["g"])), {"g/x": FAILED})
    assert machine.statuses["g/z"] == "succeeded"
    assert machine.statuses["g"] == "failed"
    assert machine.reasons["g"] == "g/x failed."
    assert machine.nodes["g"].code == 3
    assert machine.statuses["h"] == "cancelled"


def test_an_empty_graph_ends_at_once():
    assert Machine(dag()).plan.ended
    machine = Machine(dag(task("g", dag()), task("a", after=["g"])))
    assert machine.statuses == {"g": "succeeded", "a": "succeeded"}


def test_a_graph_has_defaults_and_converts_to_what_it_declares():
    inner = dag(task("x", sources={"n": GraphInput("n"), "m": GraphInput("m")}))
    parameters = {
        "n": Parameter("NUMBER_INTEGER"),
        "m": Parameter("STRING", optional=True, default="default"),
    }
    graph = dag(
        task("a"), task("g", inner, parameters=parameters, sources={"n": TaskOutput("a", "n")})
    )
    machine = Machine(graph, {"a": gives(n="7")})
    assert machine.nodes["g/x"].values == {"n": 7, "m": "default"}
    machine = Machine(graph, {"a": gives(n="seven")})
    assert machine.statuses["g"] == "failed"
    assert "n of g must be of type NUMBER_INTEGER" in machine.reasons["g"]
    machine = Machine(graph, {"a": gives(n=None)})
    assert machine.reasons["g"] == "The graph g must be given n; there is none."


def conditional(name, text, *inner, **fields):
    sources = {"x": GraphInput("x")}
    return task(
        name,
        dag(*inner),
        sources=sources,
        condition=condition.parse(f"inputs.parameter_values['x'] {text}"),
        **fields,
    )


def test_a_condition_that_does_not_hold_skips_and_what_waits_goes_on():
    graph = dag(
        conditional("yes", "== 1", task("a")),
        conditional("no", "== 2", task("b")),
        task("after", after=["yes", "no"]),
    )
    machine = Machine(graph, values={"x": 1})
    assert machine.statuses == {
        "yes": "succeeded",
        "yes/a": "succeeded",
        "no": "skipped",
        "after": "succeeded",
    }
    assert "did not hold: inputs.parameter_values['x'] == 2" in machine.reasons["no"]


def test_a_condition_that_cannot_be_decided_fails():
    machine = Machine(dag(conditional("c", "< 2", task("a"))), values={"x": "text"})
    assert machine.statuses == {"c": "failed"}
    assert machine.nodes["c"].code == 2
    assert "two numbers or two texts" in machine.reasons["c"]


def test_of_several_branches_that_which_ran_gives_the_output():
    output = {"out": (TaskOutput("a", "said"),)}

    def branch(name, text):
        inner = dag(task("a"), parameters=output)
        return task(
            name,
            inner,
            sources={"x": GraphInput("x")},
            condition=condition.parse(f"inputs.parameter_values['x'] {text}"),
        )

    graph = dag(
        branch("one", "== 1"),
        branch("two", "== 2"),
        parameters={"chosen": (TaskOutput("one", "out"), TaskOutput("two", "out"))},
    )
    outcomes = {"one/a": gives(said="one"), "two/a": gives(said="two")}
    for number, expected in ((1, {"chosen": "one"}), (2, {"chosen": "two"}), (3, {})):
        assert Machine(graph, outcomes, {"x": number}).plan.parameters == expected


def test_what_needs_something_of_a_skipped_task_is_skipped_unless_it_may_do_without():
    skipped = conditional("c", "== 2", task("a"))
    needs = task("needs", sources={"n": TaskOutput("c", "n")})
    may = task(
        "may",
        sources={"n": TaskOutput("c", "n")},
        parameters={"n": Parameter("STRING", optional=True, default="d")},
    )
    machine = Machine(dag(skipped, needs, may), values={"x": 1})
    assert machine.statuses == {"c": "skipped", "needs": "skipped", "may": "succeeded"}
    assert machine.reasons["needs"] == "It needs n of c, which was skipped."
    assert machine.nodes["may"].values == {}


def loop(name, items, work=COMMAND, parallelism=0, over_artifacts=False, **fields):
    return task(name, work, loop=Loop("item", items, over_artifacts, parallelism), **fields)


def body(*outputs):
    """A graph whose task `a` takes the item and gives outputs."""
    return dag(
        task("a", sources={"item": GraphInput("item")}),
        parameters={name: (TaskOutput("a", name),) for name in outputs},
    )


def test_a_loop_has_an_iteration_per_item_and_gives_lists_in_their_order():
    graph = dag(
        loop("l", ("x", "y", "z"), body("n"), output_parameters={"n": "LIST"}),
        task("after", sources={"all": TaskOutput("l", "n")}),
    )
    outcomes = {"a": ("succeeded", lambda node: {"n": node.values["item"] * 2}, {}, 0)}
    machine = Machine(graph, outcomes)
    assert [path for path in machine.statuses if path.endswith("/a")] == [
        *("l/0/a", "l/1/a", "l/2/a")
    ]
    assert machine.nodes["after"].values == {"all": ["xx", "yy", "zz"]}
    assert machine.most == 3


@pytest.mark.parametrize(("limit", "most"), [(0, 50), (1, 1), (2, 2), (7, 7), (100, 50)])
def test_no_more_iterations_are_begun_than_may_run_at_once(limit, most):
    machine = Machine(dag(loop("l", tuple(range(50)), body(), parallelism=limit)))
    assert machine.most == most
    assert machine.plan.ended
    assert list(machine.statuses.values()).count("succeeded") == 101


def test_the_items_may_come_from_an_input_or_a_task():
    graph = dag(
        task("a0"),
        loop("l", "items", body(), sources={"items": TaskOutput("a0", "n")}),
        loop("m", "items", body(), sources={"items": GraphInput("items")}),
    )
    machine = Machine(graph, {"a0": gives(n="[1, 2]")}, {"items": [{"k": 1}]})
    assert [machine.nodes[f"l/{n}/a"].values["item"] for n in range(2)] == [1, 2]
    assert machine.nodes["m/0/a"].values["item"] == {"k": 1}
    machine = Machine(graph, {"a0": gives(n="{}")}, {"items": []})
    assert machine.statuses["l"] == "failed"
    assert machine.statuses["m"] == "succeeded"


def test_a_loop_may_go_over_artifacts_and_give_all_in_one_list():
    pages = [{"uri": "/1"}, {"uri": "/2"}]
    inner = dag(
        task("a", artifacts={"item": GraphInput("item")}),
        artifacts={"out": (TaskOutput("a", "out"),)},
    )
    graph = dag(
        task("p"),
        loop(
            "l",
            "pages",
            inner,
            over_artifacts=True,
            artifacts={"pages": TaskOutput("p", "pages")},
            output_artifacts={"out": {}},
        ),
    )
    outcomes = {
        "p": ("succeeded", {}, {"pages": pages}, 0),
        "l/0/a": ("succeeded", {}, {"out": {"uri": "/a"}}, 0),
        "l/1/a": ("succeeded", {}, {"out": [{"uri": "/b"}, {"uri": "/c"}]}, 0),
    }
    machine = Machine(graph, outcomes)
    assert machine.nodes["l/1/a"].given == {"item": [{"uri": "/2"}]}
    assert [a["uri"] for a in machine.nodes["l"].artifacts["out"]] == ["/a", "/b", "/c"]


def test_a_failed_iteration_fails_the_loop_and_stops_no_other():
    machine = Machine(dag(loop("l", (1, 2, 3), body(), parallelism=1)), {"l/1/a": FAILED})
    assert machine.statuses["l/2/a"] == "succeeded"
    assert machine.statuses["l"] == "failed"
    assert machine.reasons["l"] == "l/1/a failed."
    assert machine.nodes["l"].code == 3


def test_a_loop_of_thousands_that_are_skipped_does_not_recurse():
    inner = dag(
        task(
            "c",
            dag(task("a")),
            sources={"item": GraphInput("item")},
            condition=condition.parse("inputs.parameter_values['item'] == 'never'"),
        )
    )
    for limit in (0, 1, 2):
        machine = Machine(dag(loop("l", tuple(range(5000)), inner, parallelism=limit)))
        assert machine.statuses["l"] == "succeeded"
        assert list(machine.statuses.values()).count("skipped") == 5000
    machine = Machine(dag(loop("l", tuple(range(5000)), dag(), parallelism=1)))
    assert machine.plan.ended


def test_a_long_chain_of_groups_that_are_skipped_does_not_recurse():
    groups = [
        conditional(f"c{n}", "== 'never'", task("a"), after=[f"c{n - 1}"] if n else [])
        for n in range(3000)
    ]
    assert set(Machine(dag(*groups), values={"x": 1}).statuses.values()) == {"skipped"}


def exit_task(**fields):
    return task(
        "end",
        after=["g"],
        always=True,
        sources={"status": FinalStatus("g")},
        parameters={"status": Parameter("TASK_FINAL_STATUS")},
        **fields,
    )


@pytest.mark.parametrize(
    ("outcome", "state", "error"),
    [
        (gives(), "SUCCEEDED", None),
        (FAILED, "FAILED", {"code": 3, "message": "g/a failed."}),
        (("cancelled", {}, {}, None), "CANCELLED", {"code": 1, "message": "g/a cancelled."}),
    ],
)
def test_an_exit_task_runs_and_is_told_how_it_went(outcome, state, error):
    machine = Machine(dag(task("g", dag(task("a"))), exit_task()), {"g/a": outcome})
    status = machine.nodes["end"].values["status"]
    assert machine.statuses["end"] == "succeeded"
    assert status["state"] == state
    assert status["pipelineTaskName"] == "g"
    assert status["pipelineJobResourceName"] == "job"
    assert status.get("error") == error


def test_a_task_that_ignores_failures_takes_its_default_or_fails_for_want_of_one():
    optional = {"n": Parameter("STRING", optional=True, default="d")}
    source = {"n": TaskOutput("a", "n")}
    graph = dag(
        task("a"),
        task("may", sources=source, parameters=optional, always=True),
        task("must", sources=source, always=True),
    )
    machine = Machine(graph, {"a": FAILED})
    assert machine.statuses == {"a": "failed", "may": "succeeded", "must": "failed"}
    assert machine.reasons["must"] == "It needs n of a, which failed."


def test_nothing_new_begins_once_the_host_is_stopping_but_what_must():
    graph = dag(task("a"), loop("l", (1, 2), body()), task("g", dag(task("x"))), exit_task())
    machine = Machine(graph, stopping="the run was interrupted")
    assert machine.statuses == {
        "a": "cancelled",
        "l": "cancelled",
        "g": "cancelled",
        "end": "succeeded",
    }
    assert machine.reasons["a"] == "The run was interrupted."
    assert machine.plan.ended


def test_imports_are_done_by_the_plan_itself(tmp_path):
    (tmp_path / "data").write_text("x")
    importer = Importer(
        "{{$.inputs.parameters['uri']}}",
        {"schemaTitle": "system.Dataset"},
        {"by": "{{$.inputs.parameters['by']}}", "rows": 2},
    )

    def imported(uri):
        graph = dag(
            task(
                "i",
                importer,
                sources={"uri": GraphInput("uri"), "by": Constant("me")},
                output_artifacts={"artifact": {}},
            )
        )
        return Machine(graph, values={"uri": uri})

    for uri in (str(tmp_path / "data"), f"file://{tmp_path}/data"):
        machine = imported(uri)
        assert machine.nodes["i"].artifacts == {
            "artifact": {
                "name": "artifact",
                "type": {"schemaTitle": "system.Dataset"},
                "uri": str(tmp_path / "data"),
                "metadata": {"by": "me", "rows": 2},
            }
        }
    assert imported("gs://bucket/data").nodes["i"].artifacts["artifact"]["uri"].startswith("gs://")
    machine = imported(str(tmp_path / "nothing"))
    assert machine.statuses["i"] == "failed"
    assert str(tmp_path / "nothing") in machine.reasons["i"]
