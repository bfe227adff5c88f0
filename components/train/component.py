"""The KFP interface of train."""

from typing import Any

from kfp import dsl

from components.images import TRAINER


@dsl.container_component
def train(
    model: str,
    transformed_examples: dsl.Input[dsl.Dataset],
    checkpoint: dsl.Output[dsl.Model],
    settings: dict[str, Any] = {},
    backend: str = "",
) -> dsl.ContainerSpec:
    """Trains the model's recipe on the transformed examples."""
    return dsl.ContainerSpec(
        image=TRAINER,
        command=["python", "-m", "components.train"],
        args=[
            f"--model={model}",
            f"--transformed_examples={transformed_examples.path}",
            f"--checkpoint={checkpoint.path}",
            f"--settings={settings}",
            f"--backend={backend}",
            "--executor_input",
            "{{$}}",
        ],
    )
