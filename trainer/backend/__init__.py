"""What differs between backends; `keras.backend.backend()` decides which, and nothing else knows.

Both modules offer the same names:
- `Distribution(training)`: which devices and processes share each batch;
- `TrainStep(recipe, training, distribution)`: takes all updates of a recipe on one batch, compiled;
- `compile_predict(recipe, function)`: a function of a batch, compiled, from NumPy to NumPy;
- `compile_statistics(recipe, layers)`: what batch normalisation measures on a batch, compiled;
- `has_grouped_convolution(dtype)`, `grouped_convolution(…)`: the backend's own, where it is fast;
- `fused_batch_normalization(…)`: in one operation, or None where the compiler makes one of it;
- `call_host(function, shapes, dtype, *arguments)`: what a function makes of NumPy arrays, from
  inside a step; several arrays of one dtype;
- `all_rows(value)`, `own_rows(value)`: from a device's part of a batch to the whole, and back, for
  what must see every example.
"""

import importlib
from types import ModuleType

import keras


def current() -> ModuleType:
    """The backend module for the Keras backend in use, `tensorflow` or `jax`."""
    return importlib.import_module(f"trainer.backend.{keras.backend.backend()}")
