"""The KFP interface of export_hub."""

from kfp import dsl

from components.images import TRAINER


@dsl.container_component
def export_hub(
    model: str,
    examples: dsl.Input[dsl.Dataset],
    transformed_examples: dsl.Input[dsl.Dataset],
    transform_graph: dsl.Input[dsl.Artifact],
    checkpoint: dsl.Input[dsl.Model],
    evaluation: dsl.Input[dsl.Artifact],
    export: dsl.Output[dsl.Model],
) -> dsl.ContainerSpec:
    """Exports a checkpoint for serving, with its model card, and proves that it predicts alike."""
    return dsl.ContainerSpec(
        image=TRAINER,
        command=["python", "-m", "components.export_hub"],
        args=[
            f"--model={model}",
            f"--examples={examples.path}",
            f"--transformed_examples={transformed_examples.path}",
            f"--transform_graph={transform_graph.path}",
            f"--checkpoint={checkpoint.path}",
            f"--evaluation={evaluation.path}",
            f"--export={export.path}",
            "--executor_input",
            "{{$}}",
        ],
    )
