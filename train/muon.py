"""Muon, which turns every step of a convolution's kernel into one that is nearly orthogonal.

The averaged gradient of a kernel is dominated by few directions; Newton-Schulz iterations bring all
of them to about the same length, so that a small net learns in every one of them (Jordan et al.
2024; the scale of Liu et al. 2025, which keeps the step's RMS near that of AdamW).
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any


@cache
def muon() -> Any:
    """Return Keras' Muon with its step for kernels of convolutions, which it leaves to AdamW.

    A kernel `(H, W, in, out)` is the matrix `(H * W * in, out)`, as its authors have it. All else
    goes by AdamW at the same rate: depthwise kernels, dense layers, biases and batch norm.
    """
    import keras
    from keras import ops

    class ConvMuon(keras.optimizers.Muon):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            # Keras' own would take dense kernels, the last layer's among them, which wants AdamW.
            super().__init__(*args, **{**kwargs, "exclude_layers": [""]})

        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            """Take a step of one weight, by Muon or by AdamW."""
            if len(variable.shape) != 4 or variable.shape[-1] == 1:
                super().update_step(gradient, variable, learning_rate)
                return
            average = self.momentums[self._get_variable_index(variable)]
            self.assign(average, gradient + self.momentum * average)
            matrix = ops.reshape(gradient + self.momentum * average, (-1, variable.shape[-1]))
            step = self.zeropower_via_newtonschulz5(matrix, self.ns_steps)
            rate = learning_rate * self.rms_rate * math.sqrt(max(matrix.shape))
            self.assign_sub(variable, ops.reshape(rate * step, variable.shape))

    return ConvMuon
