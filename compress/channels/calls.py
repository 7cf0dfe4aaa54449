"""One call of a layer, as the rules see it, and what every rule may do with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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
        op: the layer or operation.
        inputs: the labels of its input tensors.
        shapes: their shapes without the batch.
        shape: the output's.
        constants: whether arrays beside the tensors take part.
        labels: all labels of the model.
        members: what is noted of the layers so far, by name.
    """

    op: Any
    inputs: list[Channels]
    shapes: list[tuple[int, ...]]
    shape: tuple[int, ...]
    constants: bool
    labels: Labels
    members: dict[str, Member]

    def settled(self) -> Channels:
        """Return the first input, whose means over channels this layer does not scale with."""
        self.labels.settle(self.inputs[0], self.op.name)
        return channels(self.inputs[0].ids)

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
    """Lock channels that an activation mixes, as softmax does."""
    name = getattr(getattr(call.op, "activation", None), "__name__", "linear")
    if name not in _ELEMENTWISE:
        call.labels.lock(x.ids, f"the activation {name} of {call.op.name} mixes channels")
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
