"""The calls in a model's graph, in order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bloodedge.errors import ModelError


def graph_of(model: Any) -> Any:
    """Return the functional graph of a model.

    Raises:
        ModelError: it has none, or several inputs or outputs.
    """
    graph = getattr(model, "_functional", None) or model
    if not hasattr(graph, "_nodes_by_depth") or len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise ModelError(
            f"the graph of {model.name} cannot be followed",
            expected="a functional or sequential Keras model with one input and one output",
        )
    return graph


def calls(model: Any) -> Iterator[Any]:
    """Yield the node of every call of a layer or operation, inputs before outputs.

    Raises:
        ModelError: as `graph_of`.
    """
    graph = graph_of(model)
    for depth in sorted(graph._nodes_by_depth, reverse=True):
        yield from (node for node in graph._nodes_by_depth[depth] if not node.is_input)
