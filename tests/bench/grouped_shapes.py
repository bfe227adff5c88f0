"""Forward and backward time of RegNetY's grouped convolutions, by how many channels share a block.

    python -m tests.bench.grouped_shapes [--rounds N] [--batch N] [--size PIXELS]

On the backend that KERAS_BACKEND names, tensorflow or jax.

What `trainer.layers.grouped_convolution` chooses by: the backend's own where that is fast, and
blocks elsewhere: on JAX, and on TensorFlow with TF_ENABLE_ONEDNN_OPTS=0, where it has no gradient.
The contestants take turns; a figure is the median of the ratio to ours in the same round: above 1
is slower.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import ops

from trainer import backend
from trainer.layers.grouped_convolution import GroupedConv2D, block_diagonal
from trainer.models.regnety.config import DESIGN, stages

BLOCKS = (1, 16, 32, 64, 128, 10_000)
Step = Callable[[], None]


def shapes(size: int) -> list[tuple[int, int, int, int]]:
    """(input side, channels, group width, stride) of every grouped convolution, each once."""
    found = {}
    for variant in DESIGN:
        side = size // 2
        for stage in stages(variant):
            found[side, stage.width, stage.group_width, 2] = None
            side //= 2
            if stage.depth > 1:
                found[side, stage.width, stage.group_width, 1] = None
    return list(found)


def build_step(convolve: Callable, inputs: np.ndarray, kernel: np.ndarray) -> Step:
    """A compiled pass forward and backward."""

    def total(inputs, kernel):
        return ops.sum(ops.square(convolve(inputs, kernel)))

    if keras.backend.backend() == "jax":
        import jax

        given = jax.numpy.asarray(inputs), jax.numpy.asarray(kernel)
        differentiate = jax.jit(jax.grad(total, argnums=(0, 1)))
    else:
        import tensorflow as tf

        given = tf.constant(inputs), tf.constant(kernel)

        @tf.function(autograph=False)
        def differentiate(*given):
            with tf.GradientTape() as tape:
                tape.watch(given)
                result = total(*given)
            return tape.gradient(result, given)

    def run() -> None:
        for gradient in differentiate(*given):
            np.asarray(gradient)

    return run


def compare(shape: tuple[int, int, int, int], batch: int, rounds: int) -> str:
    """The line of one shape."""
    side, width, group_width, stride = shape
    layer = GroupedConv2D(width, 3, strides=stride, groups=width // group_width, use_bias=False)
    layer.build((None, side + 2, side + 2, width))
    random = np.random.default_rng(0)
    inputs = random.standard_normal((batch, side + 2, side + 2, width), np.float32)
    kernel = random.standard_normal(layer.kernel.shape, np.float32)

    def blocks(channels: int) -> Callable:
        groups = max(channels // group_width, 1)
        return lambda x, k: block_diagonal(x, k, groups, strides=(stride, stride))

    def own(x, k):
        return backend.current().grouped_convolution(x, k, (stride, stride), "valid", (1, 1))

    steps = {
        "ours": build_step(layer.convolution_op, inputs, kernel),
        **{str(b): build_step(blocks(b), inputs, kernel) for b in BLOCKS},
    }
    if keras.backend.backend() == "jax" or backend.current().has_grouped_convolution("float32"):
        steps["backend's"] = build_step(own, inputs, kernel)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for i in range(rounds + 1):
        for name, step in steps.items():
            began = time.perf_counter()
            step()
            if i:  # the first round compiles
                seconds[name].append(time.perf_counter() - began)
    ratios = (
        statistics.median(b / a for a, b in zip(seconds["ours"], seconds[name], strict=True))
        for name in list(steps)[1:]
    )
    milliseconds = 1e3 * statistics.median(seconds["ours"])
    columns = "".join(f"{ratio:>10.2f}" for ratio in ratios)
    return f"{side:>5}{width:>7}{group_width:>7}{stride:>7}{milliseconds:>9.1f}{columns}"


def main() -> None:
    """Reads the command line and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="turns of each contestant")
    parser.add_argument("--batch", type=int, default=32, help="pictures per step")
    parser.add_argument("--size", type=int, default=128, help="side of the network's input")
    arguments = parser.parse_args()
    names = [*map(str, BLOCKS[:-1]), "all", "backend's"]
    print(
        f"{'side':>5}{'width':>7}{'group':>7}{'stride':>7}{'ours ms':>9}"
        + "".join(f"{n:>10}" for n in names)
    )
    for shape in shapes(arguments.size):
        print(compare(shape, arguments.batch, arguments.rounds), flush=True)


if __name__ == "__main__":
    main()
