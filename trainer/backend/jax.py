"""One training step on JAX: the recipe's variables become arguments and results."""

import jax
import keras

from trainer.backend.gradients import clip_global_norm, is_scalar
from trainer.recipe import Batch, Recipe


class TrainStep:
    """Takes every update of a recipe that is due, in order, as one compiled function."""

    def __init__(self, recipe: Recipe):
        self.recipe = recipe
        owners: list = list(recipe.networks.values())
        for update in recipe.updates:
            for name, optimizer in update.optimizers.items():
                optimizer.build(recipe.networks[name].trainable_variables)
                owners.append(optimizer)
        variables = [v for owner in owners for v in owner.variables]
        variables += [seed.state for seed in recipe.seeds]
        self.variables = list({id(v): v for v in variables}.values())
        self.values: list = []
        self._compiled = jax.jit(self._run, static_argnums=2, donate_argnums=0)
        self.read()

    def __call__(self, step: int, batch: Batch) -> dict:
        """Moves the networks by one step and returns the logged scalars as arrays."""
        due = tuple(step % update.every == 0 for update in self.recipe.updates)
        self.values, logs = self._compiled(self.values, dict(batch), due)
        return logs

    def read(self) -> None:
        """Takes up values assigned to the recipe's variables.

        They are copied, because each step gives its input buffers away.
        """
        self.values = [jax.numpy.array(v.value, copy=True) for v in self.variables]

    def write(self) -> None:
        """Puts trained values into the recipe's variables, for saving and predicting."""
        for variable, value in zip(self.variables, self.values, strict=True):
            variable.assign(jax.numpy.array(value, copy=True))

    def _run(self, values, batch, due):
        logs = {}
        for update, is_due in zip(self.recipe.updates, due, strict=True):
            if not is_due:
                continue
            groups = {
                name: self.recipe.networks[name].trainable_variables for name in update.optimizers
            }

            def loss_of(moving, update=update, groups=groups, values=values, batch=batch):
                state = [*zip(self.variables, values, strict=True)]
                for name, group in groups.items():
                    state += zip(group, moving[name], strict=True)
                result, values = _stateless(self.variables, state, update.loss, batch)
                loss, extras = result if isinstance(result, tuple) else (result, {})
                return loss, (extras, values)

            position = {id(v): i for i, v in enumerate(self.variables)}
            moving = {n: [values[position[id(v)]] for v in g] for n, g in groups.items()}
            (loss, (extras, values)), gradients = jax.value_and_grad(loss_of, has_aux=True)(moving)
            gradients = clip_global_norm(gradients, update.clip_norm)
            for name, optimizer in update.optimizers.items():
                state = zip(self.variables, values, strict=True)
                _, values = _stateless(
                    self.variables, state, optimizer.apply, gradients[name], groups[name]
                )
            batch = {**batch, **extras}
            logs[update.loss.__name__] = loss
            logs.update({k: v for k, v in extras.items() if is_scalar(v)})
        return values, logs


def has_grouped_convolution(dtype: str) -> bool:
    """Whether `grouped_convolution` is fast here: on a CPU it is not, whatever the dtype."""
    return jax.default_backend() != "cpu"


def grouped_convolution(inputs, kernel, strides, padding, dilation_rate):
    """XLA's own, channels last."""
    return keras.ops.conv(inputs, kernel, strides, padding, "channels_last", dilation_rate)


fused_batch_normalization = None
"""XLA fuses what Keras writes."""


def compile_predict(recipe: Recipe, function):
    """`function` of a batch as one compiled graph, from NumPy arrays to NumPy arrays."""
    variables = [v for network in recipe.networks.values() for v in network.variables]

    @jax.jit
    def compiled(values, batch):
        return _stateless(variables, zip(variables, values, strict=True), function, batch)[0]

    def predict(batch):
        outputs = compiled([v.value for v in variables], dict(batch))
        return {k: jax.device_get(v) for k, v in outputs.items()}

    return predict


def compile_statistics(recipe: Recipe, layers):
    """A function of a batch that returns mean and variance of each layer's input, in order.

    Runs the losses forward only, with each of `layers` keeping nothing of what it saw before.
    """
    variables = [v for network in recipe.networks.values() for v in network.variables]
    variables += [seed.state for seed in recipe.seeds]
    wanted = [v for layer in layers for v in (layer.moving_mean, layer.moving_variance)]

    def losses(batch):
        for update in recipe.updates:
            result = update.loss(batch)
            if isinstance(result, tuple):
                batch = {**batch, **result[1]}

    @jax.jit
    def measure(values, batch):
        return _stateless(wanted, zip(variables, values, strict=True), losses, batch)[1]

    return lambda batch: jax.device_get(measure([v.value for v in variables], dict(batch)))


def _stateless(variables, state, function, *args):
    """Calls a function of Keras variables; returns its result and their values after it."""
    with keras.StatelessScope(state_mapping=list(state)) as scope:
        result = function(*args)
    return result, [scope.get_current_value(v) for v in variables]
