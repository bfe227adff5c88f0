"""What happens to pictures in tf.data: crops used by two models or more."""
