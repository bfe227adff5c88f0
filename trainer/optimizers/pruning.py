"""Gradual magnitude pruning: an Adam that sets ever more of the smallest weights to zero.

Zhu and Gupta 2017, https://arxiv.org/abs/1710.01878; how many weights each kernel keeps is that of
Evci et al. 2020, https://arxiv.org/abs/1911.11134, section 3: Erdős-Rényi-Kernel.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

EVERY = 100
"""Steps from one choice of weights to the next (Zhu and Gupta, section 3.1: 100 to 1,000)."""


class PruningAdam(keras.optimizers.Adam):  # type: ignore[misc]
    """Adam that keeps ever fewer weights of some kernels, those of the largest magnitude.

    After `steps` steps, of each kernel named in `kept` no more than so many weights differ from
    zero; before, the rest goes as (1 - step / steps)^3 (equation 1). The choice is made at every
    hundredth step, and what was set to zero stays there. Kernels that are not named are never
    pruned. Which weights are left is part of the optimizer's state, not of the network.

    Args:
        learning_rate: of Adam, a number or a schedule.
        kept: path of a variable -> weights it keeps in the end.
        steps: optimizer steps until then; a multiple of `every`.
        every: steps from one choice to the next.
        arguments: further ones of `keras.optimizers.Adam`.
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        *,
        kept: Mapping[str, int],
        steps: int,
        every: int = EVERY,
        **arguments: Any,
    ):
        if every < 1 or steps < every or steps % every:
            raise ValueError(
                f"steps must be every, at least 1, or a multiple of it; got {steps} and {every}."
            )
        super().__init__(learning_rate, **arguments)
        self.kept = dict(kept)
        self.steps = steps
        self.every = every

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Adds a mask for each variable that is to be pruned.

        Raises:
            ValueError: a path in `kept` is none of the variables'.
        """
        if self.built:
            return
        super().build(variables)
        unknown = sorted(set(self.kept) - {variable.path for variable in variables})
        if unknown:
            raise ValueError(f"kept must name variables of the network; {unknown} are none.")
        self._pruned = {
            self._get_variable_index(variable): (
                self.add_variable_from_reference(variable, "mask", initializer="ones"),
                self.kept[variable.path],
            )
            for variable in variables
            if variable.path in self.kept
        }

    def update_step(self, gradient: Any, variable: keras.Variable, learning_rate: Any) -> None:
        """Moves a variable by Adam, then sets to zero what is pruned of it."""
        super().update_step(gradient, variable, learning_rate)
        # A backend may hand in its own variable, which has no path.
        index = self._get_variable_index(variable)
        if index not in self._pruned:
            return
        mask, kept = self._pruned[index]
        due = ops.equal(ops.mod(self.iterations, self.every), 0)
        chosen = ops.cond(
            due,
            lambda: self._largest(ops.multiply(variable, mask), kept),
            lambda: ops.convert_to_tensor(mask),
        )
        self.assign(mask, chosen)
        self.assign(variable, ops.multiply(variable, chosen))

    def _largest(self, values: Any, kept: int) -> Any:
        """1 where a weight is among those that are kept at this step, 0 elsewhere."""
        magnitudes = ops.abs(values)
        total = math.prod(magnitudes.shape)
        done = ops.minimum(ops.cast(self.iterations, "float32") / self.steps, 1.0)
        pruned = (total - kept) * (1.0 - (1.0 - done) ** 3)
        # Rounding of a float32 may not cost a weight too few: the last step is exact.
        pruned = ops.minimum(ops.cast(ops.floor(pruned + 0.5), "int32"), total - kept)
        ascending = ops.sort(ops.reshape(magnitudes, (-1,)))
        threshold = ops.take(ascending, ops.minimum(pruned, total - 1))
        chosen = ops.logical_and(magnitudes >= threshold, magnitudes > 0)
        return ops.cast(chosen, values.dtype)


def kept_weights(shapes: Mapping[str, Sequence[int]], total: int) -> dict[str, int]:
    """How many weights each kernel keeps, so that `total` are left of all.

    A kernel's density is in proportion to the sum of its sizes over their product, so that narrow
    kernels stay fuller than wide ones; none is above 1 (Evci et al. 2020, section 3).

    Args:
        shapes: path of a kernel -> its shape.
        total: weights to keep.

    Raises:
        ValueError: there are fewer weights than are to be kept, or less than one for each kernel.
    """
    sizes = {path: math.prod(shape) for path, shape in shapes.items()}
    if not len(sizes) <= total <= sum(sizes.values()):
        raise ValueError(
            f"From {len(sizes)}, one a kernel, to {sum(sizes.values())} weights can be kept; "
            f"got {total}."
        )
    full: set[str] = set()
    while True:
        scores = {path: sum(shapes[path]) for path in sizes if path not in full}
        left = total - sum(sizes[path] for path in full)
        scale = left / sum(scores.values()) if scores else 0.0
        over = {path for path, score in scores.items() if scale * score > sizes[path]}
        if not over:
            break
        full |= over
    kept = {path: max(1, math.floor(scale * score)) for path, score in scores.items()}
    return kept | {path: sizes[path] for path in full}
