"""TFLite runtimes of this machine: ai-edge-litert, then tflite-runtime, then TensorFlow's own."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import Any

from bloodedge.errors import ConfigError

_RUNTIMES = (  # module with `Interpreter`, distribution
    ("ai_edge_litert.interpreter", "ai-edge-litert"),
    ("tflite_runtime.interpreter", "tflite-runtime"),
    ("tensorflow", "tensorflow"),
)


@dataclass(frozen=True)
class Runtime:
    """An installed TFLite runtime: its distribution's name and version, its interpreter class."""

    name: str
    version: str
    interpreter: Any


@cache
def find_runtime() -> Runtime:
    """Return the first runtime that is installed.

    Raises:
        ConfigError: none is.
    """
    for module, distribution in _RUNTIMES:
        if (found := _load(module, distribution)) is not None:
            return found
    raise ConfigError("no TFLite runtime is installed", fix="pip install ai-edge-litert")


@cache
def installed_runtimes() -> tuple[Runtime, ...]:
    """Return every runtime that is installed; TensorFlow, which is slow to import, among them."""
    found = (_load(module, distribution) for module, distribution in _RUNTIMES)
    return tuple(runtime for runtime in found if runtime is not None)


def _load(module: str, distribution: str) -> Runtime | None:
    try:
        loaded: Any = importlib.import_module(module)
    except ImportError:
        return None
    holder = loaded.lite if module == "tensorflow" else loaded
    return Runtime(distribution, version_of(distribution), holder.Interpreter)


def version_of(distribution: str) -> str:
    """Return a distribution's version, `unknown` where another brought its module."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "unknown"
