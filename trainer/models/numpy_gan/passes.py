"""Both passes of two fully connected networks that play against each other, in plain NumPy.

A network is its weights: kernel [inputs, units] and bias [units] of each layer, in their order.
Hidden layers are LeakyReLU; what the last layer's sums become is up to the caller. Everything is
computed in the precision of the weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Weights = Sequence[np.ndarray]

SLOPE = 0.2  # of LeakyReLU (DCGAN, section 4)
REAL = 0.9  # one-sided label smoothing: Salimans et al. 2016, section 3.4


def forward(weights: Weights, x: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The inputs and the sums of every layer.

    Args:
        weights: of the network.
        x: [batch, inputs].

    Returns:
        For each layer [batch, inputs], and [batch, units] before any activation.
    """
    inputs, sums = [], []
    for kernel, bias in zip(weights[::2], weights[1::2], strict=True):
        inputs.append(x)
        sums.append(x @ kernel + bias)
        x = np.where(sums[-1] > 0, sums[-1], SLOPE * sums[-1])
    return inputs, sums


def backward(
    weights: Weights, inputs: list[np.ndarray], sums: list[np.ndarray], error: np.ndarray
) -> tuple[list[np.ndarray], np.ndarray]:
    """Gradients by the chain rule, from the last layer to the first.

    Args:
        weights: of the network.
        inputs: of each layer, as `forward` has returned them.
        sums: of each layer.
        error: gradient of a loss with respect to the last sums, [batch, units].

    Returns:
        The loss's gradients with respect to the weights, and to the network's input.
    """
    gradients: list[np.ndarray] = []
    for layer in reversed(range(len(inputs))):
        gradients[:0] = [inputs[layer].T @ error, error.sum(axis=0)]
        error = error @ weights[2 * layer].T
        if layer:
            error = np.where(sums[layer - 1] > 0, error, SLOPE * error)
    return gradients, error


def discriminator(
    moving: Weights, others: Sequence[np.ndarray]
) -> tuple[list[np.floating], list[np.ndarray]]:
    """Cross-entropy of telling real pictures from drawn ones, which are taken as they are.

    Args:
        moving: weights of the discriminator.
        others: those of the generator; pictures [batch, pixels] in [-1, 1]; noise [batch, size].

    Returns:
        The loss in nats, the mean probability that real pictures are real, and that drawn ones
        are; the loss's gradients with respect to `moving`.
    """
    *generator, image, noise = others
    drawn = np.tanh(forward(generator, noise)[1][-1])
    # Apart from each other: nothing that one is measured by depends on the other.
    losses, scores, gradients = [], [], []
    for picture, wanted in ((image, REAL), (drawn, 0.0)):
        inputs, sums = forward(moving, picture)
        logit = sums[-1]
        losses.append(cross_entropy(logit, wanted))
        scores.append(sigmoid(logit).mean())
        # Both logarithms and the logistic function at once: each alone overflows.
        error = (sigmoid(logit) - wanted) / len(logit)
        gradients.append(backward(moving, inputs, sums, error)[0])
    return [losses[0] + losses[1], *scores], [a + b for a, b in zip(*gradients, strict=True)]


def generator(
    moving: Weights, others: Sequence[np.ndarray]
) -> tuple[list[np.floating], list[np.ndarray]]:
    """How sure the discriminator is that drawn pictures are drawn: -log D, which does not saturate.

    Args:
        moving: weights of the generator.
        others: those of the discriminator, which stays as it is; noise [batch, size].

    Returns:
        The loss in nats; its gradients with respect to `moving`.
    """
    *judging, noise = others
    inputs, sums = forward(moving, noise)
    drawn = np.tanh(sums[-1])
    inputs_of_judging, sums_of_judging = forward(judging, drawn)
    logit = sums_of_judging[-1]
    error = (sigmoid(logit) - 1.0) / len(logit)
    # Through the discriminator, whose own gradients nobody needs.
    _, error = backward(judging, inputs_of_judging, sums_of_judging, error)
    gradients, _ = backward(moving, inputs, sums, error * (1.0 - np.square(drawn)))
    return [cross_entropy(logit, 1.0)], gradients


def cross_entropy(logit: np.ndarray, wanted: float) -> np.floating:
    """Mean cross-entropy in nats of logits with a probability, finite for any logit."""
    terms = np.maximum(logit, 0.0) - wanted * logit + np.log1p(np.exp(-np.abs(logit)))
    return terms.mean(dtype=logit.dtype)


def sigmoid(logit: np.ndarray) -> np.ndarray:
    """The logistic function, without overflow on either side."""
    small = np.exp(-np.abs(logit))
    return np.where(logit >= 0, 1.0, small).astype(logit.dtype) / (1.0 + small)
