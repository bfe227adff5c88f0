"""The KFP interfaces of train: for a first stage, and for one that begins with networks of another.

They are two because KFP's launcher cannot tell whether an optional artifact has been given.
"""

from typing import Any

from kfp import dsl

from components.images import TRAINER


def _container(**arguments: Any) -> dsl.ContainerSpec:
    """The one command of both, with its flags in the order of the step's parameters."""
    return dsl.ContainerSpec(
        image=TRAINER,
        command=["python", "-m", "components.train"],
        args=[
            *(f"--{name}={value}" for name, value in arguments.items()),
            "--executor_input",
            "{{$}}",
        ],
    )


@dsl.container_component
def train(
    model: str,
    transformed_examples: dsl.Input[dsl.Dataset],
    checkpoint: dsl.Output[dsl.Model],
    logs: dsl.Output[dsl.Artifact],
    settings: dict[str, Any] = {},
    training: dict[str, Any] = {},
    backend: str = "",
    stage_settings: dict[str, Any] = {},
) -> dsl.ContainerSpec:
    """Trains the model's recipe on the transformed examples."""
    return _container(
        model=model,
        transformed_examples=transformed_examples.path,
        checkpoint=checkpoint.path,
        logs=logs.path,
        settings=settings,
        training=training,
        backend=backend,
        stage_settings=stage_settings,
    )


@dsl.container_component
def train_from(
    model: str,
    transformed_examples: dsl.Input[dsl.Dataset],
    initial: dsl.Input[dsl.Model],
    checkpoint: dsl.Output[dsl.Model],
    logs: dsl.Output[dsl.Artifact],
    settings: dict[str, Any] = {},
    training: dict[str, Any] = {},
    backend: str = "",
    stage_settings: dict[str, Any] = {},
) -> dsl.ContainerSpec:
    """Trains the model's recipe on the transformed examples, from networks trained before."""
    return _container(
        model=model,
        transformed_examples=transformed_examples.path,
        checkpoint=checkpoint.path,
        logs=logs.path,
        settings=settings,
        training=training,
        backend=backend,
        initial=initial.path,
        stage_settings=stage_settings,
    )
