import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

from trainer import backend
from trainer.engine import guard as guard_module
from trainer.engine.guard import StillnessGuard, check_finite, not_finite
from trainer.engine.symptoms import network_findings, snapshot, variable_findings
from trainer.errors import TryAgain, UserError
from trainer.recipe import Recipe, Update

EXAMPLES = 16
READ_EVERY = 5


def examples(scale: float = 1.0, constant: bool = False) -> Iterator[dict[str, np.ndarray]]:
    """Batches of four numbers with a label that has nothing to do with them."""
    random = np.random.default_rng(0)
    while True:
        image = np.full((EXAMPLES, 4), 0.5) if constant else random.random((EXAMPLES, 4)) * scale
        label = random.integers(0, 3, EXAMPLES)
        yield {"image": image.astype(np.float32), "label": label.astype(np.int32)}


def sequential(*parts: Any, name: str = "network") -> keras.Model:
    image = keras.Input((4,), name="image")
    x = image
    for part in parts:
        x = part(x)
    return keras.Model(image, x, name=name)


def dense(units: int, name: str, bias: float = 0.0, **options: Any) -> keras.layers.Dense:
    initializers = {
        "kernel_initializer": keras.initializers.RandomUniform(0.1, 1.0, seed=1),
        "bias_initializer": keras.initializers.Constant(bias),
    }
    return layers.Dense(units, name=name, **initializers, **options)


def classifier(network: keras.Model, rate: float = 0.1) -> Recipe:
    def loss(batch):
        logit = network(batch["image"], training=True)
        label = batch["label"]
        return ops.mean(ops.sparse_categorical_crossentropy(label, logit, from_logits=True))

    update = Update(loss, {"network": keras.optimizers.SGD(rate)})
    return Recipe({"network": network}, [update], lambda batch: {}, {})


def watch(
    recipe: Recipe, batches: Iterator[dict[str, np.ndarray]], steps: int = 60, still_steps: int = 30
) -> list[list[str]]:
    """Trains as the engine does, a reading every few steps; returns what the guard said."""
    step = backend.current().TrainStep(recipe)
    guard = StillnessGuard(recipe, still_steps, step.write)
    said = []
    pending = []
    for number in range(steps):
        batch = next(batches)
        pending.append((number + 1, step(number, batch)))
        if len(pending) == READ_EVERY:
            for at, logs in pending:
                numbers = {name: float(np.asarray(value)) for name, value in logs.items()}
                said.append(guard.look(at, numbers, batch))
            pending.clear()
    return [sentences for sentences in said if sentences]


def test_planted_dead_units_are_named_with_their_biases() -> None:
    network = sequential(
        dense(8, "hidden", bias=-50.0, activation="relu"), dense(3, "logit"), name="network"
    )
    (said,) = watch(classifier(network), examples(), steps=120)
    assert said[0].startswith("loss shows no trend over ")
    assert said[1] == (
        "network gives the same for every example, though its inputs differ, from network/hidden "
        "on."
    )
    assert "all 8 units of network/hidden (relu, biases -50 to -50)" in said[2]
    assert said[3].startswith("Only 1 of the 4 variables of network moved in ")
    assert "but not hidden/kernel, hidden/bias, logit/kernel:" in said[3]


def test_planted_saturation_by_inputs_up_to_255() -> None:
    network = sequential(dense(1, "probability", bias=20.0, activation="sigmoid"))

    def loss(batch):
        return ops.mean(ops.square(network(batch["image"], training=True)))

    update = Update(loss, {"network": keras.optimizers.SGD(0.1)})
    recipe = Recipe({"network": network}, [update], lambda batch: {}, {})
    (said,) = watch(recipe, examples(scale=255.0))
    assert said[0] == "loss has not moved for 30 steps: at step 30 it is 1."
    assert said[1].startswith("None of the 2 variables of network moved in ")
    assert said[2].startswith("network gives the same for every example, though its inputs differ")
    assert "100 % of network/probability (sigmoid, 1 to 1 for inputs from " in said[3]
    assert "'image' holds numbers from " in said[3] and "[-1, 1]" in said[3]


def test_planted_frozen_layer() -> None:
    image = keras.Input((4,))
    outputs = {"used": dense(2, "frozen")(image), "spare": dense(2, "spare")(image)}
    network = keras.Model(image, outputs, name="network")
    network.get_layer("frozen").trainable = False

    def loss(batch):
        return ops.mean(network(batch["image"], training=True)["used"])

    update = Update(loss, {"network": keras.optimizers.SGD(0.1)})
    recipe = Recipe({"network": network}, [update], lambda batch: {}, {})
    batch = next(examples())
    (said,) = watch(recipe, iter(lambda: dict(batch), None))
    assert said[0].startswith("loss has not moved for 30 steps: at step 30 it is ")
    assert said[1].startswith("None of the 2 variables of network moved in ")
    assert said[2:] == ["Frozen, since `trainable` is False: network/frozen."]


def test_planted_learning_rate_of_0() -> None:
    recipe = classifier(sequential(dense(3, "logit")), rate=0.0)
    (said,) = watch(recipe, examples(), steps=120)
    assert said[1] == "The learning rate of network is 0: look at the settings and the schedule."
    assert said[2].startswith("None of the 2 variables of network moved in ")


def test_planted_constant_data() -> None:
    hidden = dense(8, "hidden", bias=-50.0, activation="relu")  # no fault of its own is seen
    recipe = classifier(sequential(hidden, dense(3, "logit")))
    (said,) = watch(recipe, examples(constant=True), steps=120)
    assert said[1] == (
        f"'image' is 0.5 in each of {EXAMPLES} examples of a batch: look at the examples, their "
        "order and `augment`."
    )
    assert not [sentence for sentence in said if "Dead" in sentence]


def test_planted_dead_discriminator_is_found_from_the_generator_too() -> None:
    generator = sequential(dense(4, "fake"), name="generator")
    discriminator = sequential(
        dense(8, "hidden", bias=-50.0, activation="relu"),
        layers.BatchNormalization(name="normalisation"),
        dense(1, "logit"),
        name="discriminator",
    )

    def discriminator_loss(batch):
        fake = generator(batch["image"], training=True)
        real, fake_logit = (discriminator(x, training=True) for x in (batch["image"], fake))
        loss = ops.mean(ops.softplus(-real)) + ops.mean(ops.softplus(fake_logit))
        return loss, {"fake": fake}

    def generator_loss(batch):
        fake = generator(batch["image"], training=True)
        return ops.mean(ops.softplus(-discriminator(fake, training=True)))

    updates = [
        Update(discriminator_loss, {"discriminator": keras.optimizers.SGD(0.0)}),
        Update(generator_loss, {"generator": keras.optimizers.SGD(0.1)}),
    ]
    networks = {"generator": generator, "discriminator": discriminator}
    (said,) = watch(Recipe(networks, updates, lambda batch: {}, {}), examples())
    assert said[0].startswith(
        "discriminator_loss has not moved for 30 steps: at step 30 it is 1.38629"
    )
    assert (
        "discriminator gives the same for every example, though its inputs differ, from "
        in (said[3])
    )
    told = "generator_loss has not moved for 30 steps: at step 30 it is 0.69314"
    (later,) = (i for i, sentence in enumerate(said) if sentence.startswith(told))
    assert said[later + 1].startswith("None of the 2 variables of generator moved")
    assert said[later + 2].startswith("discriminator (which this update does not move) gives the ")


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="runs two tests on JAX")
@pytest.mark.slow
def test_dead_networks_are_found_on_jax_too() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-k",
            "planted_dead",
            __file__,
        ],
        env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout, done.stdout


class Block(layers.Layer):
    """A layer of layers, with what may go wrong inside."""

    def __init__(self, **options: Any):
        super().__init__(**options)
        self.inner = dense(4, "inner", bias=-50.0)
        self.rectifier = layers.ReLU(name="rectifier")

    def call(self, inputs):
        return self.rectifier(self.inner(inputs))


class Residual(layers.Layer):
    """Adds something negative to what its activation gives."""

    activation = staticmethod(keras.activations.relu)

    def call(self, inputs):
        return self.activation(inputs) - ops.convert_to_tensor([9.0, 9.0, 9.0, 0.0])


class Subclassed(keras.Model):
    """A model that is no graph."""

    def __init__(self) -> None:
        super().__init__(name="network")
        self.hidden = dense(4, "hidden", bias=-50.0, activation="relu")
        self.logit = dense(3, "logit")

    def call(self, inputs):
        return self.logit(self.hidden(inputs))


def nested(*parts: Any) -> keras.Model:
    return sequential(dense(4, "x"), sequential(*parts, name="inside"))


def with_loop() -> keras.Model:
    image = keras.Input((4,))
    x = layers.Reshape((2, 2), name="sequence")(image)
    x = layers.LSTM(3, name="memory")(x)
    return keras.Model(image, dense(4, "hidden", -50.0, activation="relu")(x), name="network")


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (lambda: sequential(dense(4, "x", -50.0, activation="relu")), "network/x (relu, "),
        (lambda: sequential(dense(4, "x", -50.0), layers.ReLU(name="y")), "network/y (relu)"),
        (
            lambda: sequential(dense(4, "x", -50.0), layers.Activation("relu", name="y")),
            "network/y (relu)",
        ),
        (lambda: sequential(dense(4, "x", -50.0), ops.relu), "network/relu"),
        (
            lambda: sequential(dense(4, "x", -50.0, activation=layers.ReLU(name="y"))),
            "network/y (relu)",
        ),
        (lambda: sequential(dense(4, "x", 50.0, activation="relu6")), "network/x (relu6, "),
        (lambda: sequential(dense(4, "x", -200.0, activation="gelu")), "network/x (gelu, "),
        (lambda: sequential(dense(4, "x", -200.0, activation="elu")), "network/x (elu, "),
        (lambda: nested(dense(4, "y", -50.0, activation="relu")), "network/y (relu, "),
        (lambda: sequential(Block(name="block")), "network/rectifier (relu)"),
        (lambda: Subclassed(), "network/hidden (relu, "),
        (with_loop, "network/hidden (relu, "),
    ],
)  # fmt: skip
def test_dead_units_are_found_however_an_activation_is_given(
    make: Callable[[], keras.Model], found: str
) -> None:
    network = make()
    batch = next(examples())
    network(batch["image"])
    recipe = classifier(network)
    sentences = [f.sentence for f in network_findings(recipe, recipe.updates[0], batch)]
    (dead,) = (sentence for sentence in sentences if sentence.startswith("Dead"))
    assert f"all 4 units of {found}" in dead
    assert dead.count("units of") == 1


@pytest.mark.parametrize(
    "parts",
    [
        (dense(4, "x", activation="relu"),),
        (dense(4, "x", 0.0), layers.LeakyReLU(0.2)),
        (Residual(name="residual"),),
        (dense(4, "x", -8.0), layers.LeakyReLU(0.2)),  # its slope lets gradients pass
        (dense(4, "x", -8.0),),
        (dense(4, "x", -2.0, activation="tanh"), dense(4, "y", activation="sigmoid")),
        (dense(4, "x"), layers.Softmax()),
        (layers.GaussianNoise(0.1), dense(4, "x"), layers.Activation("linear")),
    ],
)  # fmt: skip
def test_sound_layers_are_not_suspected(parts: tuple[Any, ...]) -> None:
    recipe = classifier(sequential(*parts))
    assert network_findings(recipe, recipe.updates[0], next(examples())) == []


def test_variables_that_stay_are_named_and_decisive_if_they_are_all() -> None:
    network = sequential(dense(3, "logit"))
    recipe = classifier(network)
    (update,) = recipe.updates
    update.optimizers["network"].build(network.trainable_variables)
    before = snapshot(recipe, update)
    (skipped,) = variable_findings(recipe, update, before)
    assert skipped.decisive and skipped.sentence.startswith("The optimizer of network has taken no")
    update.optimizers["network"].iterations.assign(5)
    (none,) = variable_findings(recipe, update, before)
    assert none.decisive
    assert none.sentence.startswith("None of the 2 variables of network moved in 5 steps of its")
    network.get_layer("logit").bias.assign([0.0, 0.0, 1e-6])
    (some,) = variable_findings(recipe, update, before)
    assert not some.decisive
    assert "Only 1 of the 2 variables of network moved" in some.sentence
    assert "but not logit/kernel:" in some.sentence
    network.trainable = False
    frozen, nothing = variable_findings(recipe, update, before)
    assert not frozen.decisive and nothing.decisive
    assert nothing.sentence == "All of network is frozen: no variable can move."


def test_half_dead_layers_and_large_logits_are_hints() -> None:
    network = sequential(dense(4, "x", activation="relu"), dense(3, "logit", bias=100.0))
    bias = np.array([0.0, -50.0, -50.0, -50.0], np.float32)
    network.get_layer("x").bias.assign(bias)
    recipe = classifier(network)
    dead, large = network_findings(recipe, recipe.updates[0], next(examples()))
    assert "3 of 4 units of network/x (relu, biases -50 to 0)" in dead.sentence
    assert large.sentence.startswith("network gives numbers from 10")
    assert not dead.decisive and not large.decisive


def test_a_look_changes_nothing() -> None:
    network = sequential(
        dense(8, "hidden", bias=-50.0, activation="relu"),
        layers.BatchNormalization(name="normalisation"),
        layers.Dropout(0.5, seed=0, name="dropout"),
        dense(3, "logit"),
    )
    recipe = classifier(network)
    values = network.variables  # the seed of the dropout among them
    assert len(values) == 9
    before = [np.array(ops.convert_to_numpy(value)) for value in values]
    assert network_findings(recipe, recipe.updates[0], next(examples()))
    for value, kept in zip(values, before, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(value), kept)
    assert all("call" not in vars(layer) for layer in (network, *network.layers))


def forbidden() -> None:
    raise AssertionError("the variables were written")


def test_while_a_loss_moves_nothing_is_looked_at() -> None:
    recipe = classifier(sequential(dense(3, "logit")))
    written = []
    guard = StillnessGuard(recipe, 6, lambda: written.append(step))
    for step in range(1, 2000):
        assert guard.look(step, {"loss": 1 / step}, {"image": None}) == []
    assert written == []
    for step in range(2000, 2005):
        guard.look(step, {"loss": 1.0}, {"image": None})
    assert written == [2004]


def test_without_a_trend_networks_are_run_once_if_all_else_is_sound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = []

    def note(recipe, update, before, batch, thorough):
        looks.append((step, thorough))
        return []

    monkeypatch.setattr(guard_module, "findings", note)
    guard = still_guard(30)
    random = np.random.default_rng(0)
    for step in range(1, 400):
        assert guard.look(step, {"loss": random.normal()}, next(examples())) == []
    (first, thorough), (second, cheap) = looks
    assert thorough and not cheap
    assert first <= 60 and second >= 4 * first


def following(guard: StillnessGuard, value: Callable[[int], float], steps: range) -> list[int]:
    """Steps at which the guard said something, with a reading at each step."""
    batches = examples()
    return [step for step in steps if guard.look(step, {"loss": value(step)}, next(batches))]


def still_guard(still_steps: int) -> StillnessGuard:
    recipe = classifier(sequential(dense(3, "logit")))
    backend.current().TrainStep(recipe)
    return StillnessGuard(recipe, still_steps)


def test_stillness_is_told_once_and_again_only_much_later() -> None:
    guard = still_guard(9)
    assert following(guard, lambda step: 0.25, range(1, 60)) == [9, 39]


def test_stillness_within_two_roundings_counts() -> None:
    one = np.float32(1.0)
    assert following(still_guard(9), lambda step: float(one), range(1, 10)) == [9]
    nearly = [float(one), float(np.nextafter(one, np.float32(2)))]
    assert following(still_guard(9), lambda step: nearly[step % 2], range(1, 10)) == [9]
    assert following(still_guard(9), lambda step: 1.0 + 1e-6 * (step % 2), range(1, 60)) == []
    assert following(still_guard(9), lambda step: 1.0 + 1e-7 * step, range(1, 60)) == []


def test_a_loss_that_stops_later_is_told_of() -> None:
    # Windows of three steps: the loss stands from 100 on.
    assert following(still_guard(9), lambda step: max(1 / step, 0.01), range(1, 120)) == [108]


def test_a_loss_of_0_may_have_nothing_left_to_teach() -> None:
    guard = still_guard(3)
    batches = examples()
    said = [guard.look(step, {"loss": 0.0}, next(batches)) for step in (1, 2, 3)]
    assert said[:2] == [[], []]
    # Nobody trains here, so the optimizer takes no step.
    assert said[2][0] == "loss has not moved for 3 steps: at step 3 it is 0."
    assert said[2][1].startswith("The optimizer of network has taken no step since: ")


def test_variables_get_their_time_between_two_readings() -> None:
    guard = still_guard(9)
    batch = next(examples())
    assert not any(guard.look(step, {"loss": 1.0}, batch) for step in range(1, 50))
    assert not guard.look(50, {"loss": 1.0}, {})
    assert guard.look(51, {"loss": 1.0}, next(examples()))


def test_a_guard_that_fails_ends_no_training() -> None:
    def loss(batch):
        raise RuntimeError("not outside of a step")

    recipe = Recipe(
        {"network": sequential(dense(3, "logit"))},
        [Update(loss, {"network": keras.optimizers.SGD(0.1)})],
        loss,
        {},
    )
    recipe.updates[0].optimizers["network"].build(recipe.networks["network"].trainable_variables)
    guard = StillnessGuard(recipe, 3)
    batches = examples()
    said = [guard.look(step, {"loss": 1.0}, next(batches)) for step in (1, 2, 3)]
    assert said[2][0] == "loss has not moved for 3 steps: at step 3 it is 1."
    broken = StillnessGuard(recipe, 3, forbidden)
    assert not any(broken.look(step, {"loss": 1.0}, next(batches)) for step in range(1, 20))
    strange = StillnessGuard(recipe, 3)
    words = {"text": np.array(["a"], object), "number": np.float32(1.0)}
    assert not any(strange.look(step, {"loss": math.nan}, words) for step in range(1, 20))
    assert [bool(strange.look(step, {"loss": 1.0}, dict(words))) for step in range(20, 26)].count(
        True
    ) == 1


def test_a_request_to_end_is_not_swallowed() -> None:
    def asked() -> None:
        raise TryAgain("saved")

    guard = StillnessGuard(classifier(sequential(dense(3, "logit"))), 3, asked)
    with pytest.raises(TryAgain):
        following(guard, lambda step: 1.0, range(1, 4))


def two_updates() -> Recipe:
    network = sequential(dense(1, "logit"))

    def discriminator_loss(batch):
        return ops.mean(network(batch["image"])), {"penalty": ops.mean(batch["image"])}

    def generator_loss(batch):
        return ops.mean(network(batch["image"])), {"distance": batch["penalty"] * 2.0}

    updates = [
        Update(discriminator_loss, {"network": keras.optimizers.SGD(0.1)}),
        Update(generator_loss, {"network": keras.optimizers.SGD(0.1)}),
    ]
    return Recipe({"network": network}, updates, lambda batch: {}, {})


def test_the_error_names_the_first_update_that_broke_and_its_terms() -> None:
    numbers = {
        "generator_loss": math.nan,
        "discriminator_loss": math.inf,
        "penalty": math.inf,
        "distance": math.nan,
    }
    error = not_finite(two_updates(), "dcgan", 1234, numbers, next(examples()))
    assert isinstance(error, UserError)
    assert str(error) == (
        "Every loss of dcgan must stay finite; at step 1,234 discriminator_loss became inf, penalty"
        " became inf (update 1 of 2, discriminator_loss, which moves network). The last good "
        "checkpoint is kept: lower the learning rate, bound the gradients (clip_norm), or look at "
        "the examples."
    )


def test_the_error_tells_whose_a_term_is_where_the_loss_is_finite() -> None:
    numbers = {"discriminator_loss": 1.0, "generator_loss": 1.0, "distance": math.nan}
    told = str(not_finite(two_updates(), "gan", 5, numbers, next(examples())))
    assert "distance became nan (update 2 of 2, generator_loss, which moves network)" in told
    told = str(not_finite(two_updates(), "gan", 5, numbers))
    assert "distance became nan (a term of discriminator_loss or generator_loss)" in told
    single = classifier(sequential(dense(3, "logit")))
    told = str(not_finite(single, "gan", 5, {"loss": 1.0, "accuracy": math.nan}))
    assert "accuracy became nan (update 1 of 1, loss, which moves network)" in told


def test_variables_that_are_not_finite_never_get_into_a_checkpoint() -> None:
    recipe = two_updates()
    good = {
        "networks/network/logit/kernel": np.array([1.0, -3.4e38], np.float32),
        "optimizers/generator_loss/network/0000": np.array(3),
        "seeds/0": np.array([], np.float32),
    }
    check_finite(recipe, "gan", 7, good)
    for value in (math.nan, math.inf, -math.inf):
        bad = {**good, "networks/network/logit/kernel": np.array([1.0, value, 2.0], np.float32)}
        with pytest.raises(UserError) as caught:
            check_finite(recipe, "gan", 1007, bad)
        assert str(caught.value).startswith(
            "Every variable of gan must stay finite; by step 1,007 networks/network/logit/kernel "
            "(moved by discriminator_loss, generator_loss) became NaN or infinite while the losses "
            "were finite. The last good checkpoint is kept: "
        )
    worse = {**good, "optimizers/generator_loss/network/0001": np.full(2, np.nan)}
    with pytest.raises(UserError, match=r"network/0001 \(moved by generator_loss\) became NaN"):
        check_finite(recipe, "gan", 1007, worse)
