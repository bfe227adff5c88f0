"""One training step on JAX: the recipe's variables become arguments and results."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys

import jax
import keras
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec

from trainer.backend.cluster import (
    Cluster,
    check_rows,
    choose_count,
    out_of_reach,
    read_cluster,
)
from trainer.backend.gradients import (
    are_finite,
    clip_global_norm,
    is_scalar,
    loss_scales,
    state_of,
)
from trainer.backend.precision import compute_in
from trainer.errors import TryAgain
from trainer.recipe import Batch, Recipe
from trainer.training import Training

AXIS = "batch"
"""Name of the one axis of the mesh: examples are dealt out along it, variables are on all of it."""

TPU_HOSTS = ("TPU_PROCESS_ADDRESSES", "TPU_WORKER_HOSTNAMES")
"""Where Cloud TPU names the hosts of a slice, separated by commas."""

SILENCE_SECONDS = 60
"""How long a process may be out of reach before the others give up (ours; JAX waits 100 s)."""

FAREWELL_SECONDS = 3_600
"""How long the others wait at their end for the chief, who still evaluates (ours)."""

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""

OUR_FAULT = ("RESOURCE_EXHAUSTED", "INVALID_ARGUMENT", "UNIMPLEMENTED")
"""What errors begin with that another attempt would meet again."""


class Distribution:
    """Which devices and processes share each batch: a copy of the variables on every device.

    Must be made before anything else touches JAX where several processes train together: they meet
    here, by TF_CONFIG or, on a slice of Cloud TPU, by its own discovery.

    Attributes:
        process: number of this process in the cluster.
        processes: how many there are.
        replicas: devices in all.
        chief: whether this process is the one that writes.

    Raises:
        UserError: more devices are asked for than there are, or TF_CONFIG is wrong.
    """

    def __init__(self, training: Training | None = None):
        training = training or Training()
        self.precision = training.precision
        if not jax.distributed.is_initialized():
            _meet(read_cluster())
        self.process, self.processes = jax.process_index(), jax.process_count()
        self.chief = self.process == 0
        own = jax.local_device_count()
        accelerators = 0 if jax.default_backend() == "cpu" else own
        self.devices = choose_count(training.devices, accelerators, own)
        self.replicas = self.devices * self.processes
        # Each process's devices side by side, so that its part of a batch is one stretch of it.
        everywhere = [
            device
            for process in range(self.processes)
            for device in jax.local_devices(process)[: self.devices]
        ]
        self.mesh = jax.sharding.Mesh(np.array(everywhere), (AXIS,))

    @contextlib.contextmanager
    def scope(self):
        """The context in which a recipe and its train step are built."""
        with compute_in(self.precision):
            yield

    @contextlib.contextmanager
    def guarded(self):
        """Turns the loss of another process, met within, into TryAgain.

        A process that leaves with an error does not wait for the others at its end, as JAX would.
        """
        if self.processes == 1:
            yield
            return
        try:
            yield
        except jax.errors.JaxRuntimeError as error:
            if str(error).startswith(OUR_FAULT):
                _leave_at_exit(error)
                raise
            lost = out_of_reach(self, error)
            _leave_at_exit(lost)
            raise lost from error
        except TryAgain:
            raise  # all were asked, and agreed
        except BaseException as error:
            _leave_at_exit(error)
            raise

    def agree(self, flag: bool) -> bool:
        """Whether any process says so; all must ask at the same step."""
        if self.processes == 1:
            return flag
        return bool(multihost_utils.process_allgather(np.array(flag)).any())

    def deal(self, batch, accumulation: int):
        """The batch on its devices: `[examples, …]` or, in parts, `[parts, examples, …]`."""
        if self.replicas == 1 and accumulation == 1:
            return dict(batch)
        spec = PartitionSpec(AXIS)
        arrays = {name: np.asarray(value) for name, value in batch.items()}
        for value in arrays.values():
            check_rows(len(value), accumulation, self.devices)
        if accumulation > 1:
            spec = PartitionSpec(None, AXIS)
            arrays = {n: v.reshape(accumulation, -1, *v.shape[1:]) for n, v in arrays.items()}
        if self.replicas == 1:
            return arrays
        sharding = NamedSharding(self.mesh, spec)
        return {
            name: jax.make_array_from_process_local_data(sharding, value)
            for name, value in arrays.items()
        }

    def copy(self, values):
        """A new copy of each value, the chief's, on all devices."""
        if self.replicas == 1:
            return [jax.numpy.array(value, copy=True) for value in values]
        hosted = [np.array(value) for value in values]
        if self.processes > 1:
            hosted = multihost_utils.broadcast_one_to_all(hosted)
        everywhere = NamedSharding(self.mesh, PartitionSpec())
        return [
            jax.make_array_from_callback(v.shape, everywhere, lambda index, v=v: v[index])
            for v in hosted
        ]


def _meet(cluster: Cluster) -> None:
    """Waits until all processes of the cluster are there."""
    hosts = next((os.environ[name] for name in TPU_HOSTS if os.environ.get(name)), "")
    timeouts = {
        "heartbeat_timeout_seconds": SILENCE_SECONDS,
        "shutdown_timeout_seconds": FAREWELL_SECONDS,
    }
    # It would answer SIGTERM in our place.
    jax.config.update("jax_enable_preemption_service", False)
    if cluster.processes > 1:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(
            cluster.addresses[0],
            cluster.processes,
            cluster.process,
            cluster_detection_method="deactivate",
            **timeouts,
        )
    elif "," in hosts:
        jax.distributed.initialize(**timeouts)


def _leave_at_exit(error: BaseException) -> None:
    """Ends the process, when it comes to its end, with the exit code that the error asks for."""

    code = INTERRUPTED if isinstance(error, KeyboardInterrupt) else getattr(error, "exit_code", 1)

    def leave():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    # Run first of all such functions: JAX's own waits for the others, and then aborts.
    atexit.register(leave)


class TrainStep:
    """Takes every update of a recipe that is due, in order, as one compiled function.

    Args:
        recipe: what to train; its optimizers are built here.
        training: how many parts each batch is computed in, and in what precision.
        distribution: who shares the work; one device, by default.

    Attributes:
        state: name -> further variables that a checkpoint must hold.
    """

    def __init__(
        self,
        recipe: Recipe,
        training: Training | None = None,
        distribution: Distribution | None = None,
    ):
        training = training or Training()
        self.recipe = recipe
        self.accumulation = training.accumulation
        self.distribution = distribution or Distribution(Training(devices=1))
        self.scales = loss_scales(recipe.updates, training.precision)
        self.state = state_of(self.scales)
        for update in recipe.updates:
            for name, optimizer in update.optimizers.items():
                optimizer.build(recipe.networks[name].trainable_variables)
        optimizers = [o for update in recipe.updates for o in update.optimizers.values()]
        networks = list(recipe.networks.values())
        variables = [v for owner in (*networks, *optimizers) for v in owner.variables]
        variables += [seed.state for seed in recipe.seeds]
        variables += self.state.values()
        self.variables = list({id(v): v for v in variables}.values())
        self.position = {id(v): i for i, v in enumerate(self.variables)}
        learnt = {id(v) for network in networks for v in network.trainable_variables}
        kept = {id(v) for owner in optimizers for v in owner.variables}
        kept |= {id(v) for v in self.state.values()}
        # What a loss may change while it is computed: statistics and seeds.
        self.fluid = [v for v in self.variables if id(v) not in learnt | kept]
        self.statistics = [v for network in networks for v in network.non_trainable_weights]
        self.values: list = []
        everywhere = None
        if self.distribution.replicas > 1:
            everywhere = NamedSharding(self.distribution.mesh, PartitionSpec())
        self._compiled = jax.jit(
            self._run, static_argnums=2, donate_argnums=0, out_shardings=everywhere
        )
        self.read()

    def __call__(self, step: int, batch: Batch) -> dict:
        """Moves the networks by one step and returns the logged scalars as arrays.

        Args:
            step: number of the step, from 0; decides which updates are due.
            batch: this process's part of the examples.
        """
        due = tuple(step % update.every == 0 for update in self.recipe.updates)
        dealt = self.distribution.deal(batch, self.accumulation)
        self.values, logs = self._compiled(self.values, dealt, due)
        return logs

    def read(self) -> None:
        """Takes up values assigned to the recipe's variables.

        They are copied, because each step gives its input buffers away.
        """
        self.values = self.distribution.copy([v.value for v in self.variables])

    def write(self) -> None:
        """Puts trained values into the recipe's variables, for saving and predicting."""
        for variable, value in zip(self.variables, self.values, strict=True):
            # One copy, on one device, serves all that is not training.
            variable.assign(jax.numpy.array(value.addressable_data(0), copy=True))

    def _run(self, values, batch, due):
        logs = {}
        for update, is_due in zip(self.recipe.updates, due, strict=True):
            if not is_due:
                continue
            before = values
            gradients, values, loss, extras = self._differentiate(update, values, batch)
            scale = self.scales.get(update.loss.__name__)
            if scale is None:
                values = self._apply(update, values, gradients)
            else:
                values = self._apply_if_finite(update, before, values, gradients, scale)
            batch = {**batch, **extras}
            scalars = {update.loss.__name__: loss, **extras}
            if self.accumulation > 1:
                logs.update({k: v.mean() for k, v in scalars.items() if is_scalar(v[0])})
            else:
                logs.update({k: v for k, v in scalars.items() if is_scalar(v)})
        return values, logs

    def _differentiate(self, update, values, batch):
        """Gradients of the whole batch, values after it, loss and extras: of each part if any."""
        groups = self._groups(update)
        moving = {n: [values[self.position[id(v)]] for v in g] for n, g in groups.items()}
        scale = self.scales.get(update.loss.__name__)

        def loss_of(moving, fluid, batch):
            state = [*zip(self.variables, values, strict=True)]
            state += zip(self.fluid, fluid, strict=True)
            for name, group in groups.items():
                state += zip(group, moving[name], strict=True)
            result, fluid = _stateless(self.fluid, state, update.loss, batch)
            loss, extras = result if isinstance(result, tuple) else (result, {})
            if scale is None:
                return loss, (loss, extras, fluid)
            factor = values[self.position[id(scale.factor)]]
            return loss * factor.astype(loss.dtype), (loss, extras, fluid)

        differentiate = jax.value_and_grad(loss_of, has_aux=True)

        def part(carried, batch):
            sums, fluid = carried
            (_, (loss, extras, fluid)), gradients = differentiate(moving, fluid, batch)
            sums = jax.tree.map(jax.numpy.add, sums, gradients)
            return (sums, fluid), (loss, extras)

        fluid = [values[self.position[id(v)]] for v in self.fluid]
        if self.accumulation == 1:
            (_, (loss, extras, fluid)), gradients = differentiate(moving, fluid, batch)
        else:
            zeros = jax.tree.map(jax.numpy.zeros_like, moving)
            (sums, fluid), (loss, extras) = jax.lax.scan(part, (zeros, fluid), batch)
            gradients = jax.tree.map(lambda g: g / self.accumulation, sums)
        return gradients, self._replaced(values, self.fluid, fluid), loss, extras

    def _apply(self, update, values, gradients):
        gradients = clip_global_norm(gradients, update.clip_norm)
        for name, group in self._groups(update).items():
            state = zip(self.variables, values, strict=True)
            apply = update.optimizers[name].apply
            _, values = _stateless(self.variables, state, apply, gradients[name], group)
        return values

    def _apply_if_finite(self, update, before, values, gradients, scale):
        """Takes the update, or leaves it out and forgets the statistics of its batch."""

        def judge():
            divided = scale.divide(gradients)
            return divided, scale.judge(are_finite(divided))

        state = zip(self.variables, values, strict=True)
        (gradients, taken), values = _stateless(self.variables, state, judge)
        forgotten = [before[self.position[id(v)]] for v in self.statistics]
        return jax.lax.cond(
            taken,
            lambda values: self._apply(update, values, gradients),
            lambda values: self._replaced(values, self.statistics, forgotten),
            values,
        )

    def _groups(self, update):
        return {name: self.recipe.networks[name].trainable_variables for name in update.optimizers}

    def _replaced(self, values, variables, new):
        """All values, those of `variables` replaced."""
        values = list(values)
        for variable, value in zip(variables, new, strict=True):
            values[self.position[id(variable)]] = value
        return values


def has_grouped_convolution(dtype: str) -> bool:
    """Whether `grouped_convolution` is fast here: on a CPU it is not, whatever the dtype."""
    return jax.default_backend() != "cpu"


def grouped_convolution(inputs, kernel, strides, padding, dilation_rate):
    """XLA's own, channels last."""
    return keras.ops.conv(inputs, kernel, strides, padding, "channels_last", dilation_rate)


fused_batch_normalization = None
"""XLA fuses what Keras writes."""


def all_rows(value):
    """The rows of the whole batch: a program sees them all, on however many devices they are."""
    return value


def own_rows(value):
    """The same rows."""
    return value


def call_host(function, shapes, dtype: str, *arguments):
    """What a function makes of NumPy arrays, from inside a step: arrays of these shapes."""

    def call(*given):
        return function(*map(np.asarray, given))

    wanted = [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]
    return jax.pure_callback(call, wanted, *arguments)


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
