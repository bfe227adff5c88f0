"""CycleGAN, on pictures of two domains that do not belong together one by one."""

from typing import Any

from pipelines.training import Machine, Machines, Place, training_pipeline

GPU = Machine(cpu="8", memory="32G", accelerator="NVIDIA_L4", accelerators=1)


def build(target: Place = "local") -> Any:
    """The pipeline for one target."""
    machines = Machines(training=GPU, evaluation=GPU)
    about = "Two networks translate pictures between domains, and back to what they were."
    return training_pipeline(
        "cyclegan", dataset="unpaired_folders", description=about, machines=machines, target=target
    )


pipeline = build()
