"""A checkpoint becomes what a Hub publishes: models that load anywhere, and a model card."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import keras
import numpy as np
import tensorflow as tf

from trainer.artifact import read_json, sha256, whole_folder, write_json, write_text
from trainer.catalog import load_paper, load_recipe
from trainer.data.examples import decode_example
from trainer.data.manifest import Manifest, read_manifest
from trainer.data.records import read_records
from trainer.engine.checkpoint import State, read_state, restore
from trainer.engine.evaluate import compile_predict, numbers_of
from trainer.engine.export import (
    ENCODED,
    TOLERANCE,
    Exported,
    difference,
    export_keras,
    export_saved_model,
    served_networks,
)
from trainer.engine.input import Split
from trainer.errors import UserError
from trainer.recipe import Recipe

COMPARED_EXAMPLES = 32
"""Examples on which the export is compared with `predict` (ours)."""

TRIED_SIZE = 64
"""Side in pixels at which the Keras file of a network is tried that takes any (ours)."""


def export_hub(
    model: str,
    examples: str,
    transformed_examples: str,
    transform_graph: str,
    checkpoint: str,
    evaluation: str,
    export: str,
) -> dict[str, dict[str, Any]]:
    """Exports a checkpoint, and proves that the export answers as the training's own networks do.

    Args:
        model: Name of the model.
        examples: Folder of examples, as create_tfrecords writes it.
        transformed_examples: Folder of transformed examples, as preprocess writes it.
        transform_graph: Folder of the transform graph that preprocess wrote with them.
        checkpoint: Folder of the checkpoint.
        evaluation: Folder of the checkpoint's evaluation.
        export: Folder to write saved_model/, model.keras, README.md and export.json to.
    """
    if keras.backend.backend() != "tensorflow":
        raise UserError(
            "Exporting needs the tensorflow backend, whichever backend trained the checkpoint; "
            f"KERAS_BACKEND is {keras.backend.backend()!r}. Set it to tensorflow."
        )
    manifest = read_manifest(examples)
    measured = read_json(Path(evaluation) / "metrics.json")
    recipe = load_recipe(model)(read_state(checkpoint).load_config())
    state = restore(checkpoint, recipe, networks_only=True, choice=measured["weights"])
    if not state.class_names:  # imported weights know none; they were evaluated with the examples'
        state = dataclasses.replace(state, class_names=manifest.class_names)
    with whole_folder(export) as folder:
        described = export_saved_model(
            recipe, transform_graph, state.class_names, folder / "saved_model"
        )
        files = export_keras(recipe, folder)
        parity = compare(recipe, folder, manifest, examples, transformed_examples)
        too_far = {name: gap for name, gap in parity.items() if not gap <= TOLERANCE}
        if too_far:
            raise RuntimeError(
                f"The export must answer as predict does, within {TOLERANCE:g}; it differs: "
                + ", ".join(f"{name} by {gap:.3g}" for name, gap in too_far.items())
            )
        default = next(n + ENCODED if n + ENCODED in described else n for n in recipe.signatures)
        card = model_card(model, state, manifest, measured, described, default, files)
        write_text(folder / "README.md", card)
        write_json(
            folder / "export.json",
            {
                "format": 1,
                "model": model,
                "class_names": state.class_names,
                "signatures": {n: dataclasses.asdict(d) for n, d in described.items()},
                "serving_default": default,
                "keras_files": files,
                "checkpoint_sha256": state.sha256,
                "transform_graph_sha256": sha256(
                    Path(transform_graph) / "transform_fn" / "saved_model.pb"
                ),
                "parity": {
                    "compared_examples": COMPARED_EXAMPLES,
                    "tolerance": TOLERANCE,
                    "largest_difference": parity,
                },
                "sha256": {
                    str(path.relative_to(folder)): sha256(path)
                    for path in sorted(folder.rglob("*"))
                    if path.is_file()
                },
            },
        )
    return {"export": {"model": model, "largest_difference": max(parity.values())}}


def compare(
    recipe: Recipe,
    export: Path,
    manifest: Manifest,
    examples: str | Path,
    transformed_examples: str | Path,
) -> dict[str, float]:
    """Largest difference between each exported form and `predict`, on stored examples.

    `predict` gets the transformed examples that Beam stored; the encoded signatures get the raw
    examples of the same keys. So the comparison spans the transform graph, the networks and the
    files, and any difference between training and serving shows.
    """
    split = manifest.evaluation_split
    stored = next(Split(transformed_examples, split).in_order(COMPARED_EXAMPLES, recipe.noise))
    batch = numbers_of(stored)
    wanted = compile_predict(recipe)(batch)
    raw = _by_key(manifest, examples, split, [bytes(key) for key in stored["key"]])
    served = tf.saved_model.load(str(export / "saved_model"))
    gaps = {}
    for name, signature in recipe.signatures.items():
        if not set(signature.inputs) <= set(batch):
            continue
        arrays = {n: tf.cast(batch[n], t.dtype) for n, t in signature.inputs.items()}
        answer = _numpy(served.signatures[name](**arrays))
        # What `predict` gives beyond that is for metrics and not served.
        expected = {n: wanted[n] for n in answer}
        gaps[name] = difference(answer, expected)
        if name + ENCODED in served.signatures:
            encoded = {n: tf.constant([example[n] for example in raw]) for n in signature.inputs}
            outputs = served.signatures[name + ENCODED](**encoded)
            gaps[name + ENCODED] = difference(_numpy(outputs), expected)
    for file in sorted(export.glob("*.keras")):
        gaps[file.name] = _keras_difference(recipe, file)
    return gaps


def model_card(
    model: str,
    state: State,
    manifest: Manifest,
    measured: Mapping[str, Any],
    described: Mapping[str, Exported],
    serving_default: str,
    keras_files: Sequence[str],
) -> str:
    """The README.md of an export: what it is, how good, how made, how to use, and its limits."""
    inputs = described[serving_default].inputs
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # noqa: S701 - Markdown, not HTML
    )
    paper = load_paper(model)
    variant = state.config.get("variant", "")
    return environment.get_template("model_card.md").render(
        model=model,
        variant=variant,
        paper=paper,
        comparisons=paper.beside(measured["metrics"], variant),
        measured=measured,
        manifest=manifest,
        state=state,
        signatures=described,
        takes_pictures=serving_default.endswith(ENCODED),
        call=", ".join(f"{name}={_example(spec)}" for name, spec in inputs.items()),
        keras_files=keras_files,
        versions=state.versions,
        package_version=importlib.metadata.version("paper2hub"),
    )


def _example(spec: str) -> str:
    """What to give to an input of a signature, as Python: "float32 [batch, 100]"."""
    dtype, shape = spec.split(" ", 1)
    sizes = shape.replace("batch", "1", 1)
    if dtype == "string":
        return "tf.constant([picture])"
    return f"tf.random.normal({sizes})" if dtype == "float32" else f"tf.zeros({sizes}, {dtype!r})"


def _by_key(
    manifest: Manifest, examples: str | Path, split: str, keys: list[bytes]
) -> list[Mapping[str, Any]]:
    wanted = set(keys)
    found = {}
    for path in manifest.files(examples, split):
        for record in read_records(path):
            example = decode_example(manifest.features_of(split), record)
            if example["key"] in wanted:
                found[example["key"]] = example
        if len(found) == len(wanted):
            break
    return [found[key] for key in keys]


def _keras_difference(recipe: Recipe, file: Path) -> float:
    served = served_networks(recipe)
    network = served[next(iter(served)) if file.name == "model.keras" else file.stem]
    loaded = keras.saving.load_model(file, compile=False)
    random = np.random.default_rng(0)
    inputs = [
        random.uniform(-1, 1, [2, *(n or TRIED_SIZE for n in tensor.shape[1:])]).astype(
            tensor.dtype
        )
        for tensor in network.inputs
    ]
    given = inputs if len(inputs) > 1 else inputs[0]
    got, wanted = (dict(enumerate(keras.tree.flatten(n(given)))) for n in (loaded, network))
    return difference(_numpy(got), _numpy(wanted))


def _numpy(outputs: Mapping[Any, Any]) -> dict[Any, np.ndarray]:
    return {name: np.asarray(value) for name, value in outputs.items()}
