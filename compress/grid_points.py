"""Where int8 inference rounds: which tensors get a grid, and which share one.

TFLite computes a convolution, its bias and a following ReLU in one step, so only what comes out
of the ReLU is rounded; pooling and reshaping move values without rounding them; concatenation and
average pooling keep their input's grid; sigmoid, tanh and softmax have fixed ones. An operation
about which nothing is known here is rounded once, at its end, and listed: most become several
steps, or one whose kernel computes with less precision.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodedge.compress.constants import (
    CALCULATES,
    DIVIDES,
    Folds,
    is_flat_step,
    is_folded_scaling,
    is_layer_step,
    is_scalar_step,
    own_constant,
    takes_up,
)
from bloodedge.compress.fake_quant import Ties
from bloodedge.compress.fold import is_foldable
from bloodedge.compress.graph import Call, Graph

# The output grids that TFLite prescribes, as ranges.
FIXED = {"sigmoid": (0.0, 255 / 256), "softmax": (0.0, 255 / 256), "tanh": (-1.0, 127 / 128)}

# By class name: layers of `keras.layers` and operations of `keras.ops`.
_MOVES = {
    "ActivityRegularization", "AlphaDropout", "CenterCrop", "Cropping1D", "Cropping2D", "Dropout",
    "ExpandDims", "Flatten", "Flip", "GaussianDropout", "GaussianNoise", "GetItem",
    "GlobalMaxPooling1D", "GlobalMaxPooling2D", "Identity", "Max", "MaxPool", "MaxPooling1D",
    "MaxPooling2D", "Min", "Moveaxis", "Pad", "Permute", "Repeat", "RepeatVector", "Reshape",
    "Roll", "SpatialDropout1D", "SpatialDropout2D", "Squeeze", "StopGradient", "Swapaxes", "Take",
    "Tile", "Transpose", "ZeroPadding1D", "ZeroPadding2D",
}  # fmt: skip
_KEEPS_GRID = {
    "AveragePool", "AveragePooling1D", "AveragePooling2D", "Concatenate", "Stack", "UpSampling2D",
}  # fmt: skip
# Means and sums of a few codes often lie halfway between two. LiteRT's kernels round those to the
# even code, plain average pooling away from code 0, all others up.
_TIES: dict[str, Ties] = {
    **dict.fromkeys(("AveragePool", "AveragePooling1D", "AveragePooling2D"), "away"),
    **dict.fromkeys(("GlobalAveragePooling1D", "GlobalAveragePooling2D", "Mean", "Sum"), "even"),
}
_JOINS = {"Concatenate", "Stack"}
# One step of the file each, rounded at its end.
_ONE_STEP = {*_MOVES, *_KEEPS_GRID, *_TIES, *CALCULATES, "ELU", "Rescaling"}
_ONE_STEP_ACTIVATIONS = {
    *FIXED, "elu", "gelu", "hard_silu", "hard_swish", "hardsilu", "relu", "relu6",
}  # fmt: skip
_UNKNOWN = "the steps that it becomes are not known, only its end is rounded"
# These become a chain of several int8 steps, whose own roundings are not simulated.
_INSIDE = {
    **dict.fromkeys(
        ("GroupNormalization", "Normalization", "RMSNormalization", "UnitNormalization"),
        "the steps inside the normalization are not rounded",
    ),
    **dict.fromkeys(("Rsqrt", "Sqrt"), "a root becomes several int8 steps"),
    **dict.fromkeys(
        ("Clip", "Maximum", "Minimum"),
        "what a minimum or maximum takes is rounded to the grid of what it gives",
    ),
    "MultiHeadAttention": "the products inside attention are not rounded",
    "LayerNormalization": "the steps inside layer normalization are not rounded",
    "BatchNormalization": "a batch norm that could not be folded becomes two int8 steps",
}


@dataclass(frozen=True)
class Points:
    """The rounding of a graph.

    Attributes:
        group: by operation whose output is rounded, the name of the group whose grid it takes.
        members: by group, every operation whose output values the grid must cover.
        fixed: by group, a prescribed range.
        offsets: by convolution, the offset of the scaling before it that the converter folds
            into it.
        constants: by operation, the constant that it takes, as int8 stores it.
        fused: by operation that is not rounded itself, the one that is computed with it.
        ties: by operation whose ties do not go up, where they go.
        partly: operations whose inside is not simulated, with the reason.
    """

    group: dict[str, str]
    members: dict[str, list[str]]
    fixed: dict[str, tuple[float, float]]
    offsets: dict[str, float]
    constants: dict[str, NDArray[np.float32]]
    fused: dict[str, str]
    ties: dict[str, Ties]
    partly: dict[str, str]


def find_points(graph: Graph) -> Points:
    """Return where a folded model's graph is rounded."""
    folds = Folds(graph)
    groups, fixed, fused = _Groups(), {}, {}
    rounded = []
    for call in graph.calls:
        groups.add(call.name)
        if (activation := _activation(call)) in FIXED:
            fixed[call.name] = FIXED[activation]
        if _shares_grid(call):
            makers = [maker for tensor in call.inputs if (maker := graph.maker(tensor))]
            if len(call.inputs) == 1 and makers and makers[0].name in fixed:
                fixed[call.name] = fixed[makers[0].name]
            for maker in makers:
                if maker.name not in fixed:
                    groups.join(maker.name, call.name)
        if into := _fused_into(graph, call):
            fused[call.name] = into
        elif call.is_float and not _moves(call) and call.name not in folds.scalings:
            rounded.append(call.name)
    group = {name: groups.of(name) for name in rounded}
    return Points(
        group,
        {name: groups.members(name) for name in group.values()},
        {groups.of(name): span for name, span in fixed.items()},
        folds.offsets,
        {c.name: values for c in graph.calls if (values := own_constant(graph, c)) is not None},
        fused,
        {c.name: _TIES[c.kind] for c in graph.calls if c.kind in _TIES},
        {c.name: reason for c in graph.calls if (reason := _not_simulated(graph, c, folds, fixed))},
    )


def _not_simulated(graph: Graph, call: Call, folds: Folds, fixed: Collection[str]) -> str:
    """Return what of an operation's rounding is not simulated; nothing where all is."""
    makers = [maker for tensor in call.inputs if (maker := graph.maker(tensor))]
    if call.kind in ("Silu", "Swish") or _activation(call) in ("silu", "swish"):
        return "silu becomes a sigmoid and a product, which are not rounded apart"
    if call.kind in _JOINS and any(maker.name in fixed for maker in makers):
        return "a value with a grid of its own is rounded anew in the concatenation"
    if call.kind == "ReLU" and call.operation.threshold:
        return "a ReLU with a threshold becomes several int8 steps"
    if call.kind == "Rescaling" and makers:
        return "a scaling inside the net becomes a part of the step before it"
    if call.name not in folds.scalings and is_folded_scaling(graph, call):
        return "only a Rescaling by one factor and offset is simulated as the file scales pixels"
    if (reason := _INSIDE.get(call.kind) or _of_arithmetic(graph, call, folds)) or _is_known(call):
        return reason
    return _UNKNOWN


def _of_arithmetic(graph: Graph, call: Call, folds: Folds) -> str:
    """Return what is not simulated of a sum, product or quotient."""
    if call.kind not in CALCULATES:
        return ""
    if len(call.inputs) > 2:
        return "of more than two values each is added or multiplied in a step of its own"
    if call.kind in DIVIDES and len(call.inputs) > 1:
        return "a quotient of two values is computed with less precision"
    constant = call.constant()
    if constant is None or is_layer_step(graph, call) or call.name in folds.scalings:
        return ""
    if call.kind in DIVIDES and constant.size > 1:
        return "a division by several constants becomes a product with others"
    maker = graph.maker(call.inputs[0])
    if maker and is_layer_step(graph, maker) and _takes_bias(graph, call, maker):
        return "a constant for each position takes up the bias of the layer before it"
    if is_scalar_step(call) and any(takes_up(taker, call) for taker in graph.takers(call)):
        return "a constant that the next layer takes up is rounded here"
    return ""


def _takes_bias(graph: Graph, call: Call, layer: Call) -> bool:
    """Whether the converter moves a layer's bias behind a product, or into a sum, after it.

    Not into a sum of which a ReLU is a part already.
    """
    moves = call.kind == "Multiply" or (call.kind == "Add" and not _fused_into(graph, call))
    alone = graph.sole_taker(layer) is call
    return moves and alone and getattr(layer.operation, "use_bias", True)


def _is_known(call: Call) -> bool:
    """Whether a call becomes one step that is rounded as here, or is listed by its kernel."""
    last = (-1, len(call.output.shape) - 1)
    elsewhere = call.kind == "Softmax" and getattr(call.operation, "axis", -1) not in last
    if not call.is_float or elsewhere or _hides_constant(call):
        return False
    if call.kind in _MOVES or call.kind in _KEEPS_GRID:
        return _shares_grid(call)
    has_kernel = any(len(v.shape) > 1 for v in getattr(call.operation, "trainable_variables", []))
    known = call.kind in _ONE_STEP or _activation(call) in _ONE_STEP_ACTIVATIONS
    return known or has_kernel or is_foldable(call.operation)


def _hides_constant(call: Call) -> bool:
    """Whether a constant is among a list of tensors that are joined or added."""
    operands = call.arguments
    if call.arguments and isinstance(call.arguments[0], list | tuple):
        operands = tuple(call.arguments[0])
    joins = call.kind in _JOINS or call.kind in CALCULATES
    return joins and len(operands) != len(call.inputs) and call.constant() is None


def _moves(call: Call) -> bool:
    """Whether a call moves values, or leaves some out, without rounding any."""
    return (call.kind in _MOVES and _shares_grid(call)) or _activation(call) == "linear"


def _shares_grid(call: Call) -> bool:
    """Whether what a call gives has the grid of what it takes."""
    if _activation(call) == "linear":
        return True
    if call.kind not in _MOVES and call.kind not in _KEEPS_GRID:
        return False
    # Padded with another number than 0, or taken where tensors say: several steps.
    plain = not call.options.get("constant_values") and _is_plain(call.operation)
    return call.is_float and plain and (len(call.inputs) == 1 or call.kind in _JOINS)


def _is_plain(operation: Any) -> bool:
    """Whether an operation that moves values brings none of its own, as a cubic curve would."""
    sizes_up = getattr(operation, "interpolation", "nearest") in ("nearest", "bilinear")
    return sizes_up and getattr(operation, "initial", None) is None


class _Groups:
    """Names that share a grid (disjoint sets); a set is named after its first member."""

    def __init__(self) -> None:
        self._of: dict[str, str] = {}

    def add(self, name: str) -> None:
        self._of[name] = name

    def join(self, one: str, other: str) -> None:
        into, gone = self._of[one], self._of[other]
        self._of = {name: into if g == gone else g for name, g in self._of.items()}

    def of(self, name: str) -> str:
        return self._of[name]

    def members(self, group: str) -> list[str]:
        return [name for name, g in self._of.items() if g == group]


def _fused_into(graph: Graph, call: Call) -> str:
    """Return the next operation if it is part of this one's step, else nothing.

    That is a ReLU, or a constant for each channel added to what a convolution gives.
    """
    taker = graph.sole_taker(call)
    if taker is None:
        return ""
    layer = is_layer_step(graph, call)
    takes_relu = layer or call.kind in CALCULATES
    is_relu = _activation(taker) in ("relu", "relu6")
    return taker.name if (takes_relu and is_relu) or (layer and is_flat_step(taker)) else ""


def _activation(call: Call) -> str:
    """Return the name of the activation that a call is; empty for any other operation."""
    import keras

    operation = call.operation
    if isinstance(operation, keras.layers.ReLU):
        plain = not operation.negative_slope and not operation.threshold
        return {None: "relu", 6: "relu6"}.get(operation.max_value, "") if plain else ""
    if isinstance(operation, keras.layers.Activation):
        return str(keras.activations.serialize(operation.activation))
    name = call.kind.lower()
    return name if name in _ONE_STEP_ACTIVATIONS else ""
