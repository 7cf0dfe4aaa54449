"""Where int8 inference rounds: which tensors get a grid, and which share one.

TFLite computes a convolution, its bias and a following ReLU in one step, so only what comes out
of the ReLU is rounded; pooling and reshaping move values without rounding them; concatenation and
average pooling keep their input's grid; sigmoid, tanh and softmax have fixed ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bloodedge.compress.fake_quant import Ties
from bloodedge.compress.fold import is_foldable
from bloodedge.compress.graph import Call, Graph

# The output grids that TFLite prescribes, as ranges.
FIXED = {"sigmoid": (0.0, 255 / 256), "softmax": (0.0, 255 / 256), "tanh": (-1.0, 127 / 128)}

# By class name: layers of `keras.layers` and operations of `keras.ops`.
_MOVES = {
    "CenterCrop", "Cropping2D", "Dropout", "ExpandDims", "Flatten", "GaussianDropout",
    "GaussianNoise", "GlobalMaxPooling1D", "GlobalMaxPooling2D", "Identity", "Max",
    "MaxPooling2D", "Permute", "Reshape", "SpatialDropout2D", "Squeeze", "Transpose",
    "ZeroPadding2D",
}  # fmt: skip
_KEEPS_GRID = {"AveragePooling2D", "Concatenate", "UpSampling2D"}
# Means and sums of a few codes often lie halfway between two. LiteRT's kernels round those to the
# even code, plain average pooling away from code 0, all others up.
_TIES: dict[str, Ties] = {
    "AveragePooling2D": "away",
    **dict.fromkeys(("GlobalAveragePooling1D", "GlobalAveragePooling2D", "Mean", "Sum"), "even"),
}
_TAKES_RELU = {"Add", "Subtract", "Multiply"}
_SCALES_PIXELS = {*_TAKES_RELU, "Divide", "TrueDivide", "Normalization", "Rescaling"}
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
        unscaled: the scaling of pixels by the convolution into which the converter folds it.
        fused: by operation that is not rounded itself, the one that is computed with it.
        ties: by operation whose ties do not go up, where they go.
        partly: operations whose inside is not simulated, with the reason.
    """

    group: dict[str, str]
    members: dict[str, list[str]]
    fixed: dict[str, tuple[float, float]]
    unscaled: dict[str, str]
    fused: dict[str, str]
    ties: dict[str, Ties]
    partly: dict[str, str]


def find_points(graph: Graph) -> Points:
    """Return where a folded model's graph is rounded."""
    unscaled = _unscaled(graph)
    groups, fixed, fused = _Groups(), {}, {}
    rounded = []
    for call in graph.calls:
        kind = type(call.operation).__name__
        groups.add(call.name)
        if (activation := _activation(call)) in FIXED:
            fixed[call.name] = FIXED[activation]
        if kind in _MOVES or kind in _KEEPS_GRID:
            makers = [maker for tensor in call.inputs if (maker := graph.maker(tensor))]
            for maker in makers:
                if maker.name not in fixed:
                    groups.join(maker.name, call.name)
        scales = call.name in unscaled.values()
        if into := _fused_into(graph, call):
            fused[call.name] = into
        elif kind not in _MOVES and not scales:
            rounded.append(call.name)
    group = {name: groups.of(name) for name in rounded}
    return Points(
        group,
        {name: groups.members(name) for name in group.values()},
        {groups.of(name): span for name, span in fixed.items()},
        unscaled,
        fused,
        {c.name: _TIES[k] for c in graph.calls if (k := type(c.operation).__name__) in _TIES},
        {c.name: reason for c in graph.calls if (reason := _not_simulated(graph, c, unscaled))},
    )


def _not_simulated(graph: Graph, call: Call, unscaled: Mapping[str, str]) -> str:
    """Return what of an operation's rounding is not simulated; nothing where all is."""
    kind = type(call.operation).__name__
    makers = [maker for tensor in call.inputs if (maker := graph.maker(tensor))]
    if kind in ("Silu", "Swish") or _activation(call) in ("silu", "swish"):
        return "silu becomes a sigmoid and a product, which are not rounded apart"
    if kind == "Concatenate" and any(_activation(maker) in FIXED for maker in makers):
        return "a value with a grid of its own is rounded anew in the concatenation"
    if kind == "ReLU" and call.operation.threshold:
        return "a ReLU with a threshold becomes several int8 steps"
    if kind == "Rescaling" and makers:
        return "a scaling inside the net becomes a part of the step before it"
    if call.name not in unscaled.values() and _is_folded_scaling(graph, call):
        return "only a Rescaling by one factor and offset is simulated as the file scales pixels"
    return _INSIDE.get(kind, "")


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

    That is a ReLU, or a constant added to what a convolution gives.
    """
    taker = graph.sole_taker(call)
    if taker is None:
        return ""
    layer = _is_layer_step(graph, call)
    takes_relu = layer or type(call.operation).__name__ in _TAKES_RELU
    is_relu = _activation(taker) in ("relu", "relu6")
    return taker.name if (takes_relu and is_relu) or (layer and _has_constant(taker)) else ""


def _is_layer_step(graph: Graph, call: Call) -> bool:
    """Whether a call is a convolution or dense layer, or constants that one takes up."""
    if is_foldable(call.operation):
        return True
    maker = graph.maker(call.inputs[0]) if _has_constant(call) else None
    return maker is not None and graph.sole_taker(maker) is call and _is_layer_step(graph, maker)


def _has_constant(call: Call) -> bool:
    """Whether a call adds a constant to a tensor, or multiplies it by one."""
    return type(call.operation).__name__ in _TAKES_RELU and len(call.inputs) == 1


def _activation(call: Call) -> str:
    """Return the name of the activation that a call is; empty for any other operation."""
    import keras

    operation = call.operation
    if isinstance(operation, keras.layers.ReLU):
        plain = not operation.negative_slope and not operation.threshold
        return {None: "relu", 6: "relu6"}.get(operation.max_value, "") if plain else ""
    if isinstance(operation, keras.layers.Activation):
        return str(keras.activations.serialize(operation.activation))
    name = type(operation).__name__.lower()
    return name if name in {*FIXED, "relu", "relu6"} else ""


def _unscaled(graph: Graph) -> dict[str, str]:
    """Return the scalings of pixels that the convolution after them takes up."""
    import keras

    found = {}
    for call in graph.calls:
        taker = graph.sole_taker(call)
        if (
            isinstance(call.operation, keras.layers.Rescaling)
            and _is_of_pixels(graph, call)
            and isinstance(call.operation.scale, int | float)
            and isinstance(call.operation.offset, int | float)
            and taker
            and _pads_nothing(taker)
            and type(taker.operation) in (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
        ):
            found[taker.name] = call.name
    return found


def _is_folded_scaling(graph: Graph, call: Call) -> bool:
    """Whether a call scales pixels, as one of several steps maybe, before a layer takes it up."""
    taker: Call | None = call
    while taker and type(taker.operation).__name__ in _SCALES_PIXELS and len(taker.inputs) == 1:
        taker = graph.sole_taker(taker)
    if taker is None or taker is call:
        return False
    return _pads_nothing(taker) and _is_of_pixels(graph, call)


def _is_of_pixels(graph: Graph, call: Call) -> bool:
    return len(call.inputs) == 1 and graph.maker(call.inputs[0]) is None


def _pads_nothing(call: Call) -> bool:
    """Whether it is a layer that reads only what is there: zeros around scaled pixels differ."""
    return is_foldable(call.operation) and getattr(call.operation, "padding", "valid") == "valid"
