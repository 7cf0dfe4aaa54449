"""What each kind of layer does with channels, the last axis of every tensor.

A rule takes one call of a layer, makes labels equal or locks them, notes where the layer's weights
are cut, and returns the labels of the output. Layers without a rule are refused by name.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from bloodedge.compress.channels import weighted
from bloodedge.compress.channels.calls import Call, activated, note
from bloodedge.compress.channels.labels import Channels, channels, relabel
from bloodedge.compress.channels.members import Member

Rule = Callable[[Call], Channels]


def _passes(call: Call) -> Channels:
    """The output is a multiple of the input, channel by channel: padding, pooling by mean."""
    x = call.inputs[0]
    return channels(x.ids, x.means, x.shifts)


def _elementwise(call: Call) -> Channels:
    """One channel in, the same channel out, by any function of one value."""
    x = call.settled()
    return x if call.keeps_zero() else call.labels.shift(x, call.op.name, x.shifts < 0)


def _activation(call: Call) -> Channels:
    return activated(call, call.settled())


def _merge(call: Call) -> Channels:
    """Sums and products of tensors: channel i goes with channel i; a single one is broadcast."""
    wide = [x for x, shape in zip(call.inputs, call.shapes, strict=True) if _is_wide(call, shape)]
    for x in call.inputs:
        call.labels.settle(x, call.op.name)
    for x in wide[1:]:
        call.labels.unite(wide[0].ids, x.ids)
    if call.constants:
        call.labels.lock(wide[0].ids, f"{call.op.name} takes an array of fixed length")
        return channels(wide[0].ids)
    zero = _zero_again(call)
    shifts = np.max([x.shifts for x in wide], axis=0)
    out = channels(wide[0].ids, shifts=np.where(zero, -1, shifts))
    return call.labels.shift(out, call.op.name, ~zero)


def _zero_again(call: Call) -> NDArray[np.bool_]:
    """Return `(C,)` which channels are zero when they are removed from all inputs that have them.

    One value for all channels, as a spatial gate is, is not removed.
    """
    zero = np.array(
        [
            x.shifts < 0 if _is_wide(call, shape) else np.zeros(call.shape[-1], dtype=np.bool_)
            for x, shape in zip(call.inputs, call.shapes, strict=True)
        ]
    )
    kind = type(call.op).__name__
    if kind == "Multiply":
        return np.asarray(zero.any(axis=0))
    if kind in ("Divide", "TrueDivide") and len(zero) > 1:
        return np.asarray(zero[0] & ~zero[1])
    return np.asarray(zero.all(axis=0) & call.keeps_zero())


def _is_wide(call: Call, shape: tuple[int, ...]) -> bool:
    return bool(shape) and shape[-1] == call.shape[-1]


def _concatenate(call: Call) -> Channels:
    if call.op.axis in (-1, len(call.shape)):
        ids = np.concatenate([x.ids for x in call.inputs])
        means, shifts = ([getattr(x, n) for x in call.inputs] for n in ("means", "shifts"))
        return channels(ids, np.concatenate(means), np.concatenate(shifts))
    return _merge(call)


def _move(call: Call) -> Channels:
    """Flatten, Reshape, Permute: a channel may come to own several places of the last axis."""
    x = call.inputs[0]
    kind = type(call.op).__name__
    if kind == "Permute":
        moved = relabel(x, call.shapes[0], lambda v: v.transpose([d - 1 for d in call.op.dims]))
    else:
        moved = relabel(x, call.shapes[0], lambda v: v.reshape(call.shape))
    if moved is None:
        return call.fixed(f"{call.op.name} spreads channels over positions")
    if kind == "Reshape":
        note(call, Member(call.op, [], moved.ids, key="target_shape"))
    return moved


def _reduce(call: Call, *, scale: bool = False) -> Channels:
    """Sum, mean, maximum over axes, the channels perhaps among them.

    The maximum of channels that are not negative does not change when zeros leave; where all may
    be negative, that of the channels that stay is taken, as it would be in any smaller net.
    """
    axes, rank = call.op.axis, len(call.shapes[0]) + 1
    over = range(rank) if axes is None else [int(axis) % rank for axis in np.atleast_1d(axes)]
    x = call.inputs[0]
    if rank - 1 not in over:
        return _passes(call) if scale else call.settled()
    call.labels.settle(x, call.op.name)
    call.labels.keep_shifted(x, call.op.name)
    if not call.op.keepdims:
        return call.fixed(f"{call.op.name} drops the axis of channels")
    if scale:
        return call.labels.mean_over(x.ids)
    label = call.labels.fresh(1)
    call.labels.lock(label, "a maximum or sum over channels is one channel")
    return channels(label)


def _scale(call: Call) -> Channels:
    """Rescaling, by one number or by one for each channel."""
    if np.ndim(call.op.scale) or np.ndim(call.op.offset):
        return call.fixed(f"{call.op.name} scales each channel by its own number")
    return _elementwise(call)


def _layer_norm(call: Call) -> Channels:
    return call.fixed(f"{call.op.name} normalises over channels: without one, all others change")


def _attention(call: Call) -> Channels:
    return call.fixed(f"the heads of {call.op.name} are kept whole")


def _einsum(call: Call) -> Channels:
    return call.fixed(f"{call.op.name} is an einsum, whose axes are not followed")


def _normalization(call: Call) -> Channels:
    return call.fixed(f"{call.op.name} holds statistics of each channel")


def _softmax(call: Call) -> Channels:
    return call.fixed(f"{call.op.name} is a softmax over channels")


def _table(rule: Rule, names: str) -> dict[str, Rule]:
    return dict.fromkeys(names.split(), rule)


# By class name: the layers first, then operations of `keras.ops` that models call directly.
RULES: dict[str, Rule] = {
    **_table(
        _passes,
        "Dropout SpatialDropout1D SpatialDropout2D AlphaDropout GaussianDropout Identity "
        "AveragePooling1D AveragePooling2D GlobalAveragePooling1D GlobalAveragePooling2D "
        "ZeroPadding1D ZeroPadding2D Cropping1D Cropping2D UpSampling1D UpSampling2D "
        "ActivityRegularization",
    ),
    **_table(
        _elementwise,
        "MaxPooling1D MaxPooling2D GlobalMaxPooling1D GlobalMaxPooling2D GaussianNoise "
        "ReLU LeakyReLU ELU "
        "Relu Relu6 LeakyRelu Elu Selu Gelu Silu Sigmoid HardSigmoid HardSilu Tanh Softplus "
        "Softsign Absolute Negative Square Sqrt Rsqrt Exp Log Clip Cast",
    ),
    **_table(_merge, "Add Subtract Multiply Divide TrueDivide Average Maximum Minimum"),
    **_table(_move, "Flatten Reshape Permute"),
    **_table(_reduce, "Max Min Amax Amin Sum"),
    **_table(partial(_reduce, scale=True), "Mean"),
    **_table(_layer_norm, "LayerNormalization RMSNormalization GroupNormalization"),
    **_table(_layer_norm, "UnitNormalization"),
    **_table(_attention, "MultiHeadAttention GroupedQueryAttention"),
    "Activation": _activation,
    "Concatenate": _concatenate,
    "Conv2D": weighted.convolution,
    "Dense": weighted.dense,
    "DepthwiseConv2D": weighted.depthwise,
    "SeparableConv2D": weighted.separable,
    "BatchNormalization": weighted.batch_norm,
    "Rescaling": _scale,
    "EinsumDense": _einsum,
    "Normalization": _normalization,
    "Softmax": _softmax,
}
