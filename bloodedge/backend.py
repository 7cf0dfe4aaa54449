"""Choosing the Keras backend and importing it without its start-up noise."""

from __future__ import annotations

import os
import sys
from importlib import util
from types import ModuleType

from bloodedge.errors import ConfigError
from bloodedge.hardware import usable_cores
from bloodedge.quiet import quiet

BACKENDS = ("tensorflow", "jax", "torch")


def check_backend(name: str | None = None) -> str:
    """Return the backend that `use_backend` would take, without importing it.

    Raises:
        ConfigError: it is unknown or not installed.
    """
    name = name or os.environ.get("KERAS_BACKEND") or "tensorflow"
    if name not in BACKENDS:
        raise ConfigError(f"unknown backend {name!r}", expected=", ".join(BACKENDS))
    if util.find_spec(name) is None:
        raise ConfigError(f"the backend {name} is not installed", fix=f"pip install {name}")
    return name


def use_backend(name: str | None = None, *, side_by_side: bool = False) -> ModuleType:
    """Import Keras on a backend and return it.

    Args:
        name: one of `BACKENDS`; without it `KERAS_BACKEND`, else TensorFlow.
        side_by_side: give each of TensorFlow's operations one thread and run as many operations at
            once as there are cores, instead of one after the other on all of them. It has no
            effect on what has started already.

    Raises:
        ConfigError: the backend is unknown, not installed or cannot be loaded, or another one is
            already in use.
    """
    name = check_backend(name)
    os.environ["KERAS_BACKEND"] = name
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # TensorFlow turns oneDNN on by itself only where it finds AVX512-VNNI; older x86 processors
    # train convolutions faster with it, too.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    if side_by_side:
        os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
        os.environ.setdefault("TF_NUM_INTEROP_THREADS", str(usable_cores()))
    loaded = sys.modules.get("keras")
    try:
        with quiet():
            import keras

            # The first operation starts the devices, which logs as much as the import.
            keras.ops.zeros(())
    except (ImportError, MemoryError) as error:
        raise ConfigError(
            f"{name} cannot be loaded: {str(error) or 'no memory is left'}",
            fix=f"free memory, or install {name} again",
        ) from error

    if loaded is not None and keras.backend.backend() != name:
        raise ConfigError(
            f"Keras already runs on {keras.backend.backend()}, not on {name}",
            fix="start a new process to change the backend",
        )
    module: ModuleType = keras
    return module
