"""What both train steps do to gradients between computing and applying them."""

from keras import ops


def clip_global_norm(gradients, clip_norm):
    """Scales nested gradients down together so that their joint L2 norm is at most `clip_norm`.

    Args:
        gradients: network name -> list of gradients, in the order of its variables.
        clip_norm: the bound, or None to leave them as they are.
    """
    if clip_norm is None:
        return gradients
    squares = [ops.sum(ops.square(g)) for group in gradients.values() for g in group]
    norm = ops.sqrt(ops.sum(ops.stack(squares)))
    # Written as a quotient whose divisor is never below clip_norm, so a norm of 0 is harmless.
    scale = clip_norm / ops.maximum(norm, clip_norm)
    return {name: [g * scale for g in group] for name, group in gradients.items()}


def is_scalar(tensor) -> bool:
    """Whether an extra of a loss is a number to be logged."""
    return len(tensor.shape) == 0
