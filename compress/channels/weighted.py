"""Rules for layers with weights: which of their axes belong to which channels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bloodedge.compress.channels.calls import Call, activated, note
from bloodedge.compress.channels.labels import Channels, channels
from bloodedge.compress.channels.members import MeanInput, Member, Slice


def convolution(call: Call) -> Channels:
    """New channels from all of a convolution's inputs."""
    if call.op.groups != 1:
        return call.fixed(f"{call.op.name} is a grouped convolution")
    return _produce(call, "filters", kernel=0, axis=2, bias=1)


def dense(call: Call) -> Channels:
    """New channels from all inputs."""
    return _produce(call, "units", kernel=0, axis=0, bias=1)


def _produce(call: Call, key: str, *, kernel: int, axis: int, bias: int) -> Channels:
    """New channels, each a weighted sum of all inputs."""
    member, x = call.members.get(call.op.name), call.inputs[0]
    call.labels.keep_shifted(x, call.op.name)
    if member is None:
        out = call.labels.fresh(call.shape[-1])
        slices = [Slice(kernel, axis, x.ids), Slice(kernel, axis + 1, out)]
        outputs = (kernel, bias) if call.op.use_bias else (kernel,)
        if call.op.use_bias:
            slices.append(Slice(bias, 0, out))
        member = Member(call.op, slices, out, outputs, key, produces=True)
        if x.holds_means:
            member.mean_inputs.append(MeanInput(kernel, axis, x.means))
        note(call, member)
    else:
        # Called again with the same weights: what is cut for one call is cut for the other.
        call.labels.unite(member.slices[0].ids, x.ids)
        call.labels.settle(x, call.op.name)
        for mean_input in member.mean_inputs:
            call.labels.settle(channels(x.ids, mean_input.means), call.op.name)
    return activated(call, channels(member.out, source=call.op.name))


def depthwise(call: Call) -> Channels:
    """Each channel by itself, perhaps into several; with a kernel and bias of zero, it is zero."""
    x = call.settled()
    out = np.repeat(x.ids, call.op.depth_multiplier)
    slices = [Slice(0, 2, x.ids), *([Slice(1, 0, out)] if call.op.use_bias else [])]
    outputs = (0, 1) if call.op.use_bias else (0,)
    note(call, Member(call.op, slices, out, outputs))
    return activated(call, channels(out, source=call.op.name))


def separable(call: Call) -> Channels:
    """A depthwise convolution, then a 1x1 convolution over its channels."""
    x = call.settled()
    call.labels.keep_shifted(x, call.op.name)
    between = np.repeat(x.ids, call.op.depth_multiplier)
    first = call.op.name not in call.members
    out = _produce(
        replace(call, inputs=[channels(between)]),
        "filters",
        kernel=1,
        axis=2,
        bias=2,
    )
    if first:
        call.members[call.op.name].slices.append(Slice(0, 2, x.ids))
    return out


def batch_norm(call: Call) -> Channels:
    """The same channels, with four numbers each."""
    if call.op.axis not in (-1, len(call.shape)):
        return call.fixed(f"{call.op.name} normalises another axis than channels")
    x = call.settled()
    slices = [Slice(i, 0, x.ids) for i in range(len(call.op.weights))]
    trained = tuple(range(int(call.op.scale) + int(call.op.center)))
    note(call, Member(call.op, slices, x.ids, trained))
    if call.inputs[0].source:
        call.members[call.inputs[0].source].normalised = True
    # A channel without its scale and shift is zero again, whatever comes in.
    return channels(x.ids) if call.op.scale else x
