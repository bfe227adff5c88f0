"""A checkpoint becomes numbers, a confusion matrix and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
from PIL import Image

from trainer.artifact import whole_folder, write_json
from trainer.catalog import load_recipe
from trainer.data.manifest import read_manifest
from trainer.engine.checkpoint import Choice, read_state, restore
from trainer.engine.evaluate import Evaluation, compile_predict
from trainer.engine.evaluate import evaluate as evaluate_recipe
from trainer.engine.input import Split
from trainer.errors import UserError
from trainer.progress import Progress
from trainer.recipe import Panel

BATCH_SIZE = 256
"""Examples evaluated at once, unless the training's own batch is smaller (ours)."""


def evaluate(
    model: str,
    transformed_examples: str,
    checkpoint: str,
    evaluation: str,
    metrics: str,
    confusion: str,
    batch_size: int = 0,
    weights: str = "newest",
) -> dict[str, dict[str, Any]]:
    """Scores a checkpoint on the evaluation split.

    Args:
        model: Name of the model.
        transformed_examples: Folder of transformed examples, as preprocess writes it.
        checkpoint: Folder of the checkpoint.
        evaluation: Folder to write metrics.json, the confusion matrix and pictures to.
        metrics: File to write the metrics to, one JSON object.
        confusion: File to write the confusion matrix to, as JSON; empty for models without classes.
        batch_size: Examples at once; 0 chooses.
        weights: "newest", or "best" for those that did best on this very split during the training,
            so that their numbers are a little too good.
    """
    if weights not in get_args(Choice):
        raise UserError(f"weights must be {' or '.join(get_args(Choice))}; got {weights!r}.")
    choice = cast(Choice, weights)
    manifest = read_manifest(transformed_examples)
    state = read_state(checkpoint)
    config = state.load_config()
    recipe = load_recipe(model)(config)
    state = restore(checkpoint, recipe, networks_only=True, choice=choice)
    split = Split(transformed_examples, manifest.evaluation_split)
    progress = Progress(split.examples, "examples")
    result = evaluate_recipe(
        recipe,
        compile_predict(recipe),
        split,
        batch_size or min(BATCH_SIZE, config.batch_size, split.examples),
        manifest.class_names,
        progress,
    )
    matrix = confusion_json(result)
    with whole_folder(evaluation) as folder:
        about = {
            "split": manifest.evaluation_split,
            "examples": result.examples,
            "weights": weights,
            "step": state.step,
        }
        write_json(
            folder / "metrics.json", {**about, "dataset": manifest.title, "metrics": result.numbers}
        )
        write_json(folder / "confusion.json", matrix)
        write_json(
            folder / "panels.json", [_save(folder, i, p) for i, p in enumerate(result.panels)]
        )
    write_json(metrics, result.numbers)
    write_json(confusion, matrix)
    metadata: dict[str, dict[str, Any]] = {"evaluation": about, "metrics": result.numbers}
    if matrix:
        metadata["confusion"] = {"confusionMatrix": matrix}
    return metadata


def confusion_json(result: Evaluation) -> dict[str, Any]:
    """The confusion matrix as KFP's ClassificationMetrics has it; empty where there is none."""
    if result.confusion is None:
        return {}
    return {
        "annotationSpecs": [{"displayName": name} for name in result.confusion.class_names],
        "rows": [{"row": [float(c) for c in row]} for row in result.confusion.counts],
    }


def _save(folder: Path, number: int, panel: Panel) -> dict[str, Any]:
    files = []
    for i, image in enumerate(panel.images):
        pixels = np.round(np.clip(image, 0.0, 1.0) * 255).astype(np.uint8)
        files.append(f"panel-{number:02d}-{i:02d}.png")
        Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(
            folder / files[-1]
        )
    return {"title": panel.title, "files": files, "captions": list(panel.captions)}
