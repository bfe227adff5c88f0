"""Importing TensorFlow in two thirds of the time, for every process that is started to use it."""

import gc
import os


def begin() -> None:
    """To be called before TensorFlow is imported, directly or not.

    An import makes a million objects that stay, and the garbage collector would look through them
    again and again; it rests until `end`. TensorFlow's notes of every start-up are hidden, its
    errors are not.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    gc.disable()


def end() -> None:
    """To be called when all is imported: from here on the collector looks at what is new."""
    gc.freeze()
    gc.enable()
