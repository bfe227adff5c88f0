"""Compiles the models' pipelines to KFP v2 YAML."""

from __future__ import annotations

import os
from pathlib import Path

from kfp.compiler import Compiler

from pipelines import catalog
from pipelines.cloud.images import pin
from pipelines.cloud.placement import Place


def compile_model(model: str, file: str | Path, target: Place = "local", images: str = "") -> Path:
    """Writes a model's pipeline for one target; the file is whole or absent.

    Args:
        model: name of the model.
        file: what to write, `.yaml`.
        target: one of `pipelines.cloud.placement.Target`, or a placement.
        images: what pins the images by digest, see `pipelines.cloud.images.pin`; empty for tags.

    Returns:
        The file.

    Raises:
        UserError: there is no such model, target or image.
        TryAgain: the registry does not answer.
    """
    pipeline, path = catalog.load(model).build(target), Path(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.stem}.unfinished.yaml")  # KFP tells the format by the ending
    try:
        Compiler().compile(pipeline, str(draft))
        if images:
            draft.write_text(pin(draft.read_text(encoding="utf-8"), images), encoding="utf-8")
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    return path


def compile_all(folder: str | Path, target: Place = "local", images: str = "") -> list[Path]:
    """Writes every model's pipeline as `<folder>/<model>.yaml`."""
    return [
        compile_model(name, Path(folder) / f"{name}.yaml", target, images)
        for name in catalog.names()
    ]
