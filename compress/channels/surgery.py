"""The cut: an ordinary smaller Keras model from the layers' settings and slices of weights."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodedge.compress.channels.graph import ChannelGraph, Mask
from bloodedge.compress.channels.members import Member


def cut(graph: ChannelGraph, mask: Mask) -> Any:
    """Return a new model without some channels; the graph's own model is not altered.

    The result computes what the source would if all that these channels have of their own were
    zero: in the layers that make, filter or normalise them, the weights of their outputs, the
    biases, and batch norm's scale, shift and mean.

    Args:
        graph: what is coupled.
        mask: which channels stay; see `ChannelGraph.mask`.
    """
    import keras

    def clone(layer: Any) -> Any:
        config = layer.get_config()
        member = graph.members.get(layer.name)
        if member is not None and member.key:
            config[member.key] = _setting(member, mask)
        return type(layer).from_config(config)

    smaller = keras.models.clone_model(graph.model, clone_function=clone)
    # Those without weights are left out: Keras may give an input layer another name.
    for layer in (layer for layer in graph.model.layers if layer.weights):
        weights = layer.get_weights()
        if layer.name in graph.members:
            weights = _sliced(graph.members[layer.name], weights, graph, mask)
        smaller.get_layer(layer.name).set_weights(weights)
    return smaller


def _setting(member: Member, mask: Mask) -> Any:
    length = int(mask[member.out].sum())
    if member.key == "target_shape":
        return (*member.layer.output.shape[1:-1], length)
    return length


def _sliced(
    member: Member, weights: list[NDArray[Any]], graph: ChannelGraph, mask: Mask
) -> list[NDArray[Any]]:
    weights = list(weights)
    for change in member.mean_inputs:
        factors = [mask[graph.means[i]].mean() if i >= 0 else 1.0 for i in change.means.tolist()]
        side = [1] * weights[change.weight].ndim
        side[change.axis] = len(factors)
        scale = np.array(factors, np.float32).reshape(side)
        weights[change.weight] = weights[change.weight] * scale
    for where in member.slices:
        whole = weights[where.weight]
        weights[where.weight] = np.compress(mask[where.ids], whole, axis=where.axis)
    return weights
