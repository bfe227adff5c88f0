"""Why a loss may stand still: what networks, optimizers and examples look like at that moment."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from trainer import backend
from trainer.errors import TryAgain
from trainer.recipe import Batch, Recipe, Update

EXAMPLES = 64
"""Examples that the layers of a network are looked at with (ours)."""

DEAD_SHARE = 0.5
"""Share of a layer's units that must be dead for the layer to be named (ours)."""

SATURATED_SHARE = 0.9
"""Share of a layer's outputs that must be saturated for the layer to be named (ours)."""

FLAT = 1e-3
"""An activation is saturated where its slope is below this part of its largest slope (ours)."""

LARGE_LOGIT = 16.0
"""Beyond it a sigmoid rounds to 1 in float32: exp(-16.6) is half the distance from 1 to the number
below it."""

SAME = 1e-6
"""Outputs that differ by less than this part of the largest one count as the same (ours); a few
roundings of float32."""

LISTED = 3
"""Layers or variables that a sentence or a kind of finding names (ours)."""

_RECTIFIERS = ("relu", "relu6")
_BOUNDED = {"sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0), "softmax": (0.0, 1.0)}


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that may keep a loss from moving.

    Attributes:
        sentence: what it is, and what to look at.
        decisive: with it a loss cannot be expected to move; other findings are hints.
    """

    sentence: str
    decisive: bool = False


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """What the networks that an update moves were at one moment.

    Attributes:
        digests: (network, variable) -> digest of its value.
        taken: network -> steps that its optimizer had taken.
    """

    digests: Mapping[tuple[str, str], bytes]
    taken: Mapping[str, int]


def snapshot(recipe: Recipe, update: Update) -> Snapshot:
    """Takes down where the variables that an update moves stand."""
    digests = {
        (name, variable.path): hashlib.blake2b(_array(variable).tobytes(), digest_size=16).digest()
        for name in update.optimizers
        for variable in recipe.networks[name].trainable_variables
    }
    taken = {n: int(_array(optimizer.iterations)) for n, optimizer in update.optimizers.items()}
    return Snapshot(digests, taken)


def findings(
    recipe: Recipe, update: Update, before: Snapshot, batch: Batch, thorough: bool = True
) -> list[Finding]:
    """All that may keep an update's loss from moving, what is decisive first.

    Never raises for what it looks at: what cannot be looked at is left out.

    Args:
        recipe: its variables are current.
        update: whose loss stands still.
        before: of the same update, some steps ago.
        batch: of the training; its first 64 examples are looked at.
        thorough: run the networks, which must be compiled for that, even if nothing else is found.
    """
    found = [
        *_attempt(optimizer_findings, update),
        *_attempt(variable_findings, recipe, update, before),
        *_attempt(input_findings, batch),
    ]
    if thorough or found:
        found += _attempt(network_findings, recipe, update, batch)
    return sorted(found, key=lambda finding: not finding.decisive)


def optimizer_findings(update: Update) -> list[Finding]:
    """Learning rates that are 0."""
    still = [
        name
        for name, optimizer in update.optimizers.items()
        if not float(_array(optimizer.learning_rate))
    ]
    return [
        Finding(
            f"The learning rate of {name} is 0: look at the settings and the schedule.",
            decisive=True,
        )
        for name in still
    ]


def variable_findings(recipe: Recipe, update: Update, before: Snapshot) -> list[Finding]:
    """Variables that are frozen, or have not moved since a snapshot."""
    found = []
    now = snapshot(recipe, update)
    for name in update.optimizers:
        network = recipe.networks[name]
        frozen = [
            f"{name}/{layer.name}"
            for layer in network._flatten_layers(include_self=False)
            if not layer.trainable and layer.variables and not _sublayers(layer)
        ]
        if frozen:
            found.append(Finding(f"Frozen, since `trainable` is False: {_listed(frozen)}."))
        paths = [path for owner, path in now.digests if owner == name]
        steps = now.taken[name] - before.taken.get(name, 0)
        if not paths:
            found.append(Finding(f"All of {name} is frozen: no variable can move.", decisive=True))
        elif not steps:
            found.append(
                Finding(
                    f"The optimizer of {name} has taken no step since: a step is skipped where "
                    "gradients are not finite, as in mixed_float16; float32 would tell.",
                    decisive=True,
                )
            )
        else:
            still = [p for p in paths if before.digests.get((name, p)) == now.digests[name, p]]
            if still:
                which = "None" if len(still) == len(paths) else f"Only {len(paths) - len(still)}"
                but = f", but not {_listed(still)}" if len(still) < len(paths) else ""
                found.append(
                    Finding(
                        f"{which} of the {len(paths)} variables of {name} moved in {steps:,} steps "
                        f"of its optimizer{but}: no gradient gets there, or one that is lost in "
                        "rounding.",
                        decisive=len(still) == len(paths),
                    )
                )
    return found


def input_findings(batch: Batch) -> list[Finding]:
    """Inputs that are the same for every example."""
    found = []
    for name, values in _numbers(batch).items():
        if len(values) > 1 and values.size and (values == values[:1]).all():
            one = values[0].ravel()
            what = f"{one[0]:.4g}" if (one == one[0]).all() else "the same"
            found.append(
                Finding(
                    f"{name!r} is {what} in each of {len(values)} examples of a batch: look at the "
                    "examples, their order and `augment`.",
                    decisive=one.size > 1,
                )
            )
    return found


def network_findings(recipe: Recipe, update: Update, batch: Batch) -> list[Finding]:
    """Dead units, saturated outputs, and outputs that do not depend on the input."""
    numbers = _numbers(batch)
    seen = _see(recipe, update, numbers)
    layers = [sight for sight in seen if not sight.is_network]
    dead = [sight for sight in layers if sight.dead_share >= DEAD_SHARE]
    saturated = [sight for sight in layers if sight.saturated_share >= SATURATED_SHARE]
    found = [
        finding
        for sight in seen
        if sight.is_network
        for finding in _sameness(sight, layers, update)
    ]
    if dead:
        found.append(_dead_finding(sorted(dead, key=lambda sight: -sight.dead_share)))
    if saturated:
        saturated.sort(key=lambda sight: -sight.saturated_share)
        found.append(_saturated_finding(saturated, numbers))
    for sight in seen:
        if sight.is_network and sight.large_share >= SATURATED_SHARE:
            found.append(
                Finding(
                    f"{sight.place} gives numbers from {sight.low:.4g} to {sight.high:.4g}: where "
                    f"they go into a sigmoid or softmax, it is flat beyond ±{LARGE_LOGIT:g}."
                )
            )
    return found


@dataclasses.dataclass
class _Sight:
    """What was seen of one layer over all its calls within a loss.

    Attributes:
        network: which network it belongs to.
        operation: the layer; a network itself stands for its outputs.
        activation: name of its activation, `""` for none.
        calls: what each call measured, by name.
    """

    network: str
    operation: Any
    is_network: bool
    activation: str
    calls: list[dict[str, np.ndarray]] = dataclasses.field(default_factory=list)

    @property
    def place(self) -> str:
        return self.network if self.is_network else f"{self.network}/{self.operation.name}"

    @property
    def units(self) -> int:
        return len(self.calls[0]["unit_high"])

    @property
    def low(self) -> float:
        return float(min(call["unit_low"].min() for call in self.calls))

    @property
    def high(self) -> float:
        return float(max(call["unit_high"].max() for call in self.calls))

    @property
    def scale(self) -> float:
        return max(abs(self.low), abs(self.high))

    def differs(self, of: str) -> bool:
        """Whether `input` or `output` differed between the examples of any call."""
        return any(call[f"{of}_spread"] > SAME * call[f"{of}_scale"] for call in self.calls)

    @property
    def dead_units(self) -> int:
        # Where inputs are the same for every example, whatever came before them is to blame.
        if len({len(call["unit_high"]) for call in self.calls}) > 1 or not self.differs("input"):
            return 0
        high = np.max([call["unit_high"] for call in self.calls], axis=0)
        low = np.min([call["unit_low"] for call in self.calls], axis=0)
        if self.activation in _RECTIFIERS:
            if low.min() < 0:  # what it gives is more than its activation
                return 0
            dead = high <= 0
            if self.activation == "relu6":
                dead |= low >= 6
        elif self.activation and self.activation not in _BOUNDED:
            dead = high - low <= SAME * max(self.scale, 1.0)
        else:
            dead = np.zeros(len(high), bool)
        return int(dead.sum())

    @property
    def dead_share(self) -> float:
        return self.dead_units / self.units if self.units else 0.0

    @property
    def saturated_share(self) -> float:
        if self.activation not in _BOUNDED:
            return 0.0
        least, most = _BOUNDED[self.activation]
        if self.low < least or self.high > most:  # what it gives is more than its activation
            return 0.0
        return float(np.mean([call["saturated"] for call in self.calls]))

    @property
    def large_share(self) -> float:
        return float(np.mean([call["large"] for call in self.calls]))


def _see(recipe: Recipe, update: Update, batch: Batch) -> list[_Sight]:
    """Runs an update's loss as in training, and what its networks do while it runs.

    Nothing that the run assigns is kept. Where the loss cannot be run outside the training step, or
    layers inside others cannot be watched, less is looked at.
    """
    attempts: Sequence[tuple[Callable[[Batch], Any], bool]] = (
        (functools.partial(_run, recipe, update), True),
        (functools.partial(_run, recipe, update), False),
        (recipe.predict, True),
    )
    for run, nested in attempts:
        with contextlib.suppress(Exception):
            return _watch(recipe, run, nested, batch)
    return []


def _run(recipe: Recipe, last: Update, batch: Batch) -> None:
    """The losses of one step up to that of an update, each with what the ones before gave it."""
    for update in recipe.updates:
        result = update.loss(batch)
        if update is last:
            return
        if isinstance(result, tuple):
            batch = {**batch, **result[1]}


def _watch(recipe: Recipe, run: Callable[[Batch], Any], nested: bool, batch: Batch) -> list[_Sight]:
    """Runs a function of a batch, compiled, and returns what the layers did, in their order."""
    order: list[_Sight] = []

    def measured(batch: Batch) -> dict[str, Any]:
        order.clear()
        tensors: dict[str, Any] = {}
        # On JAX the backend has entered a scope; another within it would not see its variables.
        on_jax = keras.backend.backend() == "jax"
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.nullcontext() if on_jax else keras.StatelessScope())
            for sight in _sights(recipe, nested):
                stack.enter_context(_watching(sight, order, tensors))
            run(batch)
        return tensors

    values = backend.current().compile_predict(recipe, measured)(dict(batch))
    for name, value in values.items():
        place, call, measure = name.split("/")
        calls = order[int(place)].calls
        calls += [{} for _ in range(int(call) + 1 - len(calls))]
        calls[int(call)][measure] = np.asarray(value)
    return order


def _sights(recipe: Recipe, nested: bool) -> Iterator[_Sight]:
    """All that is to be watched: networks, their layers, and operations between layers."""
    seen = {id(network) for network in recipe.networks.values()}
    for name, network in recipe.networks.items():
        yield _Sight(name, network, True, "")
        for operation in _operations(network, nested, seen):
            yield _Sight(name, operation, False, _activation(operation))


def _operations(layer: Any, nested: bool, seen: set[int]) -> Iterator[Any]:
    """Layers of a layer, and operations that are none; those inside other layers if `nested`."""
    for operation in (*getattr(layer, "operations", ()), *layer._flatten_layers(False, False)):
        if id(operation) not in seen:
            seen.add(id(operation))
            yield operation
            # What runs in a loop over time cannot be looked at from outside.
            if nested and isinstance(operation, keras.Layer) and not _loops(operation):
                yield from _operations(operation, nested, seen)


def _loops(layer: Any) -> bool:
    recurrent = (keras.layers.RNN, keras.layers.Bidirectional, keras.layers.TimeDistributed)
    return isinstance(layer, recurrent)


def _activation(operation: Any) -> str:
    """Name of what a layer applies last, such as `relu`; `""` for nothing, or where unknown."""
    function = getattr(operation, "activation", None)
    if isinstance(function, keras.Layer):
        return ""  # a layer of its own
    if function is None:
        if not _is_activation(operation):
            return ""
        name = type(operation).__name__
    else:
        name = getattr(function, "__name__", type(function).__name__)
    name = name.lower().replace("_", "")
    if name == "relu" and function is None:  # the layer, which may be any of these
        if getattr(operation, "negative_slope", 0):
            return "leakyrelu"
        return "relu6" if getattr(operation, "max_value", None) == 6 else "relu"
    return "" if name == "linear" else name


def _is_activation(operation: Any) -> bool:
    """Whether an operation is nothing but an activation, by its class."""
    kinds = {
        *("relu", "relu6", "leakyrelu", "prelu", "elu", "selu", "celu", "gelu", "silu", "mish"),
        *("sigmoid", "tanh", "softmax", "softplus", "hardsigmoid", "hardsilu", "hardtanh"),
    }
    return type(operation).__name__.lower() in kinds


@contextlib.contextmanager
def _watching(sight: _Sight, order: list[_Sight], tensors: dict[str, Any]) -> Iterator[None]:
    """Within the block, each call of a layer leaves what it measures among the tensors."""
    operation = sight.operation
    call = operation.call
    calls = 0

    @functools.wraps(call)
    def watched(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        outputs = call(*args, **kwargs)
        measures: dict[str, Any] = {}
        with contextlib.suppress(Exception):  # the others can still be looked at
            measures = _measures(_floats((args, kwargs)), _floats(outputs), sight)
        if measures:
            if not calls:
                order.append(sight)
            place = next(i for i, s in enumerate(order) if s is sight)
            tensors.update({f"{place}/{calls}/{k}": v for k, v in measures.items()})
            calls += 1
        return outputs

    # Past Keras's own tracking of attributes, which has no business here.
    object.__setattr__(operation, "call", watched)
    try:
        yield
    finally:
        object.__delattr__(operation, "call")


def _measures(inputs: list[Any], outputs: list[Any], sight: _Sight) -> dict[str, Any]:
    """Small tensors that say what one call of a layer did; none where it is not about examples."""
    if not inputs or not outputs:
        return {}
    first = outputs[0]
    axes = list(range(len(first.shape) - 1))
    measures = {
        "unit_high": ops.max(first, axes),
        "unit_low": ops.min(first, axes),
        "output_spread": _largest([_spread(tensor) for tensor in outputs]),
        "output_scale": _largest([ops.max(ops.abs(tensor)) for tensor in outputs]),
        "input_spread": _largest([_spread(tensor) for tensor in inputs]),
        "input_scale": _largest([ops.max(ops.abs(tensor)) for tensor in inputs]),
    }
    if sight.is_network:
        measures["large"] = ops.mean(ops.cast(ops.abs(first) > LARGE_LOGIT, "float32"))
    if sight.activation in _BOUNDED:
        saturated = _saturated(first, sight.activation)
        measures["saturated"] = ops.mean(ops.cast(saturated, "float32"))
        measures["input_low"] = -_largest([-ops.min(tensor) for tensor in inputs])
        measures["input_high"] = _largest([ops.max(tensor) for tensor in inputs])
    return measures


def _spread(tensor: Any) -> Any:
    """How much a tensor differs between examples at most."""
    return ops.max(ops.max(tensor, 0) - ops.min(tensor, 0))


def _largest(numbers: list[Any]) -> Any:
    return functools.reduce(ops.maximum, numbers)


def _saturated(tensor: Any, activation: str) -> Any:
    """Where an activation is flat, from what it gave."""
    if activation == "tanh":
        return 1.0 - ops.square(tensor) < FLAT  # its largest slope is 1
    if activation == "softmax":
        return 1.0 - ops.max(tensor, axis=-1) < FLAT / 4
    return tensor * (1.0 - tensor) < FLAT / 4  # a sigmoid's largest slope is a quarter


def _floats(structure: Any) -> list[Any]:
    """The float tensors of a nested structure that have examples and units, as float32."""
    found = []
    for tensor in keras.tree.flatten(structure):
        shape = getattr(tensor, "shape", None)
        if shape is None or len(shape) < 2 or 0 in tuple(shape):
            continue
        if "float" in keras.backend.standardize_dtype(tensor.dtype):
            found.append(ops.cast(tensor, "float32"))
    return found


def _sameness(sight: _Sight, layers: list[_Sight], update: Update) -> list[Finding]:
    """Says so if a network gives the same for every example, and where that begins."""
    if sight.differs("output") or not sight.differs("input"):
        return []
    inside = [layer for layer in layers if layer.network == sight.network]
    begins = [s.place for s in inside if s.differs("input") and not s.differs("output")]
    where = f", from {begins[0]} on" if begins else ""
    moved = "" if sight.network in update.optimizers else " (which this update does not move)"
    return [
        Finding(
            f"{sight.network}{moved} gives the same for every example, though its inputs "
            f"differ{where}.",
            decisive=True,
        )
    ]


def _dead_finding(dead: list[_Sight]) -> Finding:
    def told(sight: _Sight) -> str:
        count = "all" if sight.dead_units == sight.units else f"{sight.dead_units:,} of"
        bias = getattr(sight.operation, "bias", None)
        values = None if bias is None else _array(bias)
        biases = "" if values is None else f", biases {values.min():.4g} to {values.max():.4g}"
        return f"{count} {sight.units:,} units of {sight.place} ({sight.activation}{biases})"

    return Finding(
        f"Dead, so that they give one number for every example and pass no gradient: "
        f"{_listed([told(sight) for sight in dead])}. Too high a learning rate, large negative "
        "biases or large inputs kill units; a leaky activation does not die.",
        decisive=dead[0].dead_share == 1.0,
    )


def _saturated_finding(saturated: list[_Sight], numbers: Mapping[str, np.ndarray]) -> Finding:
    def told(sight: _Sight) -> str:
        low = min(float(call["input_low"]) for call in sight.calls)
        high = max(float(call["input_high"]) for call in sight.calls)
        return (
            f"{sight.saturated_share * 100:.0f} % of {sight.place} ({sight.activation}, "
            f"{sight.low:.4g} to {sight.high:.4g} for inputs from {low:.4g} to {high:.4g})"
        )

    large = [
        f"{name!r} holds numbers from {values.min():.4g} to {values.max():.4g}"
        for name, values in numbers.items()
        if values[0].size > 1 and np.abs(values).max() > LARGE_LOGIT
    ]
    scale = f" In the batch {' and '.join(large)}: bring them to about [-1, 1]." if large else ""
    return Finding(
        "Saturated, so that hardly a gradient passes: "
        f"{_listed([told(sight) for sight in saturated])}.{scale}"
    )


def _attempt(look: Callable[..., Iterable[Finding]], *arguments: Any) -> list[Finding]:
    try:
        return list(look(*arguments))
    except TryAgain:
        raise
    except Exception:
        return []  # a look that fails must not end the training it looks at


def _numbers(batch: Batch) -> dict[str, np.ndarray]:
    """The numbers of the first examples of a batch, as NumPy arrays."""
    arrays = {name: np.asarray(values) for name, values in batch.items()}
    return {n: a[:EXAMPLES] for n, a in arrays.items() if a.ndim and a.dtype.kind in "biuf"}


def _listed(names: Sequence[str]) -> str:
    more = len(names) - LISTED
    return ", ".join(names[:LISTED]) + (f" and {more} more" if more > 0 else "")


def _sublayers(layer: Any) -> bool:
    return bool(layer._flatten_layers(include_self=False))


def _array(value: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(value))
