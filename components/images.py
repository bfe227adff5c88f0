"""The container images, one per set of dependencies and not one per step."""

import importlib.metadata

VERSION = importlib.metadata.version("paper2hub")

DATA = f"paper2hub/data:{VERSION}"
"""Beam, TF Transform, TFX with TFDV, and what reads datasets."""

TRAINER = f"paper2hub/trainer:{VERSION}"
"""Keras on TensorFlow and JAX, and what evaluates, exports and reports; for processors."""

TRAINER_GPU = f"paper2hub/trainer-gpu:{VERSION}"
"""The same with the libraries of CUDA, for NVIDIA GPUs."""

TRAINER_TPU = f"paper2hub/trainer-tpu:{VERSION}"
"""Keras on JAX with the libraries of Cloud TPU: the step train alone."""
