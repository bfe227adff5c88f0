"""Makes the bytes of a transform graph follow from what it computes, and from nothing else.

TensorFlow numbers the functions that a process makes, whatever they belong to, and names tables
after paths, addresses in memory or random numbers. So the same work would give other bytes in
another folder, after a failure, or with threads.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tensorflow.core.protobuf import fingerprint_pb2, saved_model_pb2

from trainer.reproducible import settle_saved_model

_NUMBERED = re.compile(r"(.*)_([0-9]+)", re.DOTALL)
_USER_NUMBER = re.compile(r'(key: "_user_specified_name"\s*value \{\s*s: ")[0-9]+(")')


def settle(folder: str | Path) -> None:
    """Settles the names in a SavedModel, the order of its nodes, and its fingerprint.

    Functions are numbered from 0, in the same order. Tables are named after a digest of the model
    and its vocabularies: to a process that loads two models, tables of one name are one table.

    Args:
        folder: of the SavedModel.
    """
    file = Path(folder) / "saved_model.pb"
    model = _renumbered(saved_model_pb2.SavedModel.FromString(file.read_bytes()))
    for graph in model.meta_graphs:
        # The order of nodes says nothing, and is that of sets of objects.
        graph.graph_def.node.sort(key=_name)
        graph.graph_def.library.function.sort(key=lambda function: function.signature.name)
        for function in graph.graph_def.library.function:
            function.node_def.sort(key=_name)
    _name_tables(model, "")
    digest = hashlib.sha256(model.SerializeToString(deterministic=True))
    for path in sorted((Path(folder) / "assets").glob("*")):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    _name_tables(model, digest.hexdigest()[:16])
    data = model.SerializeToString(deterministic=True)
    file.write_bytes(data)
    mark = Path(folder) / "fingerprint.pb"
    fingerprint = fingerprint_pb2.FingerprintDef.FromString(mark.read_bytes())
    # TensorFlow's checksums are of what was there before.
    checksum = int.from_bytes(hashlib.sha256(data).digest()[:8])
    fingerprint.saved_model_checksum = fingerprint.graph_def_program_hash = checksum
    mark.write_bytes(fingerprint.SerializeToString(deterministic=True))
    settle_saved_model(folder)


def _renumbered(model: Any) -> Any:
    """The model with the numbers of its functions replaced by their ranks, wherever they stand."""
    libraries = [graph.graph_def.library for graph in model.meta_graphs]
    renamed = _renamed({f.signature.name for library in libraries for f in library.function})
    # As text, for functions are named in many places: calls, loops, signatures, objects, arguments.
    text = text_format.MessageToString(model)
    if renamed:
        longest_first = sorted(renamed, key=len, reverse=True)
        names = re.compile(f"({'|'.join(map(re.escape, longest_first))})(?![0-9])")
        text = names.sub(lambda match: renamed[match[1]], text)
    return text_format.Parse(_USER_NUMBER.sub(r"\1\2", text), saved_model_pb2.SavedModel())


def _renamed(names: Iterable[str]) -> dict[str, str]:
    """Name -> the same with its number replaced by its rank among all numbers."""
    numbered = {name: match for name in names if (match := _NUMBERED.fullmatch(name))}
    numbers = sorted({int(match[2]) for match in numbered.values()})
    ranks = {number: rank for rank, number in enumerate(numbers)}
    return {name: f"{match[1]}_{ranks[int(match[2])]}" for name, match in numbered.items()}


def _name_tables(model: Any, digest: str) -> None:
    """Numbers the tables of a model, and puts the digest into their names."""
    numbers: dict[bytes, int] = {}
    for node in _nodes(model):
        if "shared_name" in node.attr and node.attr["shared_name"].s:
            number = numbers.setdefault(node.attr["shared_name"].s, len(numbers))
            node.attr["shared_name"].s = f"table_{number}_{digest}".encode()


def _nodes(model: Any) -> Iterator[Any]:
    for graph in model.meta_graphs:
        yield from graph.graph_def.node
        for function in graph.graph_def.library.function:
            yield from function.node_def


def _name(node: Any) -> str:
    name: str = node.name
    return name
