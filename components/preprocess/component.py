"""The KFP interface of preprocess."""

from typing import Any

from kfp import dsl

from components.images import DATA


@dsl.container_component
def preprocess(
    model: str,
    examples: dsl.Input[dsl.Dataset],
    transformed_examples: dsl.Output[dsl.Dataset],
    transform_graph: dsl.Output[dsl.Artifact],
    settings: dict[str, Any] = {},
    beam_options: str = "--runner=FnApiRunner",
    max_bad_fraction: float = 0.01,
    stage_settings: dict[str, Any] = {},
) -> dsl.ContainerSpec:
    """Applies the model's deterministic preprocessing with Beam and TF Transform."""
    return dsl.ContainerSpec(
        image=DATA,
        command=["python", "-m", "components.preprocess"],
        args=[
            f"--model={model}",
            f"--examples={examples.path}",
            f"--transformed_examples={transformed_examples.path}",
            f"--transform_graph={transform_graph.path}",
            f"--settings={settings}",
            f"--beam_options={beam_options}",
            f"--max_bad_fraction={max_bad_fraction}",
            f"--stage_settings={stage_settings}",
            "--executor_input",
            "{{$}}",
        ],
    )
