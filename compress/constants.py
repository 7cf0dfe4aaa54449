"""Sums, products and scalings by constants: what int8 inference folds into the layer beside them.

The converter makes one step of a convolution and the constants for each channel that follow it, and
folds scalar ones before it into its weights and bias. What is left is a step with a constant that
the file stores.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bloodedge.compress.fake_quant import rounded_constant
from bloodedge.compress.fold import is_foldable
from bloodedge.compress.graph import Call, Graph

# By class name: layers of `keras.layers` and operations of `keras.ops`.
ADDS = {"Add", "Subtract"}
DIVIDES = {"Divide", "TrueDivide"}
CALCULATES = {*ADDS, "Multiply", *DIVIDES}
_COMMUTES = {"Add", "Multiply"}
_SCALES_PIXELS = {*CALCULATES, "Normalization", "Rescaling"}


class Folds:
    """The scalings that the converter folds into the layer after them.

    Attributes:
        scalings: their names.
        offsets: by layer, what they make of 0.
    """

    def __init__(self, graph: Graph) -> None:
        self.scalings: set[str] = set()
        self.offsets: dict[str, float] = {}
        for layer in graph.calls:
            if not is_foldable(layer.operation):
                continue
            if scaling := _scaling_of_pixels(graph, layer):
                self.scalings.add(scaling.name)
                self.offsets[layer.name] = float(scaling.operation.offset)
            elif chain := _taken_up(graph, layer):
                self.scalings |= {call.name for call in chain}
                self.offsets[layer.name] = _at_zero(chain)


def _taken_up(graph: Graph, layer: Call) -> list[Call]:
    """Return the sums and products with one constant that a layer takes up, the last one first."""
    chain: list[Call] = []
    call = graph.maker(layer.inputs[0])
    while (
        call
        and graph.sole_taker(call)
        and is_scalar_step(call)
        and not is_layer_step(graph, call)
        and takes_up(layer, call)
        # `Rounded` has a rule for the offset of convolutions only.
        and (call.kind not in ADDS or layer.kind != "Dense")
    ):
        chain.append(call)
        call = graph.maker(call.inputs[0])
    return chain if call else []


def takes_up(layer: Call, call: Call) -> bool:
    """Whether the converter folds a sum or product with one constant into the layer after it."""
    return is_foldable(layer.operation) and (call.kind not in ADDS or _pads_nothing(layer))


def _at_zero(chain: Sequence[Call]) -> float:
    """Return what a chain of sums and products with constants, the last one first, makes of 0."""
    value = 0.0
    for call in reversed(chain):
        constant = call.constant()
        assert constant is not None
        steps = {"Add": np.add, "Subtract": np.subtract, "Multiply": np.multiply}
        step = steps.get(call.kind, np.divide)
        value = float(step(value, constant.item()))
    return value


def own_constant(graph: Graph, call: Call) -> NDArray[np.float32] | None:
    """Return the constant of a sum or product in a step of its own, as the file stores it."""
    constant = call.constant() if call.kind in CALCULATES - DIVIDES else None
    if constant is None or constant.size == 1 or is_layer_step(graph, call):
        return None
    return rounded_constant(constant)


def is_layer_step(graph: Graph, call: Call) -> bool:
    """Whether a call is a convolution or dense layer, or constants that one takes up."""
    if is_foldable(call.operation):
        return True
    maker = graph.maker(call.inputs[0]) if is_flat_step(call) else None
    return maker is not None and graph.sole_taker(maker) is call and is_layer_step(graph, maker)


def is_flat_step(call: Call) -> bool:
    """Whether a call calculates with a tensor and then one constant for each channel, or one."""
    constant = call.constant() if call.kind in CALCULATES else None
    if constant is None or not (call.leads or call.kind in _COMMUTES):
        return False
    # A constant may also make the tensor larger.
    same = tuple(call.output.shape) == tuple(call.inputs[0].shape)
    return same and constant.size in (1, *constant.shape[-1:])


def is_scalar_step(call: Call) -> bool:
    """Whether a call calculates with a tensor and then a single constant."""
    constant = call.constant() if is_flat_step(call) else None
    return constant is not None and constant.size == 1


def _scaling_of_pixels(graph: Graph, layer: Call) -> Call | None:
    """Return the scaling of pixels that a convolution takes up."""
    import keras

    call = graph.maker(layer.inputs[0])
    taken = (
        call is not None
        and isinstance(call.operation, keras.layers.Rescaling)
        and graph.sole_taker(call) is layer
        and _is_of_pixels(graph, call)
        and isinstance(call.operation.scale, int | float)
        and isinstance(call.operation.offset, int | float)
        and _pads_nothing(layer)
        and type(layer.operation) in (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
    )
    return call if taken else None


def is_folded_scaling(graph: Graph, call: Call) -> bool:
    """Whether a call scales pixels, as one of several steps maybe, before a layer takes it up."""
    taker: Call | None = call
    while taker and type(taker.operation).__name__ in _SCALES_PIXELS and len(taker.inputs) == 1:
        taker = graph.sole_taker(taker)
    if taker is None or taker is call:
        return False
    first = call
    while (maker := graph.maker(first.inputs[0])) and maker.kind in _SCALES_PIXELS:
        first = maker
    return _pads_nothing(taker) and _is_of_pixels(graph, first)


def _is_of_pixels(graph: Graph, call: Call) -> bool:
    return len(call.inputs) == 1 and graph.maker(call.inputs[0]) is None


def _pads_nothing(call: Call) -> bool:
    """Whether it is a layer that reads only what is there: zeros around scaled pixels differ."""
    return is_foldable(call.operation) and getattr(call.operation, "padding", "valid") == "valid"
