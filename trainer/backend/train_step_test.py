"""A train step does what its recipe says, on any number of devices, in numbers made by hand.

The whole file is run again by `both_backends_test.py`, on either backend with two devices.
"""

from __future__ import annotations

import os

import keras
import numpy as np
import pytest
from keras import ops

from trainer import backend
from trainer.errors import UserError
from trainer.layers.batch_normalization import BatchNormalization
from trainer.recipe import Recipe, Update
from trainer.training import Training

DEVICES = int(os.environ.get("DEVICES_OF_TEST", "1"))
ON_JAX = keras.backend.backend() == "jax"

if DEVICES > 1 and not ON_JAX:
    import tensorflow as tf

    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * DEVICES,
    )

each_number_of_devices = pytest.mark.parametrize("devices", range(1, DEVICES + 1))


def line(name="line", weight=1.0):
    """A network of one weight: its output is the input [batch, 1] times it."""
    initializer = keras.initializers.Constant(weight)
    layer = keras.layers.Dense(1, use_bias=False, kernel_initializer=initializer, name="times")
    return keras.Sequential([keras.Input((1,)), layer], name=name)


def sgd(rate=0.1, **arguments):
    return keras.optimizers.SGD(rate, **arguments)


def build(make, devices=1, **training):
    """The recipe that `make` returns, with its train step."""
    settings = Training(devices=devices, **training)
    distribution = backend.current().Distribution(settings)
    with distribution.scope():
        recipe = make()
        return recipe, backend.current().TrainStep(recipe, settings, distribution)


def recipe_of(networks, *updates, seeds=()):
    return Recipe(networks, updates, lambda batch: batch, {}, seeds=seeds)


def column(*values):
    return {"x": np.array(values, "float32")[:, None]}


def weight_of(network):
    return float(np.asarray(ops.convert_to_numpy(network.trainable_variables[0])).squeeze())


def mean_of_line():
    """Its loss is the mean output: the gradient is the mean input."""
    network = line()

    def mean_loss(batch):
        return ops.mean(network(batch["x"]))

    return recipe_of({"line": network}, Update(mean_loss, {"line": sgd()}))


@each_number_of_devices
def test_a_step_by_hand(devices):
    recipe, step = build(mean_of_line, devices)
    logs = step(0, column(1.0, 2.0, 3.0, 6.0))
    step.write()
    assert {k: float(v) for k, v in logs.items()} == {"mean_loss": pytest.approx(3.0)}
    assert weight_of(recipe.networks["line"]) == pytest.approx(1.0 - 0.1 * 3.0)


@each_number_of_devices
@pytest.mark.parametrize("accumulation", [1, 2])
def test_updates_come_in_order_and_hand_extras_on(devices, accumulation):
    def make():
        first, second = line("first", 2.0), line("second", 3.0)

        def first_loss(batch):
            made = first(batch["x"])
            return ops.mean(made), {"made": made, "largest": ops.mean(made) * 10}

        def second_loss(batch):
            assert "largest" in batch
            return ops.mean(second(batch["made"]) + first(batch["x"]))

        return recipe_of(
            {"first": first, "second": second},
            Update(first_loss, {"first": sgd()}),
            Update(second_loss, {"second": sgd()}),
        )

    recipe, step = build(make, devices, accumulation=accumulation)
    logs = {k: float(v) for k, v in step(0, column(1.0, 2.0, 3.0, 2.0)).items()}
    step.write()
    # made = 2 x, with mean 4; first becomes 2 - 0.1 * 2 = 1.8 before the second loss is computed,
    # which is mean(3 * made) + 1.8 * 2; its gradient is mean(made).
    assert logs == pytest.approx({"first_loss": 4.0, "largest": 40.0, "second_loss": 15.6})
    assert weight_of(recipe.networks["first"]) == pytest.approx(1.8)
    assert weight_of(recipe.networks["second"]) == pytest.approx(3.0 - 0.1 * 4.0)


def test_an_update_may_be_due_every_second_step():
    def make():
        networks = {"often": line("often"), "rarely": line("rarely")}

        def often_loss(batch):
            return ops.mean(networks["often"](batch["x"]))

        def rarely_loss(batch):
            return ops.mean(networks["rarely"](batch["x"]))

        return recipe_of(
            networks,
            Update(often_loss, {"often": sgd()}),
            Update(rarely_loss, {"rarely": sgd()}, every=2),
        )

    recipe, step = build(make)
    names = [set(step(number, column(1.0, 1.0))) for number in range(3)]
    step.write()
    assert names == [{"often_loss", "rarely_loss"}, {"often_loss"}, {"often_loss", "rarely_loss"}]
    assert weight_of(recipe.networks["often"]) == pytest.approx(0.7)
    assert weight_of(recipe.networks["rarely"]) == pytest.approx(0.8)


@each_number_of_devices
@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize(("clip_norm", "moved"), [(0.5, 0.05), (2.0, 0.1)])
def test_what_is_clipped_is_the_gradient_of_the_whole_batch(
    devices, accumulation, clip_norm, moved
):
    def make():
        plain = mean_of_line()
        update = plain.updates[0]
        clipped = Update(update.loss, update.optimizers, clip_norm=clip_norm)
        return recipe_of(plain.networks, clipped)

    recipe, step = build(make, devices, accumulation=accumulation)
    # The halves have gradients of 10 and -8, beyond both bounds; the whole batch has 1.
    step(0, column(20.0, 0.0, -16.0, 0.0))
    step.write()
    assert weight_of(recipe.networks["line"]) == pytest.approx(1.0 - moved)


def perceptron():
    """Three layers without batch statistics, and an optimizer that minds the size of gradients."""
    layers = [
        keras.layers.Dense(
            units, activation, kernel_initializer=keras.initializers.HeNormal(seed), name=f"d{seed}"
        )
        for seed, (units, activation) in enumerate([(8, "tanh"), (8, "tanh"), (1, None)])
    ]
    network = keras.Sequential([keras.Input((3,)), *layers], name="perceptron")

    def loss(batch):
        made = ops.cast(network(batch["x"]), "float32")
        return ops.mean(ops.square(made - batch["y"])), {"made": made, "mean": ops.mean(made)}

    return recipe_of({"perceptron": network}, Update(loss, {"perceptron": sgd(momentum=0.9)}))


def points(count=8, seed=0):
    random = np.random.default_rng(seed)
    x = random.standard_normal((count, 3)).astype("float32")
    return {"x": x, "y": x.sum(axis=1, keepdims=True)}


def course(make, steps=4, **arguments):
    """Logs of some steps, and the weights after them."""
    recipe, step = build(make, **arguments)
    logs = [step(i, points(seed=i)) for i in range(steps)]
    step.write()
    weights = [
        ops.convert_to_numpy(v) for network in recipe.networks.values() for v in network.weights
    ]
    return [{k: float(v) for k, v in log.items()} for log in logs], weights


@each_number_of_devices
@pytest.mark.parametrize("accumulation", [1, 2, 4])
def test_parts_and_devices_give_what_the_whole_batch_gives(devices, accumulation):
    whole, parts = (
        course(perceptron),
        course(perceptron, devices=devices, accumulation=accumulation),
    )
    for a, b in zip(whole[0], parts[0], strict=True):
        assert b == pytest.approx(a, rel=1e-5)
    for a, b in zip(whole[1], parts[1], strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-6)


def normalised():
    """Our batch normalisation and Keras's, on pictures and on vectors."""
    image = keras.Input((3,))
    x = keras.layers.Dense(
        16, kernel_initializer=keras.initializers.HeNormal(1), use_bias=False, name="spread"
    )(image)
    x = keras.layers.Reshape((2, 2, 4), name="picture")(x)
    x = BatchNormalization(name="ours")(x)
    x = keras.layers.Flatten(name="flat")(keras.layers.Activation("tanh", name="bend")(x))
    x = keras.layers.BatchNormalization(name="keras")(x)
    out = keras.layers.Dense(1, kernel_initializer=keras.initializers.HeNormal(2), name="out")(x)
    network = keras.Model(image, out, name="normalised")

    def loss(batch):
        return ops.mean(ops.square(network(batch["x"], training=True) - batch["y"]))

    return recipe_of({"normalised": network}, Update(loss, {"normalised": sgd(momentum=0.9)}))


@pytest.mark.skipif(ON_JAX, reason="on JAX the whole step is compiled by XLA")
@pytest.mark.parametrize("training", [{}, {"precision": "mixed_float16"}, {"accumulation": 2}])
def test_an_optimizer_in_one_operation_moves_as_it_does_in_many(training, monkeypatch):
    def clipped_and_averaged():
        plain = perceptron()
        schedule = keras.optimizers.schedules.CosineDecay(0.1, 10)
        optimizer = keras.optimizers.AdamW(schedule, use_ema=True, ema_momentum=0.5)
        update = Update(plain.updates[0].loss, {"perceptron": optimizer}, clip_norm=0.5)
        return recipe_of(plain.networks, update)

    many = course(clipped_and_averaged, **training)
    monkeypatch.setattr(backend.current(), "FUSED_PARAMETERS", 0)
    one = course(clipped_and_averaged, **training)
    for a, b in zip(many[0], one[0], strict=True):
        assert b == pytest.approx(a, rel=1e-4)
    for a, b in zip(many[1], one[1], strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-3, atol=1e-5)


@each_number_of_devices
@pytest.mark.parametrize("accumulation", [1, 2])
def test_batch_statistics_are_those_of_all_devices(devices, accumulation):
    one, several = (course(normalised, devices=n, accumulation=accumulation) for n in (1, devices))
    for a, b in zip(one[0], several[0], strict=True):
        assert b == pytest.approx(a, rel=1e-4)
    for a, b in zip(one[1], several[1], strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-3, atol=1e-5)


@each_number_of_devices
def test_statistics_survive_a_large_mean(devices):
    def make():
        layer = BatchNormalization(momentum=0.0, epsilon=1e-6, name="normalisation")
        network = keras.Sequential([keras.Input((1, 1, 1)), layer], name="network")

        def loss(batch):
            return ops.mean(network(batch["x"], training=True))

        return recipe_of({"network": network}, Update(loss, {"network": sgd()}))

    recipe, step = build(make, devices)
    values = np.array([4096.0, 4096.5, 4097.0, 4097.5], "float32")
    step(0, {"x": values.reshape(4, 1, 1, 1)})
    step.write()
    mean, variance = recipe.networks["network"].non_trainable_weights
    assert float(ops.convert_to_numpy(mean)[0]) == pytest.approx(4096.75)
    assert float(ops.convert_to_numpy(variance)[0]) == pytest.approx(0.3125)


@each_number_of_devices
def test_statistics_of_the_parts_follow_each_other(devices):
    def make():
        layer = keras.layers.BatchNormalization(momentum=0.5, name="normalisation")
        network = keras.Sequential([keras.Input((1,)), layer], name="network")

        def loss(batch):
            return ops.mean(network(batch["x"], training=True))

        return recipe_of({"network": network}, Update(loss, {"network": sgd()}))

    recipe, step = build(make, devices, accumulation=2)
    step(0, column(0.0, 2.0, 4.0, 8.0))
    step.write()
    mean, variance = recipe.networks["network"].non_trainable_weights
    # First mean 1 and variance 1, then mean 6 and variance 4; before them, 0 and 1.
    assert float(ops.convert_to_numpy(mean)[0]) == pytest.approx((0 + 1) / 4 + 6 / 2)
    assert float(ops.convert_to_numpy(variance)[0]) == pytest.approx((1 + 1) / 4 + 4 / 2)


@each_number_of_devices
def test_statistics_are_measured_on_whole_batches_beside_the_training(devices):
    recipe, step = build(normalised, devices)
    layers = [
        layer
        for layer in recipe.networks["normalised"].layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    for layer in layers:
        layer.momentum = 0.0
    step(0, points())
    step.write()
    network, batch = recipe.networks["normalised"], points(seed=1)
    measured = backend.current().compile_statistics(recipe, layers)(batch)
    spread = network.get_layer("picture")(network.get_layer("spread")(batch["x"]))
    values = np.asarray(ops.convert_to_numpy(spread))
    np.testing.assert_allclose(measured[0], values.mean(axis=(0, 1, 2)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(measured[1], values.var(axis=(0, 1, 2)), rtol=1e-4, atol=1e-6)
    step.read()
    assert np.isfinite(float(step(1, batch)["loss"]))


def test_what_a_loss_does_not_reach_gets_no_gradient_and_no_error():
    def make():
        network = line()
        unused = line("unused", 5.0)

        def loss(batch):
            return ops.mean(network(batch["x"]))

        return recipe_of(
            {"line": network, "unused": unused}, Update(loss, {"line": sgd(), "unused": sgd()})
        )

    recipe, step = build(make)
    step(0, column(1.0))
    step.write()
    assert weight_of(recipe.networks["unused"]) == 5.0
    assert weight_of(recipe.networks["line"]) == pytest.approx(0.9)


@each_number_of_devices
def test_moving_averages_by_hand(devices):
    def make():
        plain = mean_of_line()
        optimizer = plain.updates[0].optimizers["line"]
        optimizer.use_ema, optimizer.ema_momentum = True, 0.75
        return plain

    recipe, step = build(make, devices)
    for number in range(3):
        step(number, column(1.0, 1.0))
    step.write()
    optimizer = recipe.updates[0].optimizers["line"]
    (average,) = (v for v in optimizer.variables if v.name.endswith("average"))
    # The weight is 0.9, 0.8 and 0.7 after the steps; the average begins with the first.
    expected = 0.75 * (0.75 * 0.9 + 0.25 * 0.8) + 0.25 * 0.7
    assert float(np.squeeze(ops.convert_to_numpy(average))) == pytest.approx(expected)
    assert weight_of(recipe.networks["line"]) == pytest.approx(0.7)


@each_number_of_devices
@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_computes_in_half_and_keeps_whole_weights(devices, precision):
    seen = []

    def make():
        network = line()

        def mean_loss(batch):
            made = network(batch["x"])
            seen.append(keras.backend.standardize_dtype(made.dtype))
            return ops.mean(ops.cast(made, "float32"))

        return recipe_of({"line": network}, Update(mean_loss, {"line": sgd()}))

    before = keras.config.dtype_policy()
    recipe, step = build(make, devices, precision=precision)
    assert keras.config.dtype_policy() is before
    step(0, column(1.0, 2.0))
    step.write()
    assert set(seen) == {precision.removeprefix("mixed_")}
    variable = recipe.networks["line"].trainable_variables[0]
    assert keras.backend.standardize_dtype(variable.dtype) == "float32"
    assert weight_of(recipe.networks["line"]) == pytest.approx(0.85)


def small_gradients(factor):
    """A line in half precision whose gradient by each of two outputs is `factor`."""

    def make():
        network = line()

        def small_loss(batch):
            # Through a cast, so that the gradient arrives at the output in half precision.
            return ops.mean(ops.cast(network(batch["x"]), "float32")) * 2.0 * factor

        return recipe_of({"line": network}, Update(small_loss, {"line": sgd(1.0 / factor)}))

    return make


@pytest.mark.parametrize(
    ("precision", "weight"), [("mixed_float16", 1.0 - 1.5), ("mixed_bfloat16", 1.0 - 1.5)]
)
def test_small_gradients_do_not_vanish(precision, weight):
    # 2^-26 is below the smallest float16, 2^-24; bfloat16 has it.
    recipe, step = build(small_gradients(2.0**-26), precision=precision)
    step(0, column(0.5, 1.0))
    step.write()
    assert weight_of(recipe.networks["line"]) == pytest.approx(weight, rel=1e-2)


@each_number_of_devices
def test_a_step_that_overflows_is_left_out_and_the_next_one_taken(devices):
    # Scaled by 2^15, a gradient of 2 is beyond float16's 65,504; by 2^14 it is not.
    recipe, step = build(small_gradients(2.0), devices, precision="mixed_float16")
    state = {name: lambda v=v: float(ops.convert_to_numpy(v)) for name, v in step.state.items()}
    assert set(state) == {"loss_scale/small_loss", "loss_scale_good_steps/small_loss"}
    logs = step(0, column(0.5, 1.0))
    step.write()
    assert float(logs["small_loss"]) == pytest.approx(3.0)  # the true loss, not the scaled one
    assert weight_of(recipe.networks["line"]) == 1.0
    iterations = recipe.updates[0].optimizers["line"].iterations
    assert int(ops.convert_to_numpy(iterations)) == 0
    assert state["loss_scale/small_loss"]() == 2.0**14
    step(1, column(0.5, 1.0))
    step.write()
    assert weight_of(recipe.networks["line"]) == pytest.approx(1.0 - 1.5)
    assert int(ops.convert_to_numpy(iterations)) == 1
    assert state["loss_scale/small_loss"]() == 2.0**14
    assert state["loss_scale_good_steps/small_loss"]() == 1


def test_after_many_good_steps_the_scale_doubles():
    _, step = build(small_gradients(2.0**-4), precision="mixed_float16")
    steps = step.state["loss_scale_good_steps/small_loss"]
    steps.assign(1_998)
    step.read()
    for number, expected in enumerate((2.0**15, 2.0**16, 2.0**16)):
        step(number, column(0.5, 1.0))
        step.write()
        assert float(ops.convert_to_numpy(step.state["loss_scale/small_loss"])) == expected
    assert int(ops.convert_to_numpy(steps)) == 1


def test_what_is_infinite_without_any_scale_shows_itself():
    recipe, step = build(mean_of_line, precision="mixed_float16")
    step.state["loss_scale/mean_loss"].assign(2.0)
    step.read()
    step(0, column(np.inf, 1.0))
    step.write()
    assert weight_of(recipe.networks["line"]) == 1.0
    assert float(ops.convert_to_numpy(step.state["loss_scale/mean_loss"])) == 1.0
    step(1, column(np.inf, 1.0))
    step.write()
    assert not np.isfinite(weight_of(recipe.networks["line"]))


@each_number_of_devices
@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_step_left_out_leaves_no_trace_in_statistics(devices, accumulation):
    def make():
        layer = keras.layers.BatchNormalization(momentum=0.5, name="normalisation")
        network = keras.Sequential([keras.Input((1,)), layer], name="network")

        def loss(batch):
            return ops.mean(ops.cast(network(batch["x"], training=True), "float32") * 1e-3)

        return recipe_of({"network": network}, Update(loss, {"network": sgd()}))

    recipe, step = build(make, devices, precision="mixed_float16", accumulation=accumulation)
    network = recipe.networks["network"]
    good = column(1.0, 2.0, 3.0, 4.0)
    step(0, good)
    step.write()
    before = [ops.convert_to_numpy(v) for v in network.weights]
    assert before[2][0] != 0.0
    step(1, column(1.0, np.inf, 3.0, 4.0))
    step.write()
    for old, new in zip(before, [ops.convert_to_numpy(v) for v in network.weights], strict=True):
        np.testing.assert_array_equal(old, new)
    step(2, good)
    step.write()
    assert np.isfinite(ops.convert_to_numpy(network.weights[2])).all()
    assert ops.convert_to_numpy(network.weights[2])[0] != before[2][0]


@each_number_of_devices
@pytest.mark.parametrize("accumulation", [1, 2])
def test_every_example_draws_numbers_of_its_own_in_every_step(devices, accumulation):
    def make():
        network, seed = line(), keras.random.SeedGenerator(3)

        def first_loss(batch):
            noise = keras.random.uniform(ops.shape(batch["x"]), seed=seed)
            return ops.mean(network(batch["x"])), {"noise": noise}

        def second_loss(batch):
            def of(number):
                return ops.sum(batch["noise"] * ops.cast(ops.equal(batch["x"], number), "float32"))

            return ops.mean(network(batch["x"])), {f"noise_{i}": of(i) for i in range(4)}

        return recipe_of(
            {"line": network},
            Update(first_loss, {"line": sgd()}),
            Update(second_loss, {"line": sgd()}),
            seeds=[seed],
        )

    recipe, step = build(make, devices, accumulation=accumulation)
    logs = [step(number, column(0.0, 1.0, 2.0, 3.0)) for number in range(2)]
    step.write()
    noise = {float(log[f"noise_{i}"]) for log in logs for i in range(4)}
    assert len(noise) == 8
    state = ops.convert_to_numpy(recipe.seeds[0].state)
    assert state.tolist() == [3, 2 * accumulation]


def test_values_are_taken_up_and_put_back():
    recipe, step = build(mean_of_line)
    recipe.networks["line"].trainable_variables[0].assign([[4.0]])
    step.read()
    step(0, column(1.0))
    step.write()
    assert weight_of(recipe.networks["line"]) == pytest.approx(3.9)
    step(1, column(1.0))  # what was put back stays whole although the step goes on
    assert weight_of(recipe.networks["line"]) == pytest.approx(3.9 if ON_JAX else 3.8)


def test_a_step_without_training_and_distribution_is_one_on_one_device():
    recipe = mean_of_line()
    step = backend.current().TrainStep(recipe)
    step(0, column(1.0))
    step.write()
    assert weight_of(recipe.networks["line"]) == pytest.approx(0.9)
    assert dict(step.state) == {}


@each_number_of_devices
@pytest.mark.parametrize("accumulation", [1, 2])
def test_equal_shapes_are_traced_once(devices, accumulation):
    traces = []

    def make():
        network = line()

        def loss(batch):
            traces.append(None)
            return ops.mean(network(batch["x"]))

        return recipe_of({"line": network}, Update(loss, {"line": sgd()}))

    _, step = build(make, devices, accumulation=accumulation)
    step(0, column(1.0, 2.0, 3.0, 4.0))
    first = len(traces)
    for number in range(1, 4):
        step(number, column(4.0, 3.0, 2.0, 1.0))
    assert len(traces) == first


@pytest.mark.skipif(not ON_JAX, reason="TensorFlow updates its variables in place")
@each_number_of_devices
def test_a_step_gives_its_old_values_away(devices):
    _, step = build(mean_of_line, devices)
    before = step.values
    step(0, column(1.0, 2.0))
    assert all(value.is_deleted() for value in before)


def test_more_devices_than_there_are_is_the_users_error():
    with pytest.raises(UserError, match=f"devices must be at most {DEVICES}.*got 7"):
        backend.current().Distribution(Training(devices=7))


@each_number_of_devices
def test_a_batch_that_cannot_be_dealt_out_is_the_users_error(devices):
    _, step = build(mean_of_line, devices, accumulation=3)
    with pytest.raises(UserError, match=f"4, must be a multiple .* 3 × {devices}"):
        step(0, column(1.0, 2.0, 3.0, 4.0))


def test_one_process_is_chief_and_agrees_with_itself():
    distribution = backend.current().Distribution(Training(devices=DEVICES))
    assert (distribution.process, distribution.processes) == (0, 1)
    assert distribution.chief and distribution.replicas == DEVICES
    assert distribution.agree(True) and not distribution.agree(False)


def test_one_processor_is_the_default():
    assert backend.current().Distribution(Training()).replicas == 1
