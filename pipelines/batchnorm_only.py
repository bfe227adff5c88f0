"""Networks that learn by batch normalisation alone, on CIFAR-10 or a folder of images."""

from typing import Any

from pipelines.training import Machine, Machines, Place, training_pipeline

GPU = Machine(cpu="8", memory="32G", accelerator="NVIDIA_L4", accelerators=1)


def build(target: Place = "local") -> Any:
    """The pipeline for one target."""
    machines = Machines(training=GPU, evaluation=GPU)
    about = "Residual networks whose convolutions stay random; batch normalisation learns."
    return training_pipeline(
        "batchnorm_only", dataset="cifar10", description=about, machines=machines, target=target
    )


pipeline = build()
