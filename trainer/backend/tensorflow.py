"""One training step on TensorFlow, on one device or under a `tf.distribute` strategy."""

from __future__ import annotations

import contextlib
import functools
import math

import keras
import tensorflow as tf

from trainer.backend.cluster import check_rows, choose_count, out_of_reach, read_cluster
from trainer.backend.gradients import (
    are_finite,
    clip_global_norm,
    is_scalar,
    loss_scales,
    state_of,
)
from trainer.backend.precision import compute_in
from trainer.errors import UserError
from trainer.recipe import Batch, Recipe
from trainer.training import Training

# Its passes take more than linear time in the size of the graph and find little to do in a training
# step: without them RegNetY's first step came in half the time, and the others were as fast.
tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})

SEED_STRIDE = 0x9E3779B1
"""Distance between the seeds of two replicas: 2^32 over the golden ratio (ours)."""

FUSED_PARAMETERS = 500_000
"""From so many on, XLA makes one operation of an optimizer's many (ours).

Each of them reads and writes all weights: Adam on DCGAN's took a third of the time, and the whole
step of the autoencoder 15 % less. To compile it takes seconds, which small networks do not earn.
"""

LOST = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
    tf.errors.InternalError,
    tf.errors.UnavailableError,
)
"""What collective operations raise when one of the processes is gone."""


class Distribution:
    """Which devices and processes share each batch: a copy of the variables on every device.

    Must be made before TensorFlow computes anything where several processes train together: they
    meet here, by TF_CONFIG.

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
        cluster = read_cluster()
        self.process, self.processes = cluster.process, cluster.processes
        self.chief = self.process == 0
        if self.processes > 1:
            self.strategy = _meet(training.devices)
        else:
            self.strategy = _mirror(training.devices)
        self.replicas = self.strategy.num_replicas_in_sync
        self.devices = self.replicas // self.processes
        self._vote = tf.function(self._reduce_vote)

    @contextlib.contextmanager
    def scope(self):
        """The context in which a recipe and its train step are built."""
        with compute_in(self.precision), self._building():
            yield

    @contextlib.contextmanager
    def guarded(self):
        """Turns the loss of another process, met within, into TryAgain."""
        try:
            yield
        except LOST as error:
            if self.processes == 1:
                raise
            raise out_of_reach(self, error) from error

    def agree(self, flag: bool) -> bool:
        """Whether any process says so; all must ask at the same step."""
        if self.processes == 1:
            return flag
        return bool(self._vote(tf.constant(float(flag))) > 0)

    def _building(self):
        return self.strategy.scope() if self.replicas > 1 else contextlib.nullcontext()

    def _reduce_vote(self, flag):
        votes = self.strategy.run(lambda: tf.identity(flag))
        return self.strategy.reduce(tf.distribute.ReduceOp.SUM, votes, axis=None)


def _mirror(asked: int):
    """The strategy for some devices of this machine; TensorFlow's default one for one of them."""
    accelerators = tf.config.list_logical_devices("GPU")
    processors = tf.config.list_logical_devices("CPU")
    count = choose_count(asked, len(accelerators), len(processors))
    if count == 1:
        return tf.distribute.get_strategy()
    names = [device.name for device in (accelerators or processors)[:count]]
    if accelerators:
        return tf.distribute.MirroredStrategy(names)
    return tf.distribute.MirroredStrategy(names, tf.distribute.ReductionToOneDevice())


def _meet(asked: int):
    """The strategy for all processes of TF_CONFIG's cluster; waits until they are there."""
    # Listing logical devices would start TensorFlow before it knows the others.
    accelerators = tf.config.list_physical_devices("GPU")
    count = choose_count(asked, len(accelerators), 1)
    if accelerators:
        tf.config.set_visible_devices(accelerators[:count], "GPU")
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except RuntimeError as error:
        raise UserError(
            "Processes that train together must meet before TensorFlow computes anything in them: "
            f"{error}"
        ) from error


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
        self.strategy = self.distribution.strategy
        self.replicas = self.distribution.replicas
        with self.distribution._building():
            self.scales = loss_scales(recipe.updates, training.precision)
            for update in recipe.updates:
                for name, optimizer in update.optimizers.items():
                    optimizer.build(recipe.networks[name].trainable_variables)
        self.state = state_of(self.scales)
        networks = recipe.networks.values()
        self.statistics = [v for network in networks for v in network.non_trainable_weights]
        if self.replicas > 1:
            _share_statistics(recipe)
            _take_reduced_gradients(recipe)
        self._movers = {u.loss.__name__: self._mover(u) for u in recipe.updates}
        self._compiled = tf.function(self._run, autograph=False)

    def __call__(self, step: int, batch: Batch) -> dict:
        """Moves the networks by one step and returns the logged scalars as tensors.

        Args:
            step: number of the step, from 0; decides which updates are due.
            batch: this process's part of the examples.
        """
        due = tuple(step % update.every == 0 for update in self.recipe.updates)
        return self._compiled(dict(batch), due)

    def read(self) -> None:
        """Takes up values assigned to the recipe's variables; they are shared here already."""

    def write(self) -> None:
        """Puts trained values into the recipe's variables; they are shared here already."""

    def _run(self, batch, due):
        if self.accumulation * self.distribution.devices > 1:
            for value in batch.values():
                check_rows(value.shape[0], self.accumulation, self.distribution.devices)
        extras: dict = {}
        logs: dict = {}
        last = max((i for i, is_due in enumerate(due) if is_due), default=0)
        for i, update in enumerate(self.recipe.updates):
            if not due[i]:
                continue
            before = self._statistics() if self.scales else None
            gradients, outputs = self._differentiate(update, batch, extras, wanted=i < last)
            self._apply(update, gradients, before)
            logs.update(self._means({update.loss.__name__: outputs[0], **outputs[1]}))
            extras = {**extras, **outputs[2]}
        return self._reduced(logs)

    def _differentiate(self, update, batch, extras, wanted: bool):
        """What each replica makes of its examples.

        Returns:
            Its share of the gradients, and (loss, scalar extras, extras that later updates are to
            have if `wanted`), which have one row for each part of an accumulated batch.
        """
        if self.accumulation == 1:
            return self.strategy.run(self._part, args=(update, 0, batch, extras, wanted))
        shapes: list = []

        def trace(extras):
            _, outputs = self._part(update, 0, batch, self._row(extras, 0), wanted)
            shapes[:] = [outputs]

        # The loop must know beforehand what comes out of it.
        traced = tf.function(self.strategy.run, autograph=False)
        traced.get_concrete_function(trace, args=(extras,))
        specs = tf.nest.map_structure(lambda t: tf.TensorSpec(t.shape, t.dtype), shapes[0])

        def begin():
            sums = {n: [tf.zeros_like(v.value) for v in g] for n, g in self._groups(update).items()}
            rows = tf.nest.map_structure(
                lambda spec: tf.zeros([self.accumulation, *spec.shape], spec.dtype), specs
            )
            return sums, rows

        def add(i, sums, rows, extras):
            gradients, outputs = self._part(update, i, batch, self._row(extras, i), wanted)
            sums = tf.nest.map_structure(tf.add, sums, gradients)
            rows = tf.nest.map_structure(
                lambda kept, new: tf.tensor_scatter_nd_update(kept, [[i]], new[None]), rows, outputs
            )
            return sums, rows

        def body(i, carried):
            return i + 1, self.strategy.run(add, args=(i, *carried, extras))

        carried = self.strategy.run(begin)
        _, (sums, rows) = tf.while_loop(
            lambda i, _: i < self.accumulation, body, (0, carried), parallel_iterations=1
        )
        return sums, rows

    def _part(self, update, i, batch, extras, wanted: bool):
        """Gradients and outputs of one replica for one part of its examples."""
        batch = {**{n: self._rows(value, i) for n, value in batch.items()}, **extras}
        groups = self._groups(update)
        scale = self.scales.get(update.loss.__name__)
        with self._own_seeds(), tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([v.value for group in groups.values() for v in group])
            result = update.loss(batch)
            loss, extras = result if isinstance(result, tuple) else (result, {})
            share = loss if scale is None else scale.multiply(loss)
            if self.replicas * self.accumulation > 1:
                share = share / (self.replicas * self.accumulation)
        gradients = tape.gradient(
            share,
            {name: [v.value for v in group] for name, group in groups.items()},
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        gradients = {n: [tf.convert_to_tensor(g) for g in group] for n, group in gradients.items()}
        extras = {name: tf.convert_to_tensor(value) for name, value in extras.items()}
        scalars = {name: value for name, value in extras.items() if is_scalar(value)}
        return gradients, (tf.convert_to_tensor(loss), scalars, extras if wanted else {})

    def _rows(self, value, i):
        """The rows of part `i` of this replica."""
        devices = self.distribution.devices
        if devices * self.accumulation == 1:
            return value
        grid = (self.accumulation, devices, value.shape[0] // (self.accumulation * devices))
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        # Cut where it lies: the device gets no more than its rows.
        with tf.device("/device:CPU:0"):
            return tf.reshape(value, (*grid, *value.shape[1:]))[i, replica % devices]

    def _row(self, extras, i):
        return {name: value[i] for name, value in extras.items()}

    def _apply(self, update, gradients, before) -> None:
        """Adds up the gradients of all replicas, and moves the networks in the same way on all."""
        scale = self.scales.get(update.loss.__name__)

        def reduce(gradients):
            if self.replicas > 1:
                flat = tf.nest.flatten(gradients)
                context = tf.distribute.get_replica_context()
                flat = context.all_reduce(tf.distribute.ReduceOp.SUM, flat)
                gradients = tf.nest.pack_sequence_as(gradients, flat)
            if scale is None:
                return gradients
            gradients = scale.divide(gradients)
            return gradients, scale.judge(are_finite(gradients))

        move = self._movers[update.loss.__name__]

        def forget(before):
            for variable, value in zip(self.statistics, before, strict=True):
                variable.assign(value)

        if scale is None:
            self.strategy.run(lambda gradients: move(reduce(gradients)), args=(gradients,))
            return
        gradients, taken = self.strategy.run(reduce, args=(gradients,))
        # All replicas judge alike, so that one may speak for them: a condition in each of them
        # could not hold what they do together.
        tf.cond(
            self.strategy.experimental_local_results(taken)[0],
            lambda: self.strategy.run(move, args=(gradients,)),
            lambda: self.strategy.run(forget, args=(before,)),
        )

    def _mover(self, update):
        """What clips an update's gradients and applies them."""

        def move(gradients):
            gradients = clip_global_norm(gradients, update.clip_norm)
            for name, group in self._groups(update).items():
                update.optimizers[name].apply(gradients[name], group)

        variables = [v for group in self._groups(update).values() for v in group]
        parameters = sum(math.prod(v.shape) for v in variables)
        if self.replicas > 1 or parameters < FUSED_PARAMETERS:
            return move
        return tf.function(move, autograph=False, jit_compile=True)

    def _statistics(self):
        return self.strategy.run(lambda: [tf.identity(v.value) for v in self.statistics])

    def _means(self, scalars):
        """The means over the parts, on each replica."""
        if self.accumulation == 1:
            return scalars
        return self.strategy.run(
            lambda rows: {name: tf.reduce_mean(row) for name, row in rows.items()}, args=(scalars,)
        )

    def _reduced(self, logs):
        """The means over the replicas, all in one operation."""
        if self.replicas == 1:
            return logs
        vector = self.strategy.run(
            lambda logs: tf.stack([tf.cast(v, keras.config.floatx()) for v in logs.values()]),
            args=(logs,),
        )
        means = self.strategy.reduce(tf.distribute.ReduceOp.MEAN, vector, axis=None)
        return dict(zip(logs, tf.unstack(means), strict=True))

    def _groups(self, update):
        return {name: self.recipe.networks[name].trainable_variables for name in update.optimizers}

    @contextlib.contextmanager
    def _own_seeds(self):
        """Lets each replica draw other numbers than the first, whose seeds the others go by."""
        if self.replicas == 1:
            yield
            return
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        states = [seed.state for seed in self.recipe.seeds]
        offset = tf.cast(replica, tf.int64) * SEED_STRIDE
        offsets = [tf.cast(tf.stack([offset, 0]), state.value.dtype) for state in states]
        for state, own in zip(states, offsets, strict=True):
            state.assign(state.value + own)
        yield
        for state, own in zip(states, offsets, strict=True):
            state.assign(state.value - own)


def _share_statistics(recipe: Recipe) -> None:
    """Makes batch normalisation go by the examples of all replicas."""
    for network in recipe.networks.values():
        for layer in network._flatten_layers():
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.synchronized = True


def _take_reduced_gradients(recipe: Recipe) -> None:
    """Tells Keras's optimizers that the gradients they get are those of all replicas already.

    They would add them up themselves, after clipping; but what is to be clipped is the sum.
    """
    for update in recipe.updates:
        for optimizer in update.optimizers.values():
            optimizer._all_reduce_sum_gradients = lambda pairs: pairs


@functools.cache
def has_grouped_convolution(dtype: str) -> bool:
    """Whether `grouped_convolution` has a gradient here, for inputs of a dtype.

    On a CPU it has one only through oneDNN, which takes float32 and bfloat16, and which TensorFlow
    uses by default on machines with vector instructions for neural networks.
    """
    with tf.init_scope():
        inputs, kernel = tf.ones((1, 3, 3, 4), dtype), tf.ones((2, 2, 2, 4), dtype)
        arguments = {
            "out_backprop": tf.ones((1, 2, 2, 4), dtype),
            "strides": (1, 1, 1, 1),
            "padding": "VALID",
        }
        try:
            tf.raw_ops.Conv2DBackpropInput(input_sizes=(1, 3, 3, 4), filter=kernel, **arguments)
            tf.raw_ops.Conv2DBackpropFilter(input=inputs, filter_sizes=(2, 2, 2, 4), **arguments)
        except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError):
            return False
    return True


def grouped_convolution(inputs, kernel, strides, padding, dilation_rate):
    """TensorFlow's own, channels last; Keras would compile it with XLA, wherever it runs."""
    return tf.nn.conv2d(inputs, kernel, strides, padding.upper(), dilations=dilation_rate)


def fused_batch_normalization(inputs, gamma, beta, epsilon):
    """Normalises each channel by the batch's own statistics, in one operation.

    Where several replicas share the batch, by the statistics of the whole of it.

    Args:
        inputs: float32, float16 or bfloat16 [batch, height, width, channels].
        gamma: float32 [channels], the deviation it gets.
        beta: float32 [channels], the mean it gets.
        epsilon: added to the variance.

    Returns:
        The normalised inputs, and the mean and the variance, float32 [channels], they had.
    """
    replica = _replica_of_several()
    if replica is not None:
        return _normalize_together(replica, inputs, gamma, beta, epsilon)
    outputs, mean, unbiased, *_ = tf.raw_ops.FusedBatchNormV3(
        x=inputs, scale=gamma, offset=beta, mean=[], variance=[], epsilon=epsilon, is_training=True
    )
    count = tf.cast(tf.size(inputs) / tf.size(mean), mean.dtype)
    return outputs, mean, unbiased * (count - 1.0) / count


def _replica_of_several():
    """The context of a replica that shares its batch with others; None for one by itself."""
    replica = tf.distribute.get_replica_context()
    return replica if replica is not None and replica.num_replicas_in_sync > 1 else None


def _normalize_together(replica, inputs, gamma, beta, epsilon):
    """What one operation cannot do: the replicas tell each other what they have measured."""
    values = tf.cast(inputs, tf.float32)
    own = tf.stack(tf.nn.moments(values, axes=(0, 1, 2)))
    # Each fills a row of its own. Means of squares would need no rows, but lose small variances.
    count = replica.num_replicas_in_sync
    row = tf.one_hot(tf.convert_to_tensor(replica.replica_id_in_sync_group), count)
    rows = replica.all_reduce(tf.distribute.ReduceOp.SUM, row[:, None, None] * own)
    means, variances = rows[:, 0], rows[:, 1]
    mean = tf.reduce_mean(means, axis=0)
    variance = tf.reduce_mean(variances + tf.square(means - mean), axis=0)
    outputs = tf.nn.batch_normalization(values, mean, variance, beta, gamma, epsilon)
    return tf.cast(outputs, inputs.dtype), mean, variance


def all_rows(value):
    """The rows of the whole batch, of which a replica has a part."""
    replica = _replica_of_several()
    if replica is None:
        return value
    return replica.all_gather(value, axis=0)


def own_rows(value):
    """This replica's part of the rows of the whole batch."""
    replica = _replica_of_several()
    if replica is None:
        return value
    parts = tf.reshape(value, (replica.num_replicas_in_sync, -1, *value.shape[1:]))
    return parts[tf.convert_to_tensor(replica.replica_id_in_sync_group)]


def call_host(function, shapes, dtype: str, *arguments):
    """What a function makes of NumPy arrays, from inside a step: arrays of these shapes."""
    results = tf.numpy_function(function, arguments, [tf.as_dtype(dtype)] * len(shapes))
    return [tf.ensure_shape(r, shape) for r, shape in zip(results, shapes, strict=True)]


def compile_predict(recipe: Recipe, function):
    """`function` of a batch as one compiled graph, from NumPy arrays to NumPy arrays."""
    compiled = tf.function(function, reduce_retracing=True, autograph=False)

    def predict(batch):
        outputs = compiled({k: tf.convert_to_tensor(v) for k, v in batch.items()})
        return {k: v.numpy() for k, v in outputs.items()}

    return predict


def compile_statistics(recipe: Recipe, layers):
    """A function of a batch that returns mean and variance of each layer's input, in order.

    Runs the losses forward only, with each of `layers` keeping nothing of what it saw before.
    """

    wanted = [v for layer in layers for v in (layer.moving_mean, layer.moving_variance)]

    @tf.function(reduce_retracing=True, autograph=False)
    def measure(batch):
        for update in recipe.updates:
            result = update.loss(batch)
            if isinstance(result, tuple):
                batch = {**batch, **result[1]}
        return [tf.identity(v.value) for v in wanted]

    return lambda batch: [value.numpy() for value in measure(batch)]
