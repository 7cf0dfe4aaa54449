"""The ranges of a float model's tensors on calibration images: all, nearly all, or best for MSE.

TensorFlow 2.21's own calibrator logs a tensor after a later one was written over it where the
runtime computes in place (additions, products), so that ranges of both are merged. Here every
tensor keeps its own memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodedge.data.calibration import pinned, usable_range
from bloodedge.errors import ConfigError
from bloodedge.metrics import Floats

METHODS = ("minmax", "percentile", "mse")
_BINS = 2048
_LEAST_SPAN = 1e-6
# How far below the whole range MSE searches, in how many steps.
_LEAST_SHARE, _STEPS = 0.2, 81

Ranges = dict[int, tuple[float, float]]


@dataclass(frozen=True)
class RangeConfig:
    """How activation ranges are chosen.

    Attributes:
        method: `minmax` covers all values; `percentile` leaves out the farthest on either side;
            `mse` takes the range with the least squared error of rounding and clipping together.
        percentile: the share of values covered on each side, in percent.

    Raises:
        ConfigError: an unknown method, or a percentile out of range.
    """

    method: str = "minmax"
    percentile: float = 99.99

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ConfigError(f"--calibration {self.method!r}", expected=", ".join(METHODS))
        if not 50 < self.percentile <= 100:
            raise ConfigError(f"--percentile {self.percentile}", expected="above 50, at most 100")


MINMAX = RangeConfig()


@dataclass(frozen=True)
class Histogram:
    """Counts of a tensor's values in equal bins from `low` to `high`."""

    counts: NDArray[np.int64]
    low: float
    high: float

    @property
    def width(self) -> float:
        """The width of a bin."""
        return (self.high - self.low) / len(self.counts)

    @property
    def centres(self) -> Floats:
        """The bins' middles."""
        steps = np.arange(len(self.counts), dtype=np.float64)
        middle: Floats = self.low + self.width * (steps + 0.5)
        return middle


def percentile_range(histogram: Histogram, percentile: float) -> tuple[float, float]:
    """Return the range that leaves out at most `100 - percentile` percent on either side.

    It is exact to a bin's width, and never narrower than asked.
    """
    share = np.cumsum(histogram.counts) / histogram.counts.sum()
    tail = 1 - percentile / 100
    # A bound is moved in over whole bins that hold no more than the tail.
    below = int(np.searchsorted(share, tail, side="right"))
    above = int(np.searchsorted(share, 1 - tail - 1e-12))
    low = histogram.low + below * histogram.width
    return low, histogram.low + (above + 1) * histogram.width


def mse_range(histogram: Histogram) -> tuple[float, float]:
    """Return the range with the least mean squared error on an 8-bit grid.

    Both bounds are searched in turn, from the whole range inwards.
    """
    low, high = min(histogram.low, 0.0), max(histogram.high, 0.0)
    shares = np.linspace(1, _LEAST_SHARE, _STEPS)
    span = (low, high)
    for _ in range(2):
        span = min(((span[0], high * s) for s in shares), key=lambda r: squared_error(histogram, r))
        span = min(((low * s, span[1]) for s in shares), key=lambda r: squared_error(histogram, r))
    return span


def squared_error(histogram: Histogram, span: tuple[float, float]) -> float:
    """Return the mean squared error of a tensor's values on the 8-bit grid of a range."""
    low, high = span
    if high <= low:
        return float("inf")
    scale = (high - low) / 255
    zero = np.round(-low / scale)
    x = histogram.centres
    steps = np.clip(np.round(x / scale) + zero, 0, 255)
    error = (steps - zero) * scale - x
    return float((histogram.counts * error**2).sum() / histogram.counts.sum())


def measure(content: bytes, images: NDArray[np.uint8], config: RangeConfig) -> Ranges:
    """Return the range of every float tensor that is computed, by its index in the file.

    That of the pixels is 0 to 255 whatever the method: a byte is fed as it is.

    Args:
        content: a float .tflite that takes one image at a time.
        images: `(N, S, S, 3)` calibration images.
        config: how the ranges are chosen.
    """
    pixels, run = _runner(content)
    lows: dict[int, float] = {}
    highs: dict[int, float] = {}
    for index, values in _values(run, images):
        lows[index] = min(lows.get(index, np.inf), float(values.min()))
        highs[index] = max(highs.get(index, -np.inf), float(values.max()))
    spans = {index: usable_range(lows[index], highs[index]) for index in lows}
    if config.method == "minmax":
        return spans
    counts = {index: np.zeros(_BINS, np.int64) for index in spans}
    for index, values in _values(run, images):
        counts[index] += _binned(values, *spans[index])
    chosen = {}
    for index, (low, high) in spans.items():
        if index == pixels:
            chosen[index] = low, high
            continue
        histogram = Histogram(counts[index], low, high)
        if config.method == "percentile":
            chosen[index] = usable_range(*percentile_range(histogram, config.percentile))
        else:
            chosen[index] = mse_range(histogram)
    return chosen


def _binned(values: NDArray[np.float32], low: float, high: float) -> NDArray[np.int64]:
    # A constant fills the first bin.
    place = (values.ravel() - low) * (_BINS / max(high - low, _LEAST_SPAN))
    return np.bincount(np.clip(place.astype(np.int64), 0, _BINS - 1), minlength=_BINS)


def _runner(
    content: bytes,
) -> tuple[int, Callable[[NDArray[np.float32]], Iterator[tuple[int, Any]]]]:
    """Return the index of the pixels, and what yields every float tensor of an image."""
    import tensorflow as tf

    # Without delegates and with memory of its own for every tensor.
    interpreter = tf.lite.Interpreter(
        model_content=content,
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=tf.lite.experimental.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    taken = interpreter.get_input_details()[0]
    pixels = taken["index"]
    made = {i for op in interpreter._get_ops_details() for i in op["outputs"] if i >= 0}
    details = {d["index"]: d for d in interpreter.get_tensor_details()}
    floats = sorted(i for i in made if details[i]["dtype"] == np.float32)

    def run(image: NDArray[np.float32]) -> Iterator[tuple[int, Any]]:
        interpreter.set_tensor(pixels, np.broadcast_to(image, taken["shape"]))
        interpreter.invoke()
        yield pixels, image
        for index in floats:
            yield index, interpreter.get_tensor(index)

    return pixels, run


def _values(
    run: Callable[[NDArray[np.float32]], Iterator[tuple[int, Any]]], images: NDArray[np.uint8]
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    for image in pinned(images):
        yield from run(image)
