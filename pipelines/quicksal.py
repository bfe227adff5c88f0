"""QUICKSAL in two stages: dense, then pruned to the paper's 0.14 million parameters."""

from typing import Any

from pipelines.training import Place, Stage, training_pipeline

STAGES = [Stage("train"), Stage("prune", {"sparsity": 0.9575, "encoder_rate": 1.0})]


def build(target: Place = "local") -> Any:
    """The pipeline for one target."""
    what = "A small and sparse network that finds what stands out in a picture."
    how: Any = {"dataset": "msra10k", "description": what, "stages": STAGES}
    return training_pipeline("quicksal", **how, target=target)


pipeline = build()
