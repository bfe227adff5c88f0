"""Guards: a training that goes wrong says so at once, and where to look."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from trainer.engine.symptoms import Finding, Snapshot, findings, snapshot
from trainer.errors import TryAgain, UserError
from trainer.recipe import Batch, Recipe, Update

TOLERANCE = 2 * float(np.finfo(np.float32).eps)
"""A loss that changes by no more than this part of itself stands still (ours): two roundings."""

TREND = 2.0
"""Two means that differ by less than so many standard errors show no trend (ours)."""

RARER = 4
"""After a look, the next one of its kind is taken at so many times the steps (ours)."""

TREND_VALUES = 8
"""Fewest values that each of two means must be of to tell a trend (ours)."""


def not_finite(
    recipe: Recipe,
    model: str,
    step: int,
    numbers: Mapping[str, float],
    batch: Batch | None = None,
) -> UserError:
    """The error for losses that became NaN or infinite.

    Args:
        recipe: the recipe.
        model: its name.
        step: steps taken when it was seen.
        numbers: all that the step logged.
        batch: any batch of the training; with it the error can tell whose term is to blame where
            the loss itself is finite.
    """
    bad = [name for name, value in numbers.items() if not math.isfinite(value)]
    owners = _owners(recipe, numbers, batch)
    # Updates are taken in this order, and what one breaks is broken for those after it.
    updates = [u for u in recipe.updates if any(owners.get(name) is u for name in bad)]
    first = updates[0] if updates else None
    if first is None:
        names = [update.loss.__name__ for update in recipe.updates]
        where = f"a term of {' or '.join(names)}"
        terms = bad
    else:
        number = list(recipe.updates).index(first) + 1
        where = (
            f"update {number} of {len(recipe.updates)}, {first.loss.__name__}, which moves "
            f"{', '.join(first.optimizers)}"
        )
        terms = [name for name in bad if owners.get(name) is first]
    told = ", ".join(f"{name} became {numbers[name]}" for name in terms)
    half = keras.config.dtype_policy().compute_dtype == "float16"
    precision = " train with precision mixed_bfloat16 or float32," if half else ""
    return UserError(
        f"Every loss of {model} must stay finite; at step {step:,} {told} ({where}). The last good "
        f"checkpoint is kept: lower the learning rate,{precision} bound the gradients (clip_norm), "
        "or look at the examples."
    )


def check_finite(recipe: Recipe, model: str, step: int, arrays: Mapping[str, np.ndarray]) -> None:
    """Refuses variables that are NaN or infinite, so that no checkpoint comes to hold them.

    A step may make them out of a loss that was finite; the next loss tells, but a checkpoint may be
    written before.

    Args:
        recipe: the recipe.
        model: its name.
        step: steps taken.
        arrays: the variables by their names in checkpoints.

    Raises:
        UserError: naming the variable and the updates that move it.
    """
    bad = [name for name, array in arrays.items() if not _is_finite(array)]
    if not bad:
        return
    parts = bad[0].split("/")
    movers = [
        update.loss.__name__
        for update in recipe.updates
        if update.loss.__name__ == parts[1] or parts[1] in update.optimizers
    ]
    more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
    by = f" (moved by {', '.join(movers)})" if movers else ""
    raise UserError(
        f"Every variable of {model} must stay finite; by step {step:,} {bad[0]}{by}{more} became "
        "NaN or infinite while the losses were finite. The last good checkpoint is kept: look for "
        "a gradient that is not finite, such as that of a square root or a logarithm at 0, lower "
        "the learning rate, or bound the gradients (clip_norm)."
    )


class StillnessGuard:
    """Tells when a loss does not move, and why, as far as that can be seen.

    A loss that is the same at every step for `still_steps` is always told of. One that only shows
    no trend, as where a dead network sees other labels in each batch, is told of where a cause is
    found that leaves no doubt, and then never again; looks at it become ever rarer.

    While a loss moves, looking costs a few additions. Nothing that is looked at changes, and a look
    that fails ends no training. Where several processes train together, each must look.

    Args:
        recipe: the recipe, whose optimizers are built.
        still_steps: steps after which a loss that has not moved is told of.
        write: makes the recipe's variables current; called before they are read.
    """

    def __init__(self, recipe: Recipe, still_steps: int, write: Callable[[], None] = lambda: None):
        self._recipe = recipe
        self._write = write
        self._watches = [_Watch(update, still_steps) for update in recipe.updates]

    def look(self, step: int, numbers: Mapping[str, float], batch: Batch) -> list[str]:
        """Takes in what a step logged, and says what is wrong, once.

        Args:
            step: steps taken.
            numbers: what that step logged.
            batch: a batch of the training, another one at each reading of the device; empty where
                there is none at hand.

        Returns:
            Sentences, the first of which says which loss does not move; nearly always none.
        """
        said: list[str] = []
        for watch in self._watches:
            value = numbers.get(watch.name)
            if value is not None:
                try:
                    said += self._follow(watch, step, value, batch)
                except TryAgain:
                    raise
                except Exception:
                    watch.restart()  # no fault of a guard may end what it guards
        return said

    def _follow(self, watch: _Watch, step: int, value: float, batch: Batch) -> list[str]:
        watch.add(step, value)
        if watch.calm < 1 or not watch.due(step):
            return []
        if watch.before is None:
            self._write()
            watch.before = _Before(step, batch, snapshot(self._recipe, watch.update))
        # Steps are read many at a time: only in another reading have the variables had their time.
        elif step >= watch.before.step + watch.window and batch and batch is not watch.before.batch:
            self._write()
            # Losses such as those of a GAN never show a trend: once is enough to run all networks.
            thorough = watch.still or not watch.looked
            watch.looked = True
            found = findings(self._recipe, watch.update, watch.before.snapshot, batch, thorough)
            return watch.tell(step, found)
        return []


@dataclasses.dataclass
class _Values:
    """Count, mean, spread and bounds of some values, one after the other (Welford 1962)."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    low: float = math.inf
    high: float = -math.inf

    def add(self, value: float) -> None:
        self.count += 1
        change = value - self.mean
        self.mean += change / self.count
        self.squares += change * (value - self.mean)
        self.low, self.high = min(self.low, value), max(self.high, value)

    def stands_still(self, after: _Values) -> bool:
        low, high = min(self.low, after.low), max(self.high, after.high)
        return high - low <= TOLERANCE * max(abs(low), abs(high))

    def shows_no_trend(self, after: _Values) -> bool:
        if min(self.count, after.count) < TREND_VALUES:
            return False
        errors = [v.squares / (v.count - 1) / v.count for v in (self, after)]
        return abs(self.mean - after.mean) <= TREND * math.sqrt(sum(errors))


@dataclasses.dataclass(frozen=True)
class _Before:
    """Where variables stood at a step, and the batch of the reading in which that was seen."""

    step: int
    batch: Batch
    snapshot: Snapshot


class _Watch:
    """One update's loss in windows of a third of `still_steps`, each compared to that before.

    Attributes:
        calm: windows in a row that were like the one before.
        still: whether the loss was the same in all of them.
        looked: whether it has been looked at.
        before: where the variables stood when a look became due; the look is a window later.
    """

    def __init__(self, update: Update, still_steps: int):
        self.update = update
        self.name = update.loss.__name__
        self.still_steps = still_steps
        self.window = max(math.ceil(still_steps / 3), 1)
        self.looked = False
        self.next_look: dict[bool, float] = {True: 0, False: 0}  # whether still -> step
        self.restart()

    def restart(self) -> None:
        """Begins anew with the next value."""
        self.last: _Values | None = None
        self.values = _Values()
        self.begin = self.since = 0
        self.calm = 0
        self.still = True
        self.before: _Before | None = None

    def add(self, step: int, value: float) -> None:
        """Takes in the loss of a step."""
        if self.last is None and not self.values.count:
            self.begin = step
        self.values.add(value)
        if step - self.begin + 1 < self.window:
            return
        last, now = self.last, self.values
        still = last is not None and last.stands_still(now)
        if last is None or not (still or last.shows_no_trend(now)):
            self.calm, self.still, self.before, self.since = 0, True, None, self.begin
        else:
            self.calm += 1
            self.still = self.still and still
        self.last, self.values, self.begin = now, _Values(), step + 1

    def due(self, step: int) -> bool:
        """Whether it is worth a look, if one of its kind has been taken before."""
        return step >= self.next_look[self.still]

    def tell(self, step: int, found: list[Finding]) -> list[str]:
        """What to say of a look, after which the watch begins anew."""
        still, since = self.still, self.since
        mean = self.last.mean if self.last else math.nan
        self.next_look[still] = RARER * step
        self.restart()
        steps = step - since + 1
        if still:
            told = (
                f"{self.name} has not moved for {steps:,} steps: at step {step:,} it is {mean:.7g}."
            )
        elif any(finding.decisive for finding in found):
            self.next_look[still] = math.inf
            told = (
                f"{self.name} shows no trend over {steps:,} steps: at step {step:,} it is about "
                f"{mean:.4g}."
            )
        else:
            return []
        if not found:
            nothing = " A loss of 0 has nothing left to teach." if mean == 0 else ""
            found = [
                Finding(
                    "Its learning rates, variables, layers and examples look sound: see whether it "
                    f"depends on what {' and '.join(self.update.optimizers)} gives.{nothing}"
                )
            ]
        return [told, *(finding.sentence for finding in found)]


def _owners(recipe: Recipe, numbers: Mapping[str, float], batch: Batch | None) -> dict[str, Update]:
    """Logged scalar -> the update that it is the loss or a term of, as far as can be known."""
    owners = {update.loss.__name__: update for update in recipe.updates}
    unknown = set(numbers) - set(owners)
    if len(recipe.updates) == 1:
        return {**owners, **dict.fromkeys(unknown, recipe.updates[0])}
    if unknown and batch:
        # Whatever goes wrong here, the error that is being made matters more.
        with contextlib.suppress(Exception), keras.StatelessScope():
            seen: dict[str, Any] = {name: values[:2] for name, values in batch.items()}
            for update in recipe.updates:
                result = update.loss(seen)
                extras = result[1] if isinstance(result, tuple) else {}
                owners.update(dict.fromkeys(unknown & set(extras), update))
                seen.update(extras)
    return owners


def _is_finite(array: np.ndarray) -> bool:
    """Whether an array holds neither NaN nor infinity; makes no copy of it."""
    if not array.size or not np.issubdtype(array.dtype, np.inexact):
        return True
    return bool(np.isfinite(array.min()) and np.isfinite(array.max()))
