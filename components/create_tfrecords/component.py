"""The KFP interface of create_tfrecords."""

from kfp import dsl

from components.images import DATA


@dsl.container_component
def create_tfrecords(
    examples: dsl.Output[dsl.Dataset],
    data: str = "",
    dataset: str = "",
    shards: int = 4,
    max_bad_fraction: float = 0.01,
    unusual: str = "quarantine",
) -> dsl.ContainerSpec:
    """Writes a dataset as sharded TFRecords with a manifest, and sets aside what is broken."""
    return dsl.ContainerSpec(
        image=DATA,
        command=["python", "-m", "components.create_tfrecords"],
        args=[
            f"--examples={examples.path}",
            f"--data={data}",
            f"--dataset={dataset}",
            f"--shards={shards}",
            f"--max_bad_fraction={max_bad_fraction}",
            f"--unusual={unusual}",
            "--executor_input",
            "{{$}}",
        ],
    )
