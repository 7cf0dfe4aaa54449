"""The arithmetic of int8 inference in float: values rounded to the grids that TFLite will use.

Weights: symmetric and narrow, one scale a channel, `q = round(w / s)` with `s = max|w| / 127`.
Activations: asymmetric, `q = round(x / s) + z` in -128..127 with `s = (high - low) / 255`; zero is
always on the grid. Rounding passes gradients straight through, clipping stops them (Jacob et al.
2018; Bengio et al. 2013). Everything is written in `keras.ops`, so it trains on every backend.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

# The converter's own floor: a narrower range gets a scale no smaller than this allows.
_LEAST_SPAN = 1e-6
# Ties go up, as in most of TFLite's kernels; the excess keeps float noise from deciding them, as
# pixels scaled to [-1, 1] are all ties.
_EXCESS = 2**-12
_HALF = 0.5 + _EXCESS
# Where else they go: to the even code, or to the code that is farther from 0.
Ties = Literal["up", "even", "away"]


def weight_scales(kernel: Any, axes: tuple[int, ...]) -> Any:
    """Return `max|w| / 127` over all axes but `axes`, which keep their place.

    Args:
        kernel: a tensor.
        axes: its axes with a scale of their own: those of the output channels.
    """
    from keras import ops

    others = [axis for axis in range(len(kernel.shape)) if axis not in axes]
    return ops.maximum(ops.max(ops.abs(kernel), axis=others, keepdims=True), _LEAST_SPAN) / 127


def fake_quant_weights(kernel: Any, axes: tuple[int, ...]) -> Any:
    """Return a kernel on its int8 grid; zeros stay zeros, and the gradient passes unchanged."""
    from keras import ops

    scales = ops.stop_gradient(weight_scales(kernel, axes))
    rounded = ops.round(kernel / scales) * scales
    return kernel + ops.stop_gradient(rounded - kernel)


def activation_grid(low: Any, high: Any) -> tuple[Any, Any]:
    """Return scale and zero point of a range, widened to hold zero.

    Args:
        low: the smallest value seen.
        high: the largest.
    """
    from keras import ops

    low, high = ops.minimum(low, 0.0), ops.maximum(high, 0.0)
    scale = ops.maximum(high - low, _LEAST_SPAN) / 255
    zero = -128 - low / scale
    # Half away from zero, as the converter rounds: [-1, 1] has its zero at -1, not at 0.
    zero = ops.sign(zero) * ops.floor(ops.abs(zero) + 0.5)
    return scale, ops.clip(zero, -128, 127)


def fake_quant(x: Any, low: Any, high: Any, ties: Ties = "up") -> Any:
    """Return `x` on the int8 grid of a range; the gradient is 1 inside and 0 outside.

    Args:
        x: a tensor.
        low: the smallest value of its range.
        high: the largest.
        ties: where values halfway between two codes go.
    """
    from keras import ops

    scale, zero = activation_grid(low, high)
    clipped = ops.clip(x, (-128 - zero) * scale, (127 - zero) * scale)
    if ties == "up":
        rounded = ops.floor(clipped / scale + _HALF) * scale
    else:
        # A tie must be one in spite of float noise.
        codes = ops.round((clipped / scale + zero) / _EXCESS) * _EXCESS
        away = ops.sign(codes) * ops.floor(ops.abs(codes) + 0.5)
        rounded = ((ops.round(codes) if ties == "even" else away) - zero) * scale
    return clipped + ops.stop_gradient(rounded - clipped)


def rounded_constant(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return an array on the int8 grid of its own range, as the file stores a step's constant."""
    from keras import ops

    rounded = fake_quant(ops.convert_to_tensor(values), values.min(), values.max())
    return np.asarray(ops.convert_to_numpy(rounded), np.float32)
