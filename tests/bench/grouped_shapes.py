"""Forward and backward time of RegNetY's grouped convolutions, by how many channels share a block.

    python -m tests.bench.grouped_shapes [--rounds N] [--batch N] [--size PIXELS]

What `trainer.layers.grouped_convolution` chooses by: ours is TensorFlow's own where oneDNN
differentiates it, and blocks where it does not, as with TF_ENABLE_ONEDNN_OPTS=0. The contestants
take turns; a figure is the median of the ratio to ours in the same round: above 1 is slower.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

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


def build_step(convolve: Callable, inputs: tf.Tensor, kernel: tf.Tensor) -> Step:
    """A compiled pass forward and backward."""

    @tf.function(autograph=False)
    def step():
        with tf.GradientTape() as tape:
            tape.watch([inputs, kernel])
            total = tf.reduce_sum(tf.square(convolve(inputs, kernel)))
        return tape.gradient(total, [inputs, kernel])

    def run() -> None:
        for gradient in step():
            gradient.numpy()

    return run


def compare(shape: tuple[int, int, int, int], batch: int, rounds: int) -> str:
    """The line of one shape."""
    side, width, group_width, stride = shape
    layer = GroupedConv2D(width, 3, strides=stride, groups=width // group_width, use_bias=False)
    layer.build((None, side + 2, side + 2, width))
    random = np.random.default_rng(0)
    inputs = tf.constant(random.standard_normal((batch, side + 2, side + 2, width), np.float32))
    kernel = tf.constant(random.standard_normal(layer.kernel.shape, np.float32))

    def blocks(channels: int) -> Callable:
        groups = max(channels // group_width, 1)
        return lambda x, k: block_diagonal(x, k, groups, strides=(stride, stride))

    steps = {
        "ours": build_step(layer.convolution_op, inputs, kernel),
        **{str(b): build_step(blocks(b), inputs, kernel) for b in BLOCKS},
    }
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
    columns = "".join(f"{ratio:>8.2f}" for ratio in ratios)
    return f"{side:>5}{width:>7}{group_width:>7}{stride:>7}{milliseconds:>9.1f}{columns}"


def main() -> None:
    """Reads the command line and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="turns of each contestant")
    parser.add_argument("--batch", type=int, default=32, help="pictures per step")
    parser.add_argument("--size", type=int, default=128, help="side of the network's input")
    arguments = parser.parse_args()
    names = [*map(str, BLOCKS[:-1]), "all"]
    print(
        f"{'side':>5}{'width':>7}{'group':>7}{'stride':>7}{'ours ms':>9}"
        + "".join(f"{n:>8}" for n in names)
    )
    for shape in shapes(arguments.size):
        print(compare(shape, arguments.batch, arguments.rounds), flush=True)


if __name__ == "__main__":
    main()
