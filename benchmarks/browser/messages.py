"""What the page says, checked field by field: any program may have sent it."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodedge.benchmarks.fields import MAX_US, count, flag, number, text
from bloodedge.benchmarks.runner import one_line

# What may run a model: its name on the page, the delegate of its row, whether it has threads.
BACKENDS = {"wasm": ("wasm", False), "threads": ("wasm", True), "webgpu": ("webgpu", False)}
MAX_DURATIONS = 20_000
_MAX_CORES = 1024
# A nanosecond, in which the runner's statistics count.
_LEAST_US = 0.001
_MAX_PREDICTIONS = 1 << 20
_TIMES = ("load_ms", "first_ms")
_BROWSERS = (
    "Edg",
    "OPR",
    "SamsungBrowser",
    "FxiOS",
    "CriOS",
    "Firefox",
    "HeadlessChrome",
    "Chrome",
)
_SAFARI = re.compile(r"Version/([\d.]+).*Safari")


@dataclass(frozen=True)
class Start:
    """What a device says of itself before it begins.

    Attributes:
        about: facts for the result's environment.
        backends: those it has, each with its thread count.
    """

    about: Mapping[str, Any]
    backends: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Job:
    """What came of one model on one backend, once.

    Attributes:
        key: the indices of model, backend and repeat.
        error: why it failed; empty when it did not, and the rest is then filled.
        figures: `load_ms`, `first_ms`, and how many inferences share a duration, `block`.
        durations_us: `(n,)`, all of 1 ns or more.
        predictions: as they were sent; see `read_predictions`.
    """

    key: tuple[int, int, int]
    error: str
    figures: Mapping[str, Any]
    durations_us: NDArray[np.float64]
    predictions: list[Any]


def read_start(message: Mapping[str, Any]) -> Start:
    """Return what a device says of itself.

    Raises:
        ValueError: a field is missing, of the wrong type, or out of range.
    """
    cores = min(count(message, "cores", least=1), _MAX_CORES)
    offered = _list(message, "backends", len(BACKENDS))
    names = [name for name in BACKENDS if name in offered]
    if not names or ("threads" in names and cores < 2):
        raise ValueError(f"`backends` is not a choice of {', '.join(BACKENDS)}")
    missing = message.get("missing")
    if not isinstance(missing, dict) or not set(missing) <= set(BACKENDS):
        raise ValueError("`missing` does not give a reason for each backend")
    about = {
        "user_agent": text(message, "user_agent"),
        "cores": cores,
        "isolated": flag(message, "isolated"),
        "timer_us": number(message, "timer_us", most=1e6),
        "missing": ", ".join(f"{name}: {one_line(why)}" for name, why in missing.items()),
        "utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    return Start(about, tuple((name, cores if BACKENDS[name][1] else 1) for name in names))


def read_job(message: Mapping[str, Any]) -> Job:
    """Return what came of a job.

    Raises:
        ValueError: a field is missing, of the wrong type, or out of range.
    """
    key = count(message, "model"), count(message, "backend"), count(message, "repeat")
    if message.get("error") is not None:
        # The browser's own words: any length, any characters.
        reason = one_line(message["error"]) or "no reason given"
        return Job(key, reason, {}, np.empty(0), [])
    durations = _list(message, "durations_us", MAX_DURATIONS)
    us = np.array([number({"durations_us": d}, "durations_us", most=MAX_US) for d in durations])
    if not us.size or us.min() < _LEAST_US:
        raise ValueError("`durations_us` is no durations of 1 ns or more")
    figures: dict[str, Any] = {key: number(message, key, most=MAX_US) for key in _TIMES}
    figures["block"] = count(message, "block", least=1)
    return Job(key, "", figures, us, _list(message, "predictions", _MAX_PREDICTIONS))


def read_predictions(job: Job, images: int, classes: int) -> NDArray[np.int64]:
    """Return a job's predicted classes `(images,)`.

    Raises:
        ValueError: it has not one for each image, or one is no class.
    """
    values = [count({"predictions": value}, "predictions") for value in job.predictions]
    if len(values) != images or max(values) >= classes:
        raise ValueError(f"`predictions` is not {images} classes below {classes}")
    return np.array(values, dtype=np.int64)


def describe_browser(user_agent: str) -> tuple[str, str]:
    """Return platform and browser as a user agent gives them."""
    inside = re.search(r"\(([^)]{1,200})\)", user_agent)
    platform = inside[1] if inside else "unknown device"
    for name in _BROWSERS:
        if found := re.search(rf"{name}\w*/([\d.]+)", user_agent):
            return platform, f"{name} {found[1]}"
    safari = _SAFARI.search(user_agent)
    return platform, f"Safari {safari[1]}" if safari else "unknown browser"


def _list(message: Mapping[str, Any], key: str, most: int) -> list[Any]:
    value = message.get(key)
    if not isinstance(value, list) or len(value) > most:
        raise ValueError(f"`{key}` is not a list of at most {most} items")
    return value
