"""What the two players of an adversarial game lower (Goodfellow et al. 2014, section 3).

Both are written of logits: the logarithm of a probability that float32 has rounded to 0 or 1 is
infinite, and log(1 - sigmoid(17)) is already one of these.
"""

import keras
from keras import ops


def discriminator_loss(real_logit, generated_logit):
    """Cross-entropy of telling real from generated: -log D(x) - log(1 - D(G(z))).

    Algorithm 1 has both terms in full; other sources halve their sum.

    Args:
        real_logit: any shape; the logit that real pictures are real.
        generated_logit: any shape; that of generated ones.

    Returns:
        A scalar in nats, 2 log 2 where the discriminator is undecided.
    """
    real = ops.mean(ops.softplus(-as_float(real_logit)))
    generated = ops.mean(ops.softplus(as_float(generated_logit)))
    return real + generated


def generator_loss(generated_logit):
    """The form that does not saturate while the discriminator wins: -log D(G(z)).

    Args:
        generated_logit: any shape; the logit that generated pictures are real.

    Returns:
        A scalar in nats, log 2 where the discriminator is undecided.
    """
    return ops.mean(ops.softplus(-as_float(generated_logit)))


def as_float(values):
    """What a network gives, in the precision that losses and pictures are computed in."""
    return ops.cast(values, keras.config.floatx())
