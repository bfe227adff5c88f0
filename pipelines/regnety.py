"""RegNetY on a folder of images in ImageNet's layout."""

from typing import Any

from pipelines.training import Machine, Machines, Place, training_pipeline

GPU = Machine(cpu="16", memory="64G", accelerator="NVIDIA_L4", accelerators=1)


def build(target: Place = "local") -> Any:
    """The pipeline for one target."""
    machines = Machines(training=GPU, evaluation=GPU)
    about = "RegNetY image classifiers from 200 to 800 megaflops, by the recipe of pycls."
    return training_pipeline(
        "regnety", dataset="image_folder", description=about, machines=machines, target=target
    )


pipeline = build()
