"""A small ResNet for Tiny ImageNet by progressive resizing: five stages, each at a size."""

from typing import Any

from pipelines.training import Place, Stage, training_pipeline

# The last two stay at the rate that the others come down to.
STEADY = {"learning_rate": 0.0037, "decay_epochs": 0}
STAGES = [Stage(f"train_at_{size}", {"training_size": size}) for size in (64, 32, 16)]
STAGES += [Stage(f"again_at_{size}", {"training_size": size} | STEADY) for size in (32, 64)]


def build(target: Place = "local") -> Any:
    """The pipeline for one target."""
    what = "A ResNet of 0.8 million parameters, trained at 64, 32, 16, 32 and 64 pixels."
    how: Any = {"dataset": "tiny_imagenet", "description": what, "stages": STAGES}
    return training_pipeline("tiny_resnet", **how, target=target)


pipeline = build()
