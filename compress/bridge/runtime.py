"""Importing tf_keras and tensorflow-model-optimization without changing what `tf.keras` is."""

from __future__ import annotations

import os
import warnings
from importlib import util
from types import ModuleType

from bloodedge.errors import ConfigError
from bloodedge.quiet import quiet

_LEGACY = "TF_USE_LEGACY_KERAS"


def check_backend() -> None:
    """Refuse other backends than TensorFlow, before anything heavy is imported.

    Raises:
        ConfigError: Keras runs on another backend.
    """
    import keras

    if keras.backend.backend() != "tensorflow":
        raise ConfigError(
            f"weight pruning and clustering need TensorFlow, Keras runs on "
            f"{keras.backend.backend()}",
            fix="add --backend tensorflow",
        )


def tf_keras() -> ModuleType:
    """Return Keras 2.

    Raises:
        ConfigError: Keras runs on another backend than TensorFlow.
    """
    check_backend()
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tf_keras
    module: ModuleType = tf_keras
    return module


def tfmot() -> ModuleType:
    """Return tensorflow-model-optimization, with `tf.keras` left at Keras 3.

    Its import sets a variable that makes `tf.keras` mean Keras 2 wherever nobody has used it yet,
    child processes included. So `tf.keras` is used first, and the variable taken back.

    Raises:
        ConfigError: it is not installed, or Keras runs on another backend than TensorFlow.
    """
    check_backend()
    if util.find_spec("tensorflow_model_optimization") is None:
        raise ConfigError(
            "tensorflow-model-optimization is not installed",
            fix="pip install tensorflow-model-optimization tf_keras",
        )
    before = os.environ.get(_LEGACY)
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tensorflow as tf

        tf.keras.version()
        import tensorflow_model_optimization
    os.environ.pop(_LEGACY, None)
    if before is not None:
        os.environ[_LEGACY] = before
    module: ModuleType = tensorflow_model_optimization
    return module
