"""Every model's pipeline compiles for every target to a valid specification."""

import inspect
import re
import subprocess
import sys
import typing
from pathlib import Path

import pytest
import yaml
from kfp.compiler import Compiler
from kfp.components import load_component_from_text

import pipelines
from pipelines import catalog
from pipelines.cloud.placement import Target
from pipelines.compile import compile_model
from pipelines.local.graph import parameter_values, parse_graph
from pipelines.training import Stage, training_pipeline
from trainer.catalog import dataset_names, model_part

BEFORE, AFTER = ["create-tfrecords", "preprocess"], ["evaluate", "export-hub", "report"]
SECRET = re.compile(r"password|secret|token|api_?key|private_key|AIza|-----BEGIN", re.IGNORECASE)


@pytest.fixture(scope="module", params=catalog.names())
def model(request):
    return request.param


@pytest.fixture(scope="module", params=typing.get_args(Target))
def target(request):
    return request.param


@pytest.fixture(scope="module")
def text(model, target, tmp_path_factory):
    file = tmp_path_factory.mktemp(model) / "pipeline.yaml"
    return compile_model(model, file, target).read_text()


def working(spec, task):
    """The container that does a task's work, and the machine that it asks of a custom job."""
    container = spec["deploymentSpec"]["executors"][f"exec-{task}"]["container"]
    inputs = spec["components"][f"comp-{task}"].get("inputDefinitions", {}).get("parameters", {})
    if "worker_pool_specs" not in inputs:
        return container, None
    (pool,) = inputs["worker_pool_specs"]["defaultValue"]
    job = pool["container_spec"]
    return {"image": job["image_uri"], "command": job["command"]}, pool["machine_spec"]


@pytest.fixture(scope="module")
def stages(text):
    """The tasks that train, in their order."""
    spec = next(yaml.safe_load_all(text))
    works = {name: working(spec, name)[0] for name in spec["root"]["dag"]["tasks"]}
    training = [name for name, work in works.items() if "components.train" in work["command"]]
    assert training
    return [task for task in parse_graph(text).dag.tasks if task in training]


def test_it_is_valid(text, stages):
    spec = load_component_from_text(text).pipeline_spec
    assert set(spec.root.dag.tasks) == {*BEFORE, *stages, *AFTER}


def test_it_can_be_read_here_whatever_its_target(text, stages):
    graph = parse_graph(text)
    assert list(graph.dag.tasks) == [*BEFORE, *stages, *AFTER]
    values = parameter_values(graph, {})
    assert values["dataset"] in dataset_names()
    assert {name: values[name] for name in values if name != "dataset"} == {
        "data": "",
        "settings": {},
        "training": {},
        "shards": 0,
        "max_bad_fraction": 0.01,
        "unusual": "quarantine",
        "check": "decode",
        "duplicates": "quarantine",
        "beam_options": "--runner=FnApiRunner",
    }


def test_accelerators_and_limits_are_asked_for_where_they_are_had(text, target, stages):
    spec, *platforms = yaml.safe_load_all(text)
    works = {name: working(spec, name) for name in spec["root"]["dag"]["tasks"]}
    limited = {name for name, (container, _) in works.items() if "resources" in container}
    jobs = {name for name, (_, machine) in works.items() if machine}
    assert jobs == (set(stages) if target == "vertex" else set())
    assert limited == (set() if target == "local" else set(works) - jobs)
    accelerators = {
        name: container["resources"]["accelerator"]["resourceType"]
        for name, (container, _) in works.items()
        if "accelerator" in container.get("resources", {})
    }
    accelerators |= {
        name: machine["accelerator_type"]
        for name, (_, machine) in works.items()
        if machine and "accelerator_type" in machine
    }
    assert set(accelerators) <= {*stages, "evaluate"}
    # CUDA is in an image of its own, and only what runs on a GPU has to bring it.
    on_gpu = {name for name, (container, _) in works.items() if "-gpu:" in container["image"]}
    assert on_gpu == set(accelerators)
    if target == "kubeflow":
        assert set(accelerators.values()) <= {"nvidia.com/gpu"}
        selected = platforms and platforms[0]["platforms"]["kubernetes"]["deploymentSpec"]
        chosen = selected["executors"] if selected else ()
        assert {label.removeprefix("exec-") for label in chosen} == set(accelerators)
    else:
        assert not platforms
        assert all(kind.startswith("NVIDIA_") for kind in accelerators.values())
    retried = {name for name, task in spec["root"]["dag"]["tasks"].items() if "retryPolicy" in task}
    # On this machine too a training goes on that was ended by another than the user.
    assert retried == {*stages, *([] if target == "local" else [*BEFORE, *AFTER])}


def test_regnety_trains_on_an_accelerator_in_the_cloud(tmp_path):
    text = compile_model("regnety", tmp_path / "pipeline.yaml", "vertex").read_text()
    container, machine = working(yaml.safe_load(text), "train")
    assert machine == {
        "machine_type": "g2-standard-16",
        "accelerator_type": "NVIDIA_L4",
        "accelerator_count": 1,
    }
    assert "/trainer-gpu:" in container["image"]


def test_caching_is_on(text):
    tasks = next(yaml.safe_load_all(text))["root"]["dag"]["tasks"]
    assert all(task["cachingOptions"]["enableCache"] for task in tasks.values())


def test_it_holds_no_secrets(text):
    assert not SECRET.search(text)


def test_the_kfp_command_writes_the_same(model, tmp_path):
    ours = compile_model(model, tmp_path / "ours.yaml")
    theirs = tmp_path / "theirs.yaml"
    kfp = Path(sys.executable).parent / "kfp"
    file = Path(pipelines.__path__[0]) / f"{model}.py"
    command = [kfp, "dsl", "compile", "--py", file, "--output", theirs]
    subprocess.run(command, check=True, capture_output=True)
    assert theirs.read_text() == ours.read_text()


def test_a_models_file_is_short(model):
    lines = (Path(pipelines.__path__[0]) / f"{model}.py").read_text().splitlines()
    assert len(lines) <= 20


def constants(task):
    """The settings that a stage gives a task."""
    given = task["inputs"]["parameters"].get("stage_settings", {})
    return given.get("runtimeValue", {}).get("constant", {})


def undeclared(text, model):
    """The stages of a pipeline that train on examples made with other settings than theirs.

    What a run would find as well, and tell, when it comes to the stage.
    """
    tasks = next(yaml.safe_load_all(text))["root"]["dag"]["tasks"]
    source = inspect.getsource(model_part(model, "data").preprocessing_fn)
    found = []
    for name, task in tasks.items():
        artifacts = task.get("inputs", {}).get("artifacts", {})
        if "training" not in task["inputs"]["parameters"]:
            continue
        maker = tasks[artifacts["transformed_examples"]["taskOutputArtifact"]["producerTask"]]
        of_stage, of_examples = constants(task), constants(maker)
        found += [
            f"{name}: {field}"
            for field in {*of_stage, *of_examples}
            if f"config.{field}" in source and of_stage.get(field) != of_examples.get(field)
        ]
    return found


def test_stages_that_change_preprocessing_have_examples_of_their_own(text, model):
    assert undeclared(text, model) == []


def test_a_stage_that_changes_preprocessing_unsaid_is_found(tmp_path):
    def compiled(preprocess):
        stages = (Stage("train"), Stage("enlarge", {"image_size": 32}, preprocess=preprocess))
        pipeline = training_pipeline("autoencoder", dataset="", description="", stages=stages)
        Compiler().compile(pipeline, str(tmp_path / "pipeline.yaml"))
        return (tmp_path / "pipeline.yaml").read_text()

    assert undeclared(compiled(True), "autoencoder") == []
    assert undeclared(compiled(False), "autoencoder") == ["enlarge: image_size"]
