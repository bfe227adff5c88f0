"""From a checkpoint to what is served: a SavedModel that takes pictures, and a Keras file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainer.recipe import Recipe, Signature
from trainer.reproducible import settle_keras_file, settle_saved_model

TOLERANCE = 1e-5
"""Largest difference, per output and relative to its largest value or 1, that export accepts."""

ENCODED = "_encoded"
"""Ending of the signatures that take raw inputs, such as the bytes of a JPEG file."""


@dataclasses.dataclass(frozen=True)
class Exported:
    """One signature of the SavedModel, for `export.json` and the model card.

    Attributes:
        inputs: name -> "dtype [shape]".
        outputs: name -> "dtype [shape]".
        description: what goes in and comes out.
    """

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    description: str


class TransformGraph:
    """The graph that TF Transform made, callable with part of its inputs.

    Args:
        folder: as preprocess writes it.
    """

    def __init__(self, folder: str | Path):
        # Loaded without TF Transform: serving and training images need not have it.
        self.loaded = tf.saved_model.load(str(Path(folder) / "transform_fn"))
        inputs = self.loaded.transform_fn.structured_input_signature[0][0]
        self.inputs: dict[str, tf.TypeSpec] = dict(inputs)

    def __call__(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Transformed features; raw features not given, such as the label, are zeros or empty."""
        count = tf.shape(next(iter(given.values())))[0]
        filled = {n: given[n] if n in given else _empty(s, count) for n, s in self.inputs.items()}
        transformed: dict[str, Any] = self.loaded.transform_fn(filled)
        return transformed


def _empty(spec: Any, count: Any) -> Any:
    """A batch of `count` examples of a raw feature: zeros, or nothing of what may be any number."""
    if isinstance(spec, tf.RaggedTensorSpec):
        nothing = tf.zeros([0, *spec.shape[2:]], spec.dtype)
        return tf.RaggedTensor.from_row_splits(nothing, tf.zeros([count + 1], tf.int64))
    return tf.zeros([count, *spec.shape[1:]], spec.dtype)


def export_saved_model(
    recipe: Recipe, transform_graph: str | Path, class_names: tuple[str, ...], folder: str | Path
) -> dict[str, Exported]:
    """Writes a SavedModel with, for each of the recipe's signatures, one or two entry points.

    `<signature>` takes arrays as the network sees them; `<signature>_encoded` takes what is in the
    raw examples, such as JPEG or PNG bytes, through the very graph that made the training data.
    The first signature's encoded form is also `serving_default`. Labels are kept as
    `class_names` beside them.

    Returns:
        Signature name -> what it takes and gives.
    """
    module = tf.Module()
    module.networks = served_networks(recipe)  # kept, so that their variables are saved
    transform = TransformGraph(transform_graph)
    module.transform = transform.loaded
    if class_names:
        module.class_names = tf.constant(list(class_names))
    functions: dict[str, Any] = {}
    described: dict[str, Exported] = {}
    for name, signature in recipe.signatures.items():
        functions[name] = array_function(signature)
        described[name] = _describe(functions[name], signature.description)
        encoded = encoded_function(signature, transform)
        if encoded is not None:
            functions[name + ENCODED] = encoded
            described[name + ENCODED] = _describe(
                encoded,
                "The same from encoded pictures, JPEG or PNG, of any size: "
                + ", ".join(encoded.structured_input_signature[1])
                + ".",
            )
    first = next(iter(recipe.signatures))
    functions["serving_default"] = functions.get(first + ENCODED, functions[first])
    tf.saved_model.save(module, str(folder), signatures=functions)
    settle_saved_model(folder)
    return described


def served_networks(recipe: Recipe) -> dict[str, keras.Model]:
    """The networks that the recipe's signatures read; others serve the training alone."""
    read = {
        id(tensor)
        for signature in recipe.signatures.values()
        for tensor in array_function(signature).graph.external_captures
    }
    return {
        name: network
        for name, network in recipe.networks.items()
        if any(id(variable.value.handle) in read for variable in network.variables)
    }


def array_function(signature: Signature) -> Any:
    """A concrete function of the arrays that a signature names."""
    specs = {
        name: tf.TensorSpec(tensor.shape, tensor.dtype, name)
        for name, tensor in signature.inputs.items()
    }
    function = tf.function(lambda **inputs: dict(signature.function(**inputs)), autograph=False)
    return function.get_concrete_function(**specs)


def encoded_function(signature: Signature, transform: TransformGraph) -> Any:
    """A concrete function of raw inputs, or None where the signature does not come from any.

    A SavedModel's signatures take tensors alone, so raw inputs must not be ragged either.
    """
    needed = [n for n in signature.inputs if isinstance(transform.inputs.get(n), tf.TensorSpec)]
    if len(needed) != len(signature.inputs):
        return None
    specs = {
        name: tf.TensorSpec(transform.inputs[name].shape, transform.inputs[name].dtype, name)
        for name in needed
    }

    def serve(**inputs: Any) -> dict[str, Any]:
        transformed = transform(inputs)
        arrays = {
            name: tf.cast(transformed[name], tensor.dtype)
            for name, tensor in signature.inputs.items()
        }
        return dict(signature.function(**arrays))

    return tf.function(serve, autograph=False).get_concrete_function(**specs)


def export_keras(recipe: Recipe, folder: str | Path) -> list[str]:
    """Writes each network that is served as a `.keras` file that opens without this package.

    One network becomes `model.keras`; several become `<network>.keras` each. Layers of our own
    are written as the Keras layers they compute the same as.
    """
    files = []
    networks = served_networks(recipe)
    for name, network in networks.items():
        file = "model.keras" if len(networks) == 1 else f"{name}.keras"
        plain(network).save(Path(folder) / file)
        settle_keras_file(Path(folder) / file)
        files.append(file)
    return files


def plain(network: keras.Model) -> keras.Model:
    """A copy of a network, weights included, in which every layer is one of Keras's own."""

    def as_keras(layer: keras.Layer) -> keras.Layer:
        if hasattr(layer, "as_keras_layer"):
            return layer.as_keras_layer()
        return layer.__class__.from_config(layer.get_config())

    copy = keras.models.clone_model(network, clone_function=as_keras)
    copy.set_weights(network.get_weights())
    return copy


def difference(got: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray]) -> float:
    """Largest absolute difference over all outputs, each relative to its largest value or 1."""
    largest = 0.0
    for name, value in wanted.items():
        scale = max(1.0, float(np.abs(value).max(initial=0.0)))
        gap = float(np.abs(np.asarray(got[name], np.float64) - value).max(initial=0.0))
        largest = max(largest, gap / scale)
    return largest


def _describe(function: Any, description: str) -> Exported:
    def text(spec: Any) -> str:
        shape = ", ".join("batch" if size is None else str(size) for size in spec.shape)
        return f"{spec.dtype.name} [{shape}]"

    return Exported(
        inputs={n: text(s) for n, s in function.structured_input_signature[1].items()},
        outputs={n: text(s) for n, s in function.structured_outputs.items()},
        description=description,
    )
