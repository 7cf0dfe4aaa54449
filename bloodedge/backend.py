"""Choosing the Keras backend and importing it without its start-up noise."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import util
from types import ModuleType

from bloodedge.errors import ConfigError
from bloodedge.hardware import usable_cores
from bloodedge.quiet import quiet

BACKENDS = ("tensorflow", "jax", "torch")
# Where JAX says which devices it does without.
_JAX_DEVICES_LOG = "jax._src.xla_bridge"


def is_installed(name: str) -> bool:
    """Return whether a backend is there, without importing it."""
    return util.find_spec(name) is not None


def check_backend(name: str | None = None) -> str:
    """Return the backend that `use_backend` would take, without importing it.

    Raises:
        ConfigError: it is unknown or not installed.
    """
    name = name or os.environ.get("KERAS_BACKEND") or "tensorflow"
    if name not in BACKENDS:
        raise ConfigError(f"unknown backend {name!r}", expected=", ".join(BACKENDS))
    if not is_installed(name):
        raise ConfigError(f"the backend {name} is not installed", fix=f"pip install {name}")
    return name


def use_backend(name: str | None = None, *, side_by_side: bool = False) -> ModuleType:
    """Import Keras on a backend and return it.

    What JAX warns of where it starts its devices, such as a GPU that it cannot use, goes to stderr.

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
        with _device_warnings() as said, quiet():
            import keras

            # The first operation starts the devices, which logs as much as the import.
            keras.ops.zeros(())
    except (ImportError, MemoryError) as error:
        raise ConfigError(
            f"{name} cannot be loaded: {str(error) or 'no memory is left'}",
            fix=f"free memory, or install {name} again",
        ) from error
    # What JAX raises where the platform that is asked for is not there.
    except (AssertionError, RuntimeError) as error:
        asked = os.environ.get("JAX_PLATFORMS")
        why = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(
            f"{name} could not start its devices{f' (JAX_PLATFORMS={asked})' if asked else ''}: "
            f"{why}",
            fix="ask for devices that are there, or install what they need",
        ) from error
    if loaded is not None and keras.backend.backend() != name:
        raise ConfigError(
            f"Keras already runs on {keras.backend.backend()}, not on {name}",
            fix="start a new process to change the backend",
        )
    for text in said:
        # From every host: another may lack another device.
        print(_in_one_line(text), file=sys.stderr, flush=True)
    module: ModuleType = keras
    return module


@contextmanager
def _device_warnings() -> Iterator[list[str]]:
    """Yield a list that gets what JAX's start of its devices logs inside, from warnings upwards."""
    said: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            cause = record.exc_info[1] if record.exc_info else None
            said.append(f"{record.getMessage()}: {cause}" if cause else record.getMessage())

    handler = Collector(logging.WARNING)
    logger = logging.getLogger(_JAX_DEVICES_LOG)
    logger.addHandler(handler)
    try:
        yield said
    finally:
        logger.removeHandler(handler)


def _in_one_line(warning: str) -> str:
    text = " ".join(warning.split()).rstrip(".")
    package = "jax[tpu]" if "TPU" in text else "jax[cuda12]"
    return (
        f'JAX: {text}; to mend it: pip install "{package}" and a driver that is new enough for it, '
        "or set JAX_PLATFORMS=cpu to do without"
    )
