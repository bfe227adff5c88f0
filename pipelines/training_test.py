from typing import Any

import pytest
import yaml
from kfp.compiler import Compiler

from pipelines.training import Machine, Machines, Stage, training_pipeline
from trainer.errors import UserError


def compiled(tmp_path, stages, target="local", **more):
    """The specification of the autoencoder's pipeline with stages of its own."""
    pipeline = training_pipeline(
        "autoencoder", dataset="", description="", stages=stages, target=target, **more
    )
    Compiler().compile(pipeline, str(tmp_path / "pipeline.yaml"))
    return next(yaml.safe_load_all((tmp_path / "pipeline.yaml").read_text()))


def giver(spec, task, artifact) -> str:
    """The task that gives a task an artifact."""
    source = spec["root"]["dag"]["tasks"][task]["inputs"]["artifacts"][artifact]
    name: str = source["taskOutputArtifact"]["producerTask"]
    return name


@pytest.mark.parametrize("choice", [{"accelerator": "NVIDIA_L4"}, {"accelerators": 1}])
def test_a_kind_of_accelerator_needs_a_number_of_them(choice):
    with pytest.raises(ValueError, match="or neither"):
        Machine(cpu="1", memory="1G", **choice)


def test_an_unknown_target_is_refused():
    with pytest.raises(UserError, match="local, kubeflow, vertex; got 'moon'"):
        training_pipeline("autoencoder", dataset="", description="", target="moon")


@pytest.mark.parametrize("target", ["local", "kubeflow", "vertex"])
def test_stages_share_what_they_can_and_begin_with_each_others_networks(tmp_path, target):
    stages = (
        Stage("train", {"epochs": 3}),
        Stage("longer"),
        Stage("enlarge", {"image_size": 32}, preprocess=True),
        Stage("fine_tune", {"image_size": 32, "learning_rate": 1e-4}),
    )
    gpu = Machines(training=Machine("4", "16G", "NVIDIA_L4", 1))
    spec = compiled(tmp_path, stages, target, machines=gpu)
    tasks: dict[str, Any] = spec["root"]["dag"]["tasks"]
    trained = ["train", "longer", "enlarge", "fine-tune"]
    rest = {"create-tfrecords", "preprocess", "evaluate", "export-hub", "report"}
    assert set(tasks) == {*rest, "preprocess-enlarge", *trained}
    assert [giver(spec, task, "transformed_examples") for task in trained] == [
        *("preprocess", "preprocess", "preprocess-enlarge", "preprocess-enlarge"),
    ]
    assert "initial" not in tasks["train"]["inputs"]["artifacts"]
    assert [giver(spec, task, "initial") for task in trained[1:]] == trained[:-1]
    # The last stage is evaluated, exported and reported, with the examples that it was trained on.
    assert {giver(spec, t, "checkpoint") for t in ("evaluate", "export-hub", "report")} == {
        "fine-tune"
    }
    for task in ("evaluate", "export-hub"):
        assert giver(spec, task, "transformed_examples") == "preprocess-enlarge"
    assert giver(spec, "export-hub", "transform_graph") == "preprocess-enlarge"

    def own(task):
        given = tasks[task]["inputs"]["parameters"].get("stage_settings")
        return given and given["runtimeValue"]["constant"]

    assert [own(task) for task in trained] == [
        *({"epochs": 3}, None, {"image_size": 32}, {"image_size": 32, "learning_rate": 1e-4}),
    ]
    assert [own("preprocess"), own("preprocess-enlarge")] == [{"epochs": 3}, {"image_size": 32}]
    for task in trained:  # the parameters of a run reach every stage
        inputs = tasks[task]["inputs"]["parameters"]
        assert inputs["settings"] == {"componentInputParameter": "settings"}
        assert inputs["training"] == {"componentInputParameter": "training"}
        assert tasks[task]["retryPolicy"]["maxRetryCount"] == 3
        container = spec["deploymentSpec"]["executors"][f"exec-{task}"]["container"]
        if target == "vertex":  # a custom job, which its launcher's first parameter describes
            given = spec["components"][f"comp-{task}"]["inputDefinitions"]["parameters"]
            (pool,) = given["worker_pool_specs"]["defaultValue"]
            container = pool["container_spec"]
            assert pool["machine_spec"]["accelerator_type"] == "NVIDIA_L4"
        else:
            assert ("accelerator" in container.get("resources", {})) == (target == "kubeflow")
        assert container["command"] == ["python", "-m", "components.train"]
        assert {"name": "PAPER2HUB_GOES_ON", "value": "1"} in container["env"]


@pytest.mark.parametrize("name", ["Train", "fine tune", "fine-tune", "2nd", "", "evaluate"])
def test_a_stage_needs_a_name_that_can_be_a_tasks(name):
    with pytest.raises(ValueError, match="The name of a stage must be"):
        Stage(name)


def test_stages_without_names_of_their_own_are_refused():
    for stages in ((), (Stage("train"), Stage("train", {"epochs": 2}))):
        with pytest.raises(ValueError, match="each with a name of its own"):
            training_pipeline("autoencoder", dataset="", description="", stages=stages)


def test_a_setting_that_the_model_does_not_have_is_told_before_anything_runs():
    with pytest.raises(UserError, match="Did you mean 'epochs'"):
        training_pipeline(
            "autoencoder", dataset="", description="", stages=(Stage("train", {"epoch": 2}),)
        )
