"""The graph of a Keras model: what it is made of, in order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def find_graph(model: Any) -> Any:
    """Return the functional graph of a functional or sequential model; None for anything else."""
    import keras

    graph = getattr(model, "_functional", None) or model
    return graph if isinstance(model, keras.Model) and hasattr(graph, "_nodes_by_depth") else None


def nodes(graph: Any) -> Iterator[Any]:
    """Yield the node of every call of a layer or operation in a graph, inputs before outputs."""
    for depth in sorted(graph._nodes_by_depth, reverse=True):
        yield from (node for node in graph._nodes_by_depth[depth] if not node.is_input)
