import keras
import numpy as np
import pytest

from trainer.losses.adversarial import discriminator_loss, generator_loss


def test_an_undecided_discriminator_costs_log_2_for_each_kind_of_picture() -> None:
    undecided = np.zeros((4, 1), np.float32)
    assert float(discriminator_loss(undecided, undecided)) == pytest.approx(2 * np.log(2))
    assert float(generator_loss(undecided)) == pytest.approx(np.log(2))


def test_the_losses_are_the_papers_cross_entropies() -> None:
    real, generated = np.array([[0.3], [-2.0]]), np.array([[1.5], [0.2], [-0.7]])
    probability = {name: 1 / (1 + np.exp(-x)) for name, x in (("x", real), ("z", generated))}
    wanted = -np.log(probability["x"]).mean() - np.log(1 - probability["z"]).mean()
    assert float(discriminator_loss(real, generated)) == pytest.approx(wanted, rel=1e-6)
    assert float(generator_loss(generated)) == pytest.approx(
        -np.log(probability["z"]).mean(), rel=1e-6
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_logits_that_round_to_certainty_stay_finite(dtype: str) -> None:
    # sigmoid(200) is 1 in float32; its logarithm's counterpart, log(1 - 1), would be infinite.
    right, wrong = (keras.ops.cast([[x]], dtype) for x in (200.0, -200.0))
    assert float(discriminator_loss(wrong, right)) == pytest.approx(400.0)
    assert float(discriminator_loss(right, wrong)) == pytest.approx(0.0, abs=1e-30)
    assert float(generator_loss(wrong)) == pytest.approx(200.0)


def test_losses_of_half_precision_are_summed_in_single() -> None:
    # The mean of 4,096 times 1 and 4,096 times 2 has more digits than bfloat16 can add up.
    logit = keras.ops.cast(np.repeat([-1.0, -2.0], 4096)[:, None], "bfloat16")
    wanted = np.log1p(np.exp([1.0, 2.0])).mean()
    assert float(generator_loss(logit)) == pytest.approx(wanted, rel=1e-5)
