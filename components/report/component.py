"""The KFP interface of report."""

from kfp import dsl

from components.images import TRAINER


@dsl.container_component
def report(
    model: str,
    examples: dsl.Input[dsl.Dataset],
    checkpoint: dsl.Input[dsl.Model],
    evaluation: dsl.Input[dsl.Artifact],
    export: dsl.Input[dsl.Model],
    report: dsl.Output[dsl.HTML],
) -> dsl.ContainerSpec:
    """Writes one self-contained HTML page about the run."""
    return dsl.ContainerSpec(
        image=TRAINER,
        command=["python", "-m", "components.report"],
        args=[
            f"--model={model}",
            f"--examples={examples.path}",
            f"--checkpoint={checkpoint.path}",
            f"--evaluation={evaluation.path}",
            f"--export={export.path}",
            f"--report={report.path}",
            "--executor_input",
            "{{$}}",
        ],
    )
