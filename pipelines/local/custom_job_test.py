import copy

import yaml

from pipelines.compile import compile_model
from pipelines.local.custom_job import unwrapped
from pipelines.local.graph import parse_graph


def test_a_custom_job_is_the_step_that_it_would_run(tmp_path) -> None:
    local, vertex = (
        compile_model("autoencoder", tmp_path / f"{target}.yaml", target).read_text()
        for target in ("local", "vertex")
    )
    here, there = (dict(parse_graph(text).containers())["train"] for text in (local, vertex))
    assert there.image == here.image
    # Mappings come by the executor input there.
    assert set(here.command) - set(there.command) == {
        f"--{name}={{{{$.inputs.parameters['{name}']}}}}"
        for name in ("settings", "training", "stage_settings")
    }
    assert set(there.command) < set(here.command)
    assert there.environment == here.environment
    assert "machines of custom jobs" in parse_graph(vertex).unobserved
    tasks = [parse_graph(text).dag.tasks["train"] for text in (local, vertex)]
    assert tasks[0].parameters.keys() == tasks[1].parameters.keys()
    assert tasks[0].output_artifacts == tasks[1].output_artifacts


def test_what_is_no_custom_job_stays_as_it_is(tmp_path) -> None:
    text = compile_model("autoencoder", tmp_path / "p.yaml", "local").read_text()
    spec = yaml.safe_load(text)
    before = copy.deepcopy(spec)
    same, found = unwrapped(spec)
    assert found == [] and same == before == spec
