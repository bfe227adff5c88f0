"""One training step on TensorFlow, on one device or under a `tf.distribute` strategy."""

import functools

import tensorflow as tf

from trainer.backend.gradients import clip_global_norm, is_scalar
from trainer.recipe import Batch, Recipe

# Its passes take more than linear time in the size of the graph and find little to do in a training
# step: without them RegNetY's first step came in half the time, and the others were as fast.
tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})


class TrainStep:
    """Takes every update of a recipe that is due, in order, as one compiled function."""

    def __init__(self, recipe: Recipe):
        self.recipe = recipe
        self.strategy = tf.distribute.get_strategy()
        for update in recipe.updates:
            for name, optimizer in update.optimizers.items():
                optimizer.build(recipe.networks[name].trainable_variables)
        self._compiled = tf.function(self._run, autograph=False)

    def __call__(self, step: int, batch: Batch) -> dict:
        """Moves the networks by one step and returns the logged scalars as tensors."""
        due = tuple(step % update.every == 0 for update in self.recipe.updates)
        return self._compiled(batch, due)

    def read(self) -> None:
        """Takes up values assigned to the recipe's variables; they are shared here already."""

    def write(self) -> None:
        """Puts trained values into the recipe's variables; they are shared here already."""

    def _run(self, batch, due):
        logs = self.strategy.run(self._replica_step, args=(batch, due))
        return {k: self.strategy.reduce("MEAN", v, axis=None) for k, v in logs.items()}

    def _replica_step(self, batch, due):
        logs = {}
        for update, is_due in zip(self.recipe.updates, due, strict=True):
            if not is_due:
                continue
            groups = {
                name: self.recipe.networks[name].trainable_variables for name in update.optimizers
            }
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch([v.value for group in groups.values() for v in group])
                result = update.loss(batch)
                loss, extras = result if isinstance(result, tuple) else (result, {})
                share = loss / self.strategy.num_replicas_in_sync
            gradients = tape.gradient(
                share,
                {name: [v.value for v in group] for name, group in groups.items()},
                unconnected_gradients=tf.UnconnectedGradients.ZERO,
            )
            gradients = clip_global_norm(gradients, update.clip_norm)
            for name, optimizer in update.optimizers.items():
                optimizer.apply(gradients[name], groups[name])
            batch = {**batch, **extras}
            logs[update.loss.__name__] = loss
            logs.update({k: v for k, v in extras.items() if is_scalar(v)})
        return logs


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

    Args:
        inputs: float32 [batch, height, width, channels].
        gamma: [channels], the deviation it gets.
        beta: [channels], the mean it gets.
        epsilon: added to the variance.

    Returns:
        The normalised inputs, and the mean and the variance [channels] they had.
    """
    outputs, mean, unbiased, *_ = tf.raw_ops.FusedBatchNormV3(
        x=inputs, scale=gamma, offset=beta, mean=[], variance=[], epsilon=epsilon, is_training=True
    )
    count = tf.cast(tf.size(inputs) / tf.size(mean), mean.dtype)
    return outputs, mean, unbiased * (count - 1.0) / count


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
