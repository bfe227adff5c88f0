"""The KFP interface of create_tfrecords."""

from kfp import dsl

from components.images import DATA


@dsl.container_component
def create_tfrecords(
    examples: dsl.Output[dsl.Dataset],
    data: str = "",
    dataset: str = "",
    shards: int = 0,
    max_bad_fraction: float = 0.01,
    unusual: str = "quarantine",
    check: str = "decode",
    duplicates: str = "quarantine",
    workers: int = 0,
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
            f"--check={check}",
            f"--duplicates={duplicates}",
            f"--workers={workers}",
            "--executor_input",
            "{{$}}",
        ],
    )
