"""One call of a layer, as the rules see it, and what every rule may do with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bloodedge.compress.channels.labels import Channels, Labels, channels
from bloodedge.compress.channels.members import Member

# Activations that look at one value at a time, by the name of the function.
_ELEMENTWISE = {
    *("linear", "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "swish"),
    *("mish", "softplus", "softsign", "soft_shrink", "hard_shrink", "tanh", "hard_tanh"),
    *("tanh_shrink", "sigmoid", "hard_sigmoid", "hard_silu", "hard_swish", "log_sigmoid"),
    *("exponential", "squareplus", "sparse_plus", "threshold"),
}


@dataclass(frozen=True)
class Call:
    """One call of a layer or operation.

    Attributes:
        node: the call in the Keras graph.
        inputs: the labels of its input tensors.
        shapes: their shapes without the batch.
        shape: the output's.
        constants: whether arrays beside the tensors take part.
        labels: all labels of the model.
        members: what is noted of the layers so far, by name.
    """

    node: Any
    inputs: list[Channels]
    shapes: list[tuple[int, ...]]
    shape: tuple[int, ...]
    constants: bool
    labels: Labels
    members: dict[str, Member]

    @property
    def op(self) -> Any:
        """The layer or operation."""
        return self.node.operation

    def settled(self) -> Channels:
        """Return the first input, whose means over channels this layer does not scale with."""
        x = self.inputs[0]
        self.labels.settle(x, self.op.name)
        return channels(x.ids, shifts=x.shifts)

    def keeps_zero(self) -> bool:
        """Whether the output is zero where all input tensors are; the layer is run to see it."""
        from keras import ops

        zeros = {
            id(tensor): ops.zeros((1, *shape), tensor.dtype)
            for tensor, shape in zip(self.node.input_tensors, self.shapes, strict=True)
        }
        args, kwargs = self.node.arguments.fill_in(zeros)
        return not np.any(ops.convert_to_numpy(self.op(*args, **kwargs)))

    def fixed(self, reason: str) -> Channels:
        """Lock all inputs and return new channels that are locked as well."""
        self.labels.refused[self.op.name] = reason
        for x in self.inputs:
            self.labels.lock(x.ids, reason)
            self.labels.settle(x, self.op.name)
        out = self.labels.fresh(self.shape[-1])
        self.labels.lock(out, reason)
        return channels(out)


def activated(call: Call, x: Channels) -> Channels:
    """Lock channels that an activation mixes, as softmax does; note those that it shifts."""
    from keras import ops

    function = getattr(call.op, "activation", None)
    name = getattr(function, "__name__", "linear")
    if name not in _ELEMENTWISE:
        call.labels.lock(x.ids, f"the activation {name} of {call.op.name} mixes channels")
    elif function is not None and np.any(ops.convert_to_numpy(function(ops.zeros((1, 1))))):
        return call.labels.shift(x, call.op.name, np.ones(len(x.ids), dtype=np.bool_))
    return x


def note(call: Call, member: Member) -> Member:
    """Note what is cut of a layer; one that is called again is cut alike for both."""
    old = call.members.get(member.name)
    if old is None:
        call.members[member.name] = member
        return member
    for before, now in zip(old.slices, member.slices, strict=True):
        call.labels.unite(before.ids, now.ids)
    call.labels.unite(old.out, member.out)
    return old
