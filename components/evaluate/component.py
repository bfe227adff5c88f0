"""The KFP interface of evaluate."""

from kfp import dsl

from components.images import TRAINER


@dsl.container_component
def evaluate(
    model: str,
    transformed_examples: dsl.Input[dsl.Dataset],
    checkpoint: dsl.Input[dsl.Model],
    evaluation: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    confusion: dsl.Output[dsl.ClassificationMetrics],
    batch_size: int = 0,
    weights: str = "newest",
) -> dsl.ContainerSpec:
    """Scores a checkpoint on the split that published numbers are measured on."""
    return dsl.ContainerSpec(
        image=TRAINER,
        command=["python", "-m", "components.evaluate"],
        args=[
            f"--model={model}",
            f"--transformed_examples={transformed_examples.path}",
            f"--checkpoint={checkpoint.path}",
            f"--evaluation={evaluation.path}",
            f"--metrics={metrics.path}",
            f"--confusion={confusion.path}",
            f"--batch_size={batch_size}",
            f"--weights={weights}",
            "--executor_input",
            "{{$}}",
        ],
    )
